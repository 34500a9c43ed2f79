//! Every answer and request of the API, schema 1. Server and CLI share these types, so they cannot disagree.
//!
//! An answer is an object with `schema` beside its own fields ([`Answer`]). Fields are only ever added; a
//! reader ignores those it does not know. What only the daemon knows is absent where an answer was read from
//! the pinned maps. Durations are seconds unless the name says otherwise, shares are 0 to 1.

mod explain;
mod flow;
mod health;
mod load;
mod migration;
mod peers;
mod plan;
mod queue;
mod request;
mod state;
mod stats;
mod target;
mod weigh;

pub use explain::{Step, WhyFlow, WhyFlowQuery, WhyWeight, WhyWeightQuery};
pub use flow::{Flow, FlowQuery, FlowState, Flows};
pub use health::{Health, HealthCheck};
pub use load::{Load, Measured, VmLoad};
pub use migration::{
    MigratingTarget, Migration, MigrationChanged, MigrationEvent, MigrationRequest, Migrations,
};
pub use peers::{Line, Peer, PeerVm, Peers, RefusedPeers};
pub use plan::{AttachPlan, PortPlan, Refusal, SwitchPlan};
pub use queue::{MissingQueues, QueueRow, Queues};
pub use request::{
    AttachRequest, Bypass, Changed, DetachRequest, Problem, Reload, SetState, SetWeight, TargetRequest,
};
pub use state::{FlowTable, LibvirtDaemon, PendingAttach, Port, Service, Services, Source, Status};
pub use stats::{Counters, ReasonCount, Sampled, ServiceCounters, ServiceStats, Stats, TargetStats};
pub use target::{QueueWeight, Repair, Table, Target, Targets, WeightRow, Weights, Wish};
pub use weigh::Weighed;

use serde::{Deserialize, Serialize};

/// Version of everything here; it changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// An answer as it is sent and printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its own fields, beside `schema`.
    #[serde(flatten)]
    pub body: T,
}

impl<T> Answer<T> {
    /// With this version's schema.
    pub const fn new(body: T) -> Self {
        Self { schema: SCHEMA, body }
    }
}

/// The answer to a request that failed, with a status of 400 (it makes no sense), 404 (no such target), 409
/// (it cannot be done now) or 500.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What went wrong, for people.
    pub error: String,
    /// What is wrong with the config, if that is what went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_stands_beside_the_fields() {
        let answer = Answer::new(Services { services: Vec::new() });
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"schema":1,"services":[]}"#);
        let back: Answer<Services> =
            serde_json::from_str(r#"{"schema":1,"later":true,"services":[]}"#).unwrap();
        assert_eq!(back, answer);
    }
}
