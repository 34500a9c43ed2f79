//! The controller against queueing models: deterministic (a seeded generator, no clock), so that what a test finds
//! is found again.
//!
//! Two models that share no line: [`workers`], first come first served by a number of workers, worked out job by
//! job; and [`sharing`], processor sharing by virtual time. Clients are an open loop of Poisson arrivals. What the
//! controller is told is what the real sources would tell: smoothed response times of finished requests, use over a
//! second told once a second, the ring's fill.

mod sharing;
mod steady;
mod tests;
mod workers;
mod world;

use world::World;
