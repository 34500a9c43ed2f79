//! What comes out of tunnels here: from whom, and for which VMs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use bytemuck::Pod;
use lbx_common::addr::Ip;
use lbx_common::control::Control;
use lbx_common::tunnel::{TunnelWord, VmKey, VmPort};

use super::Maps;
use crate::datapath::error::{Error, Result};
use crate::datapath::pins::Instance;
use crate::datapath::sys;

/// The two lists.
pub(super) struct Tunnels {
    peers: OwnedFd,
    vms: OwnedFd,
}

impl Tunnels {
    pub(super) fn open(instance: &Instance) -> Result<Self> {
        Ok(Self { peers: instance.open_map("tunnel_peers")?, vms: instance.open_map("tunnel_vms")? })
    }
}

impl Maps {
    /// Writes which port and network tunnels have here; the default is none.
    pub fn write_tunnel(&self, word: TunnelWord) -> Result<()> {
        const WORD: usize = std::mem::offset_of!(Control, tunnel) / 8;
        self.control.word64(0, WORD)?.store(word.0, Ordering::Release);
        Ok(())
    }

    /// The peers that frames are accepted from, by their end of the tunnel; the value is any number.
    pub fn tunnel_peers(&self) -> Result<Vec<(Ip, u32)>> {
        read(&self.tunnels.peers, "tunnel_peers")
    }

    /// Makes them those; whether anything changed.
    pub fn write_tunnel_peers(&self, peers: &[(Ip, u32)]) -> Result<bool> {
        write(&self.tunnels.peers, "tunnel_peers", peers)
    }

    /// The VMs that frames are accepted for, and where these go.
    pub fn tunnel_vms(&self) -> Result<Vec<(VmKey, VmPort)>> {
        read(&self.tunnels.vms, "tunnel_vms")
    }

    /// Makes them those; whether anything changed.
    pub fn write_tunnel_vms(&self, vms: &[(VmKey, VmPort)]) -> Result<bool> {
        write(&self.tunnels.vms, "tunnel_vms", vms)
    }
}

fn read<K: Pod, V: Pod>(map: &OwnedFd, name: &'static str) -> Result<Vec<(K, V)>> {
    let failed = || Error::io(format!("reading map {name}"));
    let mut all = Vec::new();
    let mut last: Option<K> = None;
    loop {
        let mut key = K::zeroed();
        let before = last.as_ref().map(bytemuck::bytes_of);
        if !sys::next_key(map, before, bytemuck::bytes_of_mut(&mut key)).map_err(failed())? {
            return Ok(all);
        }
        let mut value = V::zeroed();
        if sys::lookup(map, bytemuck::bytes_of(&key), bytemuck::bytes_of_mut(&mut value)).map_err(failed())? {
            all.push((key, value));
        }
        last = Some(key);
    }
}

/// Writes what differs: what stays is never missing meanwhile.
fn write<K: Pod + Ord, V: Pod + PartialEq>(
    map: &OwnedFd,
    name: &'static str,
    want: &[(K, V)],
) -> Result<bool> {
    let failed = || Error::io(format!("writing map {name}"));
    let want: BTreeMap<K, V> = want.iter().copied().collect();
    let is: BTreeMap<K, V> = read(map, name)?.into_iter().collect();
    for key in is.keys().filter(|key| !want.contains_key(key)) {
        sys::delete(map, bytemuck::bytes_of(key)).map_err(failed())?;
    }
    for (key, value) in want.iter().filter(|(key, value)| is.get(key) != Some(value)) {
        sys::update(map, bytemuck::bytes_of(key), bytemuck::bytes_of(value)).map_err(failed())?;
    }
    Ok(is != want)
}
