//! Running the product in a lab: the daemon on a host, and the CLI against it.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bpffs;
use super::netns::Netns;
use super::process::Process;
use super::record::{Item, Record};
use super::topology::Lab;

/// Names the `lbx` binary, where it is not next to the running one.
pub const BINARY_ENV: &str = "LBX_BIN";

/// The product on one host of a lab. Dropping it kills the daemon; the lab removes its pins.
pub struct Lbx {
    /// The value of `--instance`.
    pub instance: String,
    ns: Netns,
    record: Record,
    binary: PathBuf,
    config: PathBuf,
    name: String,
    daemon: Option<Process>,
}

impl Lbx {
    /// Writes the config and has the lab remove what an instance leaves behind; starts nothing.
    pub fn new(lab: &Lab, host: usize, config: &str) -> Result<Self> {
        bpffs::ensure()?;
        let instance = lab.hosts[host].instance.clone();
        let lbx = Self {
            binary: binary()?,
            ns: lab.hosts[host].ns.clone(),
            record: lab.record.clone(),
            config: lab.record.dir().join(format!("lbx-{host}.toml")),
            name: format!("lbx-{host}"),
            instance,
            daemon: None,
        };
        for dir in [lbx.run_dir(), lbx.pin_dir()] {
            lab.record.add(&Item::Dir(dir))?;
        }
        lbx.write_config(config)?;
        Ok(lbx)
    }

    /// [`Lbx::new`], then the daemon, until it answers.
    pub fn start(lab: &Lab, host: usize, config: &str) -> Result<Self> {
        let mut lbx = Self::new(lab, host, config)?;
        lbx.run()?;
        Ok(lbx)
    }

    /// Starts the daemon (`lbx run`) and waits until its socket answers.
    pub fn run(&mut self) -> Result<()> {
        let mut command = self.command(&["run"]);
        command.env("RUST_BACKTRACE", "1");
        self.daemon = Some(Process::spawn(&self.record, &self.name, command)?);
        // The verifier takes its time where the machine is emulated and has others to serve.
        let deadline = Instant::now() + Duration::from_mins(4);
        loop {
            if self.socket().is_some_and(|path| UnixStream::connect(path).is_ok()) {
                return Ok(());
            }
            if let Some(status) = self.daemon.as_mut().and_then(Process::ended) {
                bail!("lbx run ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("lbx run does not listen:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9` to the daemon. Its socket file stays behind, and so do its pins.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// SIGTERM to the daemon; its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut daemon = self.daemon.take().context("lbx does not run")?;
        daemon.terminate(Duration::from_secs(15))
    }

    /// Stops the daemon in good order and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.run()
    }

    /// Replaces the config file; the daemon takes notice at `lbx reload`.
    pub fn write_config(&self, config: &str) -> Result<()> {
        std::fs::write(&self.config, config).with_context(|| format!("writing {}", self.config.display()))
    }

    /// Runs a verb of the CLI inside the host; its standard output. Fails with its standard error.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let out = self.output(arguments)?;
        if !out.status.success() {
            bail!(
                "lbx {}: {}: {}",
                arguments.join(" "),
                out.status,
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Runs a verb with `--json`; the parsed output.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let text = self.cli(&all)?;
        serde_json::from_str(&text).with_context(|| format!("lbx {}: {text}", arguments.join(" ")))
    }

    /// Runs a verb and returns its exit status and both outputs, whatever they are.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", self.binary.display()))
    }

    /// The command of a verb, in the host's namespace, with the instance and the config set.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ns.command(&self.binary);
        command.arg("--instance").arg(&self.instance).arg("--config").arg(&self.config).args(arguments);
        command
    }

    /// The daemon's pid.
    pub fn pid(&self) -> Option<i32> {
        self.daemon.as_ref().map(Process::pid)
    }

    /// The daemon's output of all its runs in this lab.
    pub fn log(&self) -> String {
        let path = self.record.dir().join(format!("{}.log", self.name));
        std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// `/run/lbx-INSTANCE`.
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run").join(format!("lbx-{}", self.instance))
    }

    /// `/sys/fs/bpf/lbx-INSTANCE`.
    pub fn pin_dir(&self) -> PathBuf {
        Path::new(bpffs::PATH).join(format!("lbx-{}", self.instance))
    }

    /// The config file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// The first socket in the run directory.
    pub fn socket(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.run_dir()).ok()?;
        entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "sock"))
    }
}

/// The `lbx` binary: `$LBX_BIN`, or the one in the target directory that the running binary is in.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_ENV) {
        return Ok(path.into());
    }
    let me = std::env::current_exe()?;
    // target/debug/lbx-lab, or target/debug/deps/vm-0123
    let found = me.ancestors().skip(1).take(2).map(|dir| dir.join("lbx")).find(|path| path.is_file());
    found.with_context(|| format!("no lbx near {}: build it with `cargo build -p lbx-user`", me.display()))
}
