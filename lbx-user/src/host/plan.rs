//! What to do about a host, decided from what was read of it. Nothing here reads or changes anything.

mod attach;
mod delivery;
mod guard;
mod lockout;
mod resolve;
#[cfg(test)]
mod tests;

pub use attach::{Attach, Plan, PortPlan, Role, SwitchKind, attach_plan};
pub use delivery::{Delivered, delivery_auto};
pub use guard::{GuardInput, Refusal, ResolvedTarget, guard_rails, senders};
pub use lockout::lockout;
pub use resolve::resolve;
