//! A host of lbx inside a QEMU guest: another kernel, with what this machine's may lack, running programs of this
//! workspace as root. Nothing is shared with the guest: programs, their libraries and the tools they call are in
//! its initramfs; what they say comes back over a serial line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::cpio::Cpio;
use super::guest::{self, Boot, QEMU, qemu};
use super::image::{self, Image};
use super::process::Process;
use super::record::Record;
use super::{accel, cleanup, lbx, tools};
use crate::guest::nested::{DONE, ENDED, Job, ORDER, PLAN, Plan};

/// Names a file with the paths of the test binaries that may run in a guest; `cargo xtask test` writes it.
pub const TESTS_ENV: &str = "LBX_NESTED_TESTS";
/// Where the initramfs has its programs, and their libraries.
const PROGRAMS: &str = "nested";
const LIBRARIES: &str = "nested/lib";
/// What lbx and the tests call.
const TOOLS: [&str; 7] = ["ip", "bridge", "tc", "ethtool", "nft", "bpftool", "ebtables"];
const MEMORY_MIB: u32 = 1024;
const CPUS: u32 = 2;

/// A program to run in the guest.
#[derive(Debug, Clone)]
pub struct Program {
    /// Name of a test binary, such as `bpf`.
    pub test: &'static str,
    /// Its arguments, such as names of tests.
    pub args: Vec<String>,
    /// How long it may take, in seconds.
    pub limit_s: u64,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The program's name.
    pub name: String,
    /// Its exit code, or what else happened to it.
    pub how: String,
    /// How long it took.
    pub took: Duration,
    /// What it said.
    pub output: String,
}

impl Ended {
    /// How many tests passed, as Rust's test harness counts them.
    pub fn passed(&self) -> usize {
        let counts = self.output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
        counts.filter_map(|counts| counts.split(' ').next()?.parse::<usize>().ok()).sum()
    }
}

/// What a guest did.
#[derive(Debug)]
pub struct Ran {
    /// Its kernel, as `uname -r` says.
    pub kernel: String,
    /// Its programs, in order.
    pub programs: Vec<Ended>,
}

impl Ran {
    /// Prints what was run. Panics unless every program ended well and at least so many tests ran in all of them.
    #[track_caller]
    pub fn expect(&self, at_least: usize) {
        let mut passed = 0;
        for ended in &self.programs {
            let (own, kernel) = (ended.passed(), &self.kernel);
            eprintln!(
                "Linux {kernel}: {}: {own} tests passed in {:.1} s",
                ended.name,
                ended.took.as_secs_f64()
            );
            passed += own;
        }
        if let Some(ended) = self.programs.iter().find(|ended| ended.how != "0") {
            panic!("Linux {}: {} ended with {}:\n{}", self.kernel, ended.name, ended.how, ended.output);
        }
        assert!(passed >= at_least, "only {passed} tests ran: {:#?}", self.programs);
    }
}

impl Program {
    /// All tests of a binary, one after the other.
    pub fn test(test: &'static str) -> Self {
        Self { test, args: ["--test-threads=1", "--nocapture"].map(str::to_owned).to_vec(), limit_s: 800 }
    }

    /// Only the tests whose names contain one of these.
    #[must_use]
    pub fn only(mut self, tests: &[&str]) -> Self {
        self.args.extend(tests.iter().map(|test| (*test).to_owned()));
        self
    }
}

/// Boots a kernel of the series and runs the programs. An error when the guest does not get to its end in time;
/// what a program makes of it is in the answer.
pub fn run(series: &str, programs: &[Program], limit: Duration) -> Result<Ran> {
    ensure!(nix::unistd::geteuid().is_root(), "this needs root: labs are kept in /run");
    cleanup::gc()?;
    let image = image::ensure_series(series)?;
    let record = Record::create()?;
    let ran = run_in(&record, &image, programs, limit);
    cleanup::remove(record.dir())?;
    Ok(Ran { kernel: image.version, programs: ran? })
}

