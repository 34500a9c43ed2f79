//! Use of the uplinks: the counters of /proc/net/dev against the speed that ethtool tells.

use std::io;
use std::time::Instant;

use procfs::FromBufRead;
use procfs::net::InterfaceDeviceStatus;

use crate::host::offload;
use crate::measure::files::Files;
use crate::measure::rate::Counters;
use crate::measure::take::Taken;

/// Of the thread's network namespace; /proc/net is the main thread's.
pub const NET_DEV: &str = "/proc/thread-self/net/dev";

/// An uplink and what it could carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// Its name.
    pub name: String,
    /// Bytes per second, each way; `None` if its driver does not say.
    pub bytes: Option<f64>,
}

/// Asks the drivers.
pub fn speeds(uplinks: &[String]) -> Vec<Speed> {
    let each = uplinks.iter().map(|name| {
        let bits = offload::speed(name).ok().flatten();
        Speed { name: name.clone(), bytes: bits.map(|bits| bits as f64 / 8.0) }
    });
    each.collect()
}

/// The bytes of every interface, received and sent.
pub fn interfaces(files: &impl Files) -> io::Result<InterfaceDeviceStatus> {
    let text = files.text(NET_DEV)?;
    InterfaceDeviceStatus::from_buf_read(text.as_bytes()).map_err(io::Error::other)
}

pub(super) fn sample(
    counters: &mut Counters,
    files: &impl Files,
    uplinks: &[Speed],
    at: Instant,
) -> [Taken; 2] {
    let all = match interfaces(files) {
        Ok(all) => all.0,
        Err(error) => {
            let why = || format!("{NET_DEV}: {error}");
            return [Taken::missing("host_nic", NET_DEV, why()), Taken::missing("host_net", NET_DEV, why())];
        }
    };
    let (mut busiest, mut bytes, mut slow) = (None, None, None);
    for uplink in uplinks {
        let Some(now) = all.get(&uplink.name) else { continue };
        let received = counters.per_second(&format!("{} received", uplink.name), at, now.recv_bytes);
        let sent = counters.per_second(&format!("{} sent", uplink.name), at, now.sent_bytes);
        let Some((received, sent)) = received.zip(sent) else { continue };
        bytes = Some(bytes.unwrap_or(0.0) + received + sent);
        match uplink.bytes {
            Some(speed) => busiest = Some(f64::max(busiest.unwrap_or(0.0), received.max(sent) / speed)),
            None => slow = Some(&uplink.name),
        }
    }
    let share = match (busiest, slow) {
        (None, Some(name)) => Err(format!("{name} does not say its speed")),
        _ if uplinks.is_empty() => Err("no uplink is known".to_owned()),
        (busiest, _) => Ok(busiest),
    };
    let net = if uplinks.is_empty() { Err("no uplink is known".to_owned()) } else { Ok(bytes) };
    let taken = |metric, value| Taken { metric, value, source: NET_DEV };
    [taken("host_nic", share), taken("host_net", net)]
}
