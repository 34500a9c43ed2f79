//! The shapes of the maps: what is checked before a pinned map is used, since neither the kernel nor aya
//! compares a reused map with what the programs were built for.

use super::error::{Error, Result};
use super::sys::MapInfo;
use lbx_common::addr::{Ip, Mac};
use lbx_common::control::{Absent, Control};
use lbx_common::elsewhere::Elsewhere;
use lbx_common::flow::{Bucket, ColdFlow};
use lbx_common::fragment::{FragmentKey, FragmentValue, MacKey};
use lbx_common::limits::{
    ADDRESS_SLOTS, MAX_BACKS, MAX_ELSEWHERE, MAX_FRAGMENTS, MAX_MACS, MAX_MORE_RULES, MAX_PORTS, MAX_QUEUES,
    MAX_SERVICES, MAX_TARGETS, NAME_LEN, NEAR_PORTS, WAYS,
};
use lbx_common::live::{LIVES, Live};
use lbx_common::port::{NearPort, Port};
use lbx_common::reason::REASONS;
use lbx_common::response::{self, Response, Stamp};
use lbx_common::service::{AddressEntry, Back, Rule, Service};
use lbx_common::stats::{ServiceStats, TargetStats};
use lbx_common::target::{Target, Weight};
use lbx_common::tunnel::{MAX_PEERS, MAX_VMS, VmKey, VmPort};

const _: () = assert!(size_of::<Ip>() == 16);

/// `enum bpf_map_type`, as far as lbx goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`
    Array = 2,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    PerCpuArray = 6,
    /// `BPF_MAP_TYPE_LRU_HASH`
    LruHash = 9,
    /// `BPF_MAP_TYPE_DEVMAP`
    DevMap = 14,
    /// `BPF_MAP_TYPE_RINGBUF`
    RingBuf = 27,
}

/// How many entries a map has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entries {
    /// Part of the ABI.
    Fixed(u32),
    /// Configured at load; checked against each other.
    Sized,
}

/// `BPF_F_MMAPABLE`.
pub const MMAPABLE: u32 = 1 << 10;

/// What a pinned map must look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its name in the object, and of its pin.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value; `None` where the kernel's version decides (devmap).
    pub value: Option<u32>,
    /// Entries.
    pub entries: Entries,
    /// Whether user space maps it.
    pub mmap: bool,
}

/// An array that user space maps.
const fn array<T>(name: &'static str, entries: u32) -> Shape {
    Shape {
        name,
        kind: Kind::Array,
        key: 4,
        value: Some(size_of::<T>() as u32),
        entries: Entries::Fixed(entries),
        mmap: true,
    }
}

/// An array of configured size.
const fn sized<T>(name: &'static str) -> Shape {
    Shape { entries: Entries::Sized, ..array::<T>(name, 0) }
}

/// Counters.
const fn per_cpu<T>(name: &'static str, entries: u32) -> Shape {
    Shape { kind: Kind::PerCpuArray, mmap: false, ..array::<T>(name, entries) }
}

/// A hash table.
const fn hash<K, V>(name: &'static str, kind: Kind, entries: u32) -> Shape {
    Shape { kind, key: size_of::<K>() as u32, mmap: false, ..array::<V>(name, entries) }
}

/// Every map that is pinned and outlives the programs, in no particular order.
pub const SHAPES: &[Shape] = &[
    array::<Control>("control", 1),
    Shape { mmap: false, ..array::<Absent>("absent", 1) },
    array::<AddressEntry>("addresses", 2 * ADDRESS_SLOTS),
    array::<Rule>("more_rules", MAX_MORE_RULES),
    array::<Service>("services", MAX_SERVICES),
    array::<Back>("backs", MAX_BACKS),
    array::<u32>("members", 2 * MAX_TARGETS),
    array::<Target>("targets", MAX_TARGETS),
    array::<Weight>("weights", MAX_TARGETS * MAX_QUEUES),
    array::<Live>("live", LIVES),
    array::<Stamp>("stamps", response::STAMPS),
    array::<Response>("responses", MAX_TARGETS),
    array::<Port>("ports", MAX_PORTS),
    array::<Elsewhere>("elsewhere", MAX_ELSEWHERE),
    hash::<Ip, u32>("tunnel_peers", Kind::Hash, MAX_PEERS),
    hash::<VmKey, VmPort>("tunnel_vms", Kind::Hash, MAX_VMS),
    array::<[u8; NAME_LEN]>("names", MAX_SERVICES + MAX_TARGETS),
    sized::<[u32; 2]>("slots"),
    sized::<Bucket>("flows"),
    sized::<ColdFlow>("flows_cold"),
    per_cpu::<TargetStats>("target_stats", MAX_TARGETS),
    per_cpu::<ServiceStats>("service_stats", MAX_SERVICES),
    per_cpu::<u64>("reasons", REASONS),
    array::<NearPort>("port_near", NEAR_PORTS),
    hash::<Mac, u32>("queue_ports", Kind::Hash, MAX_TARGETS),
    hash::<u32, u32>("port_of", Kind::Hash, MAX_PORTS),
    hash::<FragmentKey, FragmentValue>("fragments", Kind::LruHash, MAX_FRAGMENTS),
    hash::<MacKey, u16>("macs", Kind::LruHash, MAX_MACS),
    Shape { kind: Kind::DevMap, value: None, mmap: false, ..array::<u32>("tx", MAX_PORTS) },
    Shape { kind: Kind::RingBuf, key: 0, mmap: false, ..sized::<()>("events") },
];

