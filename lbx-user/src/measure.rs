//! Measuring. In this version: health checks.

pub mod health;
