//! What a sampler took, on its way onto the board.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::board::{Reading, Shared};
use super::catalogue;

/// One value, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// A name of the catalogue.
    pub metric: &'static str,
    /// The value; nothing yet, as rates need a second look; or what was in the way.
    pub value: Result<Option<f64>, String>,
    /// Where it comes from.
    pub source: &'static str,
}

impl Taken {
    /// A value or the reason for none.
    pub fn new<E: Display>(
        metric: &'static str,
        source: &'static str,
        value: Result<Option<f64>, E>,
    ) -> Self {
        Self { metric, value: value.map_err(|error| format!("{source}: {error}")), source }
    }

    /// Nothing, for a reason that is said as it is.
    pub fn missing(metric: &'static str, source: &'static str, why: impl Into<String>) -> Self {
        Self { metric, value: Err(why.into()), source }
    }
}

/// Writes what was taken at one time about one thing.
pub fn write(board: &Shared, name: &str, taken: Vec<Taken>, at: Instant, cost: Duration) {
    let mut board = board.lock();
    for one in taken {
        let Some(metric) = catalogue::find(one.metric) else {
            debug_assert!(false, "{} is not in the catalogue", one.metric);
            continue;
        };
        match one.value {
            Ok(Some(value)) => board.put(metric, name, Reading { value, at, source: one.source, cost }),
            Ok(None) => {}
            Err(why) => board.miss(metric, name, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::find;
    use super::*;

    #[test]
    fn values_and_reasons_reach_the_board() {
        let (board, at) = (Shared::default(), Instant::now());
        let taken = vec![
            Taken::new::<String>("vm_cpu", "schedstat", Ok(Some(0.5))),
            Taken::new::<String>("vm_disk", "io", Ok(None)),
            Taken::new("vm_net", "net/dev", Err("no such file")),
        ];
        write(&board, "web-1", taken, at, Duration::from_micros(7));
        let board = board.lock();
        let cpu = board.get(find("vm_cpu").unwrap(), "web-1").unwrap();
        assert_eq!((cpu.value, cpu.at, cpu.source, cpu.cost.as_micros()), (0.5, at, "schedstat", 7));
        assert_eq!(board.get(find("vm_disk").unwrap(), "web-1"), None);
        let net = find("vm_net").unwrap();
        assert_eq!(board.why_missing(net, "web-1"), Some("net/dev: no such file"));
    }
}
