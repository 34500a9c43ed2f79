//! The maps, with the names user space knows them by.
//!
//! Every array that user space stores into is mmapable, which also aligns its values to pages, so that a
//! 64-byte element is one cache line. Sizes of `flows`, `flows_cold` and `slots` are defaults: user space
//! overrides them at load.

pub mod scratch;

use crate::slow::inside::Inside;
use crate::slow::locate::Located;
use crate::steps::back::BackQuery;
use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, CpuMap, DevMap, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::macros::btf_map;
use lbx_common::addr::{Ip, Mac};
use lbx_common::control::{Absent, Control};
use lbx_common::elsewhere::Elsewhere;
use lbx_common::event::Event;
use lbx_common::flow::{Bucket, ColdFlow};
use lbx_common::fragment::{FragmentKey, FragmentValue, MacKey};
use lbx_common::key::FlowKey;
use lbx_common::limits::{
    ADDRESS_SLOTS, FLOWS_DEFAULT, MAX_BACKS, MAX_ELSEWHERE, MAX_FRAGMENTS, MAX_MACS, MAX_MORE_RULES,
    MAX_PORTS, MAX_QUEUES, MAX_SERVICES, MAX_TARGETS, NAME_LEN, NEAR_PORTS, TABLE_POOL, WAYS,
};
use lbx_common::live::{LIVES, Live};
use lbx_common::port::{NearPort, Port};
use lbx_common::reason::REASONS;
use lbx_common::response::{self, Response, Stamp};
use lbx_common::service::{AddressEntry, Back, Rule, Service};
use lbx_common::stats::{ServiceStats, TargetStats};
use lbx_common::steer::rate;
use lbx_common::steer::slow::SLOW_PROGRAMS;
use lbx_common::target::{Target, Weight};
use lbx_common::tunnel::{MAX_PEERS, MAX_VMS, VmKey, VmPort};
use scratch::Scratch;

/// `BPF_F_MMAPABLE`.
const MMAPABLE: usize = 1 << 10;

/// The control block.
#[btf_map(name = "control")]
pub static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();

/// Which addresses are in no table, for the packets of nobody. In a section of data: its place in memory is part of
/// the instruction, where the elements of other maps have to be looked up.
#[unsafe(link_section = ".data.absent")]
pub static ABSENT: Global<Absent> = Global::new(Absent([0; 2]));

/// Two generations of the address table; [`Control::addresses`] says which is in force.
#[btf_map(name = "addresses")]
pub static ADDRESSES: Array<AddressEntry, { 2 * ADDRESS_SLOTS as usize }, MMAPABLE> = Array::new();

/// Rules beyond those in the line of their address.
#[btf_map(name = "more_rules")]
pub static MORE_RULES: Array<Rule, { MAX_MORE_RULES as usize }, MMAPABLE> = Array::new();

/// The services.
#[btf_map(name = "services")]
pub static SERVICES: Array<Service, { MAX_SERVICES as usize }, MMAPABLE> = Array::new();

/// Ways back of nat targets.
#[btf_map(name = "backs")]
pub static BACKS: Array<Back, { MAX_BACKS as usize }, MMAPABLE> = Array::new();

/// Target indices of the services, in runs: twice as many as there are targets, so that a service's run can
/// be written anew beside the old one. Elements are 8 bytes apart in a mapping.
#[btf_map(name = "members")]
pub static MEMBERS: Array<u32, { 2 * MAX_TARGETS as usize }, MMAPABLE> = Array::new();

/// The targets.
#[btf_map(name = "targets")]
pub static TARGETS: Array<Target, { MAX_TARGETS as usize }, MMAPABLE> = Array::new();

/// Where the flows of moved targets go; targets name an entry, and 0 is nobody's.
#[btf_map(name = "elsewhere")]
pub static ELSEWHERE: Array<Elsewhere, { MAX_ELSEWHERE as usize }, MMAPABLE> = Array::new();

/// Ends of the tunnels that frames are accepted from.
#[btf_map(name = "tunnel_peers")]
pub static TUNNEL_PEERS: HashMap<Ip, u32, { MAX_PEERS as usize }> = HashMap::new();

/// VMs here that frames out of tunnels are accepted for, and where these go.
#[btf_map(name = "tunnel_vms")]
pub static TUNNEL_VMS: HashMap<VmKey, VmPort, { MAX_VMS as usize }> = HashMap::new();

/// Weights by (target, queue): what tables are built from. Written and read by user space.
#[btf_map(name = "weights")]
pub static WEIGHTS: Array<Weight, { (MAX_TARGETS * MAX_QUEUES) as usize }, MMAPABLE> = Array::new();

/// Open flows and rings by (target, queue).
#[btf_map(name = "live")]
pub static LIVE: Array<Live, { LIVES as usize }, MMAPABLE> = Array::new();

/// Requests under way, of the flows that are timed.
#[btf_map(name = "stamps")]
pub static STAMPS: Array<Stamp, { response::STAMPS as usize }, MMAPABLE> = Array::new();

/// Response times by target.
#[btf_map(name = "responses")]
pub static RESPONSES: Array<Response, { MAX_TARGETS as usize }, MMAPABLE> = Array::new();

