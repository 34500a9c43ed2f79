//! What holds for the frame before it is looked at: the control block and the port.

use crate::maps::{CONTROL, PORTS};
use lbx_common::control::{Control, flags};
use lbx_common::port::{Port, flags as port_flags};

/// The control block and the ingress port.
#[derive(Clone, Copy)]
pub struct Env {
    /// The control block.
    pub control: &'static Control,
    /// The ingress port.
    pub port: &'static Port,
    /// Its index in `ports`.
    pub port_index: u32,
    /// Everything is computed and counted, nothing is changed.
    pub observe: bool,
}

impl Env {
    /// The control block.
    #[inline(always)]
    pub fn control() -> Option<&'static Control> {
        let at = CONTROL.get_ptr(0)?;
        // SAFETY: a non-null value pointer of an array map, aligned to its page, valid for as long as the
        // program is loaded. User space stores single aligned words of it; each is read as it is used, and no
        // two of them need to agree.
        Some(unsafe { &*at })
    }

    /// For a port.
    #[inline(always)]
    pub fn open(port_index: u32) -> Option<Self> {
        Self::with(Self::control()?, port_index)
    }

    /// For a port, where the control block is at hand.
    #[inline(always)]
    pub fn with(control: &'static Control, port_index: u32) -> Option<Self> {
        let at = PORTS.get_ptr(port_index)?;
        // SAFETY: as in `control`.
        let port: &'static Port = unsafe { &*at };
        let observe = control.flags & flags::OBSERVE != 0 || port.flags & port_flags::OBSERVE != 0;
        Some(Self { control, port, port_index, observe })
    }
}
