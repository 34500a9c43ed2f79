//! A tap with a reader on another core.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::ip;
use crate::bench::{clock, machine};

/// `TUNSETIFF` (include/uapi/linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// The tap. Its reader ends with it.
pub struct Tap {
    frames: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Tap {
    /// Makes it in the calling thread's network namespace, with a reader on another core than `busy`.
    pub fn new(busy: usize) -> Result<Self> {
        let mut file = File::options().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
        // struct ifreq: 16 bytes of name, then the flags.
        let mut request = [0_u8; 40];
        request[..Self::NAME.len()].copy_from_slice(Self::NAME.as_bytes());
        let flags = (libc::IFF_TAP | libc::IFF_NO_PI) as u16;
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: the descriptor is that of an open file, and the request an initialised struct ifreq of its size.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) } < 0 {
            return Err(std::io::Error::last_os_error()).context("making a tap");
        }
        nonblocking(&file)?;
        ip(&[&format!("link set {} up", Self::NAME)])?;
        let (frames, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&frames), Arc::clone(&stop));
        let cpu = (busy + 1) % machine::cpus();
        let reader = std::thread::spawn(move || {
            // Shares the core if there is only one.
            let _ = clock::pin(cpu);
            let mut frame = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                // One read, one frame.
                if file.read(&mut frame).is_ok_and(|bytes| bytes > 0) {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    std::thread::yield_now();
                }
            }
        });
        Ok(Self { frames, stop, reader: Some(reader) })
    }

    /// Its name.
    pub const NAME: &str = "tap0";

    /// Frames read from it so far.
    pub fn read(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

/// Reads return at once: the reader has to notice its end.
fn nonblocking(file: &File) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("a tap that does not block")?;
    Ok(())
}
