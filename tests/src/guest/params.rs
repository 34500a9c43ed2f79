//! What a guest is told: `lbx.KEY=VALUE` words, from the kernel command line or from the arguments.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};

/// An address with the length of its prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address itself.
    pub addr: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

/// The guest's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The name every answer carries (`lbx.name`).
    pub name: String,
    /// The network device (`lbx.dev`).
    pub dev: String,
    /// Own addresses (`lbx.ip=A/P`, repeated).
    pub addresses: Vec<Cidr>,
    /// Addresses on lo, not answered by ARP (`lbx.vip=A`, repeated).
    pub vips: Vec<IpAddr>,
    /// Default gateways (`lbx.gateway=A`, repeated, one per family).
    pub gateways: Vec<IpAddr>,
    /// MTU of the device in bytes (`lbx.mtu`).
    pub mtu: Option<u32>,
    /// Ports that speak HTTP (`lbx.http=80,8080`).
    pub http: Vec<u16>,
    /// Service time of a request in milliseconds when the request names none (`lbx.service_ms`).
    pub service_ms: u64,
    /// Only say that the guest booted, then power off (`lbx.probe=1`): how the lab tries KVM.
    pub probe: bool,
    /// Run the plan of [`nested`](super::nested) and power off (`lbx.nested=1`).
    pub nested: bool,
}

impl Params {
    /// Parses the words of a command line; words that do not start with `lbx.` are someone else's.
    pub fn parse<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut p = Self {
            name: "vm".into(),
            dev: "eth0".into(),
            addresses: Vec::new(),
            vips: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            http: vec![80],
            service_ms: 0,
            probe: false,
            nested: false,
        };
        for word in words {
            let word = word.as_ref();
            let Some((key, value)) = word.strip_prefix("lbx.").and_then(|w| w.split_once('=')) else {
                continue;
            };
            p.set(key, value).with_context(|| format!("in `{word}`"))?;
        }
        Ok(p)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "name" => self.name = value.into(),
            "dev" => self.dev = value.into(),
            "ip" => self.addresses.push(value.parse()?),
            "vip" => self.vips.push(value.parse()?),
            "gateway" => self.gateways.push(value.parse()?),
            "mtu" => self.mtu = Some(value.parse()?),
            "http" => self.http = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "service_ms" => self.service_ms = value.parse()?,
            "probe" => self.probe = value == "1",
            "nested" => self.nested = value == "1",
            _ => bail!("unknown parameter lbx.{key}"),
        }
        Ok(())
    }

    /// The words [`Params::parse`] reads back.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![format!("lbx.name={}", self.name), format!("lbx.dev={}", self.dev)];
        words.extend(self.addresses.iter().map(|c| format!("lbx.ip={}/{}", c.addr, c.prefix)));
        words.extend(self.vips.iter().map(|a| format!("lbx.vip={a}")));
        words.extend(self.gateways.iter().map(|a| format!("lbx.gateway={a}")));
        words.extend(self.mtu.map(|m| format!("lbx.mtu={m}")));
        let ports: Vec<_> = self.http.iter().map(u16::to_string).collect();
        words.push(format!("lbx.http={}", ports.join(",")));
        words.push(format!("lbx.service_ms={}", self.service_ms));
        if self.probe {
            words.push("lbx.probe=1".into());
        }
        if self.nested {
            words.push("lbx.nested=1".into());
        }
        words
    }
}

impl std::str::FromStr for Cidr {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (addr, prefix) = text.split_once('/').context("an address needs /PREFIX")?;
        let (addr, prefix): (IpAddr, u8) = (addr.parse()?, prefix.parse()?);
        if prefix > if addr.is_ipv4() { 32 } else { 128 } {
            bail!("prefix {prefix} is too long");
        }
        Ok(Self { addr, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        let line = "console=ttyS0 lbx.name=vm2 lbx.ip=10.77.0.12/24 lbx.ip=fd77::12/64 lbx.vip=10.77.0.100 \
                    lbx.vip=fd77::100 lbx.mtu=1400 lbx.http=80,8080 lbx.service_ms=5 quiet";
        let p = Params::parse(line.split_whitespace()).unwrap();
        assert_eq!((p.name.as_str(), p.mtu, p.service_ms), ("vm2", Some(1400), 5));
        assert_eq!((p.addresses.len(), p.vips.len(), p.http.as_slice()), (2, 2, [80, 8080].as_slice()));
        let words = p.words();
        assert_eq!(Params::parse(words).unwrap(), p);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["lbx.ip=10.0.0.1", "lbx.ip=10.0.0.1/33", "lbx.http=80,x", "lbx.nosuch=1"] {
            assert!(Params::parse([bad]).is_err(), "{bad}");
        }
    }
}
