//! `[weights]`: how weights follow what is measured, and the formula of availability.

use std::ops::RangeInclusive;
use std::time::Duration;

use lbx_common::controller::Settings;
use serde::Serialize;

use super::build::duration;
use super::raw::Table;
use crate::availability::{Formula, formula};

/// `service.weights`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighing {
    /// As configured.
    #[default]
    Static,
    /// They follow what is measured.
    Adaptive,
}

/// `[weights]`, for all services that are adaptive. Shares are in per cent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// Availability of a VM unless the service says otherwise.
    pub availability: Formula,
    /// Time from one look at the queues to the next.
    pub interval: Duration,
    /// Smoothing of response times.
    pub fast: Duration,
    /// Time constant of following availability.
    pub slow: Duration,
    /// Largest change of a weight in a second.
    pub step: u32,
    /// Changes below this are not written.
    pub dead_band: u32,
    /// What measuring leaves of a configured weight at least.
    pub floor: u32,
    /// How long a target takes to its share after it came back.
    pub slow_start: Duration,
    /// A reading older than this is none.
    pub stale_after: Duration,
    /// Time constant of the way back to the configured weight.
    pub decay: Duration,
}

impl Default for Weights {
    fn default() -> Self {
        let settings = Settings::default();
        let (seconds, percent) = (Duration::from_secs_f64, |share: f64| (share * 100.0).round() as u32);
        Self {
            availability: Formula::parse(formula::DEFAULT).expect("the default is a formula"),
            interval: Duration::from_millis(10),
            fast: seconds(settings.fast),
            slow: seconds(settings.slow),
            step: percent(settings.step),
            dead_band: percent(settings.dead_band),
            floor: percent(settings.floor),
            slow_start: seconds(settings.slow_start),
            stale_after: seconds(settings.stale_after),
            decay: seconds(settings.decay),
        }
    }
}

impl Weights {
    /// As the controller wants them.
    pub fn settings(&self) -> Settings {
        let share = |percent: u32| f64::from(percent) / 100.0;
        Settings {
            fast: self.fast.as_secs_f64(),
            slow: self.slow.as_secs_f64(),
            step: share(self.step),
            dead_band: share(self.dead_band),
            floor: share(self.floor),
            slow_start: self.slow_start.as_secs_f64(),
            stale_after: self.stale_after.as_secs_f64(),
            decay: self.decay.as_secs_f64(),
        }
    }
}

/// Reads `[weights]`. `load` is the time from one look at the load to the next.
pub(super) fn weights(table: &Table<'_, '_>, load: Duration) -> Weights {
    let mut weights = Weights::default();
    if let Some(formula) = availability(table) {
        weights.availability = formula;
    }
    let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
    let fields: [(&str, &mut Duration, RangeInclusive<Duration>); 6] = [
        ("interval", &mut weights.interval, ms(1)..=seconds(1)),
        ("fast", &mut weights.fast, ms(10)..=seconds(60)),
        ("slow", &mut weights.slow, ms(100)..=seconds(600)),
        ("slow_start", &mut weights.slow_start, Duration::ZERO..=seconds(3600)),
        ("stale_after", &mut weights.stale_after, ms(100)..=seconds(3600)),
        ("decay", &mut weights.decay, ms(100)..=seconds(3600)),
    ];
    for (key, field, range) in fields {
        if let Some(value) = duration(table, key, &range) {
            *field = value;
        }
    }
    let fields = [
        ("step", &mut weights.step, 1..=1000),
        ("dead_band", &mut weights.dead_band, 0..=50),
        ("floor", &mut weights.floor, 1..=100),
    ];
    for (key, field, range) in fields {
        if let Some(percent) = table.integer(key, range) {
            *field = percent.value as u32;
        }
    }
    table.finish();
    if weights.stale_after < 2 * load {
        let hint = "at least twice `measure.load`, or make that shorter";
        table.warn("stale_after", "readings of the load will often be stale", Some(hint.to_owned()));
    }
    weights
}

