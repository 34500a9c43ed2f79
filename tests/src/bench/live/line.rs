//! The lines: a veth to put frames into, something that forwards them, and a veth or tap where they end.

mod kernel;
mod tap;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lbx_common::flow::TargetWord;
use lbx_common::limits::SLOTS_PER_FLOW;
use lbx_common::port::{Port, flags};
use lbx_common::service::Service;
use lbx_common::target::{self, Forward, Target, Weight};

use self::kernel::Kernel;
pub use self::tap::Tap;
use crate::bench::generator::Through;
use crate::bench::programs::{Flows, Programs};
use crate::bpf::bench::{Bench, Hook};
use crate::bpf::world::{Svc, World, ends, vm_mac};
use crate::lab::tools;
use crate::packets::{Body, Packet, protocol, tcp};

/// Queues of a target's port where they are chosen.
pub const QUEUES: u8 = 2;
/// Targets of the service.
const TARGETS: u8 = 3;

/// What forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// A program that only redirects.
    BareRedirect,
    /// A program with a table of flows, and nothing else.
    BareTable,
    /// lbx, MACs only.
    Dsr,
    /// The same where the uplink is the port of a bridge that learns: the client's MAC has to stay known there.
    Learning,
    /// lbx, addresses and ports.
    Nat,
    /// The kernel's bridge.
    Bridge,
    /// nftables, targets in turn.
    Numgen,
    /// nftables, targets by a hash.
    Jhash,
    /// Another balancer's program, which sends back by the port a frame came in by.
    Other,
}

impl Line {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::BareRedirect => "bare redirect",
            Self::BareTable => "bare table",
            Self::Dsr => "lbx dsr",
            Self::Learning => "lbx dsr, learning bridge",
            Self::Nat => "lbx nat",
            Self::Bridge => "kernel bridge",
            Self::Numgen => "nftables dnat, numgen",
            Self::Jhash => "nftables dnat, jhash",
            Self::Other => "other",
        }
    }

    /// Whether so many flows can be sent through it.
    pub fn takes(self, flows: u32) -> bool {
        !matches!(self, Self::Numgen | Self::Jhash) || flows <= 1 << 14
    }

    /// Whether frames come out with more changed than their MACs.
    pub fn changes_all(self) -> bool {
        matches!(self, Self::Nat | Self::Numgen | Self::Jhash)
    }

    /// Whether what forwards looks at checksums.
    fn checks(self) -> bool {
        matches!(self, Self::Numgen | Self::Jhash)
    }
}

/// All lines, in the calling thread's network namespace and two of their own.
pub struct Lines {
    // Before what it is attached to.
    programs: Programs,
    kernel: Option<Kernel>,
    bench: Bench,
    into: Into,
}

/// The interfaces that frames are put into.
struct Into {
    lbx: u32,
    bare_redirect: u32,
    bare_table: u32,
    other: Option<u32>,
}

impl Lines {
    /// Builds them for so many flows, that of lbx with one way of forwarding; those of the kernel only if asked for.
    pub fn build(flows: u32, forward: Forward, kernel: bool) -> Result<Self> {
        let mut service = Svc::new(protocol::TCP, 80, forward, 3);
        service.table = 65_537;
        let mut world = World::new(vec![service]);
        world.options.flows = flows.saturating_mul(SLOTS_PER_FLOW).max(1 << 16);
        let mut bench = Bench::new(world);
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").context("disable_ipv6")?;
        bench.runner(Hook::Xdp(0));
        let mut programs = Programs::load_tables(flows.saturating_mul(SLOTS_PER_FLOW).max(1 << 16), 1 << 10)?;
        ip(&[
            "link add in0 type veth peer name r0",
            "link add in1 type veth peer name r1",
            "link add out0 type veth peer name end0",
        ])?;
        for end in ["c1", "c2", "c3", "end0"] {
            programs.attach("live_arrive", index(end)?)?;
        }
        programs.attach("bare_redirect", index("r0")?)?;
        programs.attach("bare_table", index("r1")?)?;
        for dev in ["b0", "c0", "b1", "c1", "b2", "c2", "b3", "c3", "in0", "r0", "in1", "r1", "out0", "end0"]
        {
            ip(&[&format!("link set {dev} up")])?;
        }
        programs.redirect_to(index("out0")?)?;
        let kernel = kernel.then(Kernel::build).transpose()?;
        for end in kernel.iter().map(Kernel::ends).collect::<Result<Vec<_>>>()?.concat() {
            programs.attach("live_arrive", end)?;
        }
        let into =
            Into { lbx: index("c0")?, bare_redirect: index("in0")?, bare_table: index("in1")?, other: None };
        Ok(Self { programs, kernel, bench, into })
    }

    /// Adds that of another balancer's pinned program: a veth at whose one end it is, and at whose other end frames
    /// are put in and come out.
    pub fn against(&mut self, pin: &Path) -> Result<()> {
        ip(&["link add in2 type veth peer name r2"])?;
        let pin = pin.to_str().context("a pin with a plain name")?;
        tools::run(Command::new("ip").args(["link", "set", "r2", "xdpdrv", "pinned", pin]))?;
        let end = index("in2")?;
        self.programs.attach("live_arrive", end)?;
        ip(&["link set in2 up", "link set r2 up"])?;
        self.into.other = Some(end);
        Ok(())
    }

