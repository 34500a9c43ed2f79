//! The references: the least that a balancer can do for a known flow, with two kinds of table.
//!
//! They parse Ethernet, IPv4 without options or IPv6, and the ports; look the flow up; set the destination MAC;
//! redirect. They do not: look for a service, check lengths, follow VLANs, fragments, ICMP or options, mind the
//! state of a TCP connection, age or close flows, choose by weight, check a target's state, translate, count,
//! limit rates, or guard against two CPUs writing at once. A flow that is not known is inserted.

use crate::cursor::Packet;
use crate::maps::{LRU, LRU4, TABLE, TX, Tuple, Tuple4};
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::programs::XdpContext;
use lbx_common::flow::{FlowEntry, TargetWord};

/// Reads addresses and ports.
#[inline(always)]
fn tuple(packet: Packet) -> Option<Tuple> {
    let kind: u16 = packet.read(12)?;
    if kind == 0x0800_u16.to_be() {
        let protocol: u8 = packet.read(23)?;
        let [src, dst]: [u32; 2] = packet.read(26)?;
        let ports = packet.read(34)?;
        Some(Tuple { src: [0, 0, 0, src], dst: [0, 0, 0, dst], ports, protocol: protocol as u32 })
    } else if kind == 0x86dd_u16.to_be() {
        let protocol: u8 = packet.read(20)?;
        let src = packet.read(22)?;
        let dst = packet.read(38)?;
        let ports = packet.read(54)?;
        Some(Tuple { src, dst, ports, protocol: protocol as u32 })
    } else {
        None
    }
}

/// To the only target there is.
#[inline(always)]
fn send(packet: Packet, target: u32) -> u32 {
    if packet.write(0, [2_u8, 0, 0, 0, 1, target as u8]).is_none() {
        return XDP_ABORTED;
    }
    TX.redirect(0, 0).unwrap_or(XDP_ABORTED)
}

/// With the kernel's LRU hash table.
#[inline(always)]
pub fn lru(ctx: &XdpContext) -> u32 {
    let packet = Packet::new(ctx.data(), ctx.data_end());
    let Some(tuple) = tuple(packet) else { return XDP_PASS };
    if tuple.src[0] | tuple.src[1] | tuple.src[2] == 0 {
        let short =
            Tuple4 { src: tuple.src[3], dst: tuple.dst[3], ports: tuple.ports, protocol: tuple.protocol };
        // SAFETY: a copy of a word.
        let target = match unsafe { LRU4.get(short) } {
            Some(target) => *target,
            None => {
                let _ = LRU4.insert(short, 1, 0);
                1
            }
        };
        return send(packet, target);
    }
    // SAFETY: a copy of a word.
    let target = match unsafe { LRU.get(tuple) } {
        Some(target) => *target,
        None => {
            let _ = LRU.insert(tuple, 1, 0);
            1
        }
    };
    send(packet, target)
}

/// With one line of four flows. The size of the table is a constant of the program, as the mask of the index.
#[inline(always)]
pub fn table(ctx: &XdpContext) -> u32 {
    let packet = Packet::new(ctx.data(), ctx.data_end());
    let Some(tuple) = tuple(packet) else { return XDP_PASS };
    let words = [
        tuple.src[3] as u64 | (tuple.ports as u64) << 32,
        tuple.dst[3] as u64 | (tuple.protocol as u64) << 32,
        tuple.src[0] as u64 | (tuple.src[1] as u64) << 32,
        tuple.src[2] as u64 | (tuple.dst[0] as u64) << 32,
        tuple.dst[1] as u64 | (tuple.dst[2] as u64) << 32,
    ];
    let mut hash = 0x9E37_79B9_7F4A_7C15_u64;
    for word in words {
        hash = (hash ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25);
        hash ^= hash >> 32;
    }
    let Some(at) = TABLE.get_ptr_mut((hash >> 20) as u32 & (crate::BUCKETS.load() - 1)) else {
        return XDP_ABORTED;
    };
    // SAFETY: a non-null value pointer of an array map; a test run has the map to itself.
    let bucket = unsafe { &mut *at };
    for entry in &bucket.ways {
        if entry.seal == hash {
            return send(packet, entry.target.0);
        }
    }
    // The first free way, or the first.
    let entry = FlowEntry { seal: hash, target: TargetWord(1), epoch: 0, flags: 0 };
    for way in &mut bucket.ways {
        if way.seal == 0 {
            *way = entry;
            return send(packet, 1);
        }
    }
    bucket.ways[0] = entry;
    send(packet, 1)
}

/// Without a table.
#[inline(always)]
pub fn redirect(ctx: &XdpContext) -> u32 {
    send(Packet::new(ctx.data(), ctx.data_end()), 1)
}
