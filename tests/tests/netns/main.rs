//! The product between real sockets in network namespaces.

mod answer;
mod attach;
mod cli;
mod delivery;
mod doctor;
mod filters;
mod flows;
mod forward;
mod guard;
mod health;
mod hold;
mod hosts;
mod libvirt;
mod migration;
mod moved;
mod p2c;
mod peers;
mod records;
mod states;
mod told;
mod tunnel;
mod upgrade;
mod weights;
