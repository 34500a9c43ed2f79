//! The end: a VM goes to another host under traffic, live, and comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lbx_common::target::State;

use super::shares::totals;
use super::{staying, tell_errors, trickle};
use crate::demo::claims::Claim;
use crate::demo::stage::{self, Stage, WEB, growth};
use crate::demo::story::Story;
use crate::lab::client::load::{Report, Running};
use crate::lab::client::shares;
use crate::lab::migrate::{Options, Outcome};
use crate::lab::{Lbx, Timeline};
use crate::scenario::peers::{certificates, name, top};
use crate::scenario::states::{Seen, Watch, in_order, state};

/// Who migrates.
const VM: &str = "vm2";
/// Connections of each family that are open all the time.
const OPEN: usize = 20;
/// How long its share takes to grow back.
const GROWS: &str = "2s";
/// New connections that its share is judged by.
const ENOUGH: u64 = 600;
/// Far more than anything takes, for machines that have other things to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// There and back.
pub fn migrate(story: &mut Story, stage: &mut Stage) -> Result<()> {
    story.part("A VM moves to another host, live, and back");
    story.say(&format!(
        "The second host gets lbx too, and the two know each other: TLS both ways, with certificates that \
         `lbx peers init` makes. Each has a monitor socket of its own at every VM's QEMU. {OPEN} connections of each \
         family stay open with a request every 100 ms, and new ones keep coming, all to the first host. Then {VM} \
         is migrated. Nobody tells lbx more than that it is about to happen.",
    ));
    let beside = introduce(story, stage)?;
    let client = stage.client().clone();
    let long = Stage::web().map(|at| staying(stage, at, OPEN, 100_000).start(&client));
    let short = Stage::web().map(|at| trickle(stage, at).start(&client));
    let open = || long.iter().map(|one| one.so_far().total_connections()).sum::<u64>();
    wait("connections open", || Ok(open() >= 2 * OPEN as u64))?;
    let target = format!("{WEB}/{VM}");

    let watch = Watch::start(&stage.lbx, &target)?;
    let announced = ["migration", "announce", VM, "--to", &name(1)];
    story.quote(&format!("lbx {}", announced.join(" ")), &stage.lbx.cli(&announced)?);
    let there = go(stage, 1)?;
    wait("moved", || Ok(state(&stage.lbx, &target)? == State::Moved))?;
    wait("done", || Ok(is_done(&stage.lbx)? && is_done(&beside)?))?;
    let before = answered(&long);
    std::thread::sleep(Duration::from_secs(1));
    let followed = answered(&long) - before;
    let left = watch.stop()?;
    let broken = left.iter().filter(|one| one.state == State::Down).count();
    steps(story, &stage.lbx, &left, &there)?;
    story.say(&format!(
        "It runs on {} now, and the connections it had go there: {followed} requests on them in the next second. New \
         ones go to the other two. Then it comes back:",
        name(1)
    ));

    let watch = Watch::start(&stage.lbx, &target)?;
    let announced = ["migration", "announce", VM, "--to", &name(0)];
    story.quote(&format!("lbx {}    (on {})", announced.join(" "), name(1)), &beside.cli(&announced)?);
    let back = go(stage, 0)?;
    wait("active again", || Ok(state(&stage.lbx, &target)? == State::Active))?;
    let since = Instant::now();
    let share = share_back(stage)?;
    let back_after = since.elapsed();
    let came = watch.stop()?;
    steps(story, &stage.lbx, &came, &back)?;
    story.quote("lbx migrations", &stage.lbx.cli(&["migrations"])?);
    story.say(&format!(
        "Its share grows back over {GROWS}: {:.1} s after it ran again it had {share:.0} % of the new connections.",
        back_after.as_secs_f64()
    ));
    let long = long.into_iter().map(Running::stop).collect::<Result<Vec<_>>>()?;
    let short = short.into_iter().map(Running::stop).collect::<Result<Vec<_>>>()?;

    let states = in_order(&left, &[State::Active, State::Draining, State::Blackholed, State::Moved]);
    story.claim(Claim::equal("migration: states as it leaves, in their order", states as f64, "of 4", 4.0));
    let states = in_order(&came, &[State::Moved, State::Active]);
    story.claim(Claim::equal(
        "migration: states as it comes back, in their order",
        states as f64,
        "of 2",
        2.0,
    ));
    let given = "migration: times that its flows were given to others";
    story.claim(Claim::equal(given, broken as f64, "", 0.0));
    story.claim(Claim::at_least("migration: requests answered from its new host", followed as f64, "", 1.0));
    let open: u64 = long.iter().map(Report::total_connections).sum();
    story.claim(Claim::equal("migration: connections open through both", open as f64, "", 2.0 * OPEN as f64));
    let moved: u64 = long.iter().map(|r| r.moved).sum();
    story.claim(Claim::equal("migration: connections moved to another VM", moved as f64, "", 0.0));
    let (requests, failed) = totals(long.iter().chain(&short));
    story.claim(Claim::equal("migration: requests failed", failed, &format!("of {requests}"), 0.0));
    story.claim(Claim::at_least(&format!("migration: {VM}'s share of new connections"), share, "%", 25.0));
    tell_errors(story, &long.iter().chain(&short).collect::<Vec<_>>());
    Ok(())
}

