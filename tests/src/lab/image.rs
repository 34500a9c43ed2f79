//! The guests' kernel: Debian's cloud kernel, downloaded once, unpacked into the cache, installed nowhere.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};

use super::tools::run;

/// The modules a guest loads, in this order; those the kernel has built in are not in the package.
const MODULES: [&str; 10] = [
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
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// The directory of the unpacked image in the cache; a new layout gets a new name.
const DIR: &str = "guest-kernel-1";

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its version, as `uname -r` says.
    pub version: String,
    /// The bzImage.
    pub kernel: PathBuf,
    /// Modules in loading order, uncompressed.
    pub modules: Vec<PathBuf>,
}

/// The image in the cache, downloaded first if it is not there.
pub fn ensure() -> Result<Image> {
    let cache = cache_dir()?;
    let dir = cache.join(DIR);
    if let Ok(image) = open(&dir) {
        return Ok(image);
    }
    let work = cache.join(format!("{DIR}.{}", std::process::id()));
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let made = download_and_unpack(&work).and_then(|()| {
        open(&work.join("image"))?;
        give_to_user(&cache);
        // Complete or not there: another process may have been faster.
        fs::rename(work.join("image"), &dir).or_else(|e| if open(&dir).is_ok() { Ok(()) } else { Err(e) })?;
        Ok(())
    });
    let removed = fs::remove_dir_all(&work);
    made?;
    removed?;
    open(&dir)
}

/// `$LBX_CACHE`, else `$XDG_CACHE_HOME/lbx`, else `~/.cache/lbx`; under sudo, of the user who called it.
pub fn cache_dir() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    if let Some(dir) = variable("LBX_CACHE") {
        return Ok(dir.into());
    }
    let sudo_user = sudo_user().map(|user| user.dir);
    choose_cache(variable("XDG_CACHE_HOME"), sudo_user, variable("HOME"))
}

fn choose_cache(
    xdg: Option<OsString>,
    sudo_home: Option<PathBuf>,
    home: Option<OsString>,
) -> Result<PathBuf> {
    if let Some(home) = sudo_home {
        return Ok(home.join(".cache/lbx"));
    }
    match (xdg, home) {
        (Some(xdg), _) => Ok(Path::new(&xdg).join("lbx")),
        (None, Some(home)) => Ok(Path::new(&home).join(".cache/lbx")),
        (None, None) => bail!("no cache directory: set LBX_CACHE"),
    }
}

/// The user behind sudo, when this is root by way of it.
fn sudo_user() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let uid: u32 = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    User::from_uid(Uid::from_raw(uid)).ok().flatten()
}

/// What root puts into a user's cache belongs to the user.
pub(super) fn give_to_user(path: &Path) {
    let Some(user) = sudo_user() else { return };
    let _ = nix::unistd::chown(path, Some(user.uid), Some(Gid::from_raw(user.gid.as_raw())));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        give_to_user(&entry.path());
    }
}

/// Reads an unpacked image: `version`, `vmlinuz`, `modules/NAME.ko` and `order`.
fn open(dir: &Path) -> Result<Image> {
    let version = fs::read_to_string(dir.join("version"))?.trim().to_owned();
    let order = fs::read_to_string(dir.join("order"))?;
    let modules: Vec<_> = order.lines().map(|name| dir.join("modules").join(name)).collect();
    let kernel = dir.join("vmlinuz");
    for file in modules.iter().chain([&kernel]) {
        if !file.exists() {
            bail!("{} is missing", file.display());
        }
    }
    Ok(Image { version, kernel, modules })
}

fn download_and_unpack(work: &Path) -> Result<()> {
    let package = concrete_package()?;
    run(Command::new("apt-get").args(["download", "-q", &package]).current_dir(work))
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
    let mut order = String::new();
    for module in MODULES {
        let Some(path) = found.iter().find(|p| module_name(p) == Some(module)) else { continue };
        let to = image.join("modules").join(format!("{module}.ko"));
        unpack_module(path, &to)?;
        order.extend([module, ".ko\n"]);
    }
    if !order.contains("virtio_net") {
        bail!("no virtio_net among the modules of {package}");
    }
    fs::write(image.join("order"), order)?;
    fs::write(image.join("version"), version + "\n")?;
    Ok(())
}

/// The package the meta-package stands for today.
fn concrete_package() -> Result<String> {
    let show = || run(Command::new("apt-cache").args(["show", "--no-all-versions", META_PACKAGE]));
    let text = match show() {
        Ok(text) if !text.is_empty() => text,
        // A fresh machine has no package lists.
        _ if nix::unistd::geteuid().is_root() => {
            run(Command::new("apt-get").args(["update", "-q"]))?;
            show()?
        }
        _ => bail!("apt does not know {META_PACKAGE}: run `sudo apt-get update` first"),
    };
    parse_depends(&text).with_context(|| format!("{META_PACKAGE} depends on no kernel package"))
}

/// The first `linux-image-*` in the `Depends:` line of `apt-cache show`.
fn parse_depends(show: &str) -> Option<String> {
    let depends = show.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split(',').filter_map(|d| d.split_whitespace().next());
    names.into_iter().find(|n| n.starts_with("linux-image-")).map(str::to_owned)
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

/// `virtio_net` of `virtio_net.ko` or `virtio_net.ko.xz`.
fn module_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split_once(".ko").map(|(module, _)| module)
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
        assert_eq!(module_name(Path::new("/a/virtio_net.ko.xz")), Some("virtio_net"));
        assert_eq!(module_name(Path::new("/a/virtio_net.ko")), Some("virtio_net"));
        assert_eq!(module_name(Path::new("/a/modules.dep")), None);
    }

    #[test]
    fn under_sudo_the_cache_is_the_callers() {
        let (xdg, home) = (|| Some("/root/xdg".into()), || Some("/root".into()));
        assert_eq!(
            choose_cache(xdg(), Some("/home/a".into()), home()).unwrap(),
            Path::new("/home/a/.cache/lbx")
        );
        assert_eq!(choose_cache(xdg(), None, home()).unwrap(), Path::new("/root/xdg/lbx"));
        assert_eq!(choose_cache(None, None, home()).unwrap(), Path::new("/root/.cache/lbx"));
        assert!(choose_cache(None, None, None).is_err());
    }
}
