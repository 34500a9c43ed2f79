//! The command line: words in, tables or JSON out, an exit code that means something.
//!
//! Every verb gathers one of the API's models, from the daemon or (if it only looks) from the pinned maps, and
//! shows it: text and JSON come from the same value.

pub mod args;

mod attach;
mod attach_timer;
mod bypass;
mod change;
mod check;
mod detach;
mod doctor;
mod drain;
mod flows;
mod health;
mod load;
mod migration;
mod output;
mod peers;
mod queues;
mod services;
mod session;
mod stats;
mod status;
mod targets;
mod weights;
mod why;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::daemon;
use args::{Args, Global, Run, Verb};
use session::Session;

/// How a verb ended, if not well.
#[derive(Debug)]
enum Failure {
    /// Something went wrong: exit code 1.
    Failed(anyhow::Error),
    /// It was said already, in the verb's own form: exit code 1.
    Said,
    /// The words cannot be meant together: exit code 2.
    Usage(String),
    /// The verb needs the daemon and it is not there: exit code 3.
    NoDaemon(String),
    /// Waited long enough: exit code 4.
    TimedOut(String),
    /// The reader of the output went away: not an error worth a word.
    PipeClosed,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return Self::PipeClosed;
        }
        Self::Failed(error)
    }
}

/// What a verb returns.
type Done = Result<(), Failure>;

impl Failure {
    /// Says it, and turns it into an exit code (0 ok, 1 failed, 2 usage, 3 no daemon, 4 timed out).
    fn report(&self, json: bool) -> ExitCode {
        let (code, text) = match self {
            Self::Failed(error) => (1, format!("{error:#}")),
            Self::Said => return ExitCode::from(1),
            Self::Usage(text) => (2, text.clone()),
            Self::NoDaemon(text) => (3, text.clone()),
            Self::TimedOut(text) => (4, text.clone()),
            Self::PipeClosed => return ExitCode::SUCCESS,
        };
        // stderr may be gone as well; there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "lbx: {text}");
        if json {
            let error =
                serde_json::json!({ "schema": crate::api::model::SCHEMA, "error": text, "code": code });
            let _ = writeln!(std::io::stdout(), "{error}");
        }
        ExitCode::from(code)
    }
}

/// Everything that the `lbx` command does.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(args.global.json),
    }
}

fn dispatch(args: &Args) -> Done {
    let global = &args.global;
    match &args.verb {
        Verb::Run(options) => run(global, options),
        Verb::Completions(options) => {
            let mut script = Vec::new();
            clap_complete::generate(options.shell, &mut Args::command(), "lbx", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(())
        }
        Verb::Version => output::version(global),
        Verb::Check(options) => check::check(&Session::new(global)?, options),
        Verb::Reload => change::reload(&Session::new(global)?),
        Verb::Status(watch) => status::status(&Session::new(global)?, *watch),
        Verb::Attach(options) => attach::attach(&Session::new(global)?, options),
        Verb::AttachTimer(options) => attach_timer::wait_and_undo(&Session::new(global)?, options),
        Verb::Detach(options) => detach::detach(&Session::new(global)?, options),
        Verb::Bypass(options) => bypass::bypass(&Session::new(global)?, *options),
        Verb::Doctor => doctor::doctor(&Session::new(global)?),
        Verb::Services(watch) => services::services(&Session::new(global)?, *watch),
        Verb::Targets(options) => targets::targets(&Session::new(global)?, options),
        Verb::Weights(options) => weights::weights(&Session::new(global)?, options),
        Verb::Flows(options) => flows::flows(&Session::new(global)?, options),
        Verb::Queues(options) => queues::queues(&Session::new(global)?, options),
        Verb::Health(watch) => health::health(&Session::new(global)?, *watch),
        Verb::Peers(options) => peers::peers(&Session::new(global)?, options),
        Verb::Load(options) => load::load(&Session::new(global)?, options),
        Verb::Migrations(options) => migration::migrations(&Session::new(global)?, options),
        Verb::Migration(options) => migration::tell(&Session::new(global)?, &options.verb),
        Verb::Why(options) => why::why(&Session::new(global)?, options),
        Verb::Stats(options) => stats::stats(&Session::new(global)?, options),
        Verb::Drain(options) => drain::drain(&Session::new(global)?, options),
        Verb::Undrain(options) => drain::undrain(&Session::new(global)?, options),
        Verb::Set(options) => change::set(&Session::new(global)?, options),
    }
}

fn run(global: &Global, options: &Run) -> Done {
    let paths = daemon::Paths::new(global.instance.as_deref(), &global.config)?;
    let options = daemon::Options { yes: options.yes, observe: options.observe, replace: options.replace };
    Ok(daemon::main(paths, options)?)
}
