//! Taps whose queues this process holds itself, as QEMU holds them: what is not read waits in them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;

/// `TUNSETIFF` and `TUNSETQUEUE` (include/uapi/linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETQUEUE: libc::c_ulong = 0x4004_54d9;

/// A tap, and its queues in order. It goes with them.
pub struct Tap {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub ifindex: u32,
    queues: Vec<Option<File>>,
}

impl Tap {
    /// Makes it in the calling thread's network namespace, up, with rings of `len` frames. The kernel sends nothing
    /// by it unasked: IPv6 is off for what is made in the namespace from now on.
    pub fn new(name: &str, queues: usize, len: u32) -> io::Result<Self> {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | if queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
        let open = || {
            let file = File::options().read(true).write(true).open("/dev/net/tun")?;
            request(&file, TUNSETIFF, name, flags)?;
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Some(file))
        };
        let queues = (0..queues).map(|_| open()).collect::<io::Result<Vec<_>>>()?;
        let len = len.to_string();
        let done = Command::new("ip").args(["link", "set", name, "txqueuelen", &len, "up"]).status()?;
        assert!(done.success(), "ip link set {name} up");
        Ok(Self { name: name.to_owned(), ifindex: if_nametoindex(name)?, queues })
    }

    /// Takes up to `most` frames out of a queue; how many there were.
    pub fn take(&mut self, queue: usize, most: usize) -> usize {
        let Some(file) = &mut self.queues[queue] else { return 0 };
        let mut frame = [0; 2048];
        // One read, one frame; none is an error of its own.
        (0..most).take_while(|_| file.read(&mut frame).is_ok_and(|bytes| bytes > 0)).count()
    }

    /// Takes one frame out of a queue; `None` if there is none.
    pub fn next(&mut self, queue: usize) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        let bytes = self.queues[queue].as_mut()?.read(&mut frame).ok()?;
        frame.truncate(bytes);
        Some(frame)
    }

    /// Detaches a queue, or attaches it again, as a guest does that uses fewer or more of them.
    pub fn attach(&self, queue: usize, on: bool) -> io::Result<()> {
        let flags = if on { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        self.queues[queue].as_ref().map_or(Ok(()), |file| request(file, TUNSETQUEUE, "", flags))
    }

    /// Closes a queue.
    pub fn close(&mut self, queue: usize) {
        self.queues[queue] = None;
    }
}

fn request(file: &File, what: libc::c_ulong, name: &str, flags: i32) -> io::Result<()> {
    // struct ifreq: 16 bytes of name, then the flags.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(flags as u16).to_ne_bytes());
    // SAFETY: the descriptor is that of an open file, and the request an initialised struct ifreq of its size.
    if unsafe { libc::ioctl(file.as_raw_fd(), what, request.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
