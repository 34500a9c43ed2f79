//! Migrations in the daemon: what is said of them, and what follows.

use tokio::sync::mpsc::UnboundedReceiver;

use super::core::Core;
use crate::migration::{Stream, Told};

/// What the core knows of migrations.
#[derive(Debug)]
pub struct Migrations {
    /// Where sources say what they know, and listeners hear what was news.
    pub stream: Stream,
    told: Option<UnboundedReceiver<Told>>,
}

impl Default for Migrations {
    fn default() -> Self {
        let (stream, told) = Stream::new();
        Self { stream, told: Some(told) }
    }
}

impl Migrations {
    /// Where events come out; once.
    pub(super) fn take(&mut self) -> Option<UnboundedReceiver<Told>> {
        self.told.take()
    }
}

impl Core {
    /// Somebody said something about the migration of a VM.
    pub fn migration(&mut self, told: Told) {
        tracing::info!("migration of {}: {} ({})", told.vm, told.event.what.name(), told.event.source.name());
        self.migrations.stream.accept(told);
    }
}
