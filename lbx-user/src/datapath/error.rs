//! What can go wrong between user space and the kernel half.

use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in [`crate::datapath`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the datapath could not be loaded, attached, read or written. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary was built without the kernel half.
    #[error("{}", super::object::NO_OBJECT)]
    NoObject,
    /// Capabilities are missing.
    #[error("missing {}: run lbx as root, or give it these capabilities", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// Nothing is pinned under the instance's directory.
    #[error("lbx is not loaded (nothing at {}): `lbx run` or `lbx attach` loads it", .0.display())]
    NotLoaded(PathBuf),
    /// A pinned map does not have the shape this lbx expects.
    #[error(
        "pinned map {name}: {what} is {found}, this lbx needs {expected}; the maps belong to another build: \
         run `lbx detach` with that build (or with this one) and attach again"
    )]
    Shape {
        /// Name of the map.
        name: &'static str,
        /// Which property differs.
        what: &'static str,
        /// What the kernel reports.
        found: u64,
        /// What is needed.
        expected: u64,
    },
    /// The maps were made by an lbx with another layout.
    #[error(
        "the pinned maps have ABI version {found}, this lbx has {expected}: run `lbx detach` with the lbx that \
         made them, then attach again"
    )]
    Abi {
        /// Version in the control block.
        found: u32,
        /// Version of this build.
        expected: u32,
    },
    /// The object lacks a program or map.
    #[error("the eBPF object has no {0}: it was built from another version of lbx")]
    Missing(String),
    /// The kernel or aya refused the object.
    #[error("loading the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// The verifier or the kernel refused a program.
    #[error("loading program {name}: {source}")]
    Program {
        /// Name of the program.
        name: String,
        /// What aya reports, with the verifier's log.
        source: aya::programs::ProgramError,
    },
    /// The kernel's type information lacks something.
    #[error("the kernel's type information (BTF): {0}")]
    Types(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// Another XDP program is on the interface.
    #[error(
        "{device}: XDP program {id} ({name}) is attached already; `--replace` takes its place, or detach it first"
    )]
    ForeignXdp {
        /// The interface.
        device: String,
        /// Id of the program in its way.
        id: u32,
        /// Its name.
        name: String,
    },
    /// The driver does not take XDP in the requested way.
    #[error("{device}: the driver refuses {mode} XDP ({source})")]
    XdpUnsupported {
        /// The interface.
        device: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The interface is not there.
    #[error("{0}: no such interface")]
    NoDevice(String),
    /// A name that cannot name an instance.
    #[error("instance name {0:?}: use 1 to 32 letters, digits, `-` or `_`")]
    Instance(String),
    /// An index beyond the end of a map.
    #[error("{map}: index {index} is beyond its {len} entries")]
    Range {
        /// Name of the map.
        map: &'static str,
        /// The index asked for.
        index: u64,
        /// Entries the map has.
        len: u64,
    },
    /// No contiguous room for a table.
    #[error(
        "no room for a table of {len} slots: {used} of {pool} slots are in use; raise the table pool or make \
         tables smaller"
    )]
    TablePool {
        /// Slots asked for.
        len: u32,
        /// Slots in use.
        used: u64,
        /// Slots there are.
        pool: u64,
    },
    /// The addresses cannot be laid out.
    #[error("addresses: {0}")]
    Addresses(#[from] lbx_common::addresses::BuildError),
    /// The maps were opened for reading.
    #[error("the maps are open for reading only")]
    ReadOnly,
    /// The clock program gave nothing usable.
    #[error("jiffies could not be read through lbx_clock: {0}")]
    Clock(&'static str),
}

impl Error {
    /// Wraps the error of a system call with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Same, for work on a path.
    pub(crate) fn path(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }

    /// The number of the system call's error, if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::XdpUnsupported { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
