//! What all services of one guest share: its name, its counters, its service time, and its listeners.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::params::Params;
use super::seen::Seen;
use super::service::Service;
use super::stats;

/// One guest's shared state.
pub struct State {
    /// What it was told at start.
    pub params: Params,
    /// HTTP requests answered.
    pub requests: AtomicU64,
    /// TCP connections accepted, all services.
    pub connections: AtomicU64,
    /// TCP echo frames answered.
    pub frames: AtomicU64,
    /// UDP datagrams answered.
    pub datagrams: AtomicU64,
    /// The numbers of UDP datagrams that carry one.
    pub seen: Seen,
    service_ms: AtomicU64,
    slots: Slots,
    services: Mutex<BTreeMap<u16, Arc<Service>>>,
}

impl State {
    /// The state at start.
    pub fn new(params: Params) -> Arc<Self> {
        let service_ms = AtomicU64::new(params.service_ms);
        Arc::new(Self {
            params,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            seen: Seen::default(),
            service_ms,
            slots: Slots::default(),
            services: Mutex::default(),
        })
    }

    /// The VM's name, as every answer carries it.
    pub fn name(&self) -> &str {
        &self.params.name
    }

    /// Spends the service time of one request: `asked` milliseconds, or the guest's own.
    pub fn serve(&self, asked: Option<u64>) {
        let ms = asked.unwrap_or_else(|| self.service_ms.load(Ordering::Relaxed));
        self.slots.hold(|| {
            if ms > 0 {
                std::thread::sleep(Duration::from_millis(ms));
            }
        });
    }

    /// Sets the service time in milliseconds of requests that name none.
    pub fn set_service_ms(&self, ms: u64) {
        self.service_ms.store(ms, Ordering::Relaxed);
    }

    /// Limits how many requests are in service at once; 0 lifts the limit. Others wait: a server of finite speed.
    pub fn set_slots(&self, slots: u64) {
        self.slots.set_limit(slots);
    }

    /// Registers a service under its port.
    pub fn register(&self, service: Arc<Service>) {
        self.services.lock().expect("no holder panics").insert(service.port, service);
    }

    /// The service on a port.
    pub fn service(&self, port: u16) -> Option<Arc<Service>> {
        self.services.lock().expect("no holder panics").get(&port).cloned()
    }

    /// Everything `GET /stats` answers.
    pub fn stats(&self) -> Value {
        let kernel = stats::counters();
        json!({
            "vm": self.name(),
            "requests": self.requests.load(Ordering::Relaxed),
            "connections": self.connections.load(Ordering::Relaxed),
            "frames": self.frames.load(Ordering::Relaxed),
            "datagrams": self.datagrams.load(Ordering::Relaxed),
            "in_service": self.slots.in_use(),
            "service_ms": self.service_ms.load(Ordering::Relaxed),
            "checksum_errors": stats::checksum_errors(&kernel),
            "kernel": kernel,
        })
    }
}

/// A semaphore whose size can change while it is held.
#[derive(Default)]
struct Slots {
    /// (limit, in use, waiting); limit 0 is none.
    state: Mutex<(u64, u64, u64)>,
    freed: Condvar,
}

impl Slots {
    fn hold(&self, work: impl FnOnce()) {
        let mut state = self.state.lock().expect("no holder panics");
        state.2 += 1;
        while state.0 != 0 && state.1 >= state.0 {
            state = self.freed.wait(state).expect("no holder panics");
        }
        (state.1, state.2) = (state.1 + 1, state.2 - 1);
        drop(state);
        work();
        self.state.lock().expect("no holder panics").1 -= 1;
        self.freed.notify_one();
    }

    /// Requests in service, and those that wait for it.
    fn in_use(&self) -> u64 {
        let state = self.state.lock().expect("no holder panics");
        state.1 + state.2
    }

    fn set_limit(&self, limit: u64) {
        self.state.lock().expect("no holder panics").0 = limit;
        self.freed.notify_all();
    }
}
