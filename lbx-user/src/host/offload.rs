//! Driver and offloads of an interface, over the SIOCETHTOOL ioctl (net/ethtool/ioctl.c).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Commands and constants of include/uapi/linux/ethtool.h.
const GSET: u32 = 0x01;
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const STRINGS_FEATURES: u32 = 4;
const STRING_LEN: usize = 32;
/// struct ethtool_drvinfo: cmd, then `driver[32]` at byte 4; 196 bytes in all.
const DRVINFO_LEN: usize = 196;

/// What an interface does to frames before lbx sees them, or after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The driver's name: `virtio_net`, `veth`, `ixgbe`.
    pub driver: String,
    /// Every active feature by the name `ethtool -k` gives it in the kernel (`rx-lro`).
    pub active: BTreeSet<String>,
}

impl Offloads {
    /// Frames of a flow are joined by software or hardware in a way that cannot be undone (`rx-lro`).
    pub fn lro(&self) -> bool {
        self.active.contains("rx-lro")
    }

    /// Frames are joined by the NIC (`rx-gro-hw`).
    pub fn gro_hw(&self) -> bool {
        self.active.contains("rx-gro-hw")
    }

    /// The NIC takes VLAN tags off, so XDP does not see them.
    pub fn rx_vlan(&self) -> bool {
        self.active.contains("rx-vlan-hw-parse")
    }

    /// Checksums are left to the NIC on the way out.
    pub fn tx_checksum(&self) -> bool {
        self.active.iter().any(|name| name.starts_with("tx-checksum-ip"))
    }
}

/// Read the offloads of an interface of this thread's namespace.
///
/// # Errors
/// No such interface, or its driver has no ethtool operations.
pub fn offloads(interface: &str) -> io::Result<Offloads> {
    let socket = socket()?;

    let mut info = command(DRVINFO_LEN, &[GDRVINFO]);
    // Without a driver's name (loopback has none) the features still count.
    match ethtool(&socket, interface, &mut info) {
        Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
        _ => {}
    }
    let driver = text(&bytes(&info)[4..36]);

    // struct ethtool_sset_info: cmd, reserved, mask (u64), then one count per set in the mask.
    let mut sets = command(20, &[GSSET_INFO, 0, 1 << STRINGS_FEATURES, 0]);
    ethtool(&socket, interface, &mut sets)?;
    let count = sets[4] as usize;

    // struct ethtool_gstrings: cmd, set, count, then 32 bytes each.
    let mut names = command(12 + count * STRING_LEN, &[GSTRINGS, STRINGS_FEATURES, count as u32]);
    ethtool(&socket, interface, &mut names)?;

    // struct ethtool_gfeatures: cmd, blocks, then available, requested, active, never_changed per 32 features.
    let blocks = count.div_ceil(32);
    let mut features = command(8 + blocks * 16, &[GFEATURES, blocks as u32]);
    ethtool(&socket, interface, &mut features)?;

    let names = bytes(&names);
    let active = (0..count)
        .filter(|n| features[2 + (n / 32) * 4 + 2] & (1 << (n % 32)) != 0)
        .map(|n| text(&names[12 + n * STRING_LEN..12 + (n + 1) * STRING_LEN]))
        .collect();
    Ok(Offloads { driver, active })
}

/// The speed of an interface of this thread's namespace, in bits per second each way; none if its driver does not
/// know (virtio without a configured speed, a link without carrier).
///
/// # Errors
/// No such interface, or its driver has no such operation.
pub fn speed(interface: &str) -> io::Result<Option<u64>> {
    // struct ethtool_cmd: 44 bytes, Mbit/s in two halves: `speed` at byte 12 and `speed_hi` at byte 28.
    let mut settings = command(44, &[GSET]);
    ethtool(&socket()?, interface, &mut settings)?;
    let settings = bytes(&settings);
    let half = |at: usize| u32::from(u16::from_ne_bytes([settings[at], settings[at + 1]]));
    let megabits = half(28) << 16 | half(12);
    // SPEED_UNKNOWN is -1; drivers have said 0 and 65535 for the same.
    Ok((!matches!(megabits, 0 | 0xffff | u32::MAX)).then(|| u64::from(megabits) * 1_000_000))
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call without pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by socket(2), is open, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A zeroed command buffer of at least `len` bytes that starts with `head`; words keep it aligned.
fn command(len: usize, head: &[u32]) -> Vec<u32> {
    let mut words = vec![0; len.div_ceil(4).max(head.len())];
    words[..head.len()].copy_from_slice(head);
    words
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn ethtool(socket: &OwnedFd, interface: &str, buffer: &mut [u32]) -> io::Result<()> {
    // SAFETY: ifreq is plain old data for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose ifr_data points at a command. The command in `buffer` was built by
    // `command` with the size the kernel's struct has for the counts written into it, so the kernel reads and
    // writes inside it; `buffer` and `request` outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_features_and_a_stranger_is_an_error() {
        // Every namespace has `lo`, and its checksums are never computed.
        let lo = offloads("lo").unwrap();
        assert!(lo.tx_checksum(), "{lo:?}");
        assert!(!lo.lro(), "{lo:?}");
        assert!(speed("no-such-link").is_err());
        assert!(offloads("no-such-link").is_err());
        assert!(offloads("a-name-too-long-for-linux").is_err());
    }
}
