//! Formulas of the config: arithmetic over the names of the catalogue, parsed once, checked when the file is read.

mod calls;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use exmex::{BinOp, Express, FlatEx, MakeOperators, Operator};

use crate::config::problem::did_you_mean;
use crate::measure::catalogue::METRICS;

/// What the VM itself has left, 0 to 1.
pub const VM: &str = "vm";
/// Its share of what the host has left, 0 to 1.
pub const HOST: &str = "host";
/// What availability is unless a formula is given.
pub const DEFAULT: &str = "min(vm, host)";

/// Longest formula; what is longer is no formula any more, and every reading of it costs.
const LONGEST: usize = 1000;

fn bin(apply: fn(f64, f64) -> f64, prio: i64, is_commutative: bool) -> BinOp<f64> {
    BinOp { apply, prio, is_commutative }
}

/// What can stand between values. Nothing but these: no constants that would hide a name, no functions without a use.
#[derive(Clone, Debug)]
pub struct Operators;

impl MakeOperators<f64> for Operators {
    fn make<'a>() -> Vec<Operator<'a, f64>> {
        vec![
            Operator::make_bin("<", bin(|a, b| f64::from(u8::from(a < b)), 0, false)),
            Operator::make_bin(">", bin(|a, b| f64::from(u8::from(a > b)), 0, false)),
            Operator::make_bin("+", bin(|a, b| a + b, 1, true)),
            Operator::make_bin_unary("-", bin(|a, b| a - b, 1, false), |a| -a),
            Operator::make_bin("*", bin(|a, b| a * b, 2, true)),
            Operator::make_bin("/", bin(|a, b| a / b, 2, false)),
            Operator::make_bin("^", bin(f64::powf, 3, false)),
            Operator::make_bin("min", bin(f64::min, 4, true)),
            Operator::make_bin("max", bin(f64::max, 4, true)),
        ]
    }
}

/// A formula that can be worked out.
#[derive(Clone)]
pub struct Formula {
    text: String,
    /// Shared: the parser keeps room for many values in place.
    expression: Arc<FlatEx<f64, Operators>>,
}

/// What is wrong with a formula.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// In words.
    pub message: String,
    /// What to write instead, where that can be said.
    pub hint: Option<String>,
    /// Where in the text, in bytes; all of it if that is not known.
    pub at: Range<usize>,
}

/// Why a formula has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoValue {
    /// These readings are missing or too old.
    Missing(Vec<String>),
    /// The result is no number, such as a division by zero.
    NotFinite,
}

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(names) => write!(f, "no reading of {}", names.join(", ")),
            Self::NotFinite => f.write_str("the result is no number"),
        }
    }
}

