//! `BPF_PROG_TEST_RUN` with buffers that are used again: there may be a million runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lbx_user::datapath::TestRun;

/// Largest frame that may come out.
const ROOM: usize = 8192;

/// What the program told the hook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// `XDP_PASS`, `TC_ACT_UNSPEC`.
    Pass,
    /// `XDP_DROP`, `TC_ACT_SHOT`.
    Drop,
    /// `XDP_REDIRECT`, `TC_ACT_REDIRECT`.
    Redirect,
    /// Anything else, which lbx never answers (`XDP_ABORTED` is 0).
    Other(u32),
}

impl Verdict {
    /// From an XDP action.
    pub fn of_xdp(action: u32) -> Self {
        match action {
            1 => Self::Drop,
            2 => Self::Pass,
            4 => Self::Redirect,
            other => Self::Other(other),
        }
    }

    /// From a tc action.
    pub fn of_tc(action: u32) -> Self {
        match action as i32 {
            -1 => Self::Pass,
            2 => Self::Drop,
            7 => Self::Redirect,
            other => Self::Other(other as u32),
        }
    }
}

/// Runs a program over a frame many times; the verdict of the last. `ifindex`: of the frames, for tc. What the
/// program does to the frame stays for the next run.
pub fn repeat(program: BorrowedFd<'_>, frame: &[u8], ifindex: Option<u32>, times: u32) -> io::Result<u32> {
    let skb = ifindex.map(SkBuff::at);
    let run = TestRun::of(&program).packet(frame).times(times);
    let run = match &skb {
        Some(skb) => run.context(bytemuck::bytes_of(skb)),
        None => run,
    };
    Ok(run.run()?.value)
}

/// Frames that go through the kernel between two looks at the network stack's own work (at most 256).
const BATCH: u32 = 64;

/// Runs an XDP program over frames that are then really sent, dropped or redirected, out of the caller's network
/// namespace. What is done to a frame stays when its memory is used for the next.
pub fn live(program: BorrowedFd<'_>, frame: &[u8], times: u32) -> io::Result<()> {
    TestRun::of(&program).packet(frame).times(times).live(BATCH).run().map(drop)
}

/// `struct __sk_buff`, of which a test run takes a few fields and refuses the rest.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SkBuff {
    before: [u32; 9],
    ingress_ifindex: u32,
    ifindex: u32,
    // tc_index to wire_len.
    between: [u32; 30],
    gso_segs: u32,
    sk: [u32; 2],
    gso_size: u32,
    tstamp_type: u32,
    hwtstamp: [u32; 2],
}

impl SkBuff {
    /// Of a frame that comes in by an interface.
    const fn at(ifindex: u32) -> Self {
        let (before, between) = ([0; 9], [0; 30]);
        Self {
            before,
            ingress_ifindex: ifindex,
            ifindex,
            between,
            gso_segs: 0,
            sk: [0; 2],
            gso_size: 0,
            tstamp_type: 0,
            hwtstamp: [0; 2],
        }
    }
}

const _: () = assert!(size_of::<SkBuff>() == 192 && std::mem::offset_of!(SkBuff, gso_segs) == 164);

/// A program and the room for what comes out of it.
pub struct Runner {
    program: OwnedFd,
    out: Box<[u8; ROOM]>,
    /// Interface of the frames, for tc.
    ifindex: Option<u32>,
    /// Interface they came in by: another one where they leave.
    from: Option<u32>,
}

impl Runner {
    /// Over an XDP program.
    pub fn xdp(program: OwnedFd) -> Self {
        Self { program, out: Box::new([0; ROOM]), ifindex: None, from: None }
    }

    /// Over a classifier whose frames come in by an interface of the caller's network namespace.
    pub fn tc(program: OwnedFd, ifindex: u32) -> Self {
        Self { ifindex: Some(ifindex), from: Some(ifindex), ..Self::xdp(program) }
    }

    /// Over a classifier whose frames leave by an interface, and came in by another (0: from the host itself).
    pub fn leaving(program: OwnedFd, ifindex: u32, from: u32) -> Self {
        Self { ifindex: Some(ifindex), from: Some(from), ..Self::xdp(program) }
    }

    /// The program.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Runs the program once. `gso`: payload bytes of a segment where the frame is a superframe (tc only).
    pub fn run(&mut self, frame: &[u8], gso: u32) -> io::Result<(Verdict, &[u8])> {
        let gso_segs = if gso == 0 { 0 } else { (frame.len() as u32).div_ceil(gso) };
        let ingress_ifindex = self.from.unwrap_or(0);
        let skb =
            SkBuff { gso_segs, gso_size: gso, ingress_ifindex, ..SkBuff::at(self.ifindex.unwrap_or(0)) };
        let run = TestRun::of(&self.program).packet(frame).room(&mut self.out[..]);
        let (answer, verdict) = match self.ifindex {
            None => {
                let answer = run.run()?;
                (answer, Verdict::of_xdp(answer.value))
            }
            Some(_) => {
                let answer = run.context(bytemuck::bytes_of(&skb)).run()?;
                (answer, Verdict::of_tc(answer.value))
            }
        };
        Ok((verdict, &self.out[..answer.len]))
    }
}
