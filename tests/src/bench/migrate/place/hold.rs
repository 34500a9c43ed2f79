//! Packets that wait for an idle guest.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{CALM, DATAGRAMS, PATIENCE, Place, VM};
use crate::bench::migrate::hold::{Held, PAUSE, RATE};
use crate::bench::migrate::losses::{Received, losses};
use crate::bench::migrate::probe::{Kind, Probe};
use crate::guest::echo;
use crate::lab::migrate::Options;
use crate::scenario::eventually;

impl Place {
    /// So many migrations to the other host with one flow all the time, and back without any.
    pub fn hold(&mut self, migrations: usize, held: &mut Held) -> Result<()> {
        let client = self.lab.client().ns.clone();
        for number in 0..migrations {
            if number > 0 {
                self.migrate(0, Options::default())?;
            }
            self.lab.vm(VM)?.control(&client, "forget")?;
            let probe = Probe {
                kind: Kind::Datagram,
                at: (self.at[0], echo::PORT).into(),
                sources: self.sources.clone(),
                interval: Duration::from_secs(1) / RATE,
                vm: VM.to_owned(),
            };
            let running = probe.start(&client);
            std::thread::sleep(CALM);
            let mut outage = self.migrate(1, Options { pause: Some(PAUSE), ..Options::default() })?;
            let datagrams = running.stop()?;
            self.settle(Some(&mut outage))?;
            let received = Received(self.lab.vm(VM)?.seen(&client)?);
            // Nothing is to change for its packets when it runs.
            let lost = losses(&outage, outage.times.resumed, &datagrams, &received, (0, u64::MAX));
            held.add(&outage.times, &datagrams, &received, &lost);
        }
        Ok(())
    }

    /// Waits until the guest's packets could wait at its new host.
    pub(super) fn can_wait(&self) -> Result<()> {
        let can = || {
            let all = self.lbx[0].json(&["migrations"])?;
            let records = all["migrations"].as_array().into_iter().flatten();
            let mut targets = records.filter_map(|one| one["targets"].as_array()).flatten();
            Ok(targets.any(|target| target["target"] == DATAGRAMS && target["can_wait"] == true))
        };
        if !eventually(PATIENCE, can)? {
            bail!("packets could not wait\n{}", self.story());
        }
        Ok(())
    }
}
