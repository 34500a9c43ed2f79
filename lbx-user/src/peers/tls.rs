//! Who is who: TLS 1.3 in both directions, every certificate signed by the CA of the config, and with the name of
//! a host of the config in it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::EndEntityCert;

use crate::config::Peers;

/// Both ends of this host's connections.
#[derive(Clone)]
pub struct Identity {
    /// For those who connect to this host.
    pub acceptor: TlsAcceptor,
    /// For connecting to others.
    pub connector: TlsConnector,
}

/// Reads and checks the files of `[peers]`.
///
/// # Errors
/// A file that cannot be read, holds nothing useful, or does not go with the others; says which, and what to do.
pub fn identity(peers: &Peers) -> Result<Identity> {
    let roots = roots(&peers.ca)?;
    let chain = certificates(&peers.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&peers.key)
        .map_err(|error| anyhow!("{}: no private key can be read: {error}", peers.key.display()))?;
    let own = chain.first().context("no certificate")?;
    if !names(own, &peers.name) {
        bail!(
            "{}: this certificate is not for \"{}\" (`peers.name`); `lbx peers init` makes one that is",
            peers.certificate.display(),
            peers.name
        );
    }
    let provider = Arc::new(ring::default_provider());
    let files = || format!("{} and {}", peers.certificate.display(), peers.key.display());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .with_context(|| peers.ca.display().to_string())?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .with_context(files)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .with_context(files)?;
    Ok(Identity { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
}

/// Whose certificate it is, of these names. The chain has been verified before.
pub fn whose<'a>(
    certificate: &CertificateDer<'_>,
    mut names_of: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    names_of.find(|name| names(certificate, name))
}

/// A host's name as TLS has it.
///
/// # Errors
/// It is no DNS name; the config has none such.
pub fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).with_context(|| format!("\"{name}\" is not the name of a host"))
}

fn names(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = server_name(name) else { return false };
    EndEntityCert::try_from(certificate).is_ok_and(|one| one.verify_is_valid_for_subject_name(&name).is_ok())
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for one in certificates(file)? {
        roots.add(one).with_context(|| format!("{}: not a certificate of a CA", file.display()))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = read.map_err(|error| anyhow!("{}: no certificate can be read: {error}", file.display()))?;
    if all.is_empty() {
        bail!("{}: there is no certificate in it (PEM is expected)", file.display());
    }
    Ok(all)
}
