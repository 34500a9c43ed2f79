//! What a program leaves for the program it tail-calls.

use crate::maps::SCRATCH;
use lbx_common::flow::TargetWord;
use lbx_common::steer::slow::Slow;

/// The note. Everything that is not in it is parsed again: the paths that need it are rare.
///
/// One per CPU: from the tail call to the first statement of the callee nothing else runs on this CPU that
/// writes it (both hooks run with bottom halves off, and neither nests in the other between the two).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    /// The path called.
    pub slow: Slow,
    /// Index of the ingress port in `ports`.
    pub port: u32,
    /// Service, where it is known (`Reject`, `TooBig`).
    pub service: u16,
    /// VLAN of the frame as the rules know it.
    pub vlan: u16,
    /// Target, where it is known (`TooBig`, `Moved`).
    pub target: TargetWord,
    /// [`lbx_common::reason::Reason`] as a number: why, and what is counted if no answer goes out. `Whole`: what kept
    /// the flow from being opened, for `steps::open::reason`; 0 nothing.
    pub reason: u32,
    /// Largest IP packet that would fit (`TooBig`). `Encap`: an entry of `elsewhere` (bits 16-31) and what spreads flows
    /// over paths (0-15); a field of its own costs stack where none is left.
    pub mtu: u32,
}

impl Scratch {
    /// A note that only names the path and the port.
    #[inline(always)]
    pub const fn new(slow: Slow, port: u32, vlan: u16) -> Self {
        Self { slow, port, service: 0, vlan, target: TargetWord::NONE, reason: 0, mtu: 0 }
    }

    /// The note left for this program.
    #[inline(always)]
    pub fn read() -> Option<Self> {
        let at = SCRATCH.get_ptr(0)?;
        // SAFETY: a non-null value pointer of a per-CPU array stays valid for the program run, holds a
        // `Scratch`, and only this CPU writes it.
        Some(unsafe { *at })
    }

    /// Leaves the note.
    #[inline(always)]
    pub fn write(self) -> Option<()> {
        let at = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: as in `read`.
        unsafe { *at = self };
        Some(())
    }
}