/// The key `availability`, here and in a service.
pub(super) fn availability(table: &Table<'_, '_>) -> Option<Formula> {
    let text = table.string("availability")?;
    match Formula::parse(&text.value) {
        Ok(formula) => Some(formula),
        Err(wrong) => {
            // A plain string on one line: the place inside it is known. Else the string's beginning has to do.
            let plain = text.span.len() == text.value.len() + 2;
            let mut span = text.span.clone();
            if plain {
                span.start += 1 + wrong.at.start;
            }
            table.report().error(&span, &table.key("availability"), wrong.message, wrong.hint);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Severity};

    const REST: &str = "\n[[switch]]\nname = \"br0\"\n[[service]]\nname = \"web\"\nswitch = \"br0\"\n\
                        vip = \"192.0.2.10\"\nprotocol = \"tcp\"\nport = 80\n";
    const TARGET: &str = "[[service.target]]\nvm = \"a\"\n";

    fn read(text: &str) -> Config {
        Config::parse("f", text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn unless_said_otherwise_weights_are_static() {
        let config = read(&format!("{REST}{TARGET}"));
        assert_eq!(config.weights, Weights::default());
        assert_eq!(config.weights.settings(), Settings::default());
        assert_eq!((config.services[0].weights, &config.services[0].availability), (Weighing::Static, &None));
    }

    #[test]
    fn everything_can_be_said() {
        let text = format!(
            "[weights]\navailability = \"vm\"\ninterval = \"5ms\"\nfast = \"1s\"\nslow = \"4s\"\nstep = 20\n\
             dead_band = 1\nfloor = 10\nslow_start = \"0s\"\nstale_after = \"3s\"\ndecay = \"20s\"\n{REST}\
             weights = \"adaptive\"\navailability = \"1 - open_flows / 500\"\n{TARGET}"
        );
        let config = read(&text);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert_eq!((config.weights.availability.text(), config.weights.interval.as_millis()), ("vm", 5));
        let settings = config.weights.settings();
        assert!((settings.step - 0.2).abs() < 1e-9 && settings.slow_start < 1e-9);
        assert_eq!(config.services[0].weights, Weighing::Adaptive);
        assert_eq!(config.services[0].availability.as_ref().unwrap().names(), ["open_flows"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, line, column, says) in [
            ("[weights]\navailability = \"min(vm, hots)\"", 2, 25, "did you mean `host`?"),
            ("[weights]\navailability = \"min(vm\"", 2, 17, "not a formula"),
            ("[weights]\nfloor = 0", 2, 9, "outside 1 to 100"),
            ("[weights]\nslow_strat = \"1s\"", 2, 1, "`slow_start`"),
            ("[weights]\nfast = \"1h\"", 2, 8, "outside 10ms to 1m"),
        ] {
            let problems = Config::parse("f", &format!("{text}\n{REST}{TARGET}")).unwrap_err().0;
            let errors: Vec<_> = problems.iter().filter(|one| one.severity == Severity::Error).collect();
            assert_eq!((errors.len(), errors[0].line, errors[0].column), (1, line, column), "{errors:?}");
            assert!(errors[0].to_string().contains(says), "{}", errors[0]);
        }
        let problems = Config::parse("f", &format!("{REST}weights = \"adaptiv\"\n{TARGET}")).unwrap_err().0;
        assert!(problems[0].to_string().contains("did you mean \"adaptive\"?"), "{}", problems[0]);
        let problems =
            Config::parse("f", &format!("{REST}availability = \"vm_cpuu\"\n{TARGET}")).unwrap_err().0;
        assert_eq!((problems[0].line, problems[0].key.as_str()), (10, "service[web].availability"));
    }

    #[test]
    fn what_looks_wrong_is_warned_about() {
        let warnings = |text: &str| read(text).warnings.into_iter().map(|one| one.key).collect::<Vec<_>>();
        assert_eq!(
            warnings(&format!("[weights]\nstale_after = \"1s\"\n{REST}{TARGET}")),
            ["weights.stale_after"]
        );
        assert_eq!(
            warnings(&format!("{REST}availability = \"vm\"\n{TARGET}")),
            ["service[web].availability"]
        );
    }
}
