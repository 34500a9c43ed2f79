//! The capabilities without which nothing here works.

use super::error::{Error, Result};
use caps::{CapSet, Capability};

/// What loading and attaching need (capabilities(7)): BPF for maps and programs, NET_ADMIN for XDP and tc,
/// PERFMON for programs that read kernel memory and for pointer arithmetic the verifier otherwise refuses.
const NEEDED: [(Capability, &str); 3] = [
    (Capability::CAP_BPF, "CAP_BPF"),
    (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
    (Capability::CAP_PERFMON, "CAP_PERFMON"),
];

/// Refuses with the names of what is missing. CAP_SYS_ADMIN stands for BPF and PERFMON, as in the kernel.
pub fn check() -> Result<()> {
    let effective = caps::read(None, CapSet::Effective).map_err(|e| Error::Io {
        what: "reading this process's capabilities".into(),
        source: std::io::Error::other(e),
    })?;
    let missing = missing(|cap| effective.contains(&cap));
    if missing.is_empty() { Ok(()) } else { Err(Error::Capabilities(missing)) }
}

fn missing(has: impl Fn(Capability) -> bool) -> Vec<&'static str> {
    let admin = has(Capability::CAP_SYS_ADMIN);
    let covered = |cap| has(cap) || (admin && cap != Capability::CAP_NET_ADMIN);
    NEEDED.into_iter().filter(|(cap, _)| !covered(*cap)).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert!(missing(|_| true).is_empty());
        assert_eq!(missing(|_| false), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(|c| c == Capability::CAP_SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(|c| c == Capability::CAP_NET_ADMIN), ["CAP_BPF", "CAP_PERFMON"]);
        let error = Error::Capabilities(missing(|_| false)).to_string();
        assert!(error.contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON") && error.contains("root"), "{error}");
    }
}
