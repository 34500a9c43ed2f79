//! The kernel half as user space sees it: loading, pins, attachment, typed maps. The only code that knows
//! aya, and the only code that talks to bpf(2).
//!
//! ```text
//! Datapath::load ── maps adopted or made, programs loaded, existing links taken over
//!   ├─ attach_xdp / attach_tc / detach      links.rs (netlink.rs where there is no tcx)
//!   └─ maps() ── Maps                       maps.rs, flows.rs, counters.rs over mmap.rs
//! Maps::open_pinned                         the same, read-only, without the daemon
//! detach_all                                nothing is left
//! Queues::load                              programs of their own that read the rings of taps
//! ```

mod btf;
mod caps;
mod clock;
mod counters;
mod cpus;
mod error;
mod events;
mod flips;
mod flows;
mod links;
mod live;
mod load;
mod maps;
mod mmap;
mod netlink;
mod object;
mod pins;
mod queues;
mod regions;
mod resize;
mod shape;
mod sys;
mod upgrade;
mod verify;

pub use caps::check as check_capabilities;
pub use clock::{Clock, IdleTimes, MAX_IDLE_EPOCHS, Rate};
pub use counters::Counters;
pub use error::{Error, Result};
pub use events::Events;
pub use flips::{Flip, Flips};
pub use flows::{FlowCount, FlowFilter, FlowRow, Flows};
pub use links::{Attachment, Device, Point, TcMode, XdpMode, detach_point, list, sweep, tcx_programs};
pub use live::Corrected;
pub use load::{Datapath, Options, detach_all};
pub use maps::{Access, Maps, members_of, table_of};
pub use mmap::Array;
pub use netlink::{Direction, Filter, XdpState, filters, takes_redirects, xdp_state};
pub use object::ebpf_object;
pub use pins::Instance;
pub use queues::{Queues, peak_in};
pub use regions::Region;
pub use sys::raw::RawMap;
pub use sys::run::Answer;
pub use sys::{MapInfo, TestRun, btf_by_id, prog_by_id};
