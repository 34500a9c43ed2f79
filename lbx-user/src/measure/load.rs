//! The samplers of the load: one thread for the host, one for the VMs, one task for each monitor. None of them is
//! the daemon's; whatever one of them waits for, its readings grow old and nothing else happens.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::board::Shared;
use super::catalogue::About;
use super::files::System;
use super::host::{self, Host};
use super::prompt;
use super::take::write;
use super::vm::{self, Told, Vm, Vms};
use crate::migration::ears::Ears;

/// Drivers are asked for the speed of the uplinks again after this long.
const SPEED: Duration = Duration::from_secs(30);
/// A thread looks at least this often whether it has another plan.
const NAP: Duration = Duration::from_millis(500);

/// What to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Time from one look to the next.
    pub every: Duration,
    /// The VMs.
    pub vms: Vec<Vm>,
    /// The uplinks of all switches.
    pub uplinks: Vec<String>,
}

/// The running samplers; they end when this is dropped.
#[derive(Debug)]
pub struct Samplers(watch::Sender<Plan>);

impl Samplers {
    /// Starts them in this thread's network namespace, with nothing to look at but the host. `ears`: whom to tell
    /// what monitors say of migrations.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn start(every: Duration, board: &Shared, ears: Option<Ears>) -> io::Result<Self> {
        let (sender, plans) = watch::channel(Plan { every, ..Plan::default() });
        let told = Told::default();
        let sampler = Vms::new(told.clone());
        let (of_host, of_vms) = ((plans.clone(), board.clone()), (plans.clone(), board.clone()));
        thread::Builder::new()
            .name("lbx-host-load".into())
            .spawn(move || host_loop(of_host.0, &of_host.1))?;
        thread::Builder::new()
            .name("lbx-vm-load".into())
            .spawn(move || vm_loop(of_vms.0, &of_vms.1, sampler))?;
        // A runtime of their own: what a monitor says of a VM that stops waits for nobody else's work.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let board = board.clone();
        thread::Builder::new().name("lbx-monitors".into()).spawn(move || {
            prompt::try_first("the thread that hears monitors");
            runtime.block_on(vm::watch_monitors(plans, board, told, ears));
        })?;
        Ok(Self(sender))
    }

    /// Another plan, if it is another.
    pub fn follow(&self, plan: Plan) {
        self.0.send_if_modified(|now| {
            let other = *now != plan;
            *now = plan;
            other
        });
    }

    /// What is looked at now.
    pub fn plan(&self) -> Plan {
        self.0.borrow().clone()
    }
}

/// Waits for the next look. `false`: the daemon is gone.
fn wait(plans: &watch::Receiver<Plan>, last: Instant) -> bool {
    loop {
        let Ok(changed) = plans.has_changed() else { return false };
        let every = plans.borrow().every;
        let left = (last + every).saturating_duration_since(Instant::now());
        if left.is_zero() || changed && last.elapsed() >= NAP {
            return true;
        }
        thread::sleep(left.min(NAP));
    }
}

fn host_loop(mut plans: watch::Receiver<Plan>, board: &Shared) {
    let (mut sampler, mut speeds, mut asked): (Host, Vec<host::Speed>, Option<Instant>) = Default::default();
    loop {
        let at = Instant::now();
        let uplinks = plans.borrow_and_update().uplinks.clone();
        let same = speeds.iter().map(|one| &one.name).eq(uplinks.iter());
        if !same || asked.is_none_or(|asked| asked.elapsed() > SPEED) {
            speeds = host::speeds(&uplinks);
            asked = Some(Instant::now());
        }
        let taken = sampler.sample(&System, &speeds, at);
        write(board, "", taken, at, at.elapsed());
        if !wait(&plans, at) {
            return;
        }
    }
}

fn vm_loop(mut plans: watch::Receiver<Plan>, board: &Shared, mut sampler: Vms) {
    loop {
        let start = Instant::now();
        let vms = plans.borrow_and_update().vms.clone();
        sampler.keep(&vms);
        let interfaces = host::interfaces(&System);
        for vm in &vms {
            let at = Instant::now();
            let taken = sampler.sample(&System, vm, &interfaces, at);
            write(board, &vm.name, taken, at, at.elapsed());
        }
        let names = vm::names(&vms);
        board.lock().retain(About::Vm, |name| names.contains(name));
        if !wait(&plans, start) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::find;
    use super::*;

    #[tokio::test]
    async fn the_host_is_looked_at_until_nobody_wants_it() {
        let board = Shared::default();
        let samplers = Samplers::start(Duration::from_millis(20), &board, None).unwrap();
        board.lock().put(
            find("vm_cpu").unwrap(),
            "gone",
            super::super::board::Reading { value: 1.0, at: Instant::now(), source: "test", cost: NAP },
        );
        samplers.follow(Plan { every: Duration::from_millis(10), ..Plan::default() });
        let deadline = Instant::now() + Duration::from_secs(20);
        let memory = find("host_memory").unwrap();
        let seen = || board.lock().get(memory, "").map(|reading| reading.at);
        while seen().is_none() || board.lock().names(About::Vm).count() > 0 {
            assert!(Instant::now() < deadline, "{board:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let first = seen();
        while seen() == first {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(board.lock().why_missing(find("host_nic").unwrap(), "").is_some(), "it has no uplink");
    }
}
