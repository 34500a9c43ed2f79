//! `BPF_PROG_TEST_RUN`: a program run once, or a million times, over what it is given.

use super::{address, bpf, cmd, raw};
use bytemuck::{Pod, Zeroable};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;

/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 2;

/// The part of `union bpf_attr` that a test run reads and answers in.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
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

/// A run to come, and what is given to it.
pub struct TestRun<'a> {
    attr: Attr,
    // What the addresses in it are of.
    given: PhantomData<(&'a [u8], &'a mut [u8])>,
}

/// What came of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What the program returned; of many runs the last one.
    pub value: u32,
    /// Bytes of the packet afterwards.
    pub len: usize,
}

impl<'a> TestRun<'a> {
    /// Of a program, with nothing given to it.
    pub fn of(program: &impl AsFd) -> Self {
        Self { attr: Attr { prog_fd: raw(program), ..Attr::zeroed() }, given: PhantomData }
    }

    /// Over this packet.
    #[must_use]
    pub fn packet(mut self, packet: &'a [u8]) -> Self {
        (self.attr.data_in, self.attr.data_size_in) = (address(packet), packet.len() as u32);
        self
    }

    /// The packet afterwards goes here.
    #[must_use]
    pub fn room(mut self, room: &'a mut [u8]) -> Self {
        (self.attr.data_out, self.attr.data_size_out) = (room.as_mut_ptr() as u64, room.len() as u32);
        self
    }

    /// With this context.
    #[must_use]
    pub fn context(mut self, context: &'a [u8]) -> Self {
        (self.attr.ctx_in, self.attr.ctx_size_in) = (address(context), context.len() as u32);
        self
    }

    /// So often; once, if it is not said.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.attr.repeat = times;
        self
    }

    /// What the program says is done to each frame; so many at a time.
    #[must_use]
    pub fn live(mut self, batch: u32) -> Self {
        (self.attr.flags, self.attr.batch_size) = (LIVE_FRAMES, batch);
        self
    }

    /// Runs the program.
    pub fn run(mut self) -> io::Result<Answer> {
        bpf(cmd::PROG_TEST_RUN, &mut self.attr)?;
        Ok(Answer { value: self.attr.retval, len: self.attr.data_size_out as usize })
    }
}
