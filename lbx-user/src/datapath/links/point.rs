//! What is attached where, and how: the words for it.

use super::Direction;
use crate::datapath::error::{Error, Result};
use std::fmt;

/// How XDP is attached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the skb is made.
    Generic,
}

impl XdpMode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// `XDP_FLAGS_*_MODE` of include/uapi/linux/if_link.h.
    pub(in crate::datapath) const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }

    /// `XDP_ATTACHED_*` as netlink reports it.
    pub(in crate::datapath) const fn attached(self) -> u8 {
        match self {
            Self::Native => 1,
            Self::Generic => 2,
        }
    }
}

/// How a tc program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TcMode {
    /// tcx where the kernel has it, else clsact.
    Auto,
    /// A filter under clsact.
    Clsact,
}

/// An interface in the caller's network namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
}

impl Device {
    /// Finds an interface by name.
    pub fn by_name(name: &str) -> Result<Self> {
        match nix::net::if_::if_nametoindex(name) {
            Ok(ifindex) => Ok(Self { name: name.into(), ifindex }),
            Err(_) => Err(Error::NoDevice(name.into())),
        }
    }
}

/// By what a program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Point {
    /// XDP link.
    Xdp,
    /// tcx link.
    Tcx(Direction),
    /// clsact filter.
    Clsact(Direction),
}

impl Point {
    pub(in crate::datapath) const ALL: [Self; 5] = [
        Self::Xdp,
        Self::Tcx(Direction::Ingress),
        Self::Tcx(Direction::Egress),
        Self::Clsact(Direction::Ingress),
        Self::Clsact(Direction::Egress),
    ];

    pub(in crate::datapath) const fn suffix(self) -> &'static str {
        match self {
            Self::Xdp => "-xdp",
            Self::Tcx(Direction::Ingress) => "-tcx-in",
            Self::Tcx(Direction::Egress) => "-tcx-out",
            Self::Clsact(Direction::Ingress) => "-clsact-in",
            Self::Clsact(Direction::Egress) => "-clsact-out",
        }
    }

    /// Whether it sees frames on their way out.
    pub const fn is_egress(self) -> bool {
        matches!(self.direction(), Direction::Egress)
    }

    pub(in crate::datapath) const fn direction(self) -> Direction {
        match self {
            Self::Xdp => Direction::Ingress,
            Self::Tcx(direction) | Self::Clsact(direction) => direction,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::Tcx(Direction::Ingress) => "tcx ingress",
            Self::Tcx(Direction::Egress) => "tcx egress",
            Self::Clsact(Direction::Ingress) => "clsact ingress",
            Self::Clsact(Direction::Egress) => "clsact egress",
        })
    }
}

/// One attachment, as the pins and the kernel tell it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The interface; its index is 0 if it is gone.
    pub device: Device,
    /// By what.
    pub point: Point,
    /// XDP mode, where the kernel tells.
    pub mode: Option<XdpMode>,
    /// Id of the program, 0 if it is gone.
    pub prog_id: u32,
}

impl Attachment {
    /// Whether the interface or the program has gone since.
    pub fn is_dead(&self) -> bool {
        self.device.ifindex == 0 || self.prog_id == 0
    }
}