/// Makes certificates, tells the daemon of the first host of the second, and starts one there.
fn introduce(story: &Story, stage: &Stage) -> Result<Lbx> {
    let dir = stage.lab.record.dir().join("peers");
    let file = |host: usize| {
        // The sockets of a VM's QEMU lie where the host is that it runs on.
        let place = if host == 0 { "{vm}".to_owned() } else { format!("{{vm}}-on{host}") };
        let qmp = stage.lab.record.dir().join(format!("{place}.qmp2"));
        let more =
            top(&stage.lab, host, &name(host), &dir) + &format!("[migration]\nslow_start = \"{GROWS}\"\n");
        stage::config_with(&stage.lab, &format!("qmp = \"{}\"", qmp.display()), &more)
    };
    certificates(&stage.lbx, &dir, &[&name(0), &name(1)])?;
    stage.lbx.write_config(&file(0))?;
    story.quote("lbx reload", &stage.lbx.cli(&["reload"])?);
    let beside = Lbx::start(&stage.lab, 1, &file(1))?;
    wait("peers", || {
        let peers = stage.lbx.json(&["peers"])?;
        Ok(peers["peers"][0]["state"] == "up")
    })?;
    story.quote("lbx peers", &stage.lbx.cli(&["peers"])?);
    Ok(beside)
}

/// Migrates it to a host, as whoever does that would: by its QEMU's monitor.
fn go(stage: &mut Stage, host: usize) -> Result<Timeline> {
    let mut migration = stage.lab.prepare_migration(VM, host, Options::default())?;
    migration.start()?;
    match migration.wait(PATIENCE)? {
        Outcome::Completed => Ok(migration.finish(&mut stage.lab)?.0),
        other => bail!("the migration to host {host}: {other:?}"),
    }
}

/// Whether the last migration is over.
fn is_done(lbx: &Lbx) -> Result<bool> {
    let all = lbx.json(&["migrations"])?;
    let last = all["migrations"].as_array().and_then(|all| all.last()).context("no migration")?;
    Ok(last["phase"] == "done")
}

/// What lbx heard of the last migration, and what the kernel did with packets meanwhile.
fn steps(story: &Story, lbx: &Lbx, seen: &[Seen], times: &Timeline) -> Result<()> {
    let all = lbx.json(&["migrations"])?;
    let last = all["migrations"].as_array().and_then(|all| all.last()).context("no migration")?;
    let events = last["events"].as_array().context("a migration without events")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = vec![["after", "what lbx heard", "from"].map(String::from).to_vec()];
    for event in events.iter().filter(|event| event["heard"] == "news") {
        let place = event["place"].as_str().map_or(String::new(), |place| format!(" {place}"));
        let after = format!("{:.0} ms", event["after_ms"].as_f64().unwrap_or(0.0));
        rows.push(vec![after, text(&event["event"]) + &place, text(&event["source"])]);
    }
    story.table(&rows);
    let since = |at: u64| at.saturating_sub(times.begun) as f64 / 1000.0;
    let states = seen.iter().map(|one| match one.state {
        State::Active if one.at < times.begun => "active".to_owned(),
        _ if one.at < times.begun => format!("{} before it begins", one.state.name()),
        state => format!("{} at {:.0} ms", state.name(), since(one.at)),
    });
    story.say(&format!(
        "{WEB}/{VM} in the kernel's map: {}. QEMU's own times: stopped at {:.0} ms, running again at {:.0} ms, a pause \
         of {:.0} ms.",
        states.collect::<Vec<_>>().join(", "),
        since(times.stopped),
        since(times.resumed),
        times.pause().as_secs_f64() * 1000.0
    ));
    Ok(())
}

/// Requests it has answered on connections that stay.
fn answered(long: &[Running; 2]) -> u64 {
    long.iter().filter_map(|one| one.so_far().requests.get(VM).copied()).sum()
}

/// Its share of new connections, per cent, once it is what it was; or when nobody waits any longer.
fn share_back(stage: &Stage) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = stage.flows(WEB)?;
        let mut new = growth(&before, &before);
        while new.values().sum::<u64>() < ENOUGH && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            new = growth(&before, &stage.flows(WEB)?);
        }
        let share = shares(&new).get(VM).copied().unwrap_or(0.0) * 100.0;
        // A third by its weight, less what chance takes from 600.
        if share > 28.0 || Instant::now() > deadline {
            return Ok(share);
        }
    }
}

fn wait(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("not within {PATIENCE:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
