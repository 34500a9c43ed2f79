//! Telling systemd how it goes, where there is one.

use sd_notify::NotifyState;

/// Started, and steering.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// On the way out.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!("systemd was not told: {error}");
    }
}
