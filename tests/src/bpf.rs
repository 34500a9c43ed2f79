//! The kernel program run on packets by the kernel: `BPF_PROG_TEST_RUN` over the product's own loader and
//! maps. Packet in, verdict and packet out, and everything that was counted on the way.
//!
//! [`world`] says what is configured, [`mod@bench`] puts it into the maps and runs packets; `pool` keeps what was
//! loaded for the next test.

pub mod bench;
pub mod mutate;
mod pool;
pub mod run;
mod seat;
pub mod tap;
pub mod tunnel;
pub mod wire;
pub mod world;

pub use bench::{Bench, Hook, Ran};
pub use run::Verdict;
pub use world::{Svc, Tgt, World};
