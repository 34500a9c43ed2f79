//! The kernel half of lbx. Entry points only.
//!
//! On any target but `bpf` this builds as an empty program, so that `cargo check`, clippy and docs cover
//! the datapath on a machine without the eBPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
