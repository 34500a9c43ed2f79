//! The user-space half of lbx: config, measuring, control, and the loader of the kernel program.

pub mod answer;
pub mod api;
pub mod availability;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod host;
mod kept;
pub mod measure;
pub mod metrics;
pub mod migration;
pub mod peers;
pub mod view;
