//! What is left in the queues of a tap that a QEMU holds, and what it has taken out of them: each frame with its bytes.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;

use super::qmp::Qmp;

/// `TUNGETIFF` and `TUNGETVNETHDRSZ` (include/uapi/linux/if_tun.h).
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNGETVNETHDRSZ: libc::c_ulong = 0x8004_54d7;
/// `pcap_file_header` and `pcap_sf_pkthdr` of a file in this machine's byte order (pcap-savefile(5)).
const FILE_HEADER: usize = 24;
const FRAME_HEADER: usize = 16;
const MAGIC: u32 = 0xa1b2_c3d4;
/// Of each frame that a QEMU takes so many bytes are written down: the headers, and what a short datagram carries.
const KEPT: u32 = 128;

/// Takes all frames out of the queues of a tap that a process holds open, from the Ethernet header on.
///
/// # Errors
/// The process holds no queue of the tap, or nobody may look into it.
pub fn take(pid: i32, tap: &str) -> Result<Vec<Vec<u8>>> {
    let queues = queues(pid, tap)?;
    if queues.is_empty() {
        bail!("process {pid} holds no queue of {tap}");
    }
    let mut frames = Vec::new();
    for queue in queues {
        drain(queue, &mut frames).with_context(|| format!("reading {tap} of process {pid}"))?;
    }
    Ok(frames)
}

/// Duplicates of a process's descriptors of a tap.
fn queues(pid: i32, tap: &str) -> Result<Vec<File>> {
    // SAFETY: pidfd_open takes no pointers; the result is checked by `owned`.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).context("pidfd_open")?;
    let mut queues = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if !fs::read_link(entry.path()).is_ok_and(|to| to == Path::new("/dev/net/tun")) {
            continue;
        }
        let name = entry.file_name();
        let number: i32 = name.to_str().context("a descriptor")?.parse()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
        if info.lines().any(|line| line.strip_prefix("iff:").is_some_and(|of| of.trim() == tap)) {
            // SAFETY: pidfd_getfd takes no pointers; `process` is open for the duration of the call.
            let queue = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
            queues.push(owned(queue).context("pidfd_getfd")?.into());
        }
    }
    Ok(queues)
}

fn drain(mut queue: File, frames: &mut Vec<Vec<u8>>) -> Result<()> {
    // The description is QEMU's too: what it has set holds, and nothing of it is changed here.
    let flags = OFlag::from_bits_retain(fcntl(&queue, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        bail!("its reader waits for frames: no end would be seen");
    }
    let header = vnet_header(&queue)?;
    let mut frame = vec![0; 1 << 17];
    loop {
        match queue.read(&mut frame) {
            Ok(bytes) if bytes > header => frames.push(frame[header..bytes].to_vec()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Bytes of the header before each frame that says what of it is unfinished; 0 if the tap has none.
fn vnet_header(queue: &File) -> Result<usize> {
    // struct ifreq: 16 bytes of name, then the flags.
    let (mut request, mut size) = ([0_u8; 40], 0_i32);
    // SAFETY: the descriptor is open, and the request an initialised struct ifreq of its size.
    if unsafe { libc::ioctl(queue.as_raw_fd(), TUNGETIFF, request.as_mut_ptr()) } < 0 {
        return Err(std::io::Error::last_os_error()).context("TUNGETIFF");
    }
    let flags = i32::from(i16::from_ne_bytes([request[16], request[17]]));
    if flags & libc::IFF_VNET_HDR == 0 {
        return Ok(0);
    }
    // SAFETY: the descriptor is open, and the argument an int that outlives the call.
    if unsafe { libc::ioctl(queue.as_raw_fd(), TUNGETVNETHDRSZ, &raw mut size) } < 0 {
        return Err(std::io::Error::last_os_error()).context("TUNGETVNETHDRSZ");
    }
    Ok(usize::try_from(size)?)
}

fn owned(result: libc::c_long) -> std::io::Result<OwnedFd> {
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the system calls above return a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// Has a QEMU write down every frame that its guest's vNIC sends or is sent from now on: what it takes out of the
/// queues of its tap, whatever becomes of it (`filter-dump` of QEMU's qapi/qom.json).
///
/// # Errors
/// What QEMU says.
pub fn write_down(qemu: &mut Qmp, file: &Path) -> Result<()> {
    let dump = json!({
        "qom-type": "filter-dump", "id": "taken", "netdev": "n0", "file": file, "maxlen": KEPT,
    });
    qemu.execute("object-add", &dump)?;
    Ok(())
}

/// The frames that were written down so far, the first bytes of each.
///
/// # Errors
/// There is no such file, or it is something else.
pub fn written(file: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    parse(&bytes).with_context(|| format!("{} is no record of frames", file.display()))
}

/// A last frame that is not fully written is left out.
fn parse(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != MAGIC {
        return None;
    }
    let (mut frames, mut at) = (Vec::new(), FILE_HEADER);
    // Seconds and microseconds, then how many bytes are kept, and how many there were.
    while let Some(kept) = word(at + 8) {
        let Some(frame) = bytes.get(at + FRAME_HEADER..at + FRAME_HEADER + kept as usize) else { break };
        frames.push(frame.to_vec());
        at += FRAME_HEADER + frame.len();
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_written_down_are_read() {
        let mut file = MAGIC.to_ne_bytes().to_vec();
        file.resize(FILE_HEADER, 0);
        for frame in [&b"one"[..], b"", b"three"] {
            let length = frame.len() as u32;
            for word in [1, 2, length, length + 9] {
                file.extend(u32::to_ne_bytes(word));
            }
            file.extend(frame);
        }
        assert_eq!(parse(&file).unwrap(), [&b"one"[..], b"", b"three"]);
        file.pop();
        assert_eq!(parse(&file).unwrap().len(), 2, "the last one is being written");
        assert_eq!(parse(&file[..FILE_HEADER]).unwrap().len(), 0);
        assert!(parse(b"").is_none() && parse(&[0; 24]).is_none());
    }

    #[test]
    fn who_holds_no_tap_has_no_queue() {
        let me = std::process::id() as i32;
        assert!(take(me, "tap0").unwrap_err().to_string().contains("holds no queue"));
    }
}
