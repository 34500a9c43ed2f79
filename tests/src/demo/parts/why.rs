//! What the kernel decided can be explained.

use std::time::Duration;

use anyhow::Result;

use crate::demo::claims::Claim;
use crate::demo::stage::{Stage, WEB};
use crate::demo::story::Story;
use crate::lab::client::http::Connection;

/// Explains one real connection of each family, and shows what was dropped.
pub fn explain(story: &mut Story, stage: &Stage) -> Result<()> {
    story.part("Why did this connection go there?");
    story.say(
        "One connection of each family is opened and lbx is asked about it, by its addresses and ports.",
    );
    let mut right = 0;
    for at in Stage::web() {
        let (open, vm) = stage.client().run(|| -> Result<_> {
            let mut open = Connection::open(at, None, Duration::from_secs(5))?;
            let vm = open.request("GET", "/", b"", None)?.vm;
            Ok((open, vm))
        })??;
        let (from, to) = (open.stream().local_addr()?.to_string(), at.to_string());
        let words = ["why", "flow", "tcp", &from, &to];
        story.say(&format!("{vm} answered {from}:"));
        story.quote(&format!("lbx {}", words.join(" ")), &stage.lbx.cli(&words)?);
        let why = stage.lbx.json(&words)?;
        let recorded = why["recorded"] == true;
        right += u32::from(recorded && why["target"].as_str() == Some(&format!("{WEB}/{vm}")));
    }
    let name = "connections whose VM lbx names correctly, from the record";
    story.claim(Claim::equal(name, right.into(), "of 2", 2.0));
    story.quote("lbx stats --drops", &stage.lbx.cli(&["stats", "--drops"])?);
    let stats = stage.lbx.json(&["stats"])?;
    let rows = stats["services"].as_array().cloned().unwrap_or_default();
    let sum = |key: &str| rows.iter().filter_map(|row| row[key].as_f64()).sum::<f64>();
    story.claim(Claim::equal("packets of the services dropped in the whole demo", sum("drops"), "", 0.0));
    story.claim(Claim::equal("flows that found no room in the flow table", sum("flows_unrecorded"), "", 0.0));
    Ok(())
}
