//! What the test harness of Rust says about a run.

use std::fmt;
use std::ops::AddAssign;

/// Counts of a run, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed; a binary that crashed or ran out of time counts as one.
    pub failed: u64,
    /// Tests that the source excludes.
    pub ignored: u64,
    /// How many result lines were found.
    pub results: u64,
    /// The names of the tests that failed.
    pub failures: Vec<String>,
    /// What they printed, a text for each run.
    pub reports: Vec<String>,
}

impl Summary {
    /// Adds up every line like `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, and takes the names of
    /// failed tests from the list at the end.
    pub fn parse(output: &str) -> Self {
        let mut sum = Self::default();
        for counts in output.lines().filter_map(|line| line.trim_start().strip_prefix("test result: ")) {
            let count = |what: &str| {
                let part = counts.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
                part.and_then(|number| number.trim().parse::<u64>().ok())
            };
            if let (Some(passed), Some(failed)) = (count("passed"), count("failed")) {
                let ignored = count("ignored").unwrap_or(0);
                sum += Self { passed, failed, ignored, results: 1, ..Self::default() };
            }
        }
        // The harness repeats the names below `failures:`, indented; a test that prints may tear its own line.
        let mut listed = false;
        for line in output.lines() {
            match line.strip_prefix("    ") {
                _ if line == "failures:" => listed = true,
                Some(name) if listed && !name.contains(' ') => sum.failures.push(name.to_owned()),
                None if !line.is_empty() => listed = false,
                _ => {}
            }
        }
        sum.failures.sort();
        sum.failures.dedup();
        sum.reports.extend(report(output));
        sum
    }

    /// How many tests really ran.
    pub fn ran(&self) -> u64 {
        self.passed + self.failed
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.results += other.results;
        self.failures.extend(other.failures);
        self.reports.extend(other.reports);
    }
}

/// What failed tests printed: the part between the two lists that the harness heads `failures:`.
fn report(output: &str) -> Option<String> {
    let (_, rest) = output.split_once("\nfailures:\n")?;
    let end = rest.rfind("\nfailures:\n").unwrap_or(rest.len());
    Some(rest[..end].trim().to_owned())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tests passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let text = "running 2 tests\ntest a ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 3 passed; 1 failed; 4 ignored; 0 measured; 7 filtered out; finished in 1.25s\n";
        let sum = Summary::parse(text);
        assert_eq!(sum, Summary { passed: 5, failed: 1, ignored: 4, results: 2, ..Summary::default() });
        assert_eq!(sum.ran(), 6);
        assert_eq!(sum.to_string(), "5 tests passed, 1 failed, 4 ignored");
    }

    #[test]
    fn failed_tests_are_named_once() {
        let text = "test a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\nthread 'a::b' panicked\n    \
            of some text\n\n\nfailures:\n    a::b\n    c\n\ntest result: FAILED. 3 passed; 2 failed; 0 ignored;\n    d\n";
        let sum = Summary::parse(text);
        assert_eq!(sum.failures, ["a::b", "c"]);
        assert_eq!(sum.reports, ["---- a::b stdout ----\nthread 'a::b' panicked\n    of some text"]);
    }

    #[test]
    fn other_lines_do_not_count() {
        assert_eq!(
            Summary::parse("test result_is_kept ... ok\n9 passed; 9 failed\ntest result: odd\n").results,
            0
        );
    }
}
