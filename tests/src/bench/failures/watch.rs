//! Who answers, asked all the time: one flow that is known, and new connections.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::lab::Netns;
use crate::lab::client::http;

/// Between two datagrams of the flow.
const DATAGRAM: Duration = Duration::from_millis(10);
/// Between two connections.
const CONNECTION: Duration = Duration::from_millis(20);
/// No answer is awaited longer.
const LIMIT: Duration = Duration::from_millis(900);

/// A question, and who answered it in time.
#[derive(Debug, Clone)]
pub struct Asked {
    pub at: Instant,
    pub by: Option<String>,
}

/// Both, in the background.
pub struct Watch {
    stop: Arc<AtomicBool>,
    known: JoinHandle<Result<Vec<Asked>>>,
    fresh: JoinHandle<Result<Vec<Asked>>>,
}

impl Watch {
    /// Begins to ask: on this flow, and this server.
    pub fn start(ns: &Netns, flow: UdpSocket, server: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, other, ns) = (Arc::clone(&stop), Arc::clone(&stop), ns.clone());
        let known = thread::spawn(move || known(&flow, &theirs));
        let fresh = thread::spawn(move || {
            ns.enter()?;
            Ok(fresh(server, &other))
        });
        Self { stop, known, fresh }
    }

    /// Ends it; what was asked on the flow, and on new connections.
    pub fn stop(self) -> Result<[Vec<Asked>; 2]> {
        self.stop.store(true, Ordering::SeqCst);
        let end = |thread: JoinHandle<Result<_>>| thread.join().map_err(|_| anyhow!("who asks panicked"))?;
        Ok([end(self.known)?, end(self.fresh)?])
    }
}

/// Datagrams carry their number; whoever answers in time is noted.
fn known(flow: &UdpSocket, stop: &AtomicBool) -> Result<Vec<Asked>> {
    flow.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (all, over) = (Arc::new(Mutex::new(Vec::<Asked>::new())), Arc::new(AtomicBool::new(false)));
    let (theirs, ends) = (Arc::clone(&all), Arc::clone(&over));
    let ear = flow.try_clone().context("a second socket")?;
    let reader = thread::spawn(move || {
        let mut buffer = [0; 256];
        while !ends.load(Ordering::SeqCst) {
            // Nobody there, or nothing yet: asked again.
            let Ok(n) = ear.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let Some((vm, number)) = text.split_once(' ') else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            let mut all = theirs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(one) = all.get_mut(number).filter(|one| one.at.elapsed() < LIMIT) {
                one.by = Some(vm.to_owned());
            }
        }
    });
    while !stop.load(Ordering::SeqCst) {
        let number = {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Asked { at: Instant::now(), by: None });
            all.len() - 1
        };
        // Refused is not answered, and counts as that.
        let _ = flow.send(number.to_string().as_bytes());
        sleep(DATAGRAM);
    }
    sleep(LIMIT);
    over.store(true, Ordering::SeqCst);
    reader.join().map_err(|_| anyhow!("who hears answers panicked"))?;
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(all.clone())
}

fn fresh(server: SocketAddr, stop: &AtomicBool) -> Vec<Asked> {
    // Side by side: one that waits keeps no other from being made.
    let all = Arc::new(Mutex::new(Vec::<Asked>::new()));
    thread::scope(|scope| {
        while !stop.load(Ordering::SeqCst) {
            let all = Arc::clone(&all);
            scope.spawn(move || {
                let at = Instant::now();
                let answer = http::request_within(server, "GET", "/", b"", LIMIT);
                let by = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.vm);
                all.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { at, by });
            });
            sleep(CONNECTION);
        }
    });
    let mut all = std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by_key(|one| one.at);
    all
}
