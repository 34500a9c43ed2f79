//! What the kernel counts for each device of this network namespace.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Counters of a device. Of a tap, `tx` is what goes to the guest, counted when its side takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    /// Frames transmitted.
    pub tx_packets: u64,
    /// Frames dropped instead.
    pub tx_dropped: u64,
}

/// All devices by name. `thread-self`: the namespace of this thread, which is not that of the mount of /sys.
///
/// # Errors
/// /proc cannot be read.
pub fn read() -> io::Result<HashMap<String, Device>> {
    fs::read_to_string("/proc/thread-self/net/dev").map(|text| parse(&text))
}

/// `NAME: ` and 16 numbers (net/core/net-procfs.c, dev_seq_printf_stats): bytes, packets, errs, drop, fifo, frame,
/// compressed, multicast received; bytes, packets, errs, drop, ... transmitted.
fn parse(text: &str) -> HashMap<String, Device> {
    let device = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace().skip(9).map(|word| word.parse::<u64>().ok());
        let tx_packets = numbers.next()??;
        let tx_dropped = numbers.nth(1)??;
        Some((name.trim().to_owned(), Device { tx_packets, tx_dropped }))
    };
    text.lines().filter_map(device).collect()
}

/// Frames that an interface's queue has room for (SIOCGIFTXQLEN, netdevice(7)); of a tap, each of its rings.
///
/// # Errors
/// No such interface.
pub fn room(interface: &str) -> io::Result<u32> {
    // SAFETY: a plain system call without pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by socket(2), is open, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ifreq is plain old data for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFTXQLEN reads the name of the ifreq and writes its ifr_metric (the kernel's ifr_qlen); the
    // name ends with a zero byte, since it is shorter than its field, and `request` outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFTXQLEN as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel has written the field; every bit pattern is an integer.
    Ok(unsafe { request.ifr_ifru.ifru_metric } as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_the_way_out() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
 vnet3: 5 4 3 2 1 0 0 0 500 77 1 9 0 0 0 0
broken: 1 2
";
        let devices = parse(text);
        assert_eq!(devices["vnet3"], Device { tx_packets: 77, tx_dropped: 9 });
        assert_eq!(devices["lo"], Device { tx_packets: 10, tx_dropped: 0 });
        assert_eq!(devices.len(), 2);
    }

    #[test]
    fn this_host_has_a_loopback_device() {
        assert!(read().unwrap().contains_key("lo"));
        assert!(room("lo").is_ok());
        assert!(room("no-such-link").is_err() && room("a-name-too-long-for-linux").is_err());
    }
}
