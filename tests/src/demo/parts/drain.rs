//! One VM is taken out of service without anybody noticing.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lbx_common::target::State;

use super::shares::totals;
use super::{staying, tell_errors, trickle};
use crate::demo::claims::Claim;
use crate::demo::stage::{Stage, WEB, growth};
use crate::demo::story::Story;
use crate::lab::client::load::{Report, Running};
use crate::scenario::states::state;

/// Connections of each family that are open when the drain begins.
const OPEN: usize = 30;
/// Requests on each of them, one every 100 ms.
const REQUESTS: u64 = 60;

/// Drains vm3 while its connections finish and new ones come in.
pub fn drain(story: &mut Story, stage: &Stage) -> Result<()> {
    story.part("A VM is drained for maintenance");
    story.say(&format!(
        "{OPEN} connections of each family are open, each with {REQUESTS} requests to make, and new ones keep coming. \
         `lbx drain` takes vm3 out: no new connection goes there, those it has run to their end, and --wait \
         returns when the last one is gone."
    ));
    let client = stage.client();
    let long = Stage::web().map(|at| staying(stage, at, OPEN, REQUESTS).start(client));
    let short = Stage::web().map(|at| trickle(stage, at).start(client));
    wait_open(&long)?;
    let start = Instant::now();
    let (said, after) = std::thread::scope(|s| -> Result<_> {
        let waiting = s.spawn(|| stage.lbx.output(&["drain", "web/vm3", "--wait", "--timeout", "90s"]));
        // Connections that were bound when the drain began are vm3's.
        let deadline = Instant::now() + Duration::from_secs(10);
        while state(&stage.lbx, "web/vm3")? != State::Draining && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let before = stage.flows(WEB)?;
        let said = waiting.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        Ok((said, growth(&before, &stage.flows(WEB)?).get("vm3").copied().unwrap_or(0)))
    })?;
    let took = start.elapsed();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    story.quote("lbx drain web/vm3 --wait", &text);
    story.quote("lbx targets --service web", &stage.lbx.cli(&["targets", "--service", "web"])?);
    let long = long.into_iter().map(Running::finish).collect::<Result<Vec<_>>>()?;
    let short = short.into_iter().map(Running::stop).collect::<Result<Vec<_>>>()?;
    let vm3: u64 = long.iter().filter_map(|r| r.connections.get("vm3")).sum();
    story.say(&format!("vm3 had {vm3} of the open connections; the drain took {:.1} s.", took.as_secs_f64()));
    story.claim(Claim::equal(
        "drain: exit code of lbx drain --wait",
        said.status.code().unwrap_or(-1).into(),
        "",
        0.0,
    ));
    story.claim(Claim::at_least("drain: open connections of vm3 at its beginning", vm3 as f64, "", 1.0));
    let whole = long.iter().map(Report::total).sum::<u64>() as f64;
    let wanted = (2 * OPEN as u64 * REQUESTS) as f64;
    story.claim(Claim::equal("drain: requests answered on open connections", whole, "", wanted));
    story.claim(Claim::equal("drain: new connections to vm3 meanwhile", after as f64, "", 0.0));
    let moved: u64 = long.iter().map(|r| r.moved).sum();
    story.claim(Claim::equal("drain: connections moved to another VM", moved as f64, "", 0.0));
    let (requests, failed) = totals(long.iter().chain(&short));
    story.claim(Claim::equal("drain: requests failed", failed, &format!("of {requests}"), 0.0));
    tell_errors(story, &long.iter().chain(&short).collect::<Vec<_>>());
    story.quote("lbx undrain web/vm3", &stage.lbx.cli(&["undrain", "web/vm3"])?);
    Ok(())
}

fn wait_open(long: &[Running; 2]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while long.iter().map(|l| l.so_far().total_connections()).sum::<u64>() < 2 * OPEN as u64 {
        if Instant::now() > deadline {
            bail!("the connections did not open: {:?}", long.each_ref().map(Running::so_far));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
