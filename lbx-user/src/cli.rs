//! The command line: words in, tables or JSON out, an exit code that means something.
//!
//! Every verb gathers a report (from the daemon, or from the pinned maps when there is none) and leaves it to
//! [`output`] to show it; text and JSON come from the same report.

pub mod args;
pub mod output;

mod attach;
mod attach_timer;
mod bypass;
mod check;
mod client;
mod doctor;
mod drain;
mod flows;
mod gather;
mod run;
mod services;
mod set;
mod stats;
mod status;
mod targets;
mod weights;
mod why;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Verb};

/// How a verb ended, if not well.
#[derive(Debug)]
pub enum Failure {
    /// Something went wrong: exit code 1.
    Failed(anyhow::Error),
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
pub type Done = Result<(), Failure>;

impl Failure {
    /// Says it, and turns it into an exit code (0 ok, 1 failed, 2 usage, 3 no daemon, 4 timed out).
    fn report(&self, json: bool) -> ExitCode {
        let (code, text) = match self {
            Self::Failed(error) => (1, format!("{error:#}")),
            Self::Usage(text) => (2, text.clone()),
            Self::NoDaemon(text) => (3, text.clone()),
            Self::TimedOut(text) => (4, text.clone()),
            Self::PipeClosed => return ExitCode::SUCCESS,
        };
        // stderr may be gone as well; there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "lbx: {text}");
        if json {
            let error = serde_json::json!({ "schema": output::SCHEMA, "error": text, "code": code });
            let _ = writeln!(std::io::stdout(), "{error}");
        }
        ExitCode::from(code)
    }
}

/// Everything `main` does.
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
        Verb::Run(options) => run::run(global, options),
        Verb::Check(options) => check::check(global, options),
        Verb::Reload => check::reload(global),
        Verb::Status(watch) => status::status(global, *watch),
        Verb::Attach(options) => attach::attach(global, options),
        Verb::AttachTimer(options) => attach_timer::wait_and_undo(global, options),
        Verb::Detach(options) => attach::detach(global, options),
        Verb::Bypass(options) => bypass::bypass(global, *options),
        Verb::Doctor => doctor::doctor(global),
        Verb::Services(watch) => services::services(global, *watch),
        Verb::Targets(options) => targets::targets(global, options),
        Verb::Weights(options) => weights::weights(global, options),
        Verb::Flows(options) => flows::flows(global, options),
        Verb::Why(options) => why::why(global, options),
        Verb::Stats(options) => stats::stats(global, options),
        Verb::Drain(options) => drain::drain(global, options),
        Verb::Undrain(options) => drain::undrain(global, options),
        Verb::Set(options) => set::set(global, options),
        Verb::Completions(options) => {
            let mut script = Vec::new();
            clap_complete::generate(options.shell, &mut Args::command(), "lbx", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(())
        }
        Verb::Version => {
            output::version(global)?;
            Ok(())
        }
    }
}
