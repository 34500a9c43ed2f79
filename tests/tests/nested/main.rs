//! What runs in a guest that is itself a host of lbx: tests of the vm layer boot it, and run these there.

mod clock;
mod kernel;
mod vlan;
