//! Cost of a packet in the kernel program, by kind of packet.

use anyhow::Result;

use super::{Report, Settings};

/// Measures every kind of packet; tables and claims go to the report.
///
/// # Errors
/// When a program does not load or a run fails.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    super::clock::pin(settings.cpu)?;
    report.section("path", "Cost of a packet");
    Ok(())
}
