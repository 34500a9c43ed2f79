//! What a VM's monitor says, over a QMP socket of lbx's own: how long it takes to answer, and the balloon's
//! statistics.
//!
//! Each VM has a task of its own with one command outstanding. A monitor that hangs delays nobody: while its
//! answer is waited for, the board says for how long already, and the readings before grow old.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lbx_common::addr::Mac;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Told;
use super::balloon::{self, Follow};
use crate::host::vm::qmp::{Error, Qmp};
use crate::measure::board::Shared;
use crate::measure::load::Plan;
use crate::measure::take::{Taken, write};
use crate::migration::VmId;
use crate::migration::ears::{Ear, Ears, is_under_way};

const SOURCE: &str = "qmp";
const METRICS: [&str; 3] = ["vm_qmp", "vm_memory", "vm_paging"];
/// A connection that failed is tried again after this long at first: a QEMU that has just started has no socket yet, and
/// may be sent a VM at once, whose monitor is to be heard from its first word.
const SOON: Duration = Duration::from_millis(20);
/// The same in the end: it takes twice as long every time.
const AGAIN: Duration = Duration::from_secs(2);
/// vCPUs are asked for again after so many rounds: they can be plugged in.
const THREADS: u32 = 10;

/// What tells one task from another: if any of it changes, another one is started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: String,
    pid: u32,
    start_time: u64,
    socket: PathBuf,
    every: Duration,
    uuid: Option<String>,
    macs: Vec<Mac>,
}

