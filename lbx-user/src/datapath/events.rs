//! The ring buffer of sampled events.

use super::error::{Error, Result};
use super::maps::Maps;
use aya::maps::{Map, MapData, RingBuf};
use lbx_common::event::Event;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Reads what the programs send. One reader at a time: a second one would take events from the first.
pub struct Events(RingBuf<MapData>);

impl Events {
    /// The oldest event that was not read yet.
    pub fn next_event(&mut self) -> Option<Event> {
        let item = self.0.next()?;
        let mut event = Event::default();
        let bytes = bytemuck::bytes_of_mut(&mut event);
        let len = item.len().min(bytes.len());
        bytes[..len].copy_from_slice(&item[..len]);
        Some(event)
    }
}

/// Readable while there are events.
impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the ring buffer inside `self` and is open as long as it.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl Maps {
    /// Opens the events for reading.
    pub fn events(&self) -> Result<Events> {
        let fd = self.events.try_clone().map_err(Error::io("duplicating a descriptor"))?;
        let refused = |e| Error::Io { what: "opening the events".into(), source: std::io::Error::other(e) };
        let map = Map::RingBuf(MapData::from_fd(fd).map_err(refused)?);
        RingBuf::try_from(map).map(Events).map_err(refused)
    }
}
