//! Where the samplers read: /proc and /sys, or texts in a test.

use std::io;

/// Files by their paths. Any of them may vanish between two calls.
pub trait Files {
    /// The whole text of a file.
    ///
    /// # Errors
    /// It is not there, or not readable.
    fn text(&self, path: &str) -> io::Result<String>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// It is not there, or not readable.
    fn names(&self, dir: &str) -> io::Result<Vec<String>>;
}

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Files for System {
    fn text(&self, path: &str) -> io::Result<String> {
        // Names of processes and threads may be any bytes.
        Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
    }

    fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        let names =
            std::fs::read_dir(dir)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.collect())
    }
}

/// Files of a test.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub struct Texts(pub std::collections::BTreeMap<String, String>);

#[cfg(test)]
impl Texts {
    /// With another text in one of the files.
    pub fn set(&mut self, path: &str, text: impl Into<String>) {
        self.0.insert(path.to_owned(), text.into());
    }
}

#[cfg(test)]
impl Files for Texts {
    fn text(&self, path: &str) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn names(&self, dir: &str) -> io::Result<Vec<String>> {
        let below = self.0.keys().filter_map(|path| path.strip_prefix(dir)?.strip_prefix('/'));
        let mut names: Vec<String> =
            below.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned()).collect();
        names.dedup();
        if names.is_empty() { Err(io::Error::from_raw_os_error(libc::ENOENT)) } else { Ok(names) }
    }
}