/// The pool of the services' tables: [`lbx_common::flow::TargetWord`]s, two an element.
#[btf_map(name = "slots")]
pub static SLOTS: Array<[u32; 2], { TABLE_POOL as usize / 2 + 1 }, MMAPABLE> = Array::new();

/// The flow table.
#[btf_map(name = "flows")]
pub static FLOWS: Array<Bucket, { (FLOWS_DEFAULT / WAYS) as usize }, MMAPABLE> = Array::new();

/// The tuples of confirmed flows, at `bucket * 4 + way`.
#[btf_map(name = "flows_cold")]
pub static FLOWS_COLD: Array<ColdFlow, { FLOWS_DEFAULT as usize }, MMAPABLE> = Array::new();

/// The ports of the switches.
#[btf_map(name = "ports")]
pub static PORTS: Array<Port, { MAX_PORTS as usize }, MMAPABLE> = Array::new();

/// Index into `ports` by interface index.
#[btf_map(name = "port_of")]
pub static PORT_OF: HashMap<u32, u32, { MAX_PORTS as usize }> = HashMap::new();

/// Ports by the low bits of the interface index: where tc looks before `port_of`.
#[btf_map(name = "port_near")]
pub static PORT_NEAR: Array<NearPort, { NEAR_PORTS as usize }, MMAPABLE> = Array::new();

/// The ports' devices, at the index of the port.
#[btf_map(name = "tx")]
pub static TX: DevMap<{ MAX_PORTS as usize }> = DevMap::new();

/// CPUs that frames are handed to, so that they land in the queue of their choice: entered only while some target's
/// queues are chosen.
#[btf_map(name = "cpus")]
pub static CPUS: CpuMap<1> = CpuMap::new();

/// Index of the port by the MAC of a target whose queues are chosen.
#[btf_map(name = "queue_ports")]
pub static QUEUE_PORTS: HashMap<Mac, u32, { MAX_TARGETS as usize }> = HashMap::new();

/// Counters by target.
#[btf_map(name = "target_stats")]
pub static TARGET_STATS: PerCpuArray<TargetStats, { MAX_TARGETS as usize }> = PerCpuArray::new();

/// Counters by service.
#[btf_map(name = "service_stats")]
pub static SERVICE_STATS: PerCpuArray<ServiceStats, { MAX_SERVICES as usize }> = PerCpuArray::new();

/// Counters by [`lbx_common::reason::Reason`].
#[btf_map(name = "reasons")]
pub static REASON_COUNTS: PerCpuArray<u64, { REASONS as usize }> = PerCpuArray::new();

/// Where first fragments went.
#[btf_map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue, { MAX_FRAGMENTS as usize }> = LruHashMap::new();

/// Epoch in which the bridge last saw a client's MAC.
#[btf_map(name = "macs")]
pub static MACS: LruHashMap<MacKey, u16, { MAX_MACS as usize }> = LruHashMap::new();

/// Names for whoever reads the maps without the daemon: services first, then targets. The datapath does not
/// read it.
#[btf_map(name = "names")]
pub static NAMES: Array<[u8; NAME_LEN], { (MAX_SERVICES + MAX_TARGETS) as usize }, MMAPABLE> = Array::new();

/// Sampled events; size in bytes.
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<(), { 256 * 1024 }> = RingBuf::new();

/// The event in hand.
#[btf_map(name = "event")]
pub static EVENT: PerCpuArray<Event, 1> = PerCpuArray::new();

/// Token buckets of the events, by reason.
#[btf_map(name = "event_rates")]
pub static EVENT_RATES: PerCpuArray<rate::Bucket, { REASONS as usize }> = PerCpuArray::new();

/// The rare paths of XDP, by [`lbx_common::steer::slow::Slow`].
#[btf_map(name = "xdp_tail")]
pub static XDP_TAIL: ProgramArray<{ SLOW_PROGRAMS as usize }> = ProgramArray::new();

/// The rare paths of tc, by [`lbx_common::steer::slow::Slow`].
#[btf_map(name = "tc_tail")]
pub static TC_TAIL: ProgramArray<{ SLOW_PROGRAMS as usize }> = ProgramArray::new();

/// What a program tells the one it tail-calls.
#[btf_map(name = "scratch")]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Where the headers of the packet in hand are, for the rare paths.
#[btf_map(name = "located")]
pub static LOCATED: PerCpuArray<Located, 1> = PerCpuArray::new();

/// The packet inside the ICMP error in hand.
#[btf_map(name = "inside")]
pub static INSIDE: PerCpuArray<Inside, 1> = PerCpuArray::new();

/// The flow that is being opened, for those who compare it with others.
#[btf_map(name = "opening")]
pub static OPENING: PerCpuArray<FlowKey, 1> = PerCpuArray::new();

/// What the way back is looked up by.
#[btf_map(name = "back_query")]
pub static BACK_QUERY: PerCpuArray<BackQuery, 1> = PerCpuArray::new();

/// Token buckets: the answers at 0, then new flows by service.
#[btf_map(name = "rates")]
pub static RATES: PerCpuArray<rate::Bucket, { 1 + MAX_SERVICES as usize }> = PerCpuArray::new();
