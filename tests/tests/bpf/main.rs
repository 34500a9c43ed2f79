//! The kernel program, run on packets by the kernel (`BPF_PROG_TEST_RUN`): one file for each thing it does.

mod again;
mod answers;
mod dsr;
mod events;
mod flows;
mod headers;
mod icmp;
mod leave;
mod listing;
mod maglev;
mod malformed;
mod moved;
mod mutate;
mod nat;
mod p2c;
mod queue_choice;
mod queues;
mod race;
mod reject;
mod response;
mod smp;
mod tunnel;
mod tunnel_received;
mod vlan;
