//! Offloads of a link, set with ethtool -K.

use anyhow::Result;

use super::netns::Netns;
use super::tools;

/// Which offloads to turn on or off; `None` leaves one as the kernel made it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP segmentation (`tso`).
    pub tso: Option<bool>,
    /// Generic segmentation (`gso`).
    pub gso: Option<bool>,
    /// Transmit checksums (`tx`): off means that checksums are complete on the wire.
    pub tx: Option<bool>,
    /// Receive checksums (`rx`).
    pub rx: Option<bool>,
    /// Generic receive offload (`gro`); on a veth this also turns NAPI on, which a redirect into its peer needs.
    pub gro: Option<bool>,
    /// VLAN tags taken out of band when sending (`txvlan`).
    pub txvlan: Option<bool>,
    /// VLAN tags taken out of band when receiving (`rxvlan`).
    pub rxvlan: Option<bool>,
}

impl Offloads {
    /// What a physical wire does to a veth: whole checksums, no super-frames, tags in band.
    pub fn wire() -> Self {
        Self { txvlan: Some(false), rxvlan: Some(false), gro: Some(true), ..Self::sender(false) }
    }

    /// Everything a sender leaves to its device, on or off.
    pub fn sender(on: bool) -> Self {
        Self { tso: Some(on), gso: Some(on), tx: Some(on), ..Self::default() }
    }

    /// Applies them to a device.
    pub fn apply(self, ns: &Netns, dev: &str) -> Result<()> {
        let arguments = self.arguments();
        if arguments.is_empty() {
            return Ok(());
        }
        tools::run(ns.command("ethtool").arg("-K").arg(dev).args(arguments)).map(|_| ())
    }

    fn arguments(self) -> Vec<&'static str> {
        // tx first when turning on (tso needs it), tso before tx would be refused.
        let all = [
            ("tx", self.tx),
            ("rx", self.rx),
            ("tso", self.tso),
            ("gso", self.gso),
            ("gro", self.gro),
            ("txvlan", self.txvlan),
            ("rxvlan", self.rxvlan),
        ];
        all.into_iter()
            .filter_map(|(name, on)| on.map(|on| [name, if on { "on" } else { "off" }]))
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_is_touched() {
        assert!(Offloads::default().arguments().is_empty());
        assert_eq!(Offloads::sender(false).arguments(), ["tx", "off", "tso", "off", "gso", "off"]);
    }
}
