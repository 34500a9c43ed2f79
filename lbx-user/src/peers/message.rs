//! What hosts say to each other.
//!
//! Every message tells how things are, not how they changed: the newest replaces what was said before, saying
//! it twice is saying it once, and whoever connects again says everything anew.

use serde::{Deserialize, Serialize};

use super::account::{self, Account};

/// Longest name, UUID or address that is taken.
const TEXT: usize = 255;
/// Most VMs of one host.
pub const MOST_VMS: usize = 2_000;
/// Most vNICs of one VM.
const MOST_MACS: usize = 64;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// The first in both directions: who speaks.
    Hello(Hello),
    /// All VMs of the sender's host.
    Vms {
        /// They.
        vms: Vec<VmHere>,
    },
    /// All migrations that the sender knows of by itself, not from peers.
    Migrations {
        /// They.
        migrations: Vec<Account>,
    },
    /// A VM that was awaited on the sender's host runs there, since a moment ago: said before all else, and again
    /// as a step of its migration.
    Runs {
        /// It.
        vm: VmHere,
    },
    /// The connection is refused, and closed after this.
    Refused {
        /// Why, for people.
        why: String,
    },
    /// Is anybody there?
    Ping,
    /// Yes.
    Pong,
    /// Something that a later lbx says: passed over.
    #[serde(other)]
    Unknown,
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What its certificate says too.
    pub name: String,
    /// Another one after every start of the daemon: what an earlier one said is no longer known to be so.
    pub instance: String,
    /// Version of lbx, for people.
    #[serde(default)]
    pub software: String,
}

/// A VM on the sender's host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmHere {
    /// Its name.
    pub name: String,
    /// Its UUID in lower case, if it has one.
    #[serde(default)]
    pub uuid: Option<String>,
    /// The MACs of its vNICs, as far as they are known: `52:54:00:12:34:56`.
    #[serde(default)]
    pub macs: Vec<String>,
    /// Whether its CPUs run there, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<bool>,
    /// Frames for it that come through a tunnel go straight into its vNIC's queue there, and wait until it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds: bool,
}

impl Message {
    /// Whether everything in it is within bounds.
    ///
    /// # Errors
    /// What is not, in words.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Hello(hello) => {
                text("name", &hello.name)?;
                text("instance", &hello.instance)?;
                text("software", &hello.software)
            }
            Self::Vms { vms } => {
                at_most("VMs", vms.len(), MOST_VMS)?;
                vms.iter().try_for_each(VmHere::check)
            }
            Self::Migrations { migrations } => {
                at_most("migrations", migrations.len(), account::MOST)?;
                migrations.iter().try_for_each(Account::check)
            }
            Self::Runs { vm } => vm.check(),
            Self::Refused { why } => text("reason", why),
            Self::Ping | Self::Pong | Self::Unknown => Ok(()),
        }
    }
}

impl VmHere {
    /// Whether both are one VM: by UUID where both have one, else by a MAC they share, else by name.
    pub fn is_same(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (&self.uuid, &other.uuid) {
            return one == other;
        }
        if !self.macs.is_empty() && !other.macs.is_empty() {
            return self.macs.iter().any(|mac| other.macs.contains(mac));
        }
        !self.name.is_empty() && self.name == other.name
    }

    /// Takes over what the other one knows besides.
    pub fn learn(&mut self, other: Self) {
        if self.name.is_empty() {
            self.name = other.name;
        }
        self.uuid = self.uuid.take().or(other.uuid);
        for mac in other.macs {
            if self.macs.len() < MOST_MACS && !self.macs.contains(&mac) {
                self.macs.push(mac);
            }
        }
    }

    /// Whether it is within bounds.
    ///
    /// # Errors
    /// What is not, in words.
    pub fn check(&self) -> Result<(), String> {
        text("name", &self.name)?;
        text("uuid", self.uuid.as_deref().unwrap_or_default())?;
        at_most("MACs of a VM", self.macs.len(), MOST_MACS)?;
        self.macs.iter().try_for_each(|mac| text("MAC", mac))
    }
}

/// Names are shown on terminals and in logs: no control characters.
pub(super) fn text(what: &str, text: &str) -> Result<(), String> {
    if text.len() > TEXT {
        return Err(format!("a {what} of {} bytes, where {TEXT} is the most", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("a {what} with control characters"));
    }
    Ok(())
}

pub(super) fn at_most(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most { Err(format!("{count} {what}, where {most} is the most")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept() {
        let vm = |name: &str, macs: usize| VmHere {
            name: name.to_owned(),
            uuid: None,
            macs: vec!["52:54:00:00:00:01".to_owned(); macs],
            runs: None,
            holds: false,
        };
        let of = |vms: Vec<VmHere>| Message::Vms { vms }.check();
        assert!(of(vec![vm("a", 64); MOST_VMS]).is_ok());
        assert!(of(vec![vm("a", 1); MOST_VMS + 1]).unwrap_err().contains("2001 VMs"));
        assert!(of(vec![vm("a", 65)]).unwrap_err().contains("65 MACs"));
        assert!(of(vec![vm(&"a".repeat(256), 1)]).unwrap_err().contains("256 bytes"));
        assert!(of(vec![vm("a\x1b[2J", 1)]).unwrap_err().contains("control"));
    }
}
