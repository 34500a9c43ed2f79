//! A kernel package: which one there is, fetched, and what guests need taken out of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::super::tools::run;

/// What a guest loads, in this order; what the kernel has built in is not in the package.
const GUEST: [&str; 10] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_balloon",
    "af_packet",
];
/// What a guest that is itself a host of lbx loads as well, each after the modules it depends on.
const HOST: [&str; 17] = [
    "crc32c_generic",
    "bridge",
    "8021q",
    "veth",
    "tun",
    "dummy",
    "ifb",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "act_gact",
    "nf_tables",
    "nft_ct",
    "nft_meta_bridge",
    "nf_conntrack_bridge",
    "nft_reject_inet",
    "br_netfilter",
];

/// Downloads a package below `work` and makes the directory `work/image` out of it.
pub(super) fn download_and_unpack(package: &str, work: &Path) -> Result<()> {
    run(Command::new("apt-get").args(["download", "-q", package]).current_dir(work))
        .with_context(|| format!("downloading {package}"))?;
    let deb = files(work)?.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb"));
    let deb = deb.context("apt-get download left no package")?;
    let root = work.join("root");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root))?;
    let kernel = files(&root.join("boot"))?.into_iter().find(|p| name(p).starts_with("vmlinuz-"));
    let kernel = kernel.context("no kernel in the package")?;
    let version = name(&kernel)["vmlinuz-".len()..].to_owned();

    let image = work.join("image");
    fs::create_dir_all(image.join("modules"))?;
    fs::rename(&kernel, image.join("vmlinuz"))?;
    let mut found = Vec::new();
    // Debian 12 has lib/modules, from 13 on usr/lib/modules.
    for base in ["lib/modules", "usr/lib/modules"] {
        find_modules(&root.join(base).join(&version).join("kernel"), &mut found)?;
    }
    let mut modules = Modules { found, to: image.join("modules"), depends: BTreeMap::new() };
    let (guest, host) = (modules.take(&GUEST)?, modules.take(&HOST)?);
    if !guest.iter().any(|module| module == "virtio_net") {
        bail!("no virtio_net among the modules of {package}");
    }
    let lines =
        |names: &[String]| names.iter().flat_map(|module| [module.as_str(), ".ko\n"]).collect::<String>();
    let host: Vec<_> = host.into_iter().filter(|module| !guest.contains(module)).collect();
    fs::write(image.join("order"), lines(&guest))?;
    fs::write(image.join("order-host"), lines(&host))?;
    fs::write(image.join("version"), version + "\n")?;
    Ok(())
}

/// The concrete package a meta-package stands for today; none if apt does not know it.
pub(super) fn concrete(meta: &str) -> Result<Option<String>> {
    let show = || run(Command::new("apt-cache").args(["show", "--no-all-versions", meta]));
    let text = match show() {
        Ok(text) if !text.is_empty() => text,
        // A fresh machine has no package lists.
        _ if nix::unistd::geteuid().is_root() => {
            run(Command::new("apt-get").args(["update", "-q"]))?;
            show().unwrap_or_default()
        }
        _ => String::new(),
    };
    if text.is_empty() {
        return Ok(None);
    }
    parse_depends(&text).map(Some).with_context(|| format!("{meta} depends on no kernel package"))
}

/// The first `linux-image-*` in the `Depends:` line of `apt-cache show`.
fn parse_depends(show: &str) -> Option<String> {
    let depends = show.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split(',').filter_map(|d| d.split_whitespace().next());
    names.into_iter().find(|n| n.starts_with("linux-image-")).map(str::to_owned)
}

/// The modules of a package, and those taken out of it so far.
struct Modules {
    found: Vec<PathBuf>,
    /// Where the unpacked ones go.
    to: PathBuf,
    /// Of each taken one, what it depends on.
    depends: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Takes modules and what they depend on; names in loading order. What is not there is built in.
    fn take(&mut self, names: &[&str]) -> Result<Vec<String>> {
        let mut order = Vec::new();
        for module in names {
            self.visit(module, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&mut self, module: &str, order: &mut Vec<String>) -> Result<()> {
        if order.iter().any(|taken| taken == module) {
            return Ok(());
        }
        let Some(depends) = self.unpack(module)? else { return Ok(()) };
        for depended in &depends {
            self.visit(depended, order)?;
        }
        order.push(module.to_owned());
        Ok(())
    }

    fn unpack(&mut self, module: &str) -> Result<Option<Vec<String>>> {
        if let Some(known) = self.depends.get(module) {
            return Ok(Some(known.clone()));
        }
        let Some(path) = self.found.iter().find(|p| module_name(p).as_deref() == Some(module)) else {
            return Ok(None);
        };
        let to = self.to.join(format!("{module}.ko"));
        unpack_module(path, &to)?;
        let depends = depends_of(&fs::read(&to)?);
        self.depends.insert(module.to_owned(), depends.clone());
        Ok(Some(depends))
    }
}

/// What a module says it depends on, in its section .modinfo: `depends=a,b` between zero bytes.
fn depends_of(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module[at + key.len()..].split(|&b| b == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(value).replace('-', "_");
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn find_modules(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in files(dir)? {
        if path.is_dir() {
            find_modules(&path, found)?;
        } else if module_name(&path).is_some() {
            found.push(path);
        }
    }
    Ok(())
}

/// `virtio_net` of `virtio_net.ko` or `virtio-net.ko.xz`: to the kernel both signs are one.
fn module_name(path: &Path) -> Option<String> {
    path.file_name()?.to_str()?.split_once(".ko").map(|(module, _)| module.replace('-', "_"))
}

fn unpack_module(from: &Path, to: &Path) -> Result<()> {
    let program = match from.extension().and_then(|e| e.to_str()) {
        Some("ko") => return fs::copy(from, to).map(|_| ()).context("copying a module"),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{}: unknown compression", from.display()),
    };
    let out =
        Command::new(program).arg("-dc").arg(from).output().with_context(|| format!("starting {program}"))?;
    if !out.status.success() {
        bail!("{program} -dc {}: {}", from.display(), out.status);
    }
    fs::write(to, out.stdout).context("writing a module")
}

/// The entries of a directory; none if it does not exist.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_line_is_parsed() {
        let show =
            "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(parse_depends(show).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(parse_depends("Package: x\n"), None);
    }

    #[test]
    fn module_names() {
        assert_eq!(module_name(Path::new("/a/virtio_net.ko.xz")).as_deref(), Some("virtio_net"));
        assert_eq!(module_name(Path::new("/a/crc32c-intel.ko")).as_deref(), Some("crc32c_intel"));
        assert_eq!(module_name(Path::new("/a/modules.dep")), None);
    }

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(depends_of(b"\x7fELF..\0license=GPL\0depends=stp,llc\0retpoline=Y\0"), ["stp", "llc"]);
        assert_eq!(depends_of(b"\0depends=\0"), Vec::<String>::new());
        assert_eq!(depends_of(b"no module"), Vec::<String>::new());
    }
}
