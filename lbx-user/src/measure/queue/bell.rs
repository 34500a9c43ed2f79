//! What wakes the thread that looks at queues: an order, a queue that the kernel tells of, or the time.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// Rings the bell; the thread learns that nobody will any more when the last one is dropped.
#[derive(Debug)]
pub struct Rope(PipeWriter);

/// The bell.
#[derive(Debug)]
pub struct Bell(PipeReader);

/// Why somebody woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Woken {
    /// The rope was pulled.
    pub rung: bool,
    /// The descriptor that was watched beside it has something.
    pub told: bool,
    /// Nobody holds the rope.
    pub over: bool,
}

/// A bell and its rope.
///
/// # Errors
/// No descriptors are left.
pub fn bell() -> std::io::Result<(Rope, Bell)> {
    let (reader, writer) = pipe()?;
    Ok((Rope(writer), Bell(reader)))
}

impl Rope {
    /// Wakes the thread. A thread that is gone is no failure.
    pub fn pull(&self) {
        let _ = (&self.0).write(&[1]);
    }
}

impl Bell {
    /// Sleeps until `until` (`None`: for ever), the rope or `beside`.
    pub fn wait(&mut self, beside: Option<BorrowedFd<'_>>, until: Option<Instant>) -> Woken {
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        let mut fds = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        fds.extend(beside.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if ppoll(&mut fds, left.map(TimeSpec::from_duration), None).is_err() {
            // A signal, or a kernel out of memory: no busy loop from that.
            std::thread::sleep(left.unwrap_or_default().min(Duration::from_millis(1)));
            return Woken::default();
        }
        let events: Vec<PollFlags> =
            fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        let mut woken = Woken {
            told: events.get(1).is_some_and(|found| found.contains(PollFlags::POLLIN)),
            rung: events[0].contains(PollFlags::POLLIN),
            over: events[0].contains(PollFlags::POLLHUP),
        };
        if woken.rung {
            // As many as fit: they all mean the same.
            woken.over = self.0.read(&mut [0; 64]).is_ok_and(|bytes| bytes == 0);
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wakes_for_time_rope_and_whoever_is_beside() {
        let (rope, mut bell) = bell().unwrap();
        let (other, beside) = pipe().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(2));
        let before = Instant::now();
        assert_eq!(bell.wait(Some(other.as_fd()), soon()), Woken::default());
        assert!(before.elapsed() >= Duration::from_millis(2));
        rope.pull();
        rope.pull();
        assert_eq!(bell.wait(None, None), Woken { rung: true, ..Woken::default() });
        assert_eq!(bell.wait(None, soon()), Woken::default(), "both were heard");
        (&beside).write_all(&[1]).unwrap();
        assert_eq!(bell.wait(Some(other.as_fd()), None), Woken { told: true, ..Woken::default() });
        drop(rope);
        assert!(bell.wait(Some(other.as_fd()), None).over);
    }
}
