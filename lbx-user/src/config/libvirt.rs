//! `[libvirt]`: the libvirt daemons that are listened to.

use std::path::PathBuf;

use serde::Serialize;

use super::raw::Table;

/// 108 bytes of sun_path with the closing zero (unix(7)).
const SOCKET_PATH: usize = 107;

/// `[libvirt]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Libvirt {
    /// Their sockets; none of them: libvirt is left alone; `None`: what this host has.
    pub sockets: Option<Vec<PathBuf>>,
}

/// Reads `[libvirt]`.
pub(super) fn libvirt(table: &Table<'_, '_>) -> Libvirt {
    let sockets = table.strings("sockets");
    for (n, socket) in sockets.iter().flatten().enumerate() {
        let problem = if !socket.value.starts_with('/') || socket.value.len() > SOCKET_PATH {
            "a unix socket needs an absolute path of at most 107 bytes".to_owned()
        } else if sockets.iter().flatten().take(n).any(|earlier| earlier.value == socket.value) {
            format!("\"{}\" is named twice", socket.value)
        } else {
            continue;
        };
        table.report().error(&socket.span, &table.key("sockets"), problem, None);
    }
    table.finish();
    Libvirt { sockets: sockets.map(|list| list.into_iter().map(|one| one.value.into()).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Option<Vec<PathBuf>>, String> {
        let config = Config::parse("f", &format!("[libvirt]\n{text}\n"));
        config.map(|config| config.libvirt.sockets).map_err(|problems| problems.to_string())
    }

    #[test]
    fn found_named_or_left_alone() {
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("sockets = []"), Ok(Some(Vec::new())));
        assert_eq!(parse("sockets = \"/run/a\""), Ok(Some(vec![PathBuf::from("/run/a")])));
        let two = parse("sockets = [\"/run/a\", \"/run/b\"]").unwrap().unwrap();
        assert_eq!(two.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, says) in [
            ("sockets = [\"run/a\"]", "absolute"),
            (
                "sockets = [\"/run/a\",\n \"/run/a\"]",
                "f:3:2: error: libvirt.sockets: \"/run/a\" is named twice",
            ),
            ("socket = \"/run/a\"", "did you mean `sockets`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
