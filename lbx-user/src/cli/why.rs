//! `lbx why`.

use super::Done;
use super::args::{Why as Options, WhyFlow as FlowWords, WhyWhat};
use super::output;
use super::session::Session;
use crate::api::model::{Step, WhyFlow, WhyFlowQuery, WhyWeight, WhyWeightQuery};

pub(super) fn why(session: &Session, options: &Options) -> Done {
    match &options.what {
        WhyWhat::Flow(words) => flow(session, words),
        WhyWhat::Weight(words) => {
            let query = WhyWeightQuery { target: words.target.clone() };
            let answer: WhyWeight =
                session.look("/v1/why/weight", &query, |view| view.why_weight(&words.target))?;
            output::show(session, &answer, weight)
        }
    }
}

fn flow(session: &Session, words: &FlowWords) -> Done {
    let query = WhyFlowQuery {
        protocol: words.protocol.name().to_owned(),
        client: words.client,
        vip: words.vip,
        vlan: words.vlan,
        switch: words.switch.clone(),
    };
    let answer: WhyFlow = session.look("/v1/why/flow", &query, |view| view.why_flow(&query))?;
    output::show(session, &answer, |answer| {
        let verdict = match (&answer.target, &answer.reason) {
            (Some(target), None) => format!("{} to {target}", answer.verdict),
            (_, Some(reason)) => format!("{} ({reason})", answer.verdict),
            _ => answer.verdict.clone(),
        };
        let how = match (answer.recorded, answer.target.is_some()) {
            (true, _) => " [recorded]",
            (false, true) => " [predicted]",
            _ => "",
        };
        let head = format!("{} {} -> {}: {verdict}{how}", words.protocol.name(), answer.client, answer.vip);
        format!("{head}\n{}", steps(&answer.steps))
    })
}

fn weight(answer: &WhyWeight) -> String {
    let mut lines = vec![format!("{}: {}", answer.target, output::percent(answer.share))];
    for wish in &answer.wishes {
        let why = wish.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        lines.push(format!("  {} wishes it {}{why}", wish.owner, wish.state));
    }
    if answer.overridden {
        lines.push("  the weight is overridden; `lbx set weight TARGET --clear` ends that".to_owned());
    }
    lines.push(steps(&answer.steps));
    if let Some(repair) = &answer.repair {
        lines.push(format!(
            "  the table's last change moved {} slots ({} had to move) in {} µs",
            repair.moved, repair.necessary, repair.micros
        ));
    }
    lines.join("\n")
}

/// A line for each step; a long one goes on below itself.
fn steps(steps: &[Step]) -> String {
    let mut table = output::rows();
    for step in steps {
        table.add_row([format!("  {}", step.step), step.text.clone()]);
    }
    output::text(&table)
}
