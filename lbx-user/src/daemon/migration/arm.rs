//! What is worked out before it happens: which states follow when a VM stops, when it resumes, and when a peer says that
//! it runs there; and what peers are told when it runs here.

use std::collections::{BTreeMap, BTreeSet};

use lbx_common::migration::{Event, Heard, Here, Machine, Phase, Place, Role, Source, Want, What};
use lbx_common::target::{Deliver, State};
use lbx_common::wish::Owner;

use super::super::core::Core;
use crate::control::desired::{Moves, ServiceWant, TargetWant};
use crate::datapath::Flip;
use crate::measure::vm::Vm;
use crate::migration::arrival::Arrival;
use crate::migration::fast::{Armed, ByVm, Frame, There};
use crate::migration::ledger::{About, Record};
use crate::migration::{VmId, now};
use crate::peers::frame;
use crate::peers::message::Message;

impl Core {
    /// Tells those who hear monitors and peers what to store when a VM stops or resumes.
    pub(in super::super) fn arm_migrations(&self) {
        let heard = self.host.vms.iter().filter(|vm| vm.qmp.is_some());
        let waits = self.who_can_wait();
        let armed: ByVm = heard.map(|vm| ((vm.pid, vm.start_time), self.armed(vm, &waits))).collect();
        let open = self.migrations.ledger.open.values();
        let there = open.filter_map(|record| self.there(record, &waits)).collect();
        self.migrations.fast.arm(armed, there);
    }

    fn armed(&self, vm: &Vm, waits: &BTreeSet<String>) -> Armed {
        let id = VmId::from(vm);
        let about = self.identify(&id);
        let machine = self.migrations.ledger.open.get(&about.key).map(|record| record.machine);
        let stopped = after(machine, What::Stopped, &about);
        let resumed = after(stopped.or(machine), What::Resumed(Place::Here), &about);
        let tell = self.tell_at_once(&about, machine);
        Armed {
            stop: self.flips(&about, stopped, waits),
            resume: self.flips(&about, resumed, waits),
            arrivals: if tell.is_some() { self.arrivals(&about) } else { Vec::new() },
            tell,
        }
    }

    /// Where a VM arrives that is awaited here, for each of its vNICs that others reach over the segment.
    fn arrivals(&self, about: &About) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for (service, target) in self.desired.targets() {
            let Moves::To(place) = &target.moves else { continue };
            let known = about.targets.contains(&target.full_name(&service.name));
            let over_segment = place.deliver == Deliver::Uplink && place.through.is_none();
            if !known || target.ifindex == 0 || !over_segment {
                continue;
            }
            let arrival =
                Arrival { mac: target.mac, port: target.ifindex, uplink: (place.ifindex, place.vlan) };
            if !arrivals.contains(&arrival) {
                arrivals.push(arrival);
            }
        }
        arrivals
    }

    /// What peers are told when a VM runs that is awaited here.
    fn tell_at_once(&self, about: &About, machine: Option<Machine>) -> Option<Frame> {
        self.config.peers.as_ref()?;
        machine.filter(|machine| machine.part() == Role::Destination && machine.phase <= Phase::Stopped)?;
        let vm = self.as_told(&about.vm);
        vm.check().ok()?;
        frame::encode(&Message::Runs { vm }).ok().map(Frame::from)
    }

    /// What follows when the host that a VM goes to says that it runs there; `None`: that is for the core to see.
    fn there(&self, record: &Record, waits: &BTreeSet<String>) -> Option<There> {
        let peer = record.host.clone()?;
        let mut machine = record.machine;
        if machine.part() == Role::Destination || machine.phase > Phase::Stopped {
            return None;
        }
        let about = self.identify(&record.vm);
        let local = self.local_vm(&record.vm);
        // It is stopped before, and who hears of it asks whether it still runs here.
        let said = |what| Event::new(what, Source::Peer, now()).with_host(peer.as_str());
        let here = if about.here.runs() == Some(true) { Here::Finishing } else { about.here };
        machine.hear(&said(What::Stopped), here);
        if machine.hear(&said(What::Resumed(Place::There)), here) != Heard::News {
            return None;
        }
        let tunnels = self.tunnels();
        let ready = |(service, target): (&ServiceWant, &TargetWant)| {
            let known = about.targets.contains(&target.full_name(&service.name));
            !known || target.ifindex != 0 && (!tunnels || target.host.as_ref() == Some(&peer))
        };
        if !self.desired.targets().all(ready) {
            return None;
        }
        let flips = self.flips(&about, Some(machine), waits);
        Some(There {
            vm: self.as_told(&about.vm),
            id: about.vm,
            peer,
            process: local.map(|vm| (vm.pid, vm.start_time)),
            flips,
        })
    }

    /// What is stored for the targets of a VM whose migration stands so.
    fn flips(&self, about: &About, machine: Option<Machine>, waits: &BTreeSet<String>) -> Vec<Flip> {
        let rules = self.config.migration.rules();
        let want = machine.map_or(Want::Nothing, |machine| {
            let record = self.migrations.ledger.open.get(&about.key);
            // Packets can only wait at a host that is known.
            let hold = rules.hold && record.is_some_and(|record| record.host.is_some());
            machine.want(now(), &lbx_common::migration::Rules { hold, ..rules })
        });
        let places = self.places();
        let each = about.targets.iter().filter_map(|target| {
            let (index, generation) = *places.get(target)?;
            let last = self.migrations.is_last(target);
            let want = if want == Want::Hold && !waits.contains(target) { Want::Blackhole } else { want };
            let want = if last && want == Want::Drain(0) { Want::Nothing } else { want };
            let falls_back = machine.filter(|_| !last).map_or(State::Active, |machine| machine.falls_back());
            let state = self.book.state_if(target, want, falls_back);
            let state = match self.reconciler.unready(target) {
                Some(_) => state.until_the_way_is_known(),
                None => state,
            };
            // One that is not here is not brought back by its monitor.
            let absent = self.book.state_of(target, Owner::Presence).is_some();
            (!absent).then_some(Flip {
                index: index.into(),
                generation,
                state: state.state,
                fallback: state.fallback,
                deadline: state.deadline,
            })
        });
        each.collect()
    }

    /// Index and generation of every target, by its full name.
    pub(super) fn places(&self) -> BTreeMap<String, (u16, u8)> {
        let mut places = BTreeMap::new();
        for service in &self.desired.services {
            let placed = self.reconciler.placed(&service.name);
            for (target, place) in service.targets.iter().zip(placed) {
                places.insert(target.full_name(&service.name), *place);
            }
        }
        places
    }
}

/// Where the migration would stand after an event of the VM's monitor.
fn after(machine: Option<Machine>, what: What, about: &About) -> Option<Machine> {
    let event = Event::new(what, Source::Qmp, now());
    match machine {
        Some(mut machine) => {
            machine.hear(&event, about.here);
            Some(machine)
        }
        None => Machine::begin(&event, about.here),
    }
}
