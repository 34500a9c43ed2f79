//! What an attach does, or would do.

use serde::{Deserialize, Serialize};

use crate::host::plan;

/// GET /v1/plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttachPlan {
    /// Switch by switch.
    pub switches: Vec<SwitchPlan>,
    /// Services and targets that the guard-rails refuse.
    pub refusals: Vec<Refusal>,
}

/// One switch of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SwitchPlan {
    /// Its name.
    pub switch: String,
    /// `bridge` or `nic`.
    pub kind: String,
    /// Its ports, uplinks first.
    pub ports: Vec<PortPlan>,
    /// Why it cannot be attached as configured.
    pub refusals: Vec<String>,
    /// Why attaching could cut off the caller: it needs `--yes` then, and undoes itself unless confirmed.
    pub lockout: Option<String>,
}

/// One port of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortPlan {
    /// Its name.
    pub name: String,
    /// `uplink`, `vnic` or `switch`.
    pub role: String,
    /// `native`, `generic`, `tc` or `none`.
    pub attach: String,
    /// Why that.
    pub reason: String,
    /// The id of the XDP program that is taken off first.
    pub replaces: Option<u32>,
}

/// Something lbx will not do on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// The service.
    pub service: String,
    /// The target; absent when the whole service is refused.
    pub target: Option<String>,
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl From<&plan::Plan> for SwitchPlan {
    fn from(plan: &plan::Plan) -> Self {
        let kind = match plan.kind {
            plan::SwitchKind::Bridge => "bridge",
            plan::SwitchKind::Nic => "nic",
        };
        Self {
            switch: plan.switch.clone(),
            kind: kind.to_owned(),
            ports: plan.ports.iter().map(PortPlan::from).collect(),
            refusals: plan.refusals.clone(),
            lockout: None,
        }
    }
}

impl From<&plan::PortPlan> for PortPlan {
    fn from(port: &plan::PortPlan) -> Self {
        let role = match port.role {
            plan::Role::Uplink => "uplink",
            plan::Role::Vnic => "vnic",
            plan::Role::Switch => "switch",
        };
        let attach = match port.attach {
            plan::Attach::Native => "native",
            plan::Attach::Generic => "generic",
            plan::Attach::Tc => "tc",
            plan::Attach::None => "none",
        };
        Self {
            name: port.name.clone(),
            role: role.to_owned(),
            attach: attach.to_owned(),
            reason: port.reason.clone(),
            replaces: port.replaces,
        }
    }
}

impl From<&plan::Refusal> for Refusal {
    fn from(refusal: &plan::Refusal) -> Self {
        Self {
            service: refusal.service.clone(),
            target: refusal.target.clone(),
            reason: refusal.reason.clone(),
            hint: refusal.hint.clone(),
        }
    }
}
