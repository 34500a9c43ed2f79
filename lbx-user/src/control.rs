//! Desired state in, map writes out: the only writer of the maps.
//!
//! [`desired`] is what should be (pure); [`reconcile`] makes the maps say so; [`wishes`] and [`overrides`] hold
//! what owners want of single targets; [`build`] puts config, host, wishes and overrides together.

pub mod addresses;
pub mod build;
pub mod desired;
pub mod overrides;
pub mod reconcile;
pub mod resolve;
pub mod store;
pub mod tables;
pub mod wishes;

mod index;
#[cfg(test)]
mod reconcile_tests;
#[cfg(test)]
mod testing;

pub use index::{Names, map_name};

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The full name of a target, from that or from a name that only one service has.
///
/// # Errors
/// None has it, or several do.
pub fn find_target(all: &[String], name: &str) -> anyhow::Result<String> {
    if all.iter().any(|known| known == name) {
        return Ok(name.to_owned());
    }
    let short = |known: &&String| known.split_once('/').is_some_and(|(_, target)| target == name);
    let matching: Vec<&String> = all.iter().filter(short).collect();
    match matching[..] {
        [only] => Ok(only.clone()),
        [] => {
            let known = all.iter().map(String::as_str);
            let like = crate::config::problem::did_you_mean(name, known.clone())
                .or_else(|| {
                    let shorts = known.filter_map(|known| known.split_once('/')).map(|(_, target)| target);
                    crate::config::problem::did_you_mean(name, shorts)
                })
                .map_or(String::new(), |like| format!("; did you mean {like}?"));
            anyhow::bail!("there is no target \"{name}\"{like}")
        }
        _ => {
            let names: Vec<&str> = matching.iter().map(|known| known.as_str()).collect();
            anyhow::bail!("several services have a target \"{name}\": say which of {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::find_target;

    #[test]
    fn a_short_name_does_where_it_is_clear() {
        let all = ["web/a", "web/b", "mail/b"].map(str::to_owned);
        assert_eq!(find_target(&all, "a").unwrap(), "web/a");
        assert_eq!(find_target(&all, "mail/b").unwrap(), "mail/b");
        assert!(find_target(&all, "b").unwrap_err().to_string().contains("web/b, mail/b"));
        assert!(find_target(&all, "web/c").unwrap_err().to_string().contains("did you mean web/a"));
    }
}
