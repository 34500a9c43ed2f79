//! The thread that looks at the queues again and again, and what it last saw.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lbx_common::controller::law::SHALLOW;
use tokio::sync::watch;

use super::bell::{Bell, Rope, bell};
use super::counted::{self, Counted};
use super::looks::Looks;
use super::rings::Rings;
use super::shown::{Seen, Shown};
use super::{Reader, Sample, Vnic};
use crate::control::RingsByPort;
use crate::datapath::Instance;
use crate::measure::board::{Board, Reading, Shared};
use crate::measure::catalogue::{About, Metric, find};
use crate::measure::prompt;

/// The better reader is tried again after this long: `tun` may be a module that is loaded with the first VM.
const RETRY: Duration = Duration::from_secs(30);
/// The same after it has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What to watch, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// Time from one look to the next; `None`: not at all.
    pub interval: Option<Duration>,
    /// The vNICs.
    pub vnics: Vec<Vnic>,
}

/// A running sampler; its thread ends with it.
#[derive(Debug)]
pub struct Sampler {
    orders: Sender<Watch>,
    // Its end ends the thread.
    rope: Rope,
    shown: Arc<Mutex<Shown>>,
    rings: watch::Receiver<RingsByPort>,
    last: Watch,
}

impl Sampler {
    /// Starts the thread, in the caller's network namespace. Until it is told to watch something it sleeps.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn start(instance: Instance, board: Shared) -> std::io::Result<Self> {
        let (orders, received) = channel();
        let (rope, bell) = bell()?;
        let shown = Arc::new(Mutex::new(Shown::default()));
        let own = Arc::clone(&shown);
        let (tell, rings) = watch::channel(RingsByPort::new());
        let run = move || Loop::new(instance, board, own, tell).run(&received, bell);
        std::thread::Builder::new().name("lbx-queues".to_owned()).spawn(run)?;
        Ok(Self { orders, rope, shown, rings, last: Watch::default() })
    }

    /// Watches this from now on.
    pub fn watch(&mut self, watch: Watch) {
        if self.last != watch && self.orders.send(watch.clone()).is_ok() {
            self.last = watch;
            self.rope.pull();
        }
    }

    /// Where the rings are, as they come and go.
    pub fn rings(&self) -> watch::Receiver<RingsByPort> {
        self.rings.clone()
    }

    /// What was last seen.
    pub fn shown(&self) -> Shown {
        lock(&self.shown).clone()
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    // Whoever panicked left whole figures behind.
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The four metrics.
struct Metrics {
    depth: &'static Metric,
    fill: &'static Metric,
    rate: &'static Metric,
    drops: &'static Metric,
}

impl Metrics {
    fn all(&self) -> [&'static Metric; 4] {
        [self.depth, self.fill, self.rate, self.drops]
    }
}

/// The thread's own.
struct Loop {
    instance: Instance,
    board: Shared,
    shown: Arc<Mutex<Shown>>,
    tell: watch::Sender<RingsByPort>,
    watch: Watch,
    reader: Option<Box<dyn Reader>>,
    exact: bool,
    retry_at: Option<Instant>,
    samples: Vec<Sample>,
    looks: Looks,
    failed: Option<String>,
}

impl Loop {
    fn new(
        instance: Instance,
        board: Shared,
        shown: Arc<Mutex<Shown>>,
        tell: watch::Sender<RingsByPort>,
    ) -> Self {
        Self {
            instance,
            board,
            shown,
            tell,
            watch: Watch::default(),
            reader: None,
            exact: false,
            retry_at: None,
            samples: Vec::new(),
            looks: Looks::default(),
            failed: None,
        }
    }

    fn run(mut self, orders: &Receiver<Watch>, mut bell: Bell) {
        prompt::try_prompt("the thread that looks at queues");
        let (mut next, mut rested) = (Instant::now(), Instant::now());
        loop {
            let told = self.reader.as_ref().and_then(|reader| reader.told());
            let woken = bell.wait(told, self.interval().map(|_| next));
            loop {
                match orders.try_recv() {
                    Ok(watch) => self.follow(watch),
                    Err(TryRecvError::Empty) if !woken.over => break,
                    Err(_) => return,
                }
            }
            if woken.told && self.reader.as_mut().is_some_and(|reader| reader.hear()) {
                lock(&self.shown).told += 1;
                next = next.min(rested);
            }
            let now = Instant::now();
            let Some(interval) = self.interval().filter(|_| now >= next) else { continue };
            let (ready, before) = (self.reader.is_some(), prompt::cpu_time());
            self.look(now);
            // Whoever had to load the programs first does so once.
            if ready {
                self.looks.add(now, prompt::cpu_time().saturating_sub(before));
            }
            // Whatever is told, looks never take more than half of a core; what was late is not made up for.
            rested = Instant::now() + now.elapsed();
            next = (now + interval).max(rested);
        }
    }

    /// Time between looks: none while there is nothing to look at.
    fn interval(&self) -> Option<Duration> {
        let interval = self.watch.interval.filter(|_| !self.watch.vnics.is_empty())?;
        Some(if self.exact { self.looks.interval(interval) } else { interval.max(counted::INTERVAL) })
    }

    fn follow(&mut self, watch: Watch) {
        if watch.interval.is_none() {
            // The programs go too.
            (self.reader, self.exact, self.retry_at) = (None, false, None);
            self.tell_rings();
        }
        self.watch = watch;
        {
            let mut shown = lock(&self.shown);
            let off = self.watch.interval.is_none();
            shown.follow(if off { &[] } else { &self.watch.vnics });
            shown.interval = self.watch.interval;
        }
        if let Some(reader) = &mut self.reader
            && let Err(error) = reader.follow(&self.watch.vnics)
        {
            self.fail(&error);
        }
        // With nothing left to follow there is no look that would.
        self.tell_rings();
    }

    /// Has a reader: the rings if they can be read, else counters.
    fn ensure(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.exact {
            return Ok(());
        }
        if self.retry_at.is_none_or(|at| now >= at) {
            self.retry_at = Some(now + RETRY);
            match Rings::new() {
                Ok(rings) => {
                    self.exact = true;
                    lock(&self.shown).problem = None;
                    return self.change(Box::new(rings));
                }
                Err(error) => {
                    // Its words have its cause in them.
                    let problem = error.to_string();
                    let mut shown = lock(&self.shown);
                    if shown.problem.as_ref() != Some(&problem) {
                        tracing::warn!(
                            "the rings of vNICs cannot be read, packets are counted instead: {problem}"
                        );
                    }
                    shown.problem = Some(problem);
                }
            }
        }
        if self.reader.is_some() { Ok(()) } else { self.change(Box::new(Counted::new(&self.instance)?)) }
    }

    /// Reads by another reader from now on, whose counters begin anew.
    fn change(&mut self, mut reader: Box<dyn Reader>) -> anyhow::Result<()> {
        reader.follow(&self.watch.vnics)?;
        self.tell.send_replace(RingsByPort::new());
        lock(&self.shown).vnics.iter_mut().for_each(|seen| seen.queues.clear());
        self.reader = Some(reader);
        Ok(())
    }

    fn look(&mut self, now: Instant) {
        let result = self.ensure(now).and_then(|()| {
            self.samples.clear();
            let Some(reader) = &mut self.reader else { return Ok(()) };
            reader.read(now, &mut self.samples)
        });
        match result {
            Ok(()) => {
                self.failed = None;
                self.publish(now);
            }
            Err(error) => self.fail(&error),
        }
        self.tell_rings();
    }

    /// Says where the rings are now, if that has changed.
    fn tell_rings(&mut self) {
        let now = match &mut self.reader {
            Some(reader) => reader.rings(),
            None => Some(RingsByPort::new()),
        };
        let Some(now) = now else { return };
        self.tell.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
    }

    /// What was seen before stays, and grows old.
    fn fail(&mut self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.failed.as_ref() != Some(&text) {
            tracing::warn!("queues of vNICs cannot be read: {text}");
        }
        let mut shown = lock(&self.shown);
        shown.settle();
        for seen in &mut shown.vnics {
            miss(&mut self.board.lock(), seen, &text);
        }
        self.failed = Some(text);
        // Counters meanwhile: making the better reader anew takes a while itself.
        self.retry_at = Some(Instant::now() + AGAIN);
        (self.reader, self.exact) = (None, false);
    }

    /// Shows what was seen, and writes the targets' figures to the board.
    fn publish(&mut self, now: Instant) {
        let Some(reader) = &self.reader else { return };
        let Some(metrics) = metrics() else { return };
        let (source, cost) = (reader.source(), now.elapsed());
        let interval = self.interval();
        let mut shown = lock(&self.shown);
        shown.interval = interval;
        shown.cost = cost;
        shown.looked(now);
        (0..shown.vnics.len()).for_each(|n| shown.next_is_quiet(reader.is_quiet(n)));
        let (mut samples, mut alarm) = (&self.samples[..], false);
        let mut board = self.board.lock();
        for (n, seen) in shown.vnics.iter_mut().enumerate() {
            let own = samples.iter().take_while(|sample| sample.vnic == n).count();
            let (own, rest) = samples.split_at(own);
            samples = rest;
            if own.is_empty() {
                if !reader.is_quiet(n)
                    && let Some(why) = reader.missing(n)
                {
                    miss(&mut board, seen, why);
                }
                continue;
            }
            let total = seen.note(own, now, source);
            alarm |= total.fill > SHALLOW;
            let reading = |value| Reading { value, at: now, source, cost };
            let (rate, drops) = total.rates.unwrap_or_default();
            let all = [
                (metrics.depth, reading(total.depth.into())),
                (metrics.fill, reading(total.fill)),
                (metrics.rate, reading(rate)),
                (metrics.drops, reading(drops)),
            ];
            // There are no rates yet just after it was found.
            let known = if total.rates.is_some() { &all[..] } else { &all[..2] };
            for target in &seen.vnic.targets {
                board.put_all(About::Target, target, known);
            }
        }
        drop((board, shown));
        if alarm {
            self.board.raise();
        }
    }
}

fn metrics() -> Option<Metrics> {
    let of = |name| find(name).filter(|metric| metric.about == About::Target);
    Some(Metrics {
        depth: of("queue_depth")?,
        fill: of("queue_fill")?,
        rate: of("queue_rate")?,
        drops: of("queue_drops")?,
    })
}

/// Says once why there is nothing new of a vNIC.
fn miss(board: &mut Board, seen: &mut Seen, why: &str) {
    if seen.missing.as_deref() == Some(why) {
        return;
    }
    seen.missing = Some(why.to_owned());
    let Some(metrics) = metrics() else { return };
    for target in &seen.vnic.targets {
        metrics.all().into_iter().for_each(|metric| board.miss(metric, target, why.to_owned()));
    }
}
