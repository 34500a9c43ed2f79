//! A small CA of one's own, so that peers can be tried without one: `lbx peers init`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// What the CA calls itself. Further certificates are signed in the same name.
const CA_NAME: &str = "lbx peers";
/// Certificates are good for so many years: nothing in here renews them.
const YEARS: i32 = 10;
/// Seconds in a year.
const YEAR: u64 = 31_556_952;

/// The certificate of the CA in a directory.
pub fn ca_file(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// Certificate and key of a host in a directory.
pub fn host_files(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")))
}

/// Makes a CA in the directory unless there is one, and a certificate and key for every name that has none.
/// Nothing is overwritten. Answers what was made.
///
/// # Errors
/// A file cannot be read or written, or is there without its other half.
pub fn init(dir: &Path, names: &[String]) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (ca, ca_key) = (ca_file(dir), dir.join("ca.key"));
    let mut made = Vec::new();
    let key = if both(&ca, &ca_key)? {
        let text = fs::read_to_string(&ca_key).with_context(|| ca_key.display().to_string())?;
        KeyPair::from_pem(&text).with_context(|| format!("{}: no key can be read", ca_key.display()))?
    } else {
        let key = KeyPair::generate()?;
        write(&ca_key, &key.serialize_pem(), 0o600)?;
        write(&ca, &authority().self_signed(&key)?.pem(), 0o644)?;
        made.extend([ca, ca_key]);
        key
    };
    let issuer = Issuer::new(authority(), key);
    for name in names {
        let (certificate, key_file) = host_files(dir, name);
        if both(&certificate, &key_file)? {
            continue;
        }
        let key = KeyPair::generate()?;
        write(&key_file, &key.serialize_pem(), 0o600)?;
        write(&certificate, &host(name)?.signed_by(&key, &issuer)?.pem(), 0o644)?;
        made.extend([certificate, key_file]);
    }
    Ok(made)
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = called(CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params);
    params
}

fn host(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = called(name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Every host is a server to its peers, and a client of them.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    valid(&mut params);
    Ok(params)
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// From the start of last year: clocks of hosts differ.
fn valid(params: &mut CertificateParams) {
    let year = 1970 + i32::try_from(crate::control::unix_now() / YEAR).unwrap_or_default();
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + YEARS, 1, 1);
}

/// Whether both files are there.
fn both(one: &Path, other: &Path) -> Result<bool> {
    match (one.exists(), other.exists()) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => bail!("{} is there without {}", one.display(), other.display()),
        (false, true) => bail!("{} is there without {}", other.display(), one.display()),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Peers;
    use crate::peers::tls;

    fn peers(dir: &Path, name: &str) -> Peers {
        let (certificate, key) = host_files(dir, name);
        let listen = "127.0.0.1:1".parse().unwrap();
        Peers {
            name: name.into(),
            listen,
            ca: ca_file(dir),
            certificate,
            key,
            tunnel: None,
            others: Vec::new(),
        }
    }

    #[test]
    fn what_is_made_is_good_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let made = init(dir.path(), &["kvm1".into(), "kvm2.example.org".into()]).unwrap();
        assert_eq!(made.len(), 6, "{made:?}");
        for name in ["kvm1", "kvm2.example.org"] {
            tls::identity(&peers(dir.path(), name)).unwrap();
            let mode = fs::metadata(host_files(dir.path(), name).1).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let before = fs::read(ca_file(dir.path())).unwrap();
        let more = init(dir.path(), &["kvm1".into(), "kvm3".into()]).unwrap();
        assert_eq!(more.len(), 2, "{more:?}");
        tls::identity(&peers(dir.path(), "kvm3")).unwrap();
        assert_eq!(fs::read(ca_file(dir.path())).unwrap(), before);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &["kvm1".into(), "kvm2".into()]).unwrap();
        let good = peers(dir.path(), "kvm1");
        let other = peers(dir.path(), "kvm2");
        let says = |peers: &Peers| format!("{:#}", tls::identity(peers).err().unwrap());
        let text = says(&Peers { name: "kvm9".into(), ..good.clone() });
        assert!(text.contains("not for \"kvm9\""), "{text}");
        let text = says(&Peers { key: other.key, ..good.clone() });
        assert!(text.contains("kvm1.pem and") && text.contains("kvm2.key"), "{text}");
        let text = says(&Peers { ca: dir.path().join("none.pem"), ..good.clone() });
        assert!(text.contains("none.pem"), "{text}");
        let text = says(&Peers { ca: good.key.clone(), ..good });
        assert!(text.contains("no certificate in it"), "{text}");
        fs::remove_file(dir.path().join("kvm2.key")).unwrap();
        assert!(init(dir.path(), &["kvm2".into()]).unwrap_err().to_string().contains("without"));
    }
}
