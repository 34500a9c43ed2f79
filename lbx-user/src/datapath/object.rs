//! The kernel program, embedded at build time by `build.rs`.

/// What to tell the operator when [`ebpf_object`] has nothing.
pub const NO_OBJECT: &str = "this lbx was built without its datapath; build it with: cargo xtask build";

/// Bytes at an address that is a multiple of 8, which the ELF reader relies on.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/lbx-ebpf.o")));

static MEASURE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/lbx-ebpf-measure.o")));

/// The ELF object of the programs that measure queues; none when `lbx` was built without `cargo xtask build`.
pub fn measure_object() -> Option<&'static [u8]> {
    (!MEASURE.0.is_empty()).then_some(&MEASURE.0)
}

/// The ELF object of the kernel program; none when `lbx` was built without `cargo xtask build`.
pub fn ebpf_object() -> Option<&'static [u8]> {
    (!OBJECT.0.is_empty()).then_some(&OBJECT.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_objects_are_aligned_elf_files() {
        for bytes in [OBJECT, MEASURE] {
            assert_eq!(bytes.0.as_ptr() as usize % 8, 0);
        }
        for object in [ebpf_object(), measure_object()].into_iter().flatten() {
            assert!(object.starts_with(b"\x7fELF"), "{:?}", &object[..object.len().min(4)]);
        }
    }
}
