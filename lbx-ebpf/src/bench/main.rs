//! Programs that measure the datapath, for `lbx-bench` only. Entry points only.
//!
//! `bench_xdp` and `bench_tc` put the packet of a test run back to what it was and tail-call the program under
//! test, so that the second packet is like the first. `pass_*` is the empty program whose time is taken off.
//! The `bare_*` programs are the references: what they leave out is written where they are.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(missing_docs, reason = "the macros of the entry points drop their documentation")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macros of the entry points pass the context by value"
)]

mod bare;
#[path = "../packet/cursor.rs"]
#[expect(dead_code, reason = "the datapath's door to the packet, of which this needs a part")]
mod cursor;
mod live;
mod maps;
#[path = "../object.rs"]
mod object;
mod race;
mod wrap;

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Buckets of the references' own table, a power of two.
#[unsafe(no_mangle)]
static BUCKETS: Global<u32> = Global::new(16_384);

/// Restores the packet and goes on in the program under test.
#[xdp]
pub fn bench_xdp(ctx: XdpContext) -> u32 {
    wrap::xdp(&ctx)
}

/// Restores the packet and goes on in the program under test.
#[classifier]
pub fn bench_tc(ctx: TcContext) -> i32 {
    wrap::tc(&ctx)
}

/// Opens and closes flows of a list of its own on each CPU.
#[xdp]
pub fn bench_race(ctx: XdpContext) -> u32 {
    race::xdp(&ctx)
}

/// Does nothing.
#[xdp]
pub fn pass_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Does nothing.
#[classifier]
pub fn pass_tc(_ctx: TcContext) -> i32 {
    -1
}

/// Does nothing but put room for an IPv4 header in front.
#[xdp]
pub fn grow_xdp(ctx: XdpContext) -> u32 {
    wrap::grow(&ctx, 20)
}

/// The same for an IPv6 header.
#[xdp]
pub fn grow6_xdp(ctx: XdpContext) -> u32 {
    wrap::grow(&ctx, 40)
}

/// The least a balancer with the kernel's own table does.
#[xdp]
pub fn bare_lru(ctx: XdpContext) -> u32 {
    bare::lru(&ctx)
}

/// The least a balancer with one cache line a lookup does.
#[xdp]
pub fn bare_table(ctx: XdpContext) -> u32 {
    bare::table(&ctx)
}

/// Sends every frame on.
#[xdp]
pub fn bare_redirect(ctx: XdpContext) -> u32 {
    bare::redirect(&ctx)
}

/// Sends generated frames, behind `bench_xdp`.
#[xdp]
pub fn live_send(_ctx: XdpContext) -> u32 {
    live::send()
}

/// The same with the checksum of IPv4 made right.
#[xdp]
pub fn live_send_whole(ctx: XdpContext) -> u32 {
    live::send_whole(cursor::Packet::new(ctx.data(), ctx.data_end()))
}

/// Counts frames at the far end.
#[xdp]
pub fn live_arrive(_ctx: XdpContext) -> u32 {
    live::arrive()
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
