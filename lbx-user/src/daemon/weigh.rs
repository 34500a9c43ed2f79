//! Weights that follow what is measured: the loop around [`crate::control::weigher::Weigher`], and its writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::core::Core;
use crate::api::model::{Step, WhyWeight};
use crate::config::{Service, Weighing};
use crate::control::build;
use crate::control::resolve::Found;
use crate::control::weigher::{self, News, Seen, tell::Told};
use crate::measure::steered;

impl Core {
    /// When to look at readings next; `None` while no service follows them.
    pub(super) fn weigh_every(&self) -> Option<Duration> {
        let adaptive = self.config.services.iter().any(|service| service.weights == Weighing::Adaptive);
        adaptive.then_some(self.config.weights.interval)
    }

    /// Looks at readings, and writes the weights that follow.
    pub fn weigh(&mut self) {
        self.count();
        self.look_at_responses();
        self.weigh_queues();
    }

    /// The same with the readings that there are: a queue grows, and nothing else is looked at first.
    pub fn weigh_queues(&mut self) {
        let news = self.follow();
        let mut failed = false;
        for (service, news) in news {
            for warning in &news.warnings {
                tracing::warn!("{warning}");
            }
            if news.changed
                && let Err(error) = self.write_weights(&service)
            {
                tracing::warn!("weights of {service}: {error:#}");
                failed = true;
            }
        }
        if failed {
            // The whole pass says what is wrong, and is tried again as every other.
            let _ = self.settle();
        }
    }

    /// Counts what formulas ask the datapath for.
    fn count(&mut self) {
        if !self.steered.is_due(Instant::now()) {
            return;
        }
        let adaptive = || self.config.services.iter().filter(|one| one.weights == Weighing::Adaptive);
        let formulas = || adaptive().map(|service| weigher::formula(service, &self.config.weights));
        let asked = |name: &&&str| formulas().any(|one| one.names().iter().any(|known| known == **name));
        let names: Vec<&str> = steered::NAMES.iter().filter(asked).copied().collect();
        if names.is_empty() {
            return;
        }
        let each = adaptive().flat_map(|service| {
            let placed = self.reconciler.placed(&service.name);
            placed.iter().zip(&service.targets).map(|((index, _), target)| {
                let name = format!("{}/{}", service.name, target.name());
                steered::Of { weight: self.book.weight(&name, target.weight), name, index: *index }
            })
        });
        let of: Vec<steered::Of> = each.collect();
        if let Err(error) =
            self.steered.look(self.datapath.maps(), &of, &names, self.config.weights.stale_after, &self.board)
        {
            tracing::warn!("cannot count flows and packets: {error}");
        }
    }

    fn follow(&mut self) -> Vec<(String, News)> {
        let board = self.board.lock();
        let seen = Seen {
            board: &board,
            now: Instant::now(),
            cpus: Some(self.cpus),
            vms: &self.vms_of_targets,
            book: &self.book,
        };
        let adaptive = self.config.services.iter().filter(|one| one.weights == Weighing::Adaptive);
        let mut all = Vec::new();
        for service in adaptive {
            let Some(want) = self.desired.service(&service.name) else { continue };
            // Between a reload and its first pass the two may differ.
            if want.targets.len() != service.targets.len() {
                continue;
            }
            if let Some(news) = self.weigher.step(service, want, &self.config.weights, &seen) {
                all.push((service.name.clone(), news));
            }
        }
        all
    }

    /// Writes one service's weights, as cheaply as it goes.
    fn write_weights(&mut self, name: &str) -> Result<()> {
        let Some(service) = self.config.service(name) else { return Ok(()) };
        let weights = self.weights_now(service);
        let Some(want) = self.desired.services.iter_mut().find(|want| want.name == name) else {
            return Ok(());
        };
        for (target, weights) in want.targets.iter_mut().zip(weights) {
            target.weights = weights;
        }
        if self.reconciler.apply_weights(&mut self.datapath.maps(), want)? {
            return Ok(());
        }
        self.settle()
    }

    fn weights_now(&self, service: &Service) -> Vec<Vec<lbx_common::target::Weight>> {
        let own: Vec<&Found> =
            self.host.found.iter().filter(|one| one.base.service == service.name).collect();
        build::weights(&self.config, service, &own, &self.book, &self.weigher)
    }

    /// Which VM is behind which target: looked up once for many steps.
    pub(super) fn note_vms(&mut self) {
        let names = self.host.found.iter().map(Found::full_name);
        let known: BTreeMap<String, String> =
            names.filter_map(|name| self.vm_of(&name).map(|vm| (name.clone(), vm.to_owned()))).collect();
        self.vms_of_targets = known;
    }

    /// Takes over the factors that an earlier daemon left in the maps.
    ///
    /// # Errors
    /// The maps could not be read.
    pub(super) fn adopt_weights(&mut self) -> Result<()> {
        let maps = self.datapath.maps();
        let names = crate::control::Names::adopt(&maps)?;
        for service in self.config.services.iter().filter(|one| one.weights == Weighing::Adaptive) {
            for target in &service.targets {
                let name = format!("{}/{}", service.name, target.name());
                let Some(index) = names.targets.get(&crate::control::map_name(&name)) else { continue };
                let (mut weight, mut configured) = (0.0, 0.0);
                for queue in 0..lbx_common::limits::MAX_QUEUES {
                    let own = maps.weight(u32::from(*index), queue)?;
                    weight += f64::from(own.weight);
                    configured += f64::from(own.configured);
                }
                if weight > 0.0 && configured > 0.0 && self.book.weight_override(&name).is_none() {
                    self.weigher.adopt(&name, weight / configured);
                }
            }
        }
        Ok(())
    }
}

/// What the API says.
impl Core {
    /// Units of the maps for one of a target's configured weight.
    pub(super) fn scale(&self, target: &str, configured: u64) -> Option<f64> {
        let weight = self.configured_weight(target);
        (weight > 0).then(|| configured as f64 / f64::from(weight))
    }

    /// Adds to an explanation how the weight follows what is measured, if it does.
    pub(super) fn tell_weight(&self, answer: &mut WhyWeight) {
        answer.scale = self.scale(&answer.target, answer.configured);
        let (name, _) = answer.target.split_once('/').unwrap_or_default();
        let Some(service) = self.config.service(name) else { return };
        let Some(explained) = self.weigher.explained(name, &answer.target) else { return };
        let told = Told {
            explained,
            answer: self.weigher.availability(&answer.target),
            formula: weigher::formula(service, &self.config.weights),
            weights: &self.config.weights,
            now: Instant::now(),
        };
        answer.weighed = Some(told.values());
        let mut steps = told.steps();
        if let Some(scale) = answer.scale.filter(|scale| *scale > 1.0) {
            let text =
                format!("the maps hold {scale} for each 1 of the config, so that weights can move finely");
            steps.push(Step { step: "scale".to_owned(), text });
        }
        // Between what is configured and what is in force.
        let at = answer.steps.iter().position(|step| step.step == "weight").unwrap_or(answer.steps.len());
        answer.steps.splice(at..at, steps);
    }
}

/// CPUs of this host that are online.
pub(super) fn cpus() -> f64 {
    // SAFETY: sysconf has no preconditions; it takes a number and returns one.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    online.max(1) as f64
}
