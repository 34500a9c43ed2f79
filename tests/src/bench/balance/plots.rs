//! The two kinds of plots.

use std::time::Duration;

use super::Times;
use super::plot::{Axis, Plot, Series};
use super::watch::Weighed;

/// Milliseconds by second; none where requests were not answered.
type Latencies = Vec<(f64, Option<f64>)>;

/// Latencies over time, one line an arm; where requests were not answered a line ends at the top.
pub fn latency(title: &str, arms: &[(&str, Latencies)], times: Times) -> Plot {
    let most = times.limit.as_secs_f64() * 1000.0;
    let series = arms.iter().map(|(name, points)| Series {
        name: (*name).to_owned(),
        points: points.iter().map(|(at, ms)| (*at, ms.unwrap_or(most))).collect(),
    });
    let all = times.warm + times.count;
    Plot {
        title: title.to_owned(),
        x: Axis { label: "seconds".into(), from: 0.0, to: all.as_secs_f64(), logarithmic: false },
        y: Axis { label: "ms".into(), from: 10.0, to: most, logarithmic: true },
        series: series.collect(),
        mark: Some((times.warm.as_secs_f64(), "counts from here".into())),
    }
}

/// Weights over time, one line a guest.
pub fn weights(title: &str, weighed: &[Weighed], all: Duration) -> Plot {
    let guests = weighed.first().map_or(0, |one| one.factors.len());
    let series: Vec<Series> = (0..guests)
        .map(|n| Series {
            name: format!("vm{} ({:.0}/s)", n + 1, super::capacity(n)),
            points: weighed.iter().map(|one| (one.at.as_secs_f64(), one.factors[n])).collect(),
        })
        .collect();
    let highest = series.iter().flat_map(|one| &one.points).map(|(_, y)| *y).fold(1.0, f64::max);
    Plot {
        title: title.to_owned(),
        x: Axis { label: "seconds".into(), from: 0.0, to: all.as_secs_f64(), logarithmic: false },
        y: Axis {
            label: "of the configured weight".into(),
            from: 0.0,
            to: highest * 1.1,
            logarithmic: false,
        },
        series,
        mark: None,
    }
}
