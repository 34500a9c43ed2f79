//! Values that are more than a word.

/// `10s`, `5m`, `90`: whole seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write it like 10s, 5m, 2h or 1d".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write it like 10s, 5m, 2h or 1d".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too long".to_owned())
}

/// A prefix, or an address as a prefix of full length.
pub(super) fn prefix(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse::<ipnet::IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
        .map(|net| net.trunc())
        .map_err(|_| "write it like 203.0.113.0/24, 2001:db8::/32 or 203.0.113.7".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix() {
        assert_eq!(prefix("203.0.113.7").unwrap().prefix_len(), 32);
        assert_eq!(prefix("2001:db8::5/32").unwrap().to_string(), "2001:db8::/32");
        assert!(prefix("web").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("90"), Ok(90));
        assert!(seconds("5x").is_err() && seconds("").is_err() && seconds("99999999999999999d").is_err());
    }
}
