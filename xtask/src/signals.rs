//! Ctrl-C, SIGTERM and SIGHUP: remembered here, passed on to the running command by [`crate::process`].

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static LAST: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The verb was ended by a signal; the process exits with 130.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

extern "C" fn remember(signal: libc::c_int) {
    LAST.store(signal, Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Installs the handlers, once, before anything is started.
pub fn install() {
    let action = SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: `remember` only stores to lock-free atomics, which is allowed in a signal handler, and no
        // other part of this program replaces these handlers.
        let installed = unsafe { sigaction(signal, &action) };
        if let Err(error) = installed {
            eprintln!("xtask: cannot handle {signal}: {error}");
        }
    }
}

/// How many signals have arrived so far, and the last of them.
pub fn received() -> (u32, Signal) {
    let last = Signal::try_from(LAST.load(Ordering::Relaxed)).unwrap_or(Signal::SIGINT);
    (COUNT.load(Ordering::Relaxed), last)
}

/// Fails once a signal has arrived, so that a verb does not start its next step.
///
/// # Errors
/// [`Interrupted`].
pub fn check() -> Result<(), Interrupted> {
    if received().0 > 0 { Err(Interrupted) } else { Ok(()) }
}
