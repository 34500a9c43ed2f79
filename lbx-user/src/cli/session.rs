//! One run of a verb: whom it asks.

use std::cell::Cell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::args::Global;
use super::{Done, Failure};
use crate::api::client::{Client, Error};
use crate::config::Config;
use crate::daemon::Paths;
use crate::datapath::{self, Maps};
use crate::view::{self, View};

/// Instance, config and daemon of a verb.
pub(super) struct Session {
    pub global: Global,
    pub paths: Paths,
    client: Client,
    runtime: Runtime,
    told: Cell<bool>,
}

impl Session {
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let paths = Paths::new(global.instance.as_deref(), &global.config)?;
        // A config with problems does not keep anybody from asking a daemon that runs with an older one.
        let config = Config::load(&paths.config).ok();
        let client = Client::new(&paths.socket(config.as_ref()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { global: global.clone(), paths, client, runtime, told: Cell::new(false) })
    }

    pub fn json(&self) -> bool {
        self.global.json
    }

    pub fn block<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Asks the daemon.
    pub fn get<T: DeserializeOwned>(&self, route: &str, query: &impl Serialize) -> Result<T, Error> {
        self.block(self.client.get(route, query))
    }

    /// Has the daemon do something.
    pub fn post<T: DeserializeOwned>(&self, route: &str, body: &impl Serialize) -> Result<T, Error> {
        self.block(self.client.post(route, body))
    }

    /// Has the daemon do what cannot be done without it.
    pub fn must_post<T: DeserializeOwned>(&self, route: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.post(route, body).map_err(needs_daemon)
    }

    /// Whether the daemon answers.
    pub fn daemon_runs(&self) -> bool {
        !matches!(self.get::<serde_json::Value>("/v1/status", &()), Err(Error::NotRunning(_)))
    }

    /// Asks the daemon, or the pinned maps if it is not running.
    pub fn look<T: DeserializeOwned>(
        &self,
        route: &str,
        query: &impl Serialize,
        from_maps: impl Fn(&View<'_>) -> view::Result<T>,
    ) -> Result<T, Failure> {
        match self.get(route, query) {
            Err(Error::NotRunning(socket)) => {
                let mut answer = None;
                self.with_view(&Error::NotRunning(socket), |view| {
                    answer = Some(from_maps(view)?);
                    Ok(())
                })?;
                answer.ok_or_else(|| Failure::Failed(anyhow::anyhow!("the maps gave no answer")))
            }
            other => Ok(other?),
        }
    }

    /// Says once that the maps are read without the daemon.
    fn say_alone(&self) {
        if !self.told.replace(true) {
            eprintln!("lbx: the daemon is not running: read from the pinned maps");
        }
    }

    /// The same, if it is so.
    pub fn say_if_alone(&self) {
        if !self.told.get() && !self.daemon_runs() {
            self.say_alone();
        }
    }

    /// Reads the pinned maps, and says once that it is them. `why`: the daemon's absence.
    pub fn with_view(&self, why: &Error, work: impl FnOnce(&View<'_>) -> Done) -> Done {
        let maps = match Maps::open_pinned(&self.paths.instance) {
            Ok(maps) => maps,
            Err(datapath::Error::NotLoaded(_)) => {
                return Err(Failure::NoDaemon(format!("{why}, and nothing is attached")));
            }
            Err(error) => return Err(error.into()),
        };
        self.say_alone();
        work(&View::new(&maps, &self.paths.instance)?)
    }
}

/// An error of a verb that cannot do without the daemon.
pub(super) fn needs_daemon(error: Error) -> Failure {
    match error {
        Error::NotRunning(_) => Failure::NoDaemon(format!("{error}; start it with `lbx run`")),
        Error::Refused(_, answer) if !answer.problems.is_empty() => {
            let problems: Vec<String> = answer.problems.iter().map(super::check::line).collect();
            Failure::Failed(anyhow::anyhow!("{}:\n{}", answer.error, problems.join("\n")))
        }
        other => other.into(),
    }
}
