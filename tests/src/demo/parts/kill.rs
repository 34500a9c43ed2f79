//! The daemon dies in the middle of traffic, and comes back.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::shares::totals;
use super::{staying, sum, tell_errors, trickle};
use crate::demo::claims::Claim;
use crate::demo::stage::{Stage, WEB, growth};
use crate::demo::story::Story;
use crate::lab::client::load::{Report, Running};
use crate::scenario::eventually;

/// How long there is no daemon.
const ABSENCE: Duration = Duration::from_secs(4);

/// `kill -9`, traffic without a daemon, and a restart that adopts everything.
pub fn kill(story: &mut Story, stage: &mut Stage) -> Result<()> {
    story.part("The daemon is killed with -9 in the middle of traffic");
    story.say(
        "Packets are steered by the kernel; the daemon only tells it what to do. It is killed while 30 connections of \
         each family are open and new ones come in, stays dead for four seconds, and is started again.",
    );
    let client = stage.client().clone();
    let long = Stage::web().map(|at| staying(stage, at, 30, 100_000).start(&client));
    let short = Stage::web().map(|at| trickle(stage, at).start(&client));
    let all_answered = || Ok(long.iter().map(|load| load.so_far().total_connections()).sum::<u64>() >= 60);
    // Those that were not are missed below.
    eventually(Duration::from_secs(20), all_answered)?;
    std::thread::sleep(Duration::from_secs(2));
    let (flows_before, bound_before) = (stage.flows(WEB)?, stage.established(WEB)?);
    let pid = stage.lbx.pid().unwrap_or(0);
    stage.lbx.kill()?;
    story.quote(&format!("kill -9 {pid}"), "");
    std::thread::sleep(ABSENCE);
    let without = sum(&[growth(&flows_before, &stage.flows(WEB)?)]).values().sum::<u64>();
    story.say("Its verbs that only look still work, and say where they looked:");
    story.quote("lbx weights --service web", &stage.lbx.cli(&["weights", "--service", "web"])?);
    let start = Instant::now();
    stage.lbx.run()?;
    story.say(&format!("Started again; it answers after {:.2} s.", start.elapsed().as_secs_f64()));
    std::thread::sleep(Duration::from_secs(2));
    let (flows_after, bound_after) = (stage.flows(WEB)?, stage.established(WEB)?);
    let override_kept = stage.weights_in_force(WEB)?.get("vm1").copied().unwrap_or(0);
    let long = long.into_iter().map(Running::stop).collect::<Result<Vec<_>>>()?;
    let short = short.into_iter().map(Running::stop).collect::<Result<Vec<_>>>()?;

    let open: u64 = long.iter().map(Report::total_connections).sum();
    story.claim(Claim::equal("kill -9: connections open through it and the restart", open as f64, "", 60.0));
    let moved: u64 = long.iter().map(|r| r.moved).sum();
    story.claim(Claim::equal("kill -9: connections moved to another VM", moved as f64, "", 0.0));
    story.claim(Claim::at_least("kill -9: new flows bound without a daemon", without as f64, "", 1.0));
    let (requests, failed) = totals(long.iter().chain(&short));
    story.claim(Claim::equal("kill -9: requests failed", failed, &format!("of {requests}"), 0.0));
    tell_errors(story, &long.iter().chain(&short).collect::<Vec<_>>());
    let rebound =
        bound_before.iter().filter(|(c, t)| bound_after.get(*c).is_some_and(|now| now != *t)).count();
    let kept = bound_before.iter().filter(|(c, t)| bound_after.get(*c) == Some(*t)).count();
    story.claim(Claim::equal("restart: recorded flows with another VM than before", rebound as f64, "", 0.0));
    story.claim(Claim::at_least("restart: recorded flows with the same VM", kept as f64, "", 60.0));
    let backwards =
        flows_before.iter().filter(|(vm, n)| flows_after.get(*vm).is_none_or(|now| now < n)).count();
    story.claim(Claim::equal("restart: counters that began anew", backwards as f64, "", 0.0));
    story.claim(Claim::equal(
        "restart: weight of vm1, set by hand before the kill",
        override_kept.into(),
        "",
        400.0,
    ));
    story.quote("lbx set weight web/vm1 --clear", &stage.lbx.cli(&["set", "weight", "web/vm1", "--clear"])?);
    Ok(())
}