fn run_in(record: &Record, image: &Image, programs: &[Program], limit: Duration) -> Result<Vec<Ended>> {
    let accel = accel::choose(record, image, &guest::write_initramfs(image, record.dir())?)?;
    let initramfs = record.dir().join("nested.cpio");
    write_initramfs(image, programs, &initramfs)?;
    let boot = Boot { kernel: image.kernel.clone(), initramfs, accel };
    let [console, output] = ["nested.console", "nested.output"].map(|name| record.dir().join(name));
    let mut command = Command::new(QEMU);
    command.args(qemu(&boot, MEMORY_MIB, CPUS, "lbx.nested=1"));
    for path in [&console, &output] {
        command.arg("-serial").arg(format!("file:{}", path.display()));
    }
    let mut process = Process::spawn(record, "nested", command)?;
    let read = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    };
    let deadline = Instant::now() + limit;
    while process.ended().is_none() {
        if Instant::now() > deadline {
            bail!(
                "the guest is not done after {limit:?}:\n{}{}{}",
                process.log(),
                read(&console),
                read(&output)
            );
        }
        sleep(Duration::from_millis(50));
    }
    let text = read(&output);
    ensure!(
        text.lines().any(|line| line == DONE),
        "the guest ended before its programs:\n{}{}{text}",
        process.log(),
        read(&console)
    );
    let ended = parse(&text);
    ensure!(ended.len() == programs.len(), "{} of {} programs ended:\n{text}", ended.len(), programs.len());
    Ok(ended)
}

/// The programs' ends in what came over the line.
fn parse(text: &str) -> Vec<Ended> {
    let mut all = Vec::new();
    let mut output = String::new();
    for line in text.lines() {
        let words = line.strip_prefix(ENDED).map(|rest| rest.trim_start().splitn(3, ' ').collect::<Vec<_>>());
        let Some([name, millis, how]) = words.as_deref() else {
            output.push_str(line);
            output.push('\n');
            continue;
        };
        let took = Duration::from_millis(millis.parse().unwrap_or(0));
        let output = std::mem::take(&mut output);
        all.push(Ended { name: (*name).to_owned(), how: (*how).to_owned(), took, output });
    }
    all
}

/// The init, modules, programs, tools, their libraries, and the plan.
fn write_initramfs(image: &Image, programs: &[Program], path: &Path) -> Result<()> {
    let tests = available()?;
    let lbx = lbx::binary()?;
    let mut all = BTreeMap::from([("lbx".to_owned(), lbx)]);
    let mut plan = Plan { env: environment(), jobs: Vec::new() };
    for program in programs {
        let Some(from) = tests.get(program.test) else {
            bail!("no test binary {} in {TESTS_ENV}: run this test by `cargo xtask test vm`", program.test);
        };
        all.insert(program.test.to_owned(), from.clone());
        plan.jobs.push(Job {
            name: program.test.to_owned(),
            program: format!("/{PROGRAMS}/{}", program.test),
            args: program.args.clone(),
            limit_s: program.limit_s,
        });
    }
    for tool in TOOLS {
        all.insert(tool.to_owned(), which(tool)?);
    }
    let (interpreters, libraries) = linked_to(&all.values().cloned().collect::<Vec<_>>())?;
    guest::write_initramfs_with(image, path, |cpio| {
        guest::add_modules(cpio, ORDER, &image.host_modules)?;
        let mut made = BTreeSet::new();
        directories(cpio, &mut made, LIBRARIES)?;
        for (name, from) in &all {
            cpio.file(&format!("{PROGRAMS}/{name}"), 0o755, &stripped(from)?)?;
        }
        for library in libraries {
            let name = library.file_name().and_then(|name| name.to_str()).context("name of a library")?;
            cpio.file(&format!("{LIBRARIES}/{name}"), 0o755, &fs::read(&library)?)?;
        }
        for interpreter in interpreters {
            let name = interpreter.to_str().context("name of ld.so")?.trim_start_matches('/');
            directories(cpio, &mut made, name.rsplit_once('/').map_or("", |(dir, _)| dir))?;
            cpio.file(name, 0o755, &fs::read(&interpreter)?)?;
        }
        Ok(cpio.file(PLAN.trim_start_matches('/'), 0o644, &serde_json::to_vec(&plan)?)?)
    })
}

