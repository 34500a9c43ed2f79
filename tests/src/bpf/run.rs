//! `BPF_PROG_TEST_RUN`, straight to the system call: a million runs need buffers that are used again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Commands of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_TEST_RUN: u32 = 10;
const PROG_GET_FD_BY_ID: u32 = 13;
const BTF_GET_FD_BY_ID: u32 = 19;

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

/// The part of `union bpf_attr` of a test run.
#[repr(C)]
#[derive(Default)]
struct Attr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

impl Attr {
    /// Runs the program.
    ///
    /// # Safety
    /// Each pointer is 0 or to as many bytes as the size beside it says, which live through the call.
    unsafe fn test_run(&mut self) -> io::Result<()> {
        // SAFETY: `self` is initialised and of the size passed; the caller vouches for what it points to.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, std::ptr::from_mut(self), size_of::<Self>())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Runs a program over a frame many times; the verdict of the last. `ifindex`: of the frames, for tc. What the
/// program does to the frame stays for the next run.
pub fn repeat(program: BorrowedFd<'_>, frame: &[u8], ifindex: Option<u32>, times: u32) -> io::Result<u32> {
    let skb = SkBuff::at(ifindex.unwrap_or(0));
    let mut attr = Attr {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: times,
        ..Attr::default()
    };
    if ifindex.is_some() {
        attr.ctx_in = (&raw const skb) as u64;
        attr.ctx_size_in = size_of::<SkBuff>() as u32;
    }
    // SAFETY: the pointers are to `frame` and `skb`, which live through the call and are as long as said.
    unsafe { attr.test_run()? };
    Ok(attr.retval)
}

/// Frames that go through the kernel between two looks at the network stack's own work (at most 256).
const BATCH: u32 = 64;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 2;

/// Runs an XDP program over frames that are then really sent, dropped or redirected, out of the caller's network
/// namespace. What is done to a frame stays when its memory is used for the next.
pub fn live(program: BorrowedFd<'_>, frame: &[u8], times: u32) -> io::Result<()> {
    let mut attr = Attr {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: times,
        flags: LIVE_FRAMES,
        batch_size: BATCH,
        ..Attr::default()
    };
    // SAFETY: the pointer is to `frame`, which lives through the call and is as long as said.
    unsafe { attr.test_run() }
}

/// The part of `union bpf_attr` of a map update.
#[repr(C)]
struct Update {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Writes an element of an array.
///
/// # Safety
/// `value` is as long as a value of the map: the kernel reads that many bytes.
pub unsafe fn update(map: BorrowedFd<'_>, key: u32, value: &[u8]) -> io::Result<()> {
    let key_at = (&raw const key) as u64;
    let map_fd = map.as_raw_fd() as u32;
    let attr = Update { map_fd, pad: 0, key: key_at, value: value.as_ptr() as u64, flags: 0 };
    // SAFETY: `attr` is initialised and of the size passed; key and value live through the call, and the caller
    // vouches for the length of the value.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, MAP_UPDATE_ELEM, &raw const attr, size_of::<Update>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct __sk_buff`, of which a test run takes a few fields and refuses the rest.
#[repr(C)]
#[derive(Clone, Copy)]
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
        let mut attr = Attr {
            prog_fd: self.program.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_size_out: ROOM as u32,
            data_in: frame.as_ptr() as u64,
            data_out: self.out.as_mut_ptr() as u64,
            repeat: 1,
            ..Attr::default()
        };
        if self.ifindex.is_some() {
            attr.ctx_in = (&raw const skb) as u64;
            attr.ctx_size_in = size_of::<SkBuff>() as u32;
        }
        // SAFETY: the pointers are to `frame`, `skb` and `out`, which live through the call and are as long as the
        // sizes beside them say.
        unsafe { attr.test_run()? };
        let verdict = match self.ifindex {
            None => Verdict::of_xdp(attr.retval),
            Some(_) => Verdict::of_tc(attr.retval),
        };
        Ok((verdict, &self.out[..attr.data_size_out as usize]))
    }
}

/// Opens a loaded program by its id.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    by_id(PROG_GET_FD_BY_ID, id)
}

/// Opens the types (BTF) of a program by their id.
pub fn types(id: u32) -> io::Result<OwnedFd> {
    by_id(BTF_GET_FD_BY_ID, id)
}

fn by_id(command: u32, id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: the attribute of these commands is three words, initialised.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(&attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the command returns a descriptor the kernel just made for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
