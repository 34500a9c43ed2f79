//! Runs commands: prints them, passes signals on, keeps time limits, captures output.
//!
//! Each command gets a process group of its own (so that a Ctrl-C reaches it once, from here, and a time limit
//! reaches all of it) unless it talks to the terminal. It gets SIGTERM if xtask dies without a chance to say so.

mod options;
mod wait;

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use nix::sys::signal::Signal;

use self::wait::collect;
use crate::signals::{self, Interrupted};
use crate::{paths, user};

/// How long to wait for the rest of a command's output after it has exited.
const DRAIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Straight to the terminal.
    Inherit,
    /// Standard output is shown and kept.
    Tee,
    /// Standard output is kept, nothing is shown.
    Keep,
    /// On a terminal a spinner with the last line, and the whole output on failure; else like `Inherit`.
    Spin,
}

/// A command to run.
#[derive(Debug, Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(String, OsString)>,
    unset: Vec<&'static str>,
    path_first: Option<PathBuf>,
    output: Output,
    root: bool,
    foreground: bool,
    cleanup: bool,
    detached: bool,
    sweep: bool,
    limit: Option<Duration>,
}

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output, when kept.
    pub stdout: String,
    /// Whether it was ended because of its time limit.
    pub timed_out: bool,
}

impl Cmd {
    /// A command that runs as the invoking user, in the workspace root.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_os_string(),
            args: Vec::new(),
            envs: Vec::new(),
            unset: Vec::new(),
            path_first: None,
            output: Output::Inherit,
            root: false,
            foreground: false,
            cleanup: false,
            detached: false,
            sweep: false,
            limit: None,
        }
    }

    /// `cargo` with the toolchain of the workspace.
    pub fn cargo<const N: usize>(args: [&str; N]) -> Self {
        Self::new("cargo").args(args)
    }

    /// Runs it, showing its output.
    ///
    /// # Errors
    /// When it cannot be started, fails, or a signal arrived.
    pub fn run(self) -> Result<()> {
        let name = self.name();
        let outcome = self.outcome()?;
        if !outcome.status.success() {
            bail!("`{name}` failed ({})", outcome.status);
        }
        Ok(())
    }

    /// Runs it, showing its output and keeping standard output.
    ///
    /// # Errors
    /// When it cannot be started or a signal arrived; not when it fails.
    pub fn tee(mut self) -> Result<Outcome> {
        self.output = Output::Tee;
        self.outcome()
    }

    /// Runs it and keeps standard output without showing it; the command line is not shown either unless
    /// `shown`. For questions to the system, and for machine-readable answers.
    ///
    /// # Errors
    /// When it cannot be started or a signal arrived; not when it fails.
    pub fn keep(mut self, shown: bool) -> Result<Outcome> {
        self.output = Output::Keep;
        if shown { self.outcome() } else { self.execute() }
    }

    fn name(&self) -> String {
        let base = PathBuf::from(&self.program);
        let base = base.file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        let first = self.args.first().map(|arg| arg.to_string_lossy().into_owned());
        first.filter(|arg| !arg.starts_with('-')).map_or(base.clone(), |arg| format!("{base} {arg}"))
    }

    /// The command as one would type it.
    pub fn line(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        if self.root && !user::is_root() {
            words.push("sudo".to_owned());
        }
        words.extend(self.envs.iter().map(|(key, value)| format!("{key}={}", quote(value))));
        if let Some(dir) = &self.path_first {
            words.push(format!("PATH={}:$PATH", quote(dir.as_os_str())));
        }
        words.push(quote(&shorten(&self.program)));
        words.extend(self.args.iter().map(|arg| quote(arg)));
        words.join(" ")
    }

    /// Prints the command and runs it.
    ///
    /// # Errors
    /// When it cannot be started or a signal arrived; not when it fails.
    pub fn outcome(self) -> Result<Outcome> {
        println!("+ {}", self.line());
        std::io::stdout().flush()?;
        self.execute()
    }

    fn execute(self) -> Result<Outcome> {
        if !self.cleanup {
            signals::check()?;
        }
        let sudo = self.root && !user::is_root();
        if sudo {
            user::authorise()?;
        }
        let spinning = self.output == Output::Spin && std::io::stderr().is_terminal();
        let mut command = self.command(sudo);
        match self.output {
            Output::Tee | Output::Keep => drop(command.stdout(Stdio::piped())),
            Output::Spin if spinning => drop(command.stdout(Stdio::piped()).stderr(Stdio::piped())),
            Output::Inherit | Output::Spin => {}
        }
        if self.output == Output::Keep && !self.foreground {
            command.stdin(Stdio::null());
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let spinner = spinning.then(|| {
            let bar = ProgressBar::new_spinner().with_message(self.name());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let show = self.output == Output::Tee;
        let stdout = child.stdout.take().map(|pipe| collect(pipe, show, spinner.clone()));
        let stderr = child.stderr.take().map(|pipe| collect(pipe, false, spinner.clone()));
        let (status, timed_out) = self.wait(&mut child, sudo)?;
        let text = |pipe: Option<mpsc::Receiver<String>>| {
            let mut text = String::new();
            let end = Instant::now() + DRAIN;
            while let Some(line) = pipe
                .as_ref()
                .and_then(|pipe| pipe.recv_timeout(end.saturating_duration_since(Instant::now())).ok())
            {
                text.push_str(&line);
            }
            text
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        if let Some(bar) = spinner {
            bar.finish_and_clear();
            if !status.success() {
                eprint!("{stdout}{stderr}");
            }
        }
        if !self.cleanup {
            signals::check()?;
        }
        Ok(Outcome { status, stdout, timed_out })
    }

    fn command(&self, sudo: bool) -> Command {
        let mut command;
        if sudo {
            // `env` because sudo drops the environment, and may not be allowed to keep it.
            command = Command::new("sudo");
            command.args(["-n", "--", "env"]);
            for (key, value) in &self.envs {
                let mut pair = OsString::from(key);
                pair.push("=");
                pair.push(value);
                command.arg(pair);
            }
            command.arg(&self.program);
        } else {
            command = Command::new(&self.program);
            for (key, value) in &self.envs {
                command.env(key, value);
            }
        }
        for key in &self.unset {
            command.env_remove(key);
        }
        // What cargo says of xtask to xtask is nothing to a cargo below it: build scripts that look at these variables
        // would run again, and what depends on them be built again, after every cargo that is not run from here.
        for (key, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"]
                .iter()
                .any(|name| key.as_encoded_bytes().starts_with(name.as_bytes()))
            {
                command.env_remove(key);
            }
        }
        command.args(&self.args);
        if !self.foreground {
            command.current_dir(paths::root());
        }
        let invoker = if self.root { None } else { user::drop_to_invoker(&mut command) };
        let first: Vec<PathBuf> =
            self.path_first.iter().cloned().chain(invoker.map(|user| user.home.join(".cargo/bin"))).collect();
        if !first.is_empty() {
            let rest = std::env::var_os("PATH").unwrap_or_default();
            let path = std::env::join_paths(first.into_iter().chain(std::env::split_paths(&rest)));
            command.env("PATH", path.unwrap_or(rest));
        }
        if !self.foreground {
            command.stdin(Stdio::null()).process_group(0);
        }
        if !self.detached && !self.foreground {
            // SAFETY: the closure runs between fork and exec and makes one prctl call, which is
            // async-signal-safe and touches no memory of ours. The signal is tied to the thread that forks,
            // and every thread that does waits here for the end of its command.
            unsafe {
                command.pre_exec(|| {
                    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(std::io::Error::from)
                });
            }
        }
        command
    }
}

/// A path in the workspace is shown relative to it.
fn shorten(program: &OsStr) -> OsString {
    PathBuf::from(program)
        .strip_prefix(paths::root())
        .map_or_else(|_| program.to_os_string(), |path| path.as_os_str().to_os_string())
}

fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Whether an error is a signal's doing.
pub fn interrupted(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Interrupted>().is_some()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_command_is_shown_as_typed() {
        let cmd = Cmd::new("echo").args(["a b", "it's", "plain-1.0", ""]).env("K", "v w");
        assert_eq!(cmd.line(), r"K='v w' echo 'a b' 'it'\''s' plain-1.0 ''");
    }

    #[test]
    fn output_is_kept_and_status_reported() {
        let outcome = Cmd::new("sh").args(["-c", "echo one; echo two; exit 3"]).keep(false).unwrap();
        assert_eq!((outcome.stdout.as_str(), outcome.status.code()), ("one\ntwo\n", Some(3)));
        assert!(!outcome.timed_out);
    }

    #[test]
    fn the_time_limit_reaches_the_whole_group() {
        let start = Instant::now();
        let script = "sleep 300 & echo $!; sleep 300";
        let outcome =
            Cmd::new("sh").args(["-c", script]).limit(Duration::from_millis(300)).keep(false).unwrap();
        assert!(outcome.timed_out && !outcome.status.success());
        assert!(start.elapsed() < Duration::from_secs(10));
        // The grandchild may linger as a zombie of init; what counts is that it does not run.
        let pid = outcome.stdout.trim().to_owned();
        thread::sleep(Duration::from_millis(100));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[test]
    fn what_is_left_running_is_swept() {
        let outcome = Cmd::new("sh").args(["-c", "sleep 300 & echo $!"]).sweep().keep(false).unwrap();
        let pid = outcome.stdout.trim().to_owned();
        thread::sleep(Duration::from_millis(100));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}
