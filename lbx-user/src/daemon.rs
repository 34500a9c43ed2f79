//! `lbx run`: follows config, host and wishes, and keeps the maps saying what follows from them.
//!
//! One [`core::Core`] owns everything that changes, in one task; the API, timers, probes and health checks
//! send it what they want or found.

pub mod attach;
pub mod core;
pub mod handle;
pub mod health;
pub mod host;
pub mod migration;
pub mod paths;
pub mod pending;

mod libvirt;
mod load;
mod look;
mod notify;
mod once;
mod open_flows;
mod peers;
mod queues;
mod recent;
mod report;
mod requests;
mod responses;
mod run;
mod ways;
mod weigh;

pub use core::AttachOptions;
pub use handle::Handle;
pub use once::attach_once;
pub use paths::Paths;
pub use requests::ReloadError;
pub use run::{Options, load_config, load_options, main, run};
