//! What the daemon tells: the view of the maps, and what only the daemon knows beside it.

use lbx_common::wish::Owner;

use super::core::Core;
use super::pending;
use crate::answer::machine::Phase;
use crate::api::model;
use crate::config::checked::format_mac;
use crate::control::build;
use crate::control::tables::Repair;
use crate::host::plan::lockout;
use crate::view::{self, View};

impl Core {
    /// The maps at this moment.
    ///
    /// # Errors
    /// They could not be read.
    pub fn view(&self) -> view::Result<View<'_>> {
        View::new(self.datapath.maps(), &self.paths.instance)
    }

    /// How the instance is doing.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn status(&self) -> view::Result<model::Status> {
        let mut status = self.view()?.status()?;
        status.source = model::Source::Daemon;
        status.pid = Some(std::process::id());
        status.uptime = Some(self.started.elapsed().as_secs());
        status.config = Some(self.paths.config.display().to_string());
        status.config_read = Some(self.config_since);
        for port in &mut status.ports {
            let planned = self.host.plans.iter().flat_map(|plan| &plan.ports);
            port.reason =
                planned.filter(|one| one.index == port.ifindex).map(|one| one.reason.clone()).next();
            port.error = self.attached.errors.get(&port.name).cloned();
        }
        status.pending = pending::read(&self.paths.run_dir).map(|pending| pending.shown());
        status.libvirt = self.libvirt_daemons();
        status.notes = self.notes();
        Ok(status)
    }

    /// All counters, and the last events.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn stats(&mut self) -> view::Result<model::Stats> {
        self.recent.take(self.datapath.maps());
        let view = self.view()?;
        Ok(model::Stats { recent: self.recent.show(&view), ..view.stats()? })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.weigher.notes());
        notes.extend(self.peer_notes());
        notes.extend(self.migration_notes());
        notes.extend(self.way_notes());
        notes.extend(self.libvirt_notes());
        notes.extend(
            self.failed.iter().map(|text| format!("the datapath does not follow the config: {text}")),
        );
        for (switch, why) in &self.held {
            notes.push(format!(
                "{switch} is not attached: {why}; `lbx attach {switch} --yes`, then `lbx attach --confirm`"
            ));
        }
        for plan in &self.host.plans {
            notes.extend(plan.refusals.iter().map(|why| format!("{} is not attached: {why}", plan.switch)));
        }
        for (port, error) in &self.attached.errors {
            notes.push(format!("{port}: {error}"));
        }
        for refusal in &self.host.refusals {
            let what = match &refusal.target {
                Some(target) => format!("target {}/{target} is down", refusal.service),
                None => format!("service {} is suspended", refusal.service),
            };
            notes.push(format!("{what}: {} ({})", refusal.reason, refusal.hint));
        }
        for found in &self.host.found {
            notes.extend(
                found.base.error.iter().map(|error| format!("target {} is down: {error}", found.full_name())),
            );
        }
        for (target, checked) in &self.health.found {
            let impossible = checked.rows.iter().filter(|row| row.impossible);
            notes.extend(impossible.map(|row| format!("target {target} is not checked: {}", row.detail)));
            let held = checked.rows.iter().filter_map(|row| row.held.as_ref());
            notes.extend(held.map(|why| format!("target {target}: its failing check does not count: {why}")));
        }
        for (key, phase) in &self.answers {
            match phase {
                Phase::Taken { by } => {
                    notes.push(format!(
                        "not answering for {}: {} does; lbx takes over when that stops",
                        key.addr,
                        format_mac(by)
                    ));
                }
                Phase::Probing => notes.push(format!("not answering for {} yet: probing", key.addr)),
                Phase::Answering => {}
            }
        }
        notes
    }

    /// The services.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn services(&self) -> view::Result<model::Services> {
        let mut answer = self.view()?.services()?;
        for service in &mut answer.services {
            service.suspended = self.desired.service(&service.name).and_then(|want| want.suspended.clone());
        }
        let order = |name: &str| self.config.services.iter().position(|service| service.name == name);
        answer.services.sort_by_key(|service| order(&service.name));
        Ok(answer)
    }

    /// The targets, with everybody's wishes.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn targets(&self) -> view::Result<model::Targets> {
        let mut answer = self.view()?.targets()?;
        for target in &mut answer.targets {
            target.by = self.by(&target.name);
            target.wishes = self.wishes(&target.name);
            target.state_override = self.book.state_of(&target.name, Owner::Operator).is_some();
            target.weight_override = self.book.weight_override(&target.name).is_some();
            target.problem = self.absent.get(&target.name).cloned();
            target.held_up = self.held_up(&target.name);
            if target.deliver != "uplink" {
                let service = self.config.service(&target.service);
                target.deliver_reason = service.map(|service| {
                    build::delivery(service, &self.host.view, &self.host.found, &self.host.findings).1
                });
            }
        }
        let order = |name: &str| self.config.services.iter().position(|service| service.name == name);
        answer.targets.sort_by_key(|target| order(&target.service));
        Ok(answer)
    }

    /// Whose wish a target's state is; nobody's while it is simply active.
    fn by(&self, target: &str) -> Option<String> {
        let effective = self.book.effective(target);
        let somebody = self.book.state_of(target, effective.by).is_some();
        somebody.then(|| effective.by.name().to_owned())
    }

    fn wishes(&self, target: &str) -> Vec<model::Wish> {
        let wishes = self.book.list(target).into_iter().map(|(owner, state)| model::Wish {
            owner: owner.name().to_owned(),
            state: state.name().to_owned(),
            reason: match owner {
                Owner::Presence => self.absent.get(target).cloned(),
                Owner::Health => Some(self.health_reason(target)),
                Owner::Migration => Some(self.migration_reason(target)),
                Owner::Operator => None,
            },
        });
        wishes.collect()
    }

    /// Weights and tables.
    ///
    /// # Errors
    /// The maps could not be read.
    pub fn weights(&self) -> view::Result<model::Weights> {
        let mut answer = self.view()?.weights()?;
        for table in &mut answer.tables {
            table.repair = self.reconciler.repair(&table.service).map(repair);
        }
        for row in &mut answer.weights {
            let name = format!("{}/{}", row.service, row.target);
            row.overridden = self.book.weight_override(&name).is_some();
            row.scale = self.scale(&name, row.configured);
            if let Some(told) = self.weigher.explained(&row.service, &name) {
                row.wished = Some(told.inputs.configured * told.wanted);
                row.held = Some(told.held.name().to_owned());
            }
        }
        Ok(answer)
    }

    /// Why a flow goes where it goes.
    ///
    /// # Errors
    /// The question makes no sense, or the maps could not be read.
    pub fn why_flow(&self, query: &model::WhyFlowQuery) -> view::Result<model::WhyFlow> {
        let mut answer = self.view()?.why_flow(query)?;
        let add = |step: &str, text: String| model::Step { step: step.to_owned(), text };
        if let Some(name) = &answer.target {
            for wish in self.wishes(name) {
                let why = wish.reason.map_or(String::new(), |reason| format!(": {reason}"));
                answer.steps.push(add("wish", format!("{} wishes {}{why}", wish.owner, wish.state)));
            }
        }
        let held_up = answer.target.as_ref().and_then(|name| self.held_up(name));
        answer.steps.extend(held_up.map(|why| add("moved", why)));
        if let Some(want) = answer.service.as_ref().and_then(|name| self.desired.service(name)) {
            let why = want.suspended.iter().map(|why| add("suspended", why.clone()));
            answer.steps.extend(why);
        }
        Ok(answer)
    }

    /// Why a target has its share.
    ///
    /// # Errors
    /// No such target, or the maps could not be read.
    pub fn why_weight(&self, target: &str) -> view::Result<model::WhyWeight> {
        let mut answer = self.view()?.why_weight(target)?;
        answer.by = self.by(&answer.target);
        answer.wishes = self.wishes(&answer.target);
        answer.overridden = self.book.weight_override(&answer.target).is_some();
        let service = answer.target.split_once('/').map_or("", |(service, _)| service);
        answer.repair = self.reconciler.repair(service).map(repair);
        self.tell_weight(&mut answer);
        if answer.overridden {
            let text = "the operator overrides the configured weight (`lbx set weight .. --clear` ends it)";
            answer.steps.push(model::Step { step: "override".to_owned(), text: text.to_owned() });
        }
        Ok(answer)
    }

    /// What goes onto which port, and what is refused.
    pub fn plan(&self) -> model::AttachPlan {
        let switches = self.host.plans.iter().map(|plan| model::SwitchPlan {
            lockout: lockout(&self.host.view, &plan.switch, self.ssh.as_deref()),
            ..model::SwitchPlan::from(plan)
        });
        model::AttachPlan {
            switches: switches.collect(),
            refusals: self.host.refusals.iter().map(model::Refusal::from).collect(),
        }
    }
}

fn repair(repair: Repair) -> model::Repair {
    model::Repair { moved: repair.moved, necessary: repair.necessary, micros: repair.micros, at: repair.at }
}
