//! Puts the kernel programs next to the source that embeds them.
//!
//! `cargo xtask build` names the finished objects in `LBX_EBPF_OBJECT` and `LBX_MEASURE_OBJECT`. Without them (plain
//! `cargo build`, an editor) empty files are embedded, so that everything else builds on a machine without the eBPF
//! toolchain.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for (variable, name) in [("LBX_EBPF_OBJECT", "lbx-ebpf.o"), ("LBX_MEASURE_OBJECT", "lbx-ebpf-measure.o")]
    {
        if let Err(error) = embed(variable, name) {
            println!("cargo::error={variable}: {error}");
        }
    }
}

fn embed(variable: &str, name: &str) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={variable}");
    let object = match env::var_os(variable).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = Path::new(&path);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => Vec::new(),
    };
    let Some(out) = env::var_os("OUT_DIR") else { return Ok(()) };
    fs::write(Path::new(&out).join(name), object).map_err(|error| format!("cannot write {name}: {error}"))
}
