//! libvirt daemons in the daemon: which are listened to, and how that goes.

use super::core::Core;
use crate::api::model::LibvirtDaemon;
use crate::host::libvirt::{self, Shown};

impl Core {
    /// Listens to the libvirt daemons that the config asks for, and to no other.
    pub(super) fn follow_libvirt(&mut self) {
        let wanted = libvirt::wanted(self.config.libvirt.sockets.as_deref());
        self.migrations.libvirt.follow(wanted, &self.migrations.stream);
    }

    /// How listening goes; nothing of a host that has no libvirt.
    pub(super) fn libvirt_daemons(&self) -> Vec<LibvirtDaemon> {
        let shown = self.migrations.libvirt.shown().into_iter();
        shown.filter(|one| one.configured || one.connects > 0 || one.error.is_some()).map(daemon).collect()
    }

    /// What is wrong with it.
    pub(super) fn libvirt_notes(&self) -> Vec<String> {
        let lost = |one: Shown| {
            let why = one.error?;
            Some(format!("migrations by libvirt at {} are not heard of: {why}", one.socket.display()))
        };
        self.migrations.libvirt.shown().into_iter().filter_map(lost).collect()
    }
}

fn daemon(shown: Shown) -> LibvirtDaemon {
    LibvirtDaemon {
        socket: shown.socket.display().to_string(),
        version: shown.version,
        error: shown.error,
        connects: shown.connects,
        notices: shown.notices,
        events: shown.told,
    }
}