    /// Sends frames of `flows` flows, at random, for this long.
    pub fn send(&mut self, line: Line, flows: u32, time: Duration) -> Result<Through> {
        self.run(line, Flows::Random(flows), time)
    }

    /// Has every flow known, and sees to it that frames arrive.
    pub fn prime(&mut self, line: Line, flows: u32) -> Result<()> {
        // Two packets a flow, and then some: the second confirms it.
        let chunk = u64::from(flows) * 5 / 2;
        let mut sent = 0;
        while sent < chunk {
            let through = self.run(line, Flows::Sequential(flows), Duration::from_millis(50))?;
            sent += through.sent;
            ensure!(
                through.arrived > 0,
                "nothing arrives through {}: {:?}",
                line.name(),
                self.bench.counted()
            );
        }
        Ok(())
    }

    fn run(&mut self, line: Line, flows: Flows, time: Duration) -> Result<Through> {
        let by = match line {
            Line::BareRedirect => self.into.bare_redirect,
            Line::BareTable => self.into.bare_table,
            Line::Dsr | Line::Learning | Line::Nat => {
                self.learning(line == Line::Learning)?;
                self.into.lbx
            }
            Line::Bridge => self.kernel()?.bridge()?,
            Line::Numgen => self.kernel()?.numgen()?,
            Line::Jhash => self.kernel()?.jhash()?,
            Line::Other => self.into.other.context("built without another balancer")?,
        };
        let frame = frame(line);
        let load = line.load(&frame, flows);
        self.programs.send(by, &load, line.checks(), time)
    }

    /// Makes the uplink one of a bridge that learns, or not.
    fn learning(&self, on: bool) -> Result<()> {
        let port = self.bench.maps().port(0)?;
        let rest = port.flags & !flags::LEARNING;
        let flags = if on { rest | flags::LEARNING } else { rest };
        Ok(self.bench.maps().write_port(0, &Port { flags, ..port })?)
    }

    fn kernel(&self) -> Result<&Kernel> {
        self.kernel.as_ref().context("built without the kernel's lines")
    }

    /// Binds all flows of lbx to a queue of the targets' ports, which is chosen then for each frame; or lets frames go
    /// into whatever queue they come to. Flows begin anew.
    pub fn choose(&self, queue: Option<u8>) -> Result<()> {
        let maps = self.bench.maps();
        let ports: Vec<_> = (1..=TARGETS).map(|n| (vm_mac(n), u32::from(n))).collect();
        maps.choose_queues(if queue.is_some() { &ports } else { &[] })?;
        let words: Vec<TargetWord> =
            (0..2000).map(|n| TargetWord::new(n % u16::from(TARGETS), queue.unwrap_or(0), 1)).collect();
        for target in 0..u32::from(TARGETS) {
            self.bench.change_target(target, |entry: &mut Target| {
                entry.queues = if queue.is_some() { QUEUES } else { 1 };
                let rest = entry.flags & !target::flags::QUEUES;
                entry.flags = if queue.is_some() { rest | target::flags::QUEUES } else { rest };
            });
            maps.write_weight(target, queue.unwrap_or(0).into(), Weight { weight: 1, configured: 1 })?;
            maps.clear_flows_of(target)?;
        }
        let old = maps.service(0)?;
        let (table, _) = maps.place_table(0, &words)?;
        Ok(maps.write_service(0, &Service { table_base: table.base, table_len: table.len, ..old })?)
    }

    /// Lets the lines of lbx and of the bare table end in the tap.
    pub fn into_tap(&mut self) -> Result<()> {
        let ifindex = index(Tap::NAME)?;
        self.programs.redirect_to(ifindex)?;
        for port in 1..=3 {
            let entry = Port { ifindex, ..self.bench.maps().port(port)? };
            self.bench.maps().write_port(port, &entry)?;
        }
        for target in 0..3 {
            self.bench.change_target(target, |entry: &mut Target| entry.ifindex = ifindex);
        }
        Ok(())
    }
}

/// A TCP segment without data from the client to the service.
fn frame(line: Line) -> Vec<u8> {
    let (src, dst) = ends(true);
    let body = Body::Tcp {
        ports: (1024, 80),
        seq: 1,
        ack: 1,
        flags: tcp::ACK,
        options: Vec::new(),
        data: Vec::new(),
    };
    let dst_mac = if line == Line::Bridge { kernel::FAR_MAC } else { crate::bpf::world::SWITCH_MAC };
    Packet::new((crate::bpf::world::CLIENT_MAC, dst_mac), src, dst, body).build()
}

/// Index of an interface of the calling thread's network namespace.
fn index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("interface {name}"))
}

/// Runs `ip` in the calling thread's network namespace.
fn ip(lines: &[&str]) -> Result<()> {
    lines.iter().try_for_each(|line| tools::run(Command::new("ip").args(line.split(' '))).map(|_| ()))
}
