//! The guests' kernels: Debian's cloud kernels, downloaded once, unpacked into the cache, installed nowhere.

mod package;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};

/// The kernel of ordinary guests.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// The directory of the unpacked image in the cache; a new layout gets a new name.
const DIR: &str = "guest-kernel-2";
/// The kernels that lbx is tested on besides the machine's own: the oldest that it supports, and the next that
/// is supported for long.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its version, as `uname -r` says.
    pub version: String,
    /// The bzImage.
    pub kernel: PathBuf,
    /// Modules in loading order, uncompressed.
    pub modules: Vec<PathBuf>,
    /// What a guest that is itself a host loads after those.
    pub host_modules: Vec<PathBuf>,
}

/// The image in the cache, downloaded first if it is not there.
pub fn ensure() -> Result<Image> {
    ensure_package(DIR, META_PACKAGE)
}

/// The image of a series of kernels such as `6.1`, downloaded first if it is not there.
pub fn ensure_series(series: &str) -> Result<Image> {
    let own = format!("{DIR}-{series}");
    if let Ok(image) = open(&cache_dir()?.join(&own)) {
        return Ok(image);
    }
    // The ordinary guests' kernel is of one of the series, which one depends on the release of Debian.
    let image = ensure()?;
    if image.is_of(series) {
        return Ok(image);
    }
    ensure_package(&own, &format!("linux-image-{series}-cloud-amd64"))
}

fn ensure_package(dir: &str, meta: &str) -> Result<Image> {
    let cache = cache_dir()?;
    let (work, dir) = (cache.join(format!("{dir}.{}", std::process::id())), cache.join(dir));
    if let Ok(image) = open(&dir) {
        return Ok(image);
    }
    let package = package::concrete(meta)?.with_context(|| {
        format!("apt does not know {meta}: its lists are old (`apt-get update`), or this release has none")
    })?;
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let made = package::download_and_unpack(&package, &work).and_then(|()| {
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

impl Image {
    /// Whether the kernel is one of a series such as `6.1`.
    pub fn is_of(&self, series: &str) -> bool {
        self.version.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
    }
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

/// Reads an unpacked image: `version`, `vmlinuz`, `modules/NAME.ko`, `order` and `order-host`.
fn open(dir: &Path) -> Result<Image> {
    let version = fs::read_to_string(dir.join("version"))?.trim().to_owned();
    let listed = |list: &str| -> Result<Vec<PathBuf>> {
        let names = fs::read_to_string(dir.join(list))?;
        Ok(names.lines().map(|name| dir.join("modules").join(name)).collect())
    };
    let (modules, host_modules) = (listed("order")?, listed("order-host")?);
    let kernel = dir.join("vmlinuz");
    for file in modules.iter().chain(&host_modules).chain([&kernel]) {
        if !file.exists() {
            bail!("{} is missing", file.display());
        }
    }
    Ok(Image { version, kernel, modules, host_modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_no_prefix_of_another() {
        let image = |version: &str| Image {
            version: version.to_owned(),
            kernel: PathBuf::new(),
            modules: Vec::new(),
            host_modules: Vec::new(),
        };
        assert!(image("6.1.0-56-cloud-amd64").is_of("6.1"));
        assert!(image("6.12.117+deb12-cloud-amd64").is_of("6.12"));
        assert!(!image("6.12.117+deb12-cloud-amd64").is_of("6.1"));
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
