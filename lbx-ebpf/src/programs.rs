//! What each entry point runs.

pub mod back;
pub mod clock;
pub mod cpu;
pub mod depth;
pub mod enter;
pub mod slow_answer;
pub mod slow_decap;
pub mod slow_encap;
pub mod slow_headers;
pub mod slow_icmp;
pub mod slow_later;
pub mod slow_moved;
pub mod slow_reject;
pub mod slow_too_big;
pub mod tc;
pub mod whole;
pub mod xdp;
