//! What the kernel program and user space of lbx share: the ABI (map layouts) and every decision.
//!
//! `no_std` without the `std` feature, no I/O, no atomics: the same functions run in the kernel, in the
//! daemon, and under the tests on the host.
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
#[cfg(any(feature = "std", test))]
pub mod addresses;
pub mod algo;
#[cfg(any(feature = "std", test))]
pub mod availability;
pub mod control;
#[cfg(any(feature = "std", test))]
pub mod controller;
pub mod elsewhere;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod health;
pub mod key;
pub mod limits;
pub mod live;
pub mod measure;
#[cfg(any(feature = "std", test))]
pub mod migration;
pub mod port;
pub mod queue;
pub mod reason;
pub mod reply;
pub mod response;
pub mod service;
pub mod stats;
pub mod steer;
pub mod target;
pub mod tunnel;
pub mod wish;