impl Formula {
    /// Reads a formula.
    ///
    /// # Errors
    /// It is no formula, or names what is not measured.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let all = 0..text.len();
        if text.len() > LONGEST {
            let message = format!("the formula has {} characters, more than {LONGEST}", text.len());
            return Err(Wrong { message, hint: None, at: all });
        }
        let no_formula = |reason: &str| {
            let hint = "numbers, names of metrics, + - * / ^ < > ( ), min(a, b, ..), max(a, b, ..)";
            let message = format!("not a formula: {reason}");
            Wrong { message, hint: Some(hint.to_owned()), at: all.clone() }
        };
        let written = calls::infix(text).map_err(no_formula)?;
        let expression = FlatEx::<f64, Operators>::parse(&written)
            .map_err(|error| no_formula(error.msg().lines().next().unwrap_or("it is empty").trim()))?;
        let unknown = expression.var_names().iter().find(|name| !known().any(|known| known == *name));
        if let Some(name) = unknown {
            let hint = did_you_mean(name, known()).map_or_else(
                || format!("known: {}", known().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let at = words(text).find(|(word, _)| word == name).map_or(0..text.len(), |(_, at)| at);
            return Err(Wrong { message: format!("`{name}` is not measured"), hint: Some(hint), at });
        }
        Ok(Self { text: text.to_owned(), expression: Arc::new(expression) })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names in it, sorted.
    pub fn names(&self) -> &[String] {
        self.expression.var_names()
    }

    /// Its value.
    ///
    /// # Errors
    /// A reading is missing, or the result is no number.
    pub fn value(&self, of: impl Fn(&str) -> Option<f64>) -> Result<f64, NoValue> {
        let (mut values, mut missing) = (Vec::with_capacity(self.names().len()), Vec::new());
        for name in self.names() {
            match of(name) {
                Some(value) => values.push(value),
                None => missing.push(name.clone()),
            }
        }
        if !missing.is_empty() {
            return Err(NoValue::Missing(missing));
        }
        let value = self.expression.eval(&values).ok().filter(|value| value.is_finite());
        value.ok_or(NoValue::NotFinite)
    }

    /// With values in the place of names: `min(0.42, 0.1)`.
    pub fn arithmetic(&self, of: impl Fn(&str) -> Option<f64>) -> String {
        let (mut out, mut from) = (String::new(), 0);
        for (word, at) in words(&self.text) {
            if !self.names().iter().any(|name| name == word) {
                continue;
            }
            out.push_str(&self.text[from..at.start]);
            out.push_str(&of(word).map_or("?".to_owned(), short));
            from = at.end;
        }
        out.push_str(&self.text[from..]);
        out
    }
}

/// A number as people read it: `0.42`, `1200`.
pub fn short(value: f64) -> String {
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Every name a formula can have.
pub fn known() -> impl Iterator<Item = &'static str> {
    [VM, HOST].into_iter().chain(METRICS.iter().map(|metric| metric.name))
}

/// The words of a text, and where they are.
fn words(text: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text[rest..].find(|c: char| c.is_alphanumeric() || c == '_')?;
        let len =
            text[start..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len() - start);
        rest = start + len;
        Some((&text[start..rest], start..rest))
    })
}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Formula({})", self.text)
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Formula {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Formula {}

impl serde::Serialize for Formula {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<f64> {
        match name {
            "vm" => Some(0.42),
            "host" => Some(0.1),
            "open_flows" => Some(300.0),
            "vm_cpu" => Some(0.5),
            _ => None,
        }
    }

    fn value(text: &str) -> f64 {
        Formula::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}")).value(of).unwrap()
    }

    #[test]
    fn values() {
        for (text, expected) in [
            (DEFAULT, 0.1),
            ("max(vm, host)", 0.42),
            ("min(vm, min(host, 0.05))", 0.05),
            ("max(min(vm, 0.3, host), (0.05), vm * (1 - host)) * 2", 0.756),
            ("1 / 2", 0.5),
            ("1 - vm_cpu", 0.5),
            ("-1 + 2 * 3 - 8 / 2 ^ 2", 3.0),
            ("vm * (open_flows < 1000)", 0.42),
            ("vm * (open_flows > 1000)", 0.0),
            ("min(vm, host) + 1", 1.1),
            ("min(1 - vm_cpu, 1 - open_flows / 1000)", 0.5),
        ] {
            assert!((value(text) - expected).abs() < 1e-12, "{text}: {}", value(text));
        }
    }

    #[test]
    fn arithmetic_has_values_in_the_place_of_names() {
        let formula = Formula::parse("min( vm , host) * (open_flows < 1000)").unwrap();
        assert_eq!(formula.arithmetic(of), "min( 0.42 , 0.1) * (300 < 1000)");
        assert_eq!(Formula::parse("vm + vm_steal").unwrap().arithmetic(of), "0.42 + ?");
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        let wrong = Formula::parse("min(vm, hots)").unwrap_err();
        assert_eq!((wrong.at, wrong.hint.as_deref()), (8..12, Some("did you mean `host`?")));
        let wrong = Formula::parse("vm_cp * 2").unwrap_err();
        assert_eq!((wrong.at, wrong.hint.as_deref()), (0..5, Some("did you mean `vm_cpu`?")));
        assert!(Formula::parse("frobnication").unwrap_err().hint.unwrap().contains("vm_steal"));
        // Names of the usual constants and functions are none here.
        for text in
            ["e + 1", "PI", "sin(vm)", "", "1 +", "min(vm", "vm host", "min(vm)", "min", "vm, host", "1 ** 2"]
        {
            assert!(Formula::parse(text).is_err(), "{text}");
        }
        let nested = format!("{}vm{}", "(".repeat(499), ")".repeat(499));
        assert!(Formula::parse(&nested).is_ok());
        assert!(Formula::parse(&"1+".repeat(600)).unwrap_err().message.contains("1200"));
    }

    #[test]
    fn without_a_reading_there_is_no_value() {
        let formula = Formula::parse("vm + vm_steal * response").unwrap();
        assert_eq!(formula.value(of), Err(NoValue::Missing(vec!["response".into(), "vm_steal".into()])));
        let divided = Formula::parse("1 / (vm_cpu - 0.5)").unwrap();
        assert_eq!(divided.value(of), Err(NoValue::NotFinite));
    }

    #[test]
    fn every_metric_is_a_name() {
        for name in known() {
            assert_eq!(Formula::parse(name).unwrap().names(), [name]);
        }
    }
}
