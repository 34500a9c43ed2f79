//! Where an instance keeps what is not pinned: `/run/lbx[-NAME]/`.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::config::{Config, Daemon};
use crate::datapath::Instance;

/// The places of an instance.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Its pins.
    pub instance: Instance,
    /// Its run directory.
    pub run_dir: PathBuf,
    /// Its config file.
    pub config: PathBuf,
}

impl Paths {
    /// Of an instance by name.
    ///
    /// # Errors
    /// The name is not one.
    pub fn new(instance: Option<&str>, config: &Path) -> Result<Self> {
        let instance = Instance::new(instance.filter(|name| !name.is_empty()))?;
        let run_dir = match instance.name() {
            Some(name) => PathBuf::from(format!("/run/lbx-{name}")),
            None => PathBuf::from("/run/lbx"),
        };
        Ok(Self { instance, run_dir, config: config.to_owned() })
    }

    /// The socket of the API: the config's, unless it leaves the default and the instance has a name.
    pub fn socket(&self, config: Option<&Config>) -> PathBuf {
        let configured = config.map(|config| config.daemon.socket.clone());
        configured
            .filter(|path| *path != Daemon::default().socket)
            .unwrap_or_else(|| self.run_dir.join("lbx.sock"))
    }

    /// Makes the run directory.
    ///
    /// # Errors
    /// It could not be made.
    pub fn make_run_dir(&self) -> Result<()> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.run_dir);
        made.with_context(|| format!("cannot make {}", self.run_dir.display()))
    }

    /// Keeps a second daemon from starting; released when dropped, also by a crash.
    ///
    /// # Errors
    /// Another holds it.
    pub fn lock(&self) -> Result<Flock<fs::File>> {
        let path = self.run_dir.join("lbx.lock");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            if error == nix::errno::Errno::EWOULDBLOCK {
                anyhow::anyhow!(
                    "another daemon of this instance is running; stop it, or give this one a name with --instance"
                )
            } else {
                anyhow::Error::from(io::Error::from(error)).context(format!("cannot lock {}", path.display()))
            }
        })
    }
}
