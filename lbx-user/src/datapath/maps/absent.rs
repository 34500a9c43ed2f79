//! The map that tells packets of nobody, a section of data of the programs: read and written as a whole.

use std::os::fd::OwnedFd;

use lbx_common::control::Absent;

use crate::datapath::error::{Error, Result};
use crate::datapath::sys;

const KEY: [u8; 4] = [0; 4];

/// What it holds.
pub fn read(map: &OwnedFd) -> Result<Absent> {
    let mut absent = Absent::default();
    sys::lookup(map, &KEY, bytemuck::bytes_of_mut(&mut absent)).map_err(Error::io("reading map absent"))?;
    Ok(absent)
}

/// Writes it. The kernel copies it while programs read it: each bit has the old or the new value, and both have to be
/// safe.
pub fn write(map: &OwnedFd, absent: Absent) -> Result<()> {
    sys::update(map, &KEY, bytemuck::bytes_of(&absent)).map_err(Error::io("writing map absent"))
}
