//! Is libvirt heard? A connection of the doctor's own to each daemon that `lbx run` would listen to.

use super::Findings;
use crate::config::Config;
use crate::host::libvirt;
use crate::host::libvirt::source;

const CHECK: &str = "libvirt";

pub(super) async fn look(config: &Config, found: &mut Findings) {
    for wanted in libvirt::wanted(config.libvirt.sockets.as_deref()) {
        match source::open(&wanted).await {
            Ok((socket, session)) => {
                let (version, vms) = (&session.version, session.running.len());
                let text = format!("{version}, {vms} VMs run; its news of migrations are followed");
                found.ok(CHECK, &socket.display().to_string(), text);
            }
            Err(Some((socket, error))) => {
                let text = format!("migrations are not heard of: {error}");
                let about = socket.display().to_string();
                if wanted.configured {
                    found.fail(CHECK, &about, text, "start it, or correct `[libvirt] sockets`");
                } else {
                    let hint = "start it; if it runs no VMs, `[libvirt] sockets = []` leaves it alone";
                    found.warn(CHECK, &about, text, hint);
                }
            }
            Err(None) => found.skipped(CHECK, "", "there is no libvirt on this host"),
        }
    }
}
