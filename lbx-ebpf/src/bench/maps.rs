//! What the measuring programs are told, and the tables of the references.

use aya_ebpf::btf_maps::{Array, DevMap, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use lbx_common::flow::Bucket;
use lbx_common::measure::{RACE_FLOWS, Wrap};

/// `BPF_F_MMAPABLE`.
const MMAPABLE: usize = 1 << 10;

/// A flow as the references know it: addresses (IPv4 in the last word of each), ports, protocol.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tuple {
    /// Source.
    pub src: [u32; 4],
    /// Destination.
    pub dst: [u32; 4],
    /// Both ports.
    pub ports: u32,
    /// Protocol.
    pub protocol: u32,
}

/// An IPv4 flow as the kernel's table knows it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tuple4 {
    /// Source.
    pub src: u32,
    /// Destination.
    pub dst: u32,
    /// Both ports.
    pub ports: u32,
    /// Protocol.
    pub protocol: u32,
}

/// What to do to the packets.
#[btf_map(name = "bench_wrap")]
pub static WRAP: Array<Wrap, 1, MMAPABLE> = Array::new();

/// CPUs that race.
pub const RACERS: u32 = 2;

/// For each CPU that races its flows (client address and port, as they lie in the packet) and the state of its
/// generator.
#[btf_map(name = "bench_racers")]
pub static RACE: Array<u64, { (RACERS * (RACE_FLOWS + 1)) as usize }, MMAPABLE> = Array::new();

/// The program under test at XDP.
#[btf_map(name = "bench_jump")]
pub static JUMP: ProgramArray<1> = ProgramArray::new();

/// The program under test at tc: a program array is for programs of one type.
#[btf_map(name = "bench_jump_tc")]
pub static JUMP_TC: ProgramArray<1> = ProgramArray::new();

/// Where the references send everything.
#[btf_map(name = "bench_tx")]
pub static TX: DevMap<1> = DevMap::new();

/// The kernel's table: user space sets the size.
#[btf_map(name = "bench_lru")]
pub static LRU: LruHashMap<Tuple, u32, 65_536> = LruHashMap::new();

/// The same for IPv4, whose key is shorter.
#[btf_map(name = "bench_lru4")]
pub static LRU4: LruHashMap<Tuple4, u32, 65_536> = LruHashMap::new();

/// The table of one line a lookup: user space sets the size.
#[btf_map(name = "bench_table")]
pub static TABLE: Array<Bucket, 16_384, MMAPABLE> = Array::new();

/// Where generated frames go out.
#[btf_map(name = "bench_send")]
pub static SEND: DevMap<1> = DevMap::new();

/// Frames that arrived.
#[btf_map(name = "bench_arrived")]
pub static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();
