//! Desired state in, map writes out: the only writer of the maps.
//!
//! [`desired`] is what should be (pure); [`reconcile`] makes the maps say so; [`wishes`] and [`overrides`] hold
//! what owners want of single targets; [`build`] puts config, host, wishes and overrides together.

pub mod addresses;
pub mod build;
pub mod desired;
pub mod overrides;
pub mod reconcile;
pub mod resolve;
pub mod store;
pub mod tables;
pub mod tunnel;
pub mod weigher;
pub mod wishes;

mod index;
#[cfg(test)]
mod reconcile_tests;
mod rings;
#[cfg(test)]
mod testing;

pub use index::{Names, map_name};
pub use rings::RingsByPort;

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds since this machine was started: what lasts is counted by it, whatever somebody sets the wall's clock to.
pub fn boot_now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |now| now.tv_sec().cast_unsigned())
}