fn environment() -> Vec<(String, String)> {
    let pairs = [
        ("PATH", format!("/{PROGRAMS}")),
        ("LD_LIBRARY_PATH", format!("/{LIBRARIES}")),
        ("HOME", "/root".to_owned()),
        ("LBX_BIN", format!("/{PROGRAMS}/lbx")),
        // The guest's own init is the server of stand-ins, too.
        (guest::BINARY_ENV, "/init".to_owned()),
        ("LBX_CACHE", "/tmp".to_owned()),
        ("RUST_BACKTRACE", "0".to_owned()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

/// Test binaries by their names: cargo appends a dash and a hash.
fn available() -> Result<BTreeMap<String, PathBuf>> {
    let file = std::env::var_os(TESTS_ENV)
        .with_context(|| format!("{TESTS_ENV} is not set: run this test by `cargo xtask test vm`"))?;
    let list = fs::read_to_string(&file).with_context(|| format!("read {}", Path::new(&file).display()))?;
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.rsplit_once('-')?.0.to_owned());
    Ok(list.lines().map(PathBuf::from).filter_map(|path| Some((name(&path)?, path))).collect())
}

fn which(tool: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's PATH may lack what root uses.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = dirs.map(|dir| dir.join(tool)).find(|path| path.is_file());
    found.with_context(|| format!("no program {tool} here: `cargo xtask setup` gets it"))
}

/// The interpreters (ld.so) and the libraries of programs, as ldd(1) finds them.
fn linked_to(programs: &[PathBuf]) -> Result<(BTreeSet<PathBuf>, BTreeSet<PathBuf>)> {
    let text = tools::run(Command::new("ldd").args(programs))?;
    let (mut interpreters, mut libraries) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines().map(str::trim).filter(|line| line.contains(" (0x")) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, "=>", path, _] => _ = libraries.insert(path.into()),
            [path, _] if path.starts_with('/') => _ = interpreters.insert(path.into()),
            _ => {} // linux-vdso, which is no file
        }
    }
    ensure!(!interpreters.is_empty() && !libraries.is_empty(), "ldd says nothing of use:\n{text}");
    Ok((interpreters, libraries))
}

/// A program without its symbols, where there is a strip(1): the initramfs lies in memory twice.
fn stripped(from: &Path) -> Result<Vec<u8>> {
    let made = Command::new("strip").args(["-o", "/dev/stdout"]).arg(from).output();
    match made {
        Ok(out) if out.status.success() && out.stdout.starts_with(b"\x7fELF") => Ok(out.stdout),
        _ => fs::read(from).with_context(|| format!("reading {}", from.display())),
    }
}

/// Adds a directory and those above it, each once.
fn directories<W: Write>(cpio: &mut Cpio<W>, made: &mut BTreeSet<String>, path: &str) -> Result<()> {
    for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
        if made.insert(path[..at].to_owned()) {
            cpio.directory(&path[..at])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_programs_are_found_among_their_output() {
        let text = format!(
            "test result: ok. 3 passed; 0 failed\n\n{ENDED} a 12 0\nx\n\n{ENDED} b 1500 signal 9\n{DONE}\n"
        );
        let ended = parse(&text);
        assert_eq!(ended.len(), 2);
        assert_eq!((ended[0].how.as_str(), ended[0].passed()), ("0", 3));
        assert_eq!((ended[1].name.as_str(), ended[1].how.as_str()), ("b", "signal 9"));
        assert_eq!(ended[1].took, Duration::from_millis(1500));
    }

    #[test]
    fn parents_come_first_and_once() {
        let mut cpio = Cpio::new(Vec::new());
        let mut made = BTreeSet::new();
        for path in ["a/b", "a/c"] {
            directories(&mut cpio, &mut made, path).unwrap();
        }
        assert_eq!(made.into_iter().collect::<Vec<_>>(), ["a", "a/b", "a/c"]);
    }

    #[test]
    fn this_test_has_an_interpreter_and_libraries() {
        let (interpreters, libraries) = linked_to(&[std::env::current_exe().unwrap()]).unwrap();
        assert_eq!(interpreters.len(), 1);
        assert!(libraries.iter().any(|path| path.to_string_lossy().contains("libc.so")), "{libraries:?}");
    }
}
