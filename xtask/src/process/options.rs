//! How a command runs: its arguments, its environment, and what becomes of it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cmd, Output};

impl Cmd {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_os_string());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_os_string()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.to_owned(), value.as_ref().to_os_string()));
        self
    }

    /// Sets environment variables.
    pub fn envs(mut self, envs: &[(&str, PathBuf)]) -> Self {
        self.envs.extend(envs.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into_os_string())));
        self
    }

    /// Hides an environment variable of ours from it.
    pub fn unset(mut self, key: &'static str) -> Self {
        self.unset.push(key);
        self
    }

    /// Searches for programs in this directory first.
    pub fn path_first(mut self, dir: PathBuf) -> Self {
        self.path_first = Some(dir);
        self
    }

    /// Runs as root: directly when this is root, else with sudo.
    pub fn root(mut self) -> Self {
        self.root = true;
        self
    }

    /// Shares the terminal: input, and Ctrl-C straight from it; and the directory, as its arguments are the
    /// caller's.
    pub fn foreground(mut self) -> Self {
        self.foreground = true;
        self
    }

    /// Undoes something: runs even after a signal, and is not disturbed by one.
    pub fn cleanup(mut self) -> Self {
        self.cleanup = true;
        self
    }

    /// Is better finished than stopped when xtask is killed (a package manager).
    pub fn outlives_us(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Whatever it leaves running in its process group is killed when it has exited.
    pub fn sweep(mut self) -> Self {
        self.sweep = true;
        self
    }

    /// Ends it (SIGTERM, then SIGKILL, to its process group) after this long.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Shows a spinner on a terminal instead of the output.
    pub fn spin(mut self) -> Self {
        self.output = Output::Spin;
        self
    }
}
