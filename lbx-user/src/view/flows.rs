//! The flow table, row by row.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lbx_common::flow::{IdleClass, flags};

use super::{Result, View, protocol_name};
use crate::api::model::{Flow, FlowQuery, FlowState, Flows};
use crate::datapath::{FlowFilter, FlowRow};

/// Flows that are shown unless somebody says how many.
pub const LIMIT: usize = 100;
/// Slots that one portion of a listing looks at: some milliseconds of work.
pub const PORTION: u64 = 1 << 17;

impl View<'_> {
    /// The flows that are asked for, each read when it is asked for: the first is there at once, and memory
    /// stays what it is. The query's limit is not looked at.
    ///
    /// # Errors
    /// A name of the query fits nothing, or the maps could not be read.
    pub fn flow_rows(&self, query: &FlowQuery) -> Result<impl Iterator<Item = Flow>> {
        let wanted = self.wanted(query)?;
        let rows = self.maps.flows_from(query.from.unwrap_or(0))?.filter(move |row| wanted(row));
        Ok(rows.map(|row| self.flow(&row)))
    }

    /// Whether a row is asked for.
    fn wanted(&self, query: &FlowQuery) -> Result<impl Fn(&FlowRow) -> bool> {
        let service = query.service.as_deref().map(|name| self.find_service(name)).transpose()?;
        let service = service.map(|service| service.index);
        let target = query.target.as_deref().map(|name| self.find_target(name)).transpose()?;
        let word = target.map(|target| (u32::from(target.index), target.entry.generation));
        let filter = FlowFilter {
            // A flow whose tuple is not written yet is known by its target: below.
            service: None,
            target: word.map(|(index, _)| index),
            client: query.client,
            class: query.state.map(class),
            older: query.older.map(Duration::from_secs),
            younger: query.younger.map(Duration::from_secs),
        };
        Ok(move |row: &FlowRow| {
            filter.matches(row)
                && word.is_none_or(|(_, generation)| row.target.generation() == generation)
                && service.is_none_or(|index| self.service_of(row) == Some(index))
        })
    }

    /// The flows that are asked for, up to the query's limit. A query that says where to begin is one of many
    /// portions: it looks at no more than [`PORTION`] slots, so that whoever answers it has time for others.
    ///
    /// # Errors
    /// As [`View::flow_rows`].
    pub fn flows(&self, query: &FlowQuery) -> Result<Flows> {
        let limit = query.limit.unwrap_or(LIMIT);
        let wanted = self.wanted(query)?;
        let mut rows = self.maps.flows_from(query.from.unwrap_or(0))?;
        let end = query.from.map_or(u64::MAX, |from| from.saturating_add(PORTION));
        let mut flows = Vec::new();
        while flows.len() < limit
            && let Some(row) = rows.next_before(end)
        {
            if wanted(&row) {
                flows.push(self.flow(&row));
            }
        }
        let at = rows.position();
        let ended = at >= self.maps.flow_capacity();
        let more = match query.from {
            Some(_) => !ended,
            None => flows.len() == limit && rows.any(|row| wanted(&row)),
        };
        Ok(Flows { more, next: (!ended).then_some(at), flows })
    }

    fn service_of(&self, row: &FlowRow) -> Option<u16> {
        let target = self.target_at(row.target.target(), row.target.generation());
        row.tuple.map(|tuple| tuple.service).or_else(|| target.map(|target| target.entry.service))
    }

    pub(super) fn flow(&self, row: &FlowRow) -> Flow {
        let target = self.target_at(row.target.target(), row.target.generation());
        let service = self.service_of(row).and_then(|index| self.service_name(index)).map(str::to_owned);
        let tuple = row.tuple.as_ref();
        Flow {
            protocol: tuple.map(|tuple| protocol_name(tuple.key.protocol())),
            client: tuple.map(|tuple| SocketAddr::new(IpAddr::from(tuple.key.src), tuple.key.client_port())),
            vip: tuple.map(|tuple| SocketAddr::new(IpAddr::from(tuple.key.dst), tuple.key.service_port())),
            vlan: tuple.map(|tuple| tuple.key.vlan()),
            service,
            port: tuple.and_then(|tuple| self.port(tuple.port.into())).map(|port| port.name.clone()),
            age: row.age.map(|age| age.as_secs()),
            target: target.map_or_else(
                || format!("(gone: index {})", row.target.target()),
                |target| target.name.clone(),
            ),
            queue: row.target.queue(),
            state: state(row.class()),
            idle: row.idle.as_secs(),
            nat: row.flags & flags::NAT != 0,
        }
    }
}

fn class(state: FlowState) -> IdleClass {
    match state {
        FlowState::New => IdleClass::New,
        FlowState::Established => IdleClass::Established,
        FlowState::Closed => IdleClass::Closed,
        FlowState::Datagram => IdleClass::Datagram,
    }
}

fn state(class: IdleClass) -> FlowState {
    match class {
        IdleClass::New => FlowState::New,
        IdleClass::Established => FlowState::Established,
        IdleClass::Closed => FlowState::Closed,
        IdleClass::Datagram => FlowState::Datagram,
    }
}

impl FlowState {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Datagram => "datagram",
        }
    }
}