/// Talks to the monitors of the plan's VMs until the plan's sender is gone.
pub async fn watch(mut plans: watch::Receiver<Plan>, board: Shared, told: Told, ears: Option<Ears>) {
    let mut tasks: BTreeMap<Key, JoinHandle<()>> = BTreeMap::new();
    loop {
        let plan = plans.borrow_and_update().clone();
        let wanted: Vec<Key> = plan
            .vms
            .iter()
            .filter_map(|vm| {
                let socket = vm.qmp.clone()?;
                Some(Key {
                    name: vm.name.clone(),
                    pid: vm.pid,
                    start_time: vm.start_time,
                    socket,
                    every: plan.every,
                    uuid: vm.uuid.clone(),
                    macs: vm.macs.clone(),
                })
            })
            .collect();
        tasks.retain(|key, task| {
            let stays = wanted.contains(key) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for key in wanted {
            let (board, told, ears) = (board.clone(), told.clone(), ears.clone());
            tasks.entry(key.clone()).or_insert_with(|| tokio::spawn(follow(key, board, told, ears)));
        }
        if plans.changed().await.is_err() {
            break;
        }
    }
    for task in tasks.into_values() {
        task.abort();
    }
}

/// What is taken of a VM without a socket.
pub(super) fn without() -> [Taken; 3] {
    const WHY: &str = "no QMP socket of lbx's own (`measure.qmp`; one socket serves one client)";
    METRICS.map(|metric| Taken::missing(metric, SOURCE, WHY))
}

fn absent(board: &Shared, name: &str, why: &str) {
    let taken = METRICS.map(|metric| Taken::missing(metric, SOURCE, why)).to_vec();
    write(board, name, taken, Instant::now(), Duration::ZERO);
}

async fn follow(key: Key, board: Shared, told: Told, ears: Option<Ears>) {
    let talk = Talk { key: &key, board: &board, told: &told, ears: ears.as_ref() };
    let (longest, mut pause) = (AGAIN.max(key.every), SOON);
    loop {
        let began = Instant::now();
        let Err(error) = talk.talk().await;
        absent(&board, &key.name, &format!("{}: {error}", key.socket.display()));
        if began.elapsed() > longest {
            pause = SOON;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(longest);
    }
}

struct Talk<'a> {
    key: &'a Key,
    board: &'a Shared,
    told: &'a Told,
    ears: Option<&'a Ears>,
}

/// The thread ids in an answer to `query-cpus-fast`, in order; threads of several vCPUs once.
fn threads(cpus: &Value) -> Vec<String> {
    let ids = cpus.as_array().into_iter().flatten().filter_map(|cpu| cpu["thread-id"].as_u64());
    ids.collect::<BTreeSet<u64>>().into_iter().map(|id| id.to_string()).collect()
}

fn lock(ear: &Mutex<Ear>) -> MutexGuard<'_, Ear> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Never: a conversation only ends with an error.
enum Never {}

impl Talk<'_> {
    async fn talk(&self) -> Result<Never, Error> {
        let mut qmp = Qmp::connect(&self.key.socket).await?;
        let taken = "no greeting (is somebody else connected?)";
        self.patiently(taken, &METRICS, qmp.greet()).await?;
        self.ask(&mut qmp, "qmp_capabilities", &json!({})).await?;
        let ear = self.listen(&mut qmp).await?;
        let balloon = self.balloon(&mut qmp).await?;
        let (mut told, mut round) = (Follow::default(), 0u32);
        let mut ticks = interval(self.key.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                never = qmp.listen() => match never? {},
                _ = ticks.tick() => {}
            }
            if round.is_multiple_of(THREADS) {
                // Without an answer the names of the threads have to do.
                let cpus = self.willingly(&mut qmp, "query-cpus-fast", &json!({})).await?;
                self.told.set((self.key.pid, self.key.start_time), threads(&cpus));
            }
            round = round.wrapping_add(1);
            let (asked, heard) = (Instant::now(), ear.as_ref().map_or(0, |ear| lock(ear).heard()));
            let status = self.ask(&mut qmp, "query-status", &json!({})).await?;
            if let Some(ear) = &ear {
                // One that an event has overtaken is passed over: the next comes soon.
                lock(ear).status(&status, None, heard, false);
            }
            let took = asked.elapsed();
            self.put(vec![Taken::new::<String>("vm_qmp", SOURCE, Ok(Some(took.as_secs_f64() * 1e3)))], took);
            match &balloon {
                Some(path) => self.memory(&mut qmp, path, &mut told).await?,
                None => self.no_memory("the VM has no balloon device"),
            }
        }
    }

    /// Hears what the monitor says of migrations from now on, after what is so already.
    async fn listen(&self, qmp: &mut Qmp) -> Result<Option<Arc<Mutex<Ear>>>, Error> {
        let Some(ears) = self.ears else { return Ok(None) };
        let key = self.key;
        let vm = VmId { name: Some(key.name.clone()), uuid: key.uuid.clone(), macs: key.macs.clone() };
        let ear = Arc::new(Mutex::new(Ear::new(ears.clone(), vm, (key.pid, key.start_time))));
        let hears = ear.clone();
        qmp.on_event(move |event| lock(&hears).event(event));
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        // Refused while a migration is under way.
        self.willingly(qmp, "migrate-set-capabilities", &events).await?;
        loop {
            let heard = lock(&ear).heard();
            let migrate = self.willingly(qmp, "query-migrate", &json!({})).await?;
            let under_way = is_under_way(migrate["status"].as_str().unwrap_or("none"));
            let status = self.ask(qmp, "query-status", &json!({})).await?;
            // What was heard since is newer than the answers.
            if lock(&ear).status(&status, Some(under_way), heard, true) {
                return Ok(Some(ear));
            }
        }
    }

    async fn ask(&self, qmp: &mut Qmp, command: &str, arguments: &Value) -> Result<Value, Error> {
        let work = async {
            qmp.send(command, arguments).await?;
            qmp.answer().await
        };
        self.patiently(&format!("no answer to {command}"), &METRICS, work).await
    }

    /// The same where a refusal is an answer: null.
    async fn willingly(&self, qmp: &mut Qmp, command: &str, arguments: &Value) -> Result<Value, Error> {
        match self.ask(qmp, command, arguments).await {
            Err(Error::Refused(_)) => Ok(Value::Null),
            other => other,
        }
    }

    /// Waits for as long as it takes, and says so meanwhile.
    async fn patiently<T>(
        &self,
        what: &str,
        metrics: &[&'static str],
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (started, patience) = (Instant::now(), self.key.every.max(Duration::from_millis(500)));
        let mut work = std::pin::pin!(work);
        loop {
            if let Ok(done) = timeout(patience, &mut work).await {
                return done;
            }
            let why = format!("{what} for {} s", started.elapsed().as_secs_f64().round());
            let taken = metrics.iter().map(|metric| Taken::missing(metric, SOURCE, why.as_str())).collect();
            write(self.board, &self.key.name, taken, started, Duration::ZERO);
        }
    }

    /// Finds the balloon device, and has it ask its guest for statistics if it does not yet.
    async fn balloon(&self, qmp: &mut Qmp) -> Result<Option<String>, Error> {
        for parent in ["/machine/peripheral", "/machine/peripheral-anon"] {
            let children = self.willingly(qmp, "qom-list", &json!({ "path": parent })).await?;
            let children = children.as_array().map(Vec::as_slice).unwrap_or_default();
            let pairs =
                children.iter().filter_map(|one| Some((one["name"].as_str()?, one["type"].as_str()?)));
            let Some(name) = balloon::device(pairs) else { continue };
            let path = format!("{parent}/{name}");
            let property = "guest-stats-polling-interval";
            let now = self.willingly(qmp, "qom-get", &json!({ "path": path, "property": property })).await?;
            if now.as_u64() == Some(0) {
                let seconds = self.key.every.as_secs().max(1);
                let set = json!({ "path": path, "property": property, "value": seconds });
                self.willingly(qmp, "qom-set", &set).await?;
            }
            return Ok(Some(path));
        }
        Ok(None)
    }

    async fn memory(&self, qmp: &mut Qmp, path: &str, told: &mut Follow) -> Result<(), Error> {
        let asked = Instant::now();
        let answer = self.ask(qmp, "qom-get", &json!({ "path": path, "property": "guest-stats" })).await;
        let answer = match answer {
            Err(Error::Refused(why)) => {
                self.no_memory(&why);
                return Ok(());
            }
            other => other?,
        };
        let Some(stats) = balloon::stats(&answer) else {
            self.no_memory("the guest's balloon driver has told nothing yet");
            return Ok(());
        };
        let Some((used, paging)) = told.hear(&stats, asked) else { return Ok(()) };
        let unsaid = |metric, value: Option<f64>, said: bool| match value {
            Some(value) => Taken::new::<String>(metric, "balloon", Ok(Some(value))),
            None if said => Taken::new::<String>(metric, "balloon", Ok(None)),
            None => Taken::missing(metric, "balloon", "the guest's balloon driver does not say"),
        };
        let taken =
            vec![unsaid("vm_memory", used, false), unsaid("vm_paging", paging, stats.swapped.is_some())];
        self.put(taken, asked.elapsed());
        Ok(())
    }

    fn no_memory(&self, why: &str) {
        let taken = ["vm_memory", "vm_paging"].map(|metric| Taken::missing(metric, "balloon", why));
        self.put(taken.to_vec(), Duration::ZERO);
    }

    fn put(&self, taken: Vec<Taken>, cost: Duration) {
        write(self.board, &self.key.name, taken, Instant::now(), cost);
    }
}

#[cfg(test)]
mod tests;
