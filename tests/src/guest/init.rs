//! What PID 1 does before it serves, and the start of the services for guests and stand-ins alike.

use std::ffi::CStr;
use std::fs::{self, File};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::params::Params;
use super::service::Service;
use super::state::State;
use super::{announce, echo, http, net};

/// Where the initramfs keeps the modules, with a list in loading order in `order`.
pub const MODULES: &str = "/modules";
/// The line on the console that tells that the guest booted.
pub const UP: &str = "LBX-GUEST-UP";

/// Mounts the kernel's file systems and loads the modules. Only for PID 1 of a guest.
pub fn boot() -> Result<Params> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .or_else(|e| if e == nix::errno::Errno::EBUSY { Ok(()) } else { Err(e) })
            .with_context(|| format!("mounting {at}"))?;
    }
    let params = Params::parse(fs::read_to_string("/proc/cmdline")?.split_whitespace())?;
    if !params.probe {
        for name in fs::read_to_string(format!("{MODULES}/order"))?.lines() {
            load_module(name).with_context(|| format!("module {name}"))?;
        }
    }
    Ok(params)
}

/// Configures the network and starts every service; returns at once.
pub fn start(params: Params) -> Result<Arc<State>> {
    net::configure(&params)?;
    let state = State::new(params);
    for port in state.params.http.clone() {
        Service::start(&state, port, http::serve).with_context(|| format!("port {port}"))?;
    }
    Service::start(&state, http::CONTROL_PORT, http::serve)?;
    Service::start(&state, echo::PORT, echo::tcp)?;
    echo::start_udp(&state).context("UDP echo")?;
    announce::announce(&state.params)?;
    Ok(state)
}

/// Ends the guest.
pub fn power_off() -> Result<()> {
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF)?;
    Ok(())
}

/// Loads a module of the initramfs; one that is loaded already is none to complain about.
pub fn load_module(name: &str) -> Result<()> {
    let file = File::open(format!("{MODULES}/{name}"))?;
    let no_parameters: &CStr = c"";
    match nix::kmod::finit_module(&file, no_parameters, nix::kmod::ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