/// The shape of a map by name.
pub fn shape(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|s| s.name == name)
}

impl Shape {
    /// Its name in the object: a section of data has that of the section, and bpffs takes no names with points.
    pub fn in_object(&self) -> &'static str {
        if self.name == "absent" { ".data.absent" } else { self.name }
    }

    /// Compares what the kernel reports with what this build needs.
    pub fn check(&self, info: &MapInfo) -> Result<()> {
        self.same("its type", info.map_type.into(), self.kind as u64)?;
        self.same("its key size", info.key_size.into(), self.key.into())?;
        if let Some(value) = self.value {
            self.same("its value size", info.value_size.into(), value.into())?;
        }
        match self.entries {
            Entries::Fixed(entries) => {
                self.same("its number of entries", info.max_entries.into(), entries.into())?;
            }
            Entries::Sized => {
                // A flow table is addressed by a mask; anything else would be read beyond its end.
                if self.name.starts_with("flows") && !info.max_entries.is_power_of_two() {
                    let wanted = u64::from(info.max_entries).next_power_of_two();
                    self.same("its number of entries", info.max_entries.into(), wanted)?;
                }
            }
        }
        let mmap = if self.mmap { MMAPABLE } else { 0 };
        self.same("its mmapable flag", (info.flags & MMAPABLE).into(), mmap.into())
    }

    fn same(&self, what: &'static str, found: u64, expected: u64) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Error::Shape { name: self.name, what, found, expected })
    }
}

/// Buckets of a table that holds `flows` entries: the next power of two.
///
/// At most 2^22, the number of bits the hash gives to the first bucket.
pub fn buckets_for(flows: u32) -> u32 {
    flows.div_ceil(WAYS).clamp(1, 1 << 22).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(shape: &Shape) -> MapInfo {
        MapInfo {
            map_type: shape.kind as u32,
            id: 7,
            key_size: shape.key,
            value_size: shape.value.unwrap_or(8),
            max_entries: match shape.entries {
                Entries::Fixed(n) => n,
                Entries::Sized => 4096,
            },
            flags: if shape.mmap { MMAPABLE } else { 0 },
        }
    }

    #[test]
    fn every_shape_accepts_itself_and_refuses_any_other() {
        for shape in SHAPES {
            let good = info(shape);
            shape.check(&good).unwrap();
            let wrong = [
                MapInfo { map_type: good.map_type + 1, ..good },
                MapInfo { key_size: good.key_size + 1, ..good },
                MapInfo { flags: good.flags ^ MMAPABLE, ..good },
            ];
            for bad in wrong {
                let error = shape.check(&bad).unwrap_err();
                assert!(error.to_string().contains(shape.name), "{error}");
                assert!(error.to_string().contains("lbx detach"), "{error}");
            }
            if shape.value.is_some() {
                assert!(shape.check(&MapInfo { value_size: good.value_size + 1, ..good }).is_err());
            }
            if matches!(shape.entries, Entries::Fixed(_)) || shape.name.starts_with("flows") {
                assert!(shape.check(&MapInfo { max_entries: good.max_entries + 1, ..good }).is_err());
            }
        }
    }

    #[test]
    fn bucket_counts_are_powers_of_two_that_hold_the_flows() {
        for flows in [0, 1, 4, 5, 1000, 262_144, 262_145, u32::MAX] {
            let buckets = buckets_for(flows);
            assert!(buckets.is_power_of_two() && buckets <= 1 << 22);
            assert!(u64::from(buckets) * u64::from(WAYS) >= u64::from(flows.min(1 << 24)));
        }
        assert_eq!(buckets_for(262_144), 65_536);
    }
}
