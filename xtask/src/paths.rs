//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

use crate::user;

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target directory (`$CARGO_TARGET_DIR`, else `target` in the workspace).
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// What outlives `cargo clean`: tools and the guest kernel.
pub fn cache() -> PathBuf {
    let home = user::invoker().map(|invoker| invoker.home).or_else(|| env::var_os("HOME").map(PathBuf::from));
    cache_from(
        env::var_os("LBX_CACHE").map(PathBuf::from),
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
        home,
    )
}

fn cache_from(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    let set = |dir: Option<PathBuf>| dir.filter(|dir| !dir.as_os_str().is_empty());
    if let Some(own) = set(own) {
        return root().join(own);
    }
    // A relative XDG_CACHE_HOME is to be ignored (XDG base directory specification).
    if let Some(xdg) = set(xdg).filter(|dir| dir.is_absolute()) {
        return xdg.join("lbx");
    }
    home.map_or_else(|| target().join("cache"), |home| home.join(".cache/lbx"))
}

/// The directory that holds bpf-linker.
pub fn tools() -> PathBuf {
    cache().join("tools")
}

/// The finished kernel program.
pub fn ebpf_object() -> PathBuf {
    target().join("lbx-ebpf.o")
}

/// The finished programs that measure queues.
pub fn measure_object() -> PathBuf {
    target().join("lbx-ebpf-measure.o")
}

/// Finds a program in `$PATH` or in the directories of system programs that a user's `$PATH` often lacks.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_its_variables_in_order() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(cache_from(path("/a"), path("/b"), path("/c")), Path::new("/a"));
        assert_eq!(cache_from(None, path("/b"), path("/c")), Path::new("/b/lbx"));
        assert_eq!(cache_from(path(""), path("relative"), path("/c")), Path::new("/c/.cache/lbx"));
        assert!(cache_from(None, None, None).starts_with(target()));
    }

    #[test]
    fn programs_are_found_and_others_are_not() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program-of-lbx").is_none());
    }
}
