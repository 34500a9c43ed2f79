//! Puts the kernel program next to the source that embeds it.
//!
//! `cargo xtask build` names the finished object in `LBX_EBPF_OBJECT`. Without it (plain `cargo build`, an
//! editor) an empty file is embedded, so that everything else builds on a machine without the eBPF toolchain.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LBX_EBPF_OBJECT");
    let object = match env::var_os("LBX_EBPF_OBJECT").filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    println!("cargo::error=LBX_EBPF_OBJECT: {}: {error}", Path::new(&path).display());
                    return;
                }
            }
        }
        None => Vec::new(),
    };
    let out = env::var_os("OUT_DIR").map(|dir| Path::new(&dir).join("lbx-ebpf.o"));
    if let Err(error) = out.map_or(Ok(()), |out| fs::write(out, object)) {
        println!("cargo::error=cannot write lbx-ebpf.o: {error}");
    }
}
