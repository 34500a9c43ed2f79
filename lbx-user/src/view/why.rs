//! `why flow`: the datapath's steps, each with what it finds in the maps.

use lbx_common::addr::Ip;
use lbx_common::control::flags;
use lbx_common::flow::TargetWord;
use lbx_common::key::{FlowKey, ports, scope};
use lbx_common::port;
use lbx_common::reason::Reason;
use lbx_common::service::{AddressEntry, Rule, address_flags, algorithm, flags as service_flags};
use lbx_common::steer::fate::{self, Fate};

use super::select::Selected;
use super::{Error, Placed, Plugged, Result, Served, View, deliver_name, forward_name};
use crate::api::model::{Step, WhyFlow, WhyFlowQuery};
use crate::config::checked::format_mac;

/// The answer as it grows.
struct Story(WhyFlow);

impl Story {
    fn step(&mut self, step: &str, text: impl Into<String>) {
        self.0.steps.push(Step { step: step.to_owned(), text: text.into() });
    }

    fn end(mut self, verdict: &str, reason: Option<Reason>) -> WhyFlow {
        verdict.clone_into(&mut self.0.verdict);
        self.0.reason = reason.map(|reason| reason.name().to_owned());
        self.0
    }
}

impl View<'_> {
    /// Where a flow goes, or would go.
    ///
    /// # Errors
    /// The question makes no sense, or the maps could not be read.
    pub fn why_flow(&self, query: &WhyFlowQuery) -> Result<WhyFlow> {
        let protocol = match query.protocol.as_str() {
            "tcp" => 6,
            "udp" => 17,
            other => return Err(Error::Invalid(format!("protocol \"{other}\": say tcp or udp"))),
        };
        if query.client.is_ipv4() != query.vip.is_ipv4() {
            return Err(Error::Invalid("client and VIP are of different families".to_owned()));
        }
        let mut story = Story(WhyFlow {
            client: query.client.to_string(),
            vip: query.vip.to_string(),
            ..WhyFlow::default()
        });
        if self.control.flags & flags::BYPASS != 0 {
            story.step("bypass", "the bypass is on: every packet passes as on a plain bridge");
            return Ok(story.end("passed", None));
        }
        let vip = Ip::from(query.vip.ip());
        let entry = self.maps.address(vip)?.filter(|entry| entry.flags & address_flags::VIP != 0);
        let Some(entry) = entry else {
            story.step("service", format!("{} is no VIP: such packets leave as they came", query.vip.ip()));
            return Ok(story.end("passed", None));
        };
        let Some((rule, service)) = self.matching(&mut story, query, protocol, &entry)? else {
            return Ok(story.end("passed", Some(Reason::NotAService)));
        };
        story.0.service = Some(service.name.clone());
        story.0.algorithm = Some(algorithm::name(service.entry.algorithm).to_owned());
        let range = if rule.port_first == rule.port_last {
            rule.port_first.to_string()
        } else {
            format!("{}-{}", rule.port_first, rule.port_last)
        };
        let vlan = if rule.vlan == 0 { "untagged".to_owned() } else { format!("VLAN {}", rule.vlan) };
        story.step(
            "service",
            format!(
                "{}: {} {}:{range} on {}, {vlan}",
                service.name,
                query.protocol,
                query.vip.ip(),
                self.switch_name(rule.switch)
            ),
        );
        if service.entry.flags & service_flags::ACTIVE == 0 {
            story.step("service", "it is suspended: its packets pass untouched (see `lbx services`)");
            return Ok(story.end("passed", Some(Reason::Suspended)));
        }
        let key = FlowKey {
            src: Ip::from(query.client.ip()),
            dst: vip,
            ports: ports(query.client.port(), query.vip.port()),
            scope: scope(protocol, rule.vlan, rule.switch),
        };
        self.steer(story, service, &key)
    }

    /// The service whose rule matches; a VLAN or switch that is not given is the rule's own.
    fn matching(
        &self,
        story: &mut Story,
        query: &WhyFlowQuery,
        protocol: u8,
        entry: &AddressEntry,
    ) -> Result<Option<(Rule, &Served)>> {
        let rules = self.maps.rules(entry)?;
        let fits = |rule: &&Rule| {
            rule.matches(Rule::head(protocol, 0, rule.vlan), rule.switch, query.vip.port())
                && query.vlan.is_none_or(|vlan| vlan == rule.vlan)
                && query.switch.as_ref().is_none_or(|switch| *switch == self.switch_name(rule.switch))
        };
        let fitting: Vec<&Rule> = rules.iter().filter(fits).collect();
        let Some(rule) = fitting.first() else {
            let text = format!("no service has {} port {} of this VIP", query.protocol, query.vip.port());
            story.step("service", text);
            return Ok(None);
        };
        if fitting.iter().any(|other| (other.vlan, other.switch) != (rule.vlan, rule.switch)) {
            story.step("service", "the VIP is on several VLANs or switches: choose with --vlan or --switch");
        }
        Ok(self.services.iter().find(|service| service.index == rule.index).map(|service| (**rule, service)))
    }

    fn steer(&self, mut story: Story, service: &Served, key: &FlowKey) -> Result<WhyFlow> {
        let row = self.maps.flow(key)?;
        // Clients are behind an uplink; a flow that is recorded says where it came in.
        let uplink = |port: &&Plugged| {
            port.entry.switch == service.entry.switch && port.entry.flags & port::flags::UPLINK != 0
        };
        let recorded_at = row.and_then(|row| row.tuple).and_then(|tuple| self.port(tuple.port.into()));
        let port = recorded_at.or_else(|| self.ports.iter().find(uplink));
        if let Some(port) = port.filter(|port| !port.entry.is_member(key.vlan())) {
            story.step("vlan", format!("{} is not a member of VLAN {}", port.name, key.vlan()));
            return Ok(story.end("dropped", Some(Reason::VlanIngress)));
        }
        let ingress = port.map_or(u32::MAX, |port| port.index);
        let selected = self.select(service, key.hash(&self.control.secret), ingress)?;
        (story.0.slot, story.0.table_size) = (selected.slot, Some(service.entry.table_len));
        if let Some(row) = row {
            let flow = self.flow(&row);
            (story.0.recorded, story.0.age) = (true, flow.age);
            let age = flow.age.map_or_else(|| "one packet seen".to_owned(), |age| format!("{age} s old"));
            story.step(
                "flow",
                format!("recorded: {}, {age}, last packet {} s ago", flow.state.name(), flow.idle),
            );
            story.0.flow = Some(flow);
            match self.fate(&mut story, row.target) {
                Some(Fate::Blackholed) => return Ok(story.end("dropped", Some(Reason::Blackholed))),
                Some(Fate::Go | Fate::GoExpired) => return Ok(self.arrive(story, service, key, row.target)),
                Some(Fate::Follow) => return self.follow(story, row.target),
                Some(Fate::Anew) | None => {}
            }
        } else {
            story.step("flow", "not recorded: what a first packet would do now");
        }
        if let (Some(slot), Some(first)) = (selected.slot, selected.first) {
            let held = self.target_at(first.target(), first.generation());
            let held = held.map_or("nobody", |target| target.name.as_str());
            let size = service.entry.table_len;
            story.step("select", format!("the hash selects slot {slot} of {size}, which names {held}"));
        } else {
            story.step("select", "the service has no table: no target has any weight");
        }
        story.0.rehashes = selected.rehashes;
        let Some(word) = selected.word else {
            story.0.state = None;
            story.0.target = None;
            let (reason, told) = match selected {
                Selected { paused: Some(index), .. } => {
                    let name = self.targets.iter().find(|target| u32::from(target.index) == index);
                    let name = name.map_or("the only target", |target| target.name.as_str());
                    (Reason::Blackholed, format!("{name} is blackholed, and no other takes a new flow"))
                }
                Selected { only_itself: true, .. } => {
                    (Reason::SelfTarget, "only the sender itself takes a new flow".to_owned())
                }
                Selected { .. } => (Reason::NoTarget, "no target takes a new flow".to_owned()),
            };
            story.step("select", told);
            let reject = service.entry.flags & service_flags::REJECT != 0 && reason == Reason::NoTarget;
            return Ok(story.end(if reject { "rejected" } else { "dropped" }, Some(reason)));
        };
        if selected.walked {
            story.step("select", "after all its re-hashes: the next target in order that takes it");
        } else if selected.rehashes > 0 {
            let n = selected.rehashes;
            story.step("select", format!("that one takes no new flows: hashed again {n} times"));
        }
        let word = if service.entry.algorithm == algorithm::P2C && selected.slot.is_some() && !selected.walked
        {
            let picked = self.pick(service, key.hash(&self.control.secret), ingress, word)?;
            story.step("choose", picked.text);
            picked.word
        } else {
            word
        };
        Ok(self.arrive(story, service, key, word))
    }

    /// What becomes of a packet of a recorded flow; `None` if its target is another by now.
    fn fate(&self, story: &mut Story, word: TargetWord) -> Option<Fate> {
        let Some(target) = self.target_at(word.target(), word.generation()) else {
            story.step("state", "its target is gone: the next packet is selected anew");
            return None;
        };
        story.0.target = Some(target.name.clone());
        story.0.state = Some(self.state(target).0.name().to_owned());
        let fate = fate::known(target.entry.state, target.entry.elsewhere, self.now, false);
        let name = &target.name;
        match fate {
            Fate::Go | Fate::Follow => {}
            Fate::GoExpired => {
                story.step("state", format!("{name}: the deadline of its blackhole has passed"));
            }
            Fate::Blackholed => {
                story.step("state", format!("{name} is blackholed: dropped until the deadline"));
            }
            Fate::Anew => {
                let state = self.state(target).0.name();
                story.step("state", format!("{name} is {state}: the next packet is selected anew"));
            }
        }
        Some(fate)
    }

    /// The last steps, after a target that moved.
    fn follow(&self, mut story: Story, word: TargetWord) -> Result<WhyFlow> {
        let Some(target) = self.target_at(word.target(), word.generation()) else {
            return Ok(story.end("dropped", Some(Reason::StaleTarget)));
        };
        let place = self.maps.elsewhere(target.entry.elsewhere.into())?;
        let (port, mac) = (super::interface(place.ifindex), format_mac(&place.mac));
        let way = if place.is_outward() { "out of" } else { "into" };
        story.step("state", format!("{} moved: its flows follow it {way} {port}, to {mac}", target.name));
        Ok(story.end("steered", None))
    }

    /// The last steps, to a target that takes the packet.
    fn arrive(&self, mut story: Story, service: &Served, key: &FlowKey, word: TargetWord) -> WhyFlow {
        let Some(target) = self.target_at(word.target(), word.generation()) else {
            story.step("target", "it is gone");
            return story.end("dropped", Some(Reason::StaleTarget));
        };
        let state = self.state(target).0.name();
        story.0.target = Some(target.name.clone());
        story.0.state = Some(state.to_owned());
        story.step("target", format!("{}, queue {}, {state}", target.name, word.queue()));
        let Placed { entry, .. } = target;
        if service.entry.forward == 1 {
            let v4 = key.src.is_v4();
            if if v4 { entry.addr4 == 0 } else { entry.addr6.is_unspecified() } {
                story.step("rewrite", "nat, but it has no address of this family");
                return story.end("dropped", Some(Reason::NatNoAddress));
            }
        }
        let port = super::interface(entry.ifindex);
        let (forward, deliver) = (forward_name(service.entry.forward), deliver_name(entry.deliver));
        story.step("rewrite", format!("{forward}, delivered by {deliver} to {port}"));
        let observed = self.control.flags & flags::OBSERVE != 0
            || self.ports.iter().any(|port| port.entry.flags & port::flags::OBSERVE != 0);
        if observed {
            story.step("observe", "only observing: the packet passes, the verdict is counted");
            return story.end("passed", Some(Reason::Observed));
        }
        story.end("steered", None)
    }
}
