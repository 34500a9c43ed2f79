//! Measuring: every source writes its readings onto one board, with their time, their source and their cost.
//!
//! What reads the board (weights, the CLI, metrics) decides itself how old a reading may be.

pub mod board;
pub mod catalogue;
pub mod files;
pub mod health;
pub mod host;
pub mod load;
pub mod prompt;
pub mod queue;
pub mod rate;
pub mod response;
pub mod steered;
pub mod take;
pub mod vm;
