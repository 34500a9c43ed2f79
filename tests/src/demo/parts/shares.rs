//! Shares of new connections: by the weights of the config, by nat, by a weight changed live.

use std::time::Duration;

use anyhow::Result;

use super::{CONNECTIONS, fresh, judge, staying, sum, tell_errors};
use crate::demo::claims::Claim;
use crate::demo::stage::{API, Stage, WEB, growth};
use crate::demo::story::Story;
use crate::lab::client::http;
use crate::lab::client::load::Report;

/// Twelve thousand connections of each family by the weights of the config.
pub fn shares(story: &mut Story, stage: &Stage) -> Result<()> {
    story.part("New connections follow the weights 1:2:3");
    story.say(&format!(
        "An HTTP client opens {CONNECTIONS} connections to {} and as many to {}, one request on each. Every \
         answer names the VM that gave it; lbx's own map says how many flows it bound to each.",
        Stage::web()[0],
        Stage::web()[1]
    ));
    for (family, at) in ["IPv4", "IPv6"].into_iter().zip(Stage::web()) {
        let before = stage.flows(WEB)?;
        let report = fresh(stage, at, CONNECTIONS).run(stage.client())?;
        let flows = growth(&before, &stage.flows(WEB)?);
        story.say(&pace(family, &report));
        judge(story, &format!("{family} shares"), &stage.weights_in_force(WEB)?, &flows, &report.requests);
        let answered = report.total() as f64;
        story.claim(Claim::at_least(
            &format!("{family} requests answered"),
            answered,
            "",
            CONNECTIONS as f64,
        ));
        story.claim(Claim::equal(&format!("{family} requests failed"), report.failed as f64, "", 0.0));
        tell_errors(story, &[&report]);
    }
    Ok(())
}

/// The translated service: what the VM sees, and that it can still be reached directly.
pub fn translate(story: &mut Story, stage: &Stage) -> Result<()> {
    story.part("The same by address translation");
    story.say(
        "The service `api` listens on port 8080 of an address that no VM holds. lbx rewrites address and port on the \
         way in and back again on the way out; the VM still sees who the client is.",
    );
    let mut reports = Vec::new();
    for at in Stage::api() {
        let answer = stage.client().run(|| http::request(at, "GET", "/", b""))??;
        story.say(&format!("GET http://{at}/ -> {}", answer.text().trim()));
        reports.push(fresh(stage, at, 1_000).run(stage.client())?);
    }
    let flows = stage.flows(API)?;
    let of: Vec<_> = flows.iter().map(|(vm, n)| format!("{vm} {n}")).collect();
    story.say(&format!("2000 connections, bound by lbx to {}.", of.join(", ")));
    let (answered, failed) = totals(&reports);
    story.claim(Claim::equal("requests answered through nat, both families", answered, "", 2_000.0));
    story.claim(Claim::equal("requests failed through nat", failed, "", 0.0));
    tell_errors(story, &reports.iter().collect::<Vec<_>>());
    let mut direct = 0;
    for vm in &stage.lab.vms {
        let at = vm.http(crate::lab::vm::Family::V4);
        let answer = stage.client().run(|| http::request(at, "GET", "/", b""))??;
        direct += u32::from(answer.vm == vm.spec.name);
    }
    story.claim(Claim::equal("VMs still reached at their own address and port", direct.into(), "of 3", 3.0));
    Ok(())
}

/// A weight changed while connections are open.
pub fn reweigh(story: &mut Story, stage: &Stage) -> Result<()> {
    story.part("A weight changes while connections are open");
    story.say(
        "60 connections of each family stay open, with a request every 100 ms. vm1 goes from weight 100 to 400. \
         A connection that exists keeps its VM; new ones follow the new weights, 4:2:3.",
    );
    let client = stage.client();
    // More requests than there will be time for: these connections end when they are told to.
    let long = Stage::web().map(|at| staying(stage, at, 60, 100_000).start(client));
    std::thread::sleep(Duration::from_secs(1));
    story.quote("lbx set weight web/vm1 400", &stage.lbx.cli(&["set", "weight", "web/vm1", "400"])?);
    let before = stage.flows(WEB)?;
    let fresh = Stage::web().map(|at| fresh(stage, at, CONNECTIONS / 2).run(client));
    let fresh = fresh.into_iter().collect::<Result<Vec<_>>>()?;
    let flows = growth(&before, &stage.flows(WEB)?);
    let long = long.into_iter().map(|l| l.stop()).collect::<Result<Vec<_>>>()?;
    let answers = sum(fresh.iter().map(|r| &r.requests));
    judge(story, "weight change: new shares", &stage.weights_in_force(WEB)?, &flows, &answers);
    let open: u64 = long.iter().map(Report::total_connections).sum();
    let moved: u64 = long.iter().map(|r| r.moved).sum();
    let (requests, failed) = totals(long.iter().chain(&fresh));
    story.claim(Claim::equal("weight change: connections open meanwhile", open as f64, "", 120.0));
    story.claim(Claim::equal("weight change: connections moved to another VM", moved as f64, "", 0.0));
    story.claim(Claim::equal("weight change: requests failed", failed, &format!("of {requests}"), 0.0));
    tell_errors(story, &long.iter().chain(&fresh).collect::<Vec<_>>());
    Ok(())
}

/// Requests answered, and failed.
pub(super) fn totals<'a, R: IntoIterator<Item = &'a Report>>(reports: R) -> (f64, f64) {
    let add = |(answered, failed), r: &Report| (answered + r.total() as f64, failed + r.failed as f64);
    reports.into_iter().fold((0.0, 0.0), add)
}

fn pace(family: &str, report: &Report) -> String {
    let seconds = report.took.as_secs_f64();
    format!(
        "{family}: {} connections in {seconds:.1} s ({:.0}/s), median {:.1} ms:",
        report.total_connections(),
        report.total_connections() as f64 / seconds,
        f64::from(report.quantile_us(0.5)) / 1000.0
    )
}
