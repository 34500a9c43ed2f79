//! Availability of targets' VMs: the readings that go in, the formula, and what comes out with every value named.
//!
//! The figures themselves are [`lbx_common::availability`]'s.

pub mod formula;
mod gather;

pub use formula::Formula;
pub use gather::{Answer, Given, Place, Readings};
