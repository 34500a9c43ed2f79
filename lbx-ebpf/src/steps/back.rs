//! The way back of nat: what a target answers gets the VIP's address again.

use super::{Outcome, UNTOUCHED};
use crate::packet::cursor::Packet;
use crate::packet::frame::Frame;
use crate::packet::parse::Ether;
use lbx_common::control::Control;

/// Translates a frame from a nat target if it belongs to a recorded flow.
#[inline(always)]
pub fn answer<F: Frame>(
    _frame: F,
    _packet: Packet,
    _control: &'static Control,
    _ether: &Ether,
) -> (Outcome, bool) {
    UNTOUCHED
}
