//! What a VM's command line says about it: name, UUID, id, and the MAC of each NIC.
//!
//! QEMU (`-name guest=X,…`, `-name X`, `-uuid U`, `-netdev`/`-device`, both as `key=value` lists and as JSON) and
//! the `--id X` of other monitors. QEMU takes one dash or two.

use super::TapFds;
use crate::config;

/// The names of a VM and the NICs its command line describes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// `-name`.
    pub name: Option<String>,
    /// `-uuid`, in lower case.
    pub uuid: Option<String>,
    /// `-id`.
    pub id: Option<String>,
    /// `-incoming`: it was started to be sent a VM.
    pub incoming: bool,
    /// Every NIC with a tap behind it.
    pub nics: Vec<NicOption>,
}

/// A NIC as the command line describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicOption {
    /// The tap's name, where the VM opens it by name.
    pub interface: Option<String>,
    /// The descriptors of its queues, where they were handed over.
    pub fds: Vec<i32>,
    /// The guest's MAC address.
    pub mac: Option<[u8; 6]>,
}

impl Identity {
    /// Whether this is what the VM is called.
    pub fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
            || self.id.as_deref() == Some(name)
            || self.uuid.as_deref() == Some(name.to_lowercase().as_str())
    }

    /// The MAC of the NIC behind a tap.
    pub fn mac_of(&self, tap: &TapFds) -> Option<[u8; 6]> {
        let behind = |nic: &&NicOption| {
            nic.interface.as_ref() == Some(&tap.name) || nic.fds.iter().any(|fd| tap.fds.contains(fd))
        };
        self.nics.iter().find(behind).and_then(|nic| nic.mac)
    }
}

/// Read a command line; what is not understood is passed over.
pub fn identity(args: &[String]) -> Identity {
    let mut identity = Identity::default();
    let mut netdevs: Vec<(String, NicOption)> = Vec::new();
    let mut devices: Vec<(String, [u8; 6])> = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let Some(option) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { continue };
        // `--id=X` carries its value; QEMU's options have it in the next argument.
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, value),
            None if matches!(option, "name" | "uuid" | "id" | "netdev" | "device" | "incoming") => {
                (option, args.next().unwrap_or_default())
            }
            None => continue,
        };
        match option {
            "name" => identity.name = name(value),
            "uuid" => identity.uuid = Some(value.to_lowercase()),
            "id" => identity.id = Some(value.to_owned()),
            "incoming" => identity.incoming = true,
            "netdev" => netdevs.extend(netdev(value)),
            "device" => devices.extend(device(value)),
            _ => {}
        }
    }
    for (id, mut nic) in netdevs {
        nic.mac = devices.iter().find(|(netdev, _)| *netdev == id).map(|(_, mac)| *mac);
        identity.nics.push(nic);
    }
    identity
}

/// `guest=X,debug-threads=on` or `X,process=…`.
fn name(value: &str) -> Option<String> {
    let pairs = pairs(value);
    let guest = pairs.iter().find(|(key, _)| key == "guest");
    // A first item without `=` is the name itself.
    guest
        .map(|(_, name)| name.clone())
        .or_else(|| pairs.first().filter(|(_, value)| value.is_empty()).map(|(name, _)| name.clone()))
}

fn netdev(value: &str) -> Option<(String, NicOption)> {
    let pairs = pairs(value);
    let get = |key: &str| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    if get("type") != Some("tap") && pairs.first().map(|(key, _)| key.as_str()) != Some("tap") {
        return None;
    }
    let fds = get("fd").or_else(|| get("fds")).unwrap_or_default();
    let nic = NicOption {
        interface: get("ifname").map(ToOwned::to_owned),
        fds: fds.split(':').filter_map(|fd| fd.parse().ok()).collect(),
        mac: None,
    };
    Some((get("id")?.to_owned(), nic))
}

fn device(value: &str) -> Option<(String, [u8; 6])> {
    let pairs = pairs(value);
    let get = |key: &str| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    Some((get("netdev")?.to_owned(), config::units::mac(get("mac")?).ok()?))
}

/// `a,b=c,d=e,,f` (a doubled comma is a comma), or a JSON object with plain values.
fn pairs(value: &str) -> Vec<(String, String)> {
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(value) {
        let plain = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        return object.into_iter().map(|(key, value)| (key, plain(value))).collect();
    }
    let (mut items, mut item, mut chars) = (Vec::new(), String::new(), value.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            ',' if chars.peek() == Some(&',') => {
                chars.next();
                item.push(',');
            }
            ',' => items.push(std::mem::take(&mut item)),
            c => item.push(c),
        }
    }
    items.push(item);
    items
        .into_iter()
        .map(|item| match item.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (item, String::new()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Identity {
        identity(&line.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn names_in_every_notation() {
        let cases: &[(&[&str], &str)] = &[
            (&["qemu", "-name", "web-1"], "web-1"),
            (&["qemu", "--name", "guest=web-1,debug-threads=on"], "web-1"),
            (&["qemu", "-name", "web-1,process=x"], "web-1"),
            (&["qemu", "-name", "a,,b,debug-threads=on"], "a,b"),
            (&["qemu", "-uuid", "ABCD-01"], "abcd-01"),
            (&["vmm", "--id", "web-1"], "web-1"),
            (&["vmm", "--id=web-1"], "web-1"),
        ];
        for (line, wanted) in cases {
            assert!(read(line).is(wanted), "{line:?}");
        }
        assert!(!read(&["qemu", "-device", "x,id=web-1"]).is("web-1"), "a device's id is not the VM's");
        assert!(!read(&["qemu", "-name"]).is("web-1"));
    }

    #[test]
    fn macs_are_found_through_the_netdev() {
        let libvirt = read(&[
            "qemu",
            "-netdev",
            "{\"type\":\"tap\",\"fd\":\"33\",\"vhost\":true,\"vhostfd\":\"35\",\"id\":\"hostnet0\"}",
            "-device",
            "{\"driver\":\"virtio-net-pci\",\"netdev\":\"hostnet0\",\"mac\":\"52:54:00:aa:bb:cc\"}",
        ]);
        let tap = |name: &str, fds: &[i32]| TapFds { name: name.to_owned(), fds: fds.to_vec() };
        assert_eq!(libvirt.mac_of(&tap("vnet0", &[33])), Some([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]));
        assert_eq!(libvirt.mac_of(&tap("vnet1", &[34])), None);
        let plain = read(&[
            "qemu",
            "-netdev",
            "tap,id=n1,ifname=tap7,script=no",
            "-netdev",
            "user,id=n2",
            "-device",
            "virtio-net,netdev=n1,mac=52:54:00:00:00:07",
        ]);
        assert_eq!(plain.mac_of(&tap("tap7", &[12])), Some([0x52, 0x54, 0, 0, 0, 7]));
        assert_eq!(plain.nics.len(), 1);
    }
}
