//! Looking at the host, and what follows from what was seen.
//!
//! A look reads links, processes, offloads and filters: tens of milliseconds. One that time or a change of the host asks
//! for is made beside the core, which goes on meanwhile; one that somebody waits for is made at once.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use super::core::Core;
use super::host::Host;
use crate::config::Config;
use crate::measure::vm::Vm;

/// A look that is being made.
#[derive(Debug)]
pub struct Look {
    task: JoinHandle<Result<Host>>,
    config: Arc<Config>,
    looks: u64,
}

impl Look {
    /// What was seen, once it was; may be asked again.
    pub async fn seen(&mut self) -> Result<Host> {
        (&mut self.task).await.context("the look at the host ended early")?
    }
}

impl Core {
    /// Looks at the host and makes maps and attachments follow. `afresh` reads filters too.
    ///
    /// # Errors
    /// The host could not be read, or a write failed; the daemon goes on and tries again at the next change.
    pub async fn refresh(&mut self, afresh: bool) -> Result<()> {
        let instance = self.paths.instance.clone();
        let before = self.host.vms.clone();
        self.host.refresh(&self.config, &instance, self.options.replace, afresh).await?;
        self.refreshed(&before)
    }

    /// Begins to look at the host, on threads of the runtime.
    pub fn look(&self) -> Look {
        let (mut host, instance, replace) =
            (self.host.begin(), self.paths.instance.clone(), self.options.replace);
        let config = Arc::new(self.config.clone());
        let own = Arc::clone(&config);
        // From a task, so that the thread for it is made by a worker: threads are as urgent as whoever makes them.
        let task = tokio::spawn(async move {
            let runtime = tokio::runtime::Handle::current();
            let look = move || {
                runtime.block_on(host.refresh(&own, &instance, replace, false))?;
                Ok(host)
            };
            tokio::task::spawn_blocking(look).await.context("the look at the host ended early")?
        });
        Look { task, config, looks: self.host.looks }
    }

    /// Takes over what was seen and makes maps and attachments follow. `false`: the host was looked at for another
    /// config, or somebody else has looked since.
    ///
    /// # Errors
    /// As for [`Core::refresh`].
    pub fn looked(&mut self, look: &Look, seen: Result<Host>) -> Result<bool> {
        if self.host.looks != look.looks || self.config != *look.config {
            return Ok(false);
        }
        let host = seen?;
        let before = std::mem::replace(&mut self.host, host).vms;
        self.refreshed(&before)?;
        Ok(true)
    }

    fn refreshed(&mut self, before: &[Vm]) -> Result<()> {
        self.migrations_look(before);
        self.tell_samplers();
        self.tell_peers();
        self.note_vms();
        self.newcomers();
        if self.presence() {
            // Who is gone gets no packet from now on; tables follow.
            self.flip()?;
        }
        self.hold_back();
        self.settle()
    }
}
