//! A VM loses its CPU, and so its share; and gets both back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{LIMIT, tell_errors};
use crate::demo::claims::Claim;
use crate::demo::stage::{FLEX, Stage, growth};
use crate::demo::story::Story;
use crate::lab::client::load::Load;
use crate::lab::client::shares;
use crate::lab::throttle::Throttle;

/// Who is throttled.
const VM: &str = "vm2";
/// What it is left of one CPU.
const LEFT: f64 = 0.05;
/// It gets less than this part of its configured weight then, and more than that part when it is well again.
const LESS: f64 = 0.5;
const AGAIN: f64 = 0.8;
/// New connections that shares are judged by.
const ENOUGH: u64 = 600;
/// Far more than it takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_secs(90);

/// Throttles a VM under load until its weight has followed, and lets it go again.
pub fn throttle(story: &mut Story, stage: &Stage) -> Result<()> {
    story.part("A VM that is starved of CPU loses share, and gets it back");
    story.say(&format!(
        "The service `{FLEX}` has the same weight for all three VMs and `weights = \"adaptive\"`: lbx measures how busy \
         each VM is, from outside, and moves weights accordingly. Twelve clients open one connection after the \
         other. Then {VM} is left {:.0} % of one CPU.",
        LEFT * 100.0
    ));
    let client = stage.client();
    let pause = Duration::from_millis(10);
    let load =
        Load { sources: stage.sources(), threads: 12, pause, limit: LIMIT, ..Load::endless(Stage::flex()) };
    let load = load.start(client);
    let before = share_of_next(stage)?;
    let start = Instant::now();
    let pid = stage.lab.vm(VM)?.pid().context("a guest without a process")?;
    let throttle = Throttle::start(&stage.lab.record, VM, pid, LEFT)?;
    let low = wait(stage, |factor| factor < LESS)?;
    story.say(&format!("Throttled, by {}. After {:.1} s:", throttle.how(), start.elapsed().as_secs_f64()));
    let words = ["why", "weight", &format!("{FLEX}/{VM}")].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    story.quote(&format!("lbx {}", words.join(" ")), &stage.lbx.cli(&words)?);
    let less = share_of_next(stage)?;
    drop(throttle);
    let start = Instant::now();
    let high = wait(stage, |factor| factor > AGAIN)?;
    story.say(&format!("It has its CPU back. After {:.1} s:", start.elapsed().as_secs_f64()));
    let words = ["weights", "--service", FLEX];
    story.quote(&format!("lbx {}", words.join(" ")), &stage.lbx.cli(&words)?);
    let again = share_of_next(stage)?;
    let report = load.stop()?;
    story.say(&format!(
        "{VM}'s share of new connections: {before:.0} % before, {less:.0} % while throttled, {again:.0} % afterwards."
    ));
    let claim = format!("throttled: weight of {VM}, of its configured one");
    story.claim(Claim::at_most(&claim, low, "", LESS));
    story.claim(Claim::at_most(&format!("throttled: {VM}'s share of new connections"), less, "%", 25.0));
    let claim = format!("well again: weight of {VM}, of its configured one");
    story.claim(Claim::at_least(&claim, high, "", AGAIN));
    let failed = report.failed as f64;
    story.claim(Claim::equal("throttled: requests failed", failed, &format!("of {}", report.total()), 0.0));
    tell_errors(story, &[&report]);
    Ok(())
}

/// Its weight over its configured one, once that is as wanted, or when nobody waits any longer.
fn wait(stage: &Stage, wanted: impl Fn(f64) -> bool) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let factor = stage.factor(FLEX, VM)?;
        if wanted(factor) || Instant::now() > deadline {
            return Ok(factor);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Its share of the next new connections, per cent.
fn share_of_next(stage: &Stage) -> Result<f64> {
    let (before, deadline) = (stage.flows(FLEX)?, Instant::now() + PATIENCE);
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let new = growth(&before, &stage.flows(FLEX)?);
        if new.values().sum::<u64>() >= ENOUGH || Instant::now() > deadline {
            return Ok(shares(&new).get(VM).copied().unwrap_or(0.0) * 100.0);
        }
    }
}
