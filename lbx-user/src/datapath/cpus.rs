//! CPUs that frames are handed to, so that they land in the queue of a tap that their flow is bound to.

use super::error::{Error, Result};
use super::maps::Maps;
use super::pins::Instance;
use super::sys;
use lbx_common::addr::Mac;
use std::os::fd::{AsRawFd, OwnedFd};

/// The program that goes on where a frame was handed to, and the name of its pin.
pub(super) const PROGRAM: &str = "lbx_cpu";
/// The map of CPUs, pinned with the version of the programs.
pub(super) const MAP: &str = "cpus";
/// Frames that may wait for a CPU.
const ROOM: u32 = 2048;

/// CPUs that frames may be handed to: all, if they are online and numbered from 0 without gaps; else none.
pub(super) fn count() -> u32 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    contiguous(text.trim())
}

/// Of a list of CPUs as in `0-3`.
fn contiguous(online: &str) -> u32 {
    let last = online.strip_prefix("0-").unwrap_or(online);
    last.parse::<u32>().map_or(0, |last| last + 1)
}

/// What handing over needs; absent where the version in force has none of it.
pub(super) struct Cpus {
    map: OwnedFd,
    program: OwnedFd,
}

impl Cpus {
    /// Opens what is pinned.
    pub fn open_pinned(instance: &Instance) -> Option<Self> {
        let dir = instance.progs(*instance.versions().last()?);
        Some(Self {
            map: sys::open_pin(&dir.join(MAP)).ok()?,
            program: sys::open_pin(&dir.join(PROGRAM)).ok()?,
        })
    }
}

impl Maps {
    /// Has frames to these MACs put into the queues that their flows are bound to, each by its port; to none if there
    /// are none. Each CPU then has a thread of the kernel.
    pub fn choose_queues(&self, ports: &[(Mac, u32)]) -> Result<()> {
        let Some(Cpus { map, program }) = &self.cpus else {
            return if ports.is_empty() { Ok(()) } else { Err(Error::Missing(format!("map {MAP}"))) };
        };
        for (mac, port) in ports {
            sys::update(&self.queue_ports, mac, &port.to_ne_bytes())
                .map_err(Error::io("writing queue_ports"))?;
        }
        for cpu in 0..count() {
            let key = cpu.to_ne_bytes();
            // struct bpf_cpumap_val: qsize, and the program's descriptor (its number when read).
            let mut now = [0; 8];
            let there =
                sys::lookup(map, &key, &mut now).map_err(Error::io("reading cpus"))? && now[..4] != [0; 4];
            if ports.is_empty() && there {
                sys::delete(map, &key).map_err(Error::io("taking a CPU out of cpus"))?;
            } else if !ports.is_empty() && !there {
                let mut value = [0; 8];
                value[..4].copy_from_slice(&ROOM.to_ne_bytes());
                value[4..].copy_from_slice(&program.as_raw_fd().to_ne_bytes());
                sys::update(map, &key, &value).map_err(Error::io("entering a CPU into cpus"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpus_without_gaps_count() {
        for (text, cpus) in [("0-3", 4), ("0", 1), ("0-127", 128), ("0,2-3", 0), ("1-3", 0), ("", 0)] {
            assert_eq!(contiguous(text), cpus, "{text}");
        }
    }
}
