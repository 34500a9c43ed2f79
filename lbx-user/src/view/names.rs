//! From the names people give to services and targets.

use super::{Error, Placed, Result, Served, View};
use crate::config::problem::did_you_mean;

impl View<'_> {
    /// The full name of a target: from itself, from its part behind the service, or from that without a port,
    /// as long as only one fits.
    ///
    /// # Errors
    /// None fits, or several do.
    pub fn full_name(&self, name: &str) -> Result<String> {
        Ok(self.find_target(name)?.name.clone())
    }

    pub(super) fn find_target(&self, name: &str) -> Result<&Placed> {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let found = find(&names, name)?;
        self.targets.get(found).ok_or_else(|| Error::NotFound(format!("there is no target \"{name}\"")))
    }

    pub(super) fn find_service(&self, name: &str) -> Result<&Served> {
        self.services.iter().find(|service| service.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.services.iter().map(|service| service.name.as_str()).collect();
            not_found("service", name, &known)
        })
    }
}

/// Which of the full names is meant.
///
/// # Errors
/// None, or several.
pub fn find(names: &[&str], name: &str) -> Result<usize> {
    let short = |full: &str| full.split_once('/').map_or(full, |(_, short)| short).to_owned();
    let place = |full: &str| {
        let short = short(full);
        // `web-1:8080`, but not a MAC, whose colons are its own.
        match short.rsplit_once(':') {
            Some((place, port)) if port.len() > 2 || !place.contains(':') => place.to_owned(),
            _ => short,
        }
    };
    let ways: [&dyn Fn(&str) -> bool; 3] = [&|full| full == name, &|full| short(full) == name, &|full| {
        place(full) == name
            || full.split_once('/').is_some_and(|(s, _)| format!("{s}/{}", place(full)) == name)
    }];
    for way in ways {
        let fits: Vec<usize> = (0..names.len()).filter(|n| way(names[*n])).collect();
        match fits[..] {
            [] => {}
            [one] => return Ok(one),
            _ => {
                let candidates = fits.iter().map(|n| names[*n].to_owned()).collect();
                return Err(Error::Ambiguous { name: name.to_owned(), candidates });
            }
        }
    }
    let short: Vec<String> = names.iter().map(|full| short(full)).collect();
    let known: Vec<&str> = names.iter().copied().chain(short.iter().map(String::as_str)).collect();
    Err(not_found("target", name, &known))
}

fn not_found(what: &str, name: &str, known: &[&str]) -> Error {
    let hint = did_you_mean(name, known.iter().copied())
        .map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
    Error::NotFound(format!("there is no {what} \"{name}\"{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_form_that_is_unique() {
        let names = ["web/web-1:8080", "web/web-2", "dns/web-2", "dns/52:54:00:00:00:01"];
        for (name, at) in [
            ("web/web-1:8080", 0),
            ("web-1:8080", 0),
            ("web-1", 0),
            ("web/web-1", 0),
            ("web/web-2", 1),
            ("dns/web-2", 2),
            ("52:54:00:00:00:01", 3),
        ] {
            assert_eq!(find(&names, name).unwrap(), at, "{name}");
        }
        assert!(
            matches!(find(&names, "web-2"), Err(Error::Ambiguous { candidates, .. }) if candidates.len() == 2)
        );
        let error = find(&names, "wbe-1:8080").unwrap_err().to_string();
        assert_eq!(error, "there is no target \"wbe-1:8080\"; did you mean \"web-1:8080\"?");
        assert!(find(&[], "x").is_err());
    }
}
