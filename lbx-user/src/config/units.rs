//! Small values with a notation of their own: durations, ports, MACs, addresses, names, primes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::checked::Ports;

/// `500ms`, `2s`, `15m`, `1h30m`, `7d`. The error is a sentence.
pub fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "write it like \"500ms\", \"2s\", \"15m\", \"1h30m\" or \"7d\"";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("a duration is missing; {HINT}"));
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let millis = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err(format!("\"{text}\" has no unit; {HINT}")),
            _ => return Err(format!("\"{text}\" is not a duration; {HINT}")),
        };
        let number: u64 = number.parse().map_err(|_| format!("\"{text}\" is not a duration; {HINT}"))?;
        total = number
            .checked_mul(millis)
            .and_then(|value| total.checked_add(value))
            .ok_or_else(|| format!("\"{text}\" is too long"))?;
        rest = tail;
    }
    Ok(Duration::from_millis(total))
}

/// A duration as the config writes it: `15m`, `1h30m`, `500ms`.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if millis >= size {
            text.push_str(&(millis / size).to_string());
            text.push_str(unit);
            millis %= size;
        }
    }
    text
}

/// `80`, `8000-8100`, or `0` for every port.
pub fn ports(text: &str) -> Result<Ports, String> {
    let number = |part: &str| {
        let part = part.trim();
        part.parse::<u16>().map_err(|_| format!("\"{part}\" is not a port (1 to 65535)"))
    };
    let Some((first, last)) = text.split_once('-').filter(|(first, _)| !first.trim().is_empty()) else {
        return match number(text)? {
            0 => Ok(Ports::ALL),
            port => Ok(Ports { first: port, last: port }),
        };
    };
    let (first, last) = (number(first)?, number(last)?);
    match (first, last) {
        (0, _) => Err("a range starts at 1; `0` alone means every port".to_owned()),
        (first, last) if first > last => Err(format!("the range {first}-{last} is backwards")),
        (first, last) => Ok(Ports { first, last }),
    }
}

/// A unicast MAC address in colon notation.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let bad = || format!("\"{text}\" is not a MAC address; write it like \"52:54:00:12:34:56\"");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    if parts.next().is_some() || text.contains('+') {
        return Err(bad());
    }
    if mac == [0; 6] {
        return Err("the zero MAC address belongs to nobody".to_owned());
    }
    if mac[0] & 1 == 1 {
        return Err(format!("{text} is a multicast or broadcast address, not a machine's"));
    }
    Ok(mac)
}

/// Why an address cannot be a VIP, or a target's own; `None` when it can.
///
/// RFC 6890 and its registries; v4-mapped IPv6 (RFC 4291 section 2.5.5.2) never appears on the wire.
pub fn unusable_address(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => unusable_v4(v4),
        IpAddr::V6(v6) => unusable_v6(v6),
    }
}

fn unusable_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("is in 0.0.0.0/8, \"this network\"")
    } else if address.is_broadcast() {
        Some("is the broadcast address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else if address.is_loopback() {
        Some("is a loopback address")
    } else if address.is_link_local() {
        Some("is link-local")
    } else if address.octets()[0] >= 240 {
        Some("is in 240.0.0.0/4, which is reserved")
    } else {
        None
    }
}

fn unusable_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_loopback() {
        Some("is the loopback address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else if address.is_unicast_link_local() {
        Some("is link-local")
    } else if address.to_ipv4_mapped().is_some() {
        Some("is an IPv4 address mapped into IPv6")
    } else {
        None
    }
}

/// Why a text cannot be the name of an interface (`dev_valid_name` in net/core/dev.c); `None` when it can.
pub fn bad_interface_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > 15 {
        Some("is longer than 15 bytes, the most Linux allows")
    } else if name == "." || name == ".." || name.contains(['/', ':']) || name.contains(char::is_whitespace) {
        Some("has a character that Linux does not allow in an interface's name")
    } else {
        None
    }
}

/// Whether the number is a prime.
pub fn is_prime(n: u64) -> bool {
    n >= 2 && (2..=n.isqrt()).all(|d| !n.is_multiple_of(d))
}

/// The smallest prime that is not below `n`.
pub fn prime_from(n: u64) -> u64 {
    (n..=n.saturating_mul(2)).find(|candidate| is_prime(*candidate)).unwrap_or(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for text in ["500ms", "2s", "15m", "1h30m", "7d", "1s500ms", "0s"] {
            assert_eq!(format_duration(duration(text).unwrap()), text);
        }
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        for text in
            ["", "15", "s", "1.5s", "-1s", "99999999999999999999d", "5 parsecs", "18446744073709551615d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_single_range_and_all() {
        assert_eq!(ports("80"), Ok(Ports { first: 80, last: 80 }));
        assert_eq!(ports("8000 - 8100"), Ok(Ports { first: 8000, last: 8100 }));
        assert_eq!(ports("0"), Ok(Ports::ALL));
        for text in ["", "-1", "70000", "9-8", "0-9", "1-2-3", "http"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn macs_of_machines_only() {
        assert_eq!(mac("52:54:00:Ab:34:56"), Ok([0x52, 0x54, 0, 0xab, 0x34, 0x56]));
        for text in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "5254.0012.3456", "ff:ff:ff:ff:ff:ff"] {
            assert!(mac(text).is_err(), "{text}");
        }
        for text in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "+2:54:00:12:34:56"] {
            assert!(mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_no_service_can_have() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(unusable_address(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in ["192.0.2.10", "10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert_eq!(unusable_address(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn primes() {
        assert!(is_prime(65_537) && is_prime(2) && !is_prime(1) && !is_prime(65_536));
        assert_eq!(prime_from(65_536), 65_537);
    }
}
