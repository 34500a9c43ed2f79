//! The demo: three QEMU guests behind one virtual IP address, and what lbx does to their traffic, told as it
//! goes; at the end one of them moves to another host. Every part ends in claims that are measured; the last table lists them all.

pub mod claims;
mod parts;
mod stage;
pub mod story;

use std::time::Instant;

use anyhow::Result;

pub use claims::{Claim, Claims};
use stage::Stage;
use story::Story;

/// Runs the demo from the first guest's boot to the summary. An error means that something did not run at all;
/// a claim that does not hold is in the result.
pub fn run() -> Result<Claims> {
    let start = Instant::now();
    let mut story = Story::new();
    let mut stage = parts::build(&mut story)?;
    let shown = perform(&mut story, &mut stage);
    if let Err(error) = &shown {
        story.say(&format!("The demo stopped: {error:#}"));
        story.quote("what the daemon said last", &tail(&stage.lbx.log(), 15));
    }
    shown?;
    let claims = story.finish(start.elapsed());
    Ok(claims)
}

fn perform(story: &mut Story, stage: &mut Stage) -> Result<()> {
    parts::plan(story, stage)?;
    parts::shares(story, stage)?;
    parts::translate(story, stage)?;
    parts::reweigh(story, stage)?;
    parts::drain(story, stage)?;
    parts::throttle(story, stage)?;
    parts::kill(story, stage)?;
    parts::explain(story, stage)?;
    parts::migrate(story, stage)
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
