//! The product before real guests, and in them.

mod clock;
mod failing;
mod failures;
mod kernels;
mod lab;
mod load;
mod lossless;
mod migrate;
mod migration;
mod peers;
mod presence;
mod queues;
mod steering;
mod transfer;
mod vlan;
mod weights;
