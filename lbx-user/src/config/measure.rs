//! `[measure]`: what is measured, and how often.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::build::duration;
use super::raw::Table;

/// Stands for the VM's name in `measure.qmp`.
const VM: &str = "{vm}";
/// 108 bytes of sun_path with the closing zero (unix(7)).
const SOCKET_PATH: usize = 107;

/// `[measure]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Measure {
    /// Time from one look at the load of host and VMs to the next.
    pub load: Duration,
    /// Time from one look at the queues of vNICs to the next; `None`: they are not looked at.
    pub queues: Option<Duration>,
    /// Of so many flows the response times of one are measured; `None`: of none.
    pub response: Option<u32>,
    /// Where a VM has a QMP socket that is lbx's alone, `{vm}` standing for its name.
    pub qmp: Option<String>,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            load: Duration::from_secs(1),
            queues: Some(Duration::from_millis(5)),
            response: Some(64),
            qmp: None,
        }
    }
}

impl Measure {
    /// The QMP socket of a VM, where the config says how to find it. A name that would lead out of the
    /// directory has none.
    pub fn qmp_of(&self, vm: &str) -> Option<PathBuf> {
        let path = self.qmp.as_ref()?.replace(VM, vm);
        let fits = !vm.contains(['/', '\0']) && vm != ".." && path.len() <= SOCKET_PATH;
        fits.then(|| PathBuf::from(path))
    }

    /// The age from which a reading of the load is stale: three looks failed, or were late.
    pub fn stale(&self) -> Duration {
        3 * self.load + Duration::from_secs(1)
    }
}

/// Reads `[measure]`.
pub(super) fn measure(table: &Table<'_, '_>) -> Measure {
    let mut measure = Measure::default();
    if let Some(load) = duration(table, "load", &(Duration::from_millis(100)..=Duration::from_mins(1))) {
        measure.load = load;
    }
    let off = table.is_string("queues") && table.string("queues").is_some_and(|text| text.value == "off");
    if off {
        measure.queues = None;
    } else if let Some(queues) =
        duration(table, "queues", &(Duration::from_millis(1)..=Duration::from_secs(10)))
    {
        measure.queues = Some(queues);
    }
    if table.is_string("response") && table.string("response").is_some_and(|text| text.value == "off") {
        measure.response = None;
    } else if let Some(one_in) = table.integer("response", 1..=65_536) {
        measure.response = Some(one_in.value as u32);
    }
    measure.qmp = table.string("qmp").map(|path| path.value);
    if let Some(path) = &measure.qmp {
        check_socket(table, "qmp", path);
        if !path.contains(VM) {
            let hint = "\"/run/vms/{vm}.qmp\", or `qmp` in the [[service.target]] of one VM";
            table.error("qmp", "every VM would have the same socket", Some(hint.to_owned()));
        }
    }
    table.finish();
    measure
}

/// The `qmp` of one target.
pub(super) fn target_socket(table: &Table<'_, '_>) -> Option<PathBuf> {
    let path = table.string("qmp")?.value;
    check_socket(table, "qmp", &path);
    Some(PathBuf::from(path))
}

fn check_socket(table: &Table<'_, '_>, key: &str, path: &str) {
    if !path.starts_with('/') || path.len() > SOCKET_PATH {
        table.error(key, "a unix socket needs an absolute path of at most 107 bytes", None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Severity};

    #[test]
    fn a_name_stays_in_its_directory() {
        let measure = Measure { qmp: Some("/run/vms/{vm}.qmp".to_owned()), ..Measure::default() };
        assert_eq!(measure.qmp_of("web-1"), Some(PathBuf::from("/run/vms/web-1.qmp")));
        let plain = Measure { qmp: Some("/run/{vm}/qmp".to_owned()), ..Measure::default() };
        for name in ["../x", "a/b", "..", &"x".repeat(200)] {
            assert_eq!(plain.qmp_of(name), None, "{name}");
        }
        assert_eq!(Measure::default().qmp_of("web-1"), None);
    }

    #[test]
    fn queues_can_be_left_alone() {
        let queues = |text: &str| Config::parse("f", &format!("[measure]\n{text}\n")).unwrap().measure.queues;
        assert_eq!(queues(""), Some(Duration::from_millis(5)));
        assert_eq!(queues("queues = \"off\""), None);
        assert_eq!(queues("queues = \"250ms\""), Some(Duration::from_millis(250)));
    }

    #[test]
    fn response_times_are_of_one_flow_in_many_or_of_none() {
        let one_in =
            |text: &str| Config::parse("f", &format!("[measure]\n{text}\n")).unwrap().measure.response;
        assert_eq!((one_in(""), one_in("response = 1")), (Some(64), Some(1)));
        assert_eq!(one_in("response = \"off\""), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, says) in [
            ("load = \"5\"", 2, "no unit"),
            ("load = \"50ms\"", 2, "outside 100ms to 1m"),
            ("\nqmp = \"run/{vm}\"", 3, "absolute"),
            ("qmp = \"/run/vm.qmp\"", 2, "the same socket"),
            ("lod = \"1s\"", 2, "`load`"),
            ("queues = \"1m\"", 2, "outside 1ms to 10s"),
            ("queues = \"never\"", 2, "never"),
            ("response = 0", 2, "outside 1 to 65536"),
            ("response = \"never\"", 2, "expected a whole number"),
        ] {
            let problems = Config::parse("f", &format!("[measure]\n{text}\n")).unwrap_err().0;
            let errors: Vec<_> = problems.iter().filter(|one| one.severity == Severity::Error).collect();
            assert_eq!((errors.len(), errors[0].line), (1, line), "{text}: {errors:?}");
            assert!(errors[0].to_string().contains(says), "{}", errors[0]);
        }
    }
}
