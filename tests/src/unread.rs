//! Targets whose frames nobody takes: taps that this process holds, as QEMU would, and reads when it likes.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lbx_user::control::{Names, map_name};
use lbx_user::datapath::{Instance, Maps};

use crate::bpf::tap::Tap;
use crate::bpf::wire::Wire;
use crate::guest::announce::mac_text;
use crate::lab::addr::{self, Pair};
use crate::lab::config::{File, Service, Target};
use crate::lab::offload::Offloads;
use crate::lab::{LabSpec, Lbx, VmKind, tools};
use crate::scenario::{Scenario, eventually};

/// Frames in a ring.
pub const RING: u32 = 1000;
/// Frames that are a burst and no queue yet: 5 % of the ring.
pub const SHALLOW: usize = 50;
/// Clients' ports that are tried to find a flow for each tap.
const PORTS: std::ops::Range<u16> = 20_000..24_000;
/// What a datagram carries.
const DATA: [u8; 18] = [0; 18];

/// The targets of a service with adaptive weights, `react`, and a client.
pub struct Unread {
    /// The lab, and the daemon.
    pub scenario: Scenario,
    maps: Maps,
    // Taps at the bridge, and sockets to put frames into them; indices of the targets.
    taps: Vec<(Tap, Wire)>,
    indices: Vec<u32>,
}

impl Unread {
    /// Starts a daemon with so many of them, `top` at the top of its file, and waits until all queues are seen.
    ///
    /// # Errors
    /// When the lab cannot be built, or a queue is not seen.
    pub fn start(count: usize, top: &str) -> Result<Self> {
        let mut spec = LabSpec::one_host(0, VmKind::StandIn);
        spec.clients[0].offloads = Offloads::sender(false);
        let mut scenario = Scenario::start(spec, &[])?;
        let host = scenario.lab.host().ns.clone();
        let taps = host.run(|| (0..count).map(tap).collect::<Result<Vec<_>>>())??;
        let macs = (0..count).map(|n| {
            let (ip, mac) = (own(n).v4, mac_text(mac(n)));
            format!("neigh replace {ip} lladdr {mac} dev br0 nud permanent")
        });
        tools::ip(&host, &macs.collect::<Vec<_>>())?;
        let targets = (0..count).map(|n| Target::local(&name(n), own(n))).collect();
        let mut service = Service::dsr("react", addr::vip(0), "udp", 9, targets);
        // What the kernel times or counts says nothing here: nobody answers.
        service.keys = String::from("weights = \"adaptive\"\navailability = \"1\"");
        let file = File { top: top.to_owned(), ..File::new(vec![service]).xdp("native") };
        scenario.lbx.push(Lbx::start(&scenario.lab, 0, &file.text())?);
        let maps = Maps::open_pinned(&Instance::new(Some(&scenario.lbx().instance))?)?;
        let names = Names::adopt(&&maps)?;
        let index = |n: usize| {
            let index = names.targets.get(&map_name(&format!("react/{}", name(n))));
            Ok(u32::from(*index.context("a target without an index")?))
        };
        let indices = (0..count).map(index).collect::<Result<_>>()?;
        let watched =
            || Ok(scenario.lbx().json(&["queues"])?["queues"].as_array().map_or(0, Vec::len) == count);
        ensure!(
            eventually(Duration::from_mins(1), watched)?,
            "not all queues are seen; {}",
            scenario.story()
        );
        Ok(Self { scenario, maps, taps, indices })
    }

    /// Weight over configured weight of target `n`, in the map that the kernel reads.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn weight(&self, n: usize) -> Result<f64> {
        let weight = self.maps.weight(self.indices[n], 0)?;
        Ok(f64::from(weight.weight) / f64::from(weight.configured.max(1)))
    }

    /// Empties tap `n`; how many frames were for it. What is asked of everybody, or flooded, comes into every tap.
    pub fn take(&mut self, n: usize) -> usize {
        let own = |frame: &Vec<u8>| frame.starts_with(&mac(n)) && frame.get(12..14) == Some(&[8, 0]);
        let tap = &mut self.taps[n].0;
        std::iter::from_fn(|| tap.next(0)).filter(own).count()
    }

    /// Puts a frame into tap `n`, as the bridge would.
    ///
    /// # Errors
    /// It has no room.
    pub fn put(&self, n: usize) -> Result<()> {
        Ok(self.taps[n].1.send(&frame(n))?)
    }

    /// For each tap a socket of the client whose flow leads there, and is known.
    ///
    /// # Errors
    /// The VIP leads nowhere, or not to all of them.
    pub fn flows(&mut self) -> Result<Vec<UdpSocket>> {
        let mut found: Vec<Option<UdpSocket>> = self.taps.iter().map(|_| None).collect();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !self.answers()? {
            let left = std::time::Instant::now() < deadline;
            ensure!(left, "the VIP leads nowhere; {}", self.scenario.story());
        }
        for port in PORTS {
            let socket = self.open(port)?;
            // The second one confirms the flow.
            for _ in 0..2 {
                socket.send(&DATA)?;
            }
            let mut tries = 0..200;
            let here = loop {
                if let Some(n) = self.empty().iter().position(|frames| *frames > 0) {
                    break n;
                }
                ensure!(tries.next().is_some(), "a frame came nowhere; {}", self.scenario.story());
                sleep(Duration::from_millis(1));
            };
            found[here].get_or_insert(socket);
            if found.iter().all(Option::is_some) {
                sleep(Duration::from_millis(50));
                self.empty();
                return Ok(found.into_iter().flatten().collect());
            }
        }
        bail!("no flow leads to some of the taps; {}", self.scenario.story())
    }

    fn answers(&mut self) -> Result<bool> {
        self.open(PORTS.end)?.send(&DATA)?;
        sleep(Duration::from_millis(20));
        Ok(self.empty().iter().any(|frames| *frames > 0))
    }

    fn open(&self, port: u16) -> Result<UdpSocket> {
        let vip = SocketAddr::new(addr::vip(0).v4.into(), 9);
        self.scenario.client().run(|| {
            let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), port))?;
            socket.connect(vip)?;
            Ok(socket)
        })?
    }

    fn empty(&mut self) -> Vec<usize> {
        (0..self.taps.len()).map(|n| self.take(n)).collect()
    }
}

/// Sends a datagram of a flow.
///
/// # Errors
/// The socket's.
pub fn send(flow: &UdpSocket) -> Result<()> {
    Ok(flow.send(&DATA).map(drop)?)
}

/// The name of tap `n`, and of its target.
pub fn name(n: usize) -> String {
    format!("react{n}")
}

/// Its address: of the lab's, but nobody else's.
fn own(n: usize) -> Pair {
    Pair::nth(130 + n as u8)
}

/// A tap at the bridge, and a socket to put frames into it. Called in the host's namespace.
fn tap(n: usize) -> Result<(Tap, Wire)> {
    let tap = Tap::new(&name(n), 1, RING)?;
    let done = std::process::Command::new("ip").args(["link", "set", &tap.name, "master", "br0"]).status()?;
    ensure!(done.success(), "ip link set {} master br0", tap.name);
    let wire = Wire::on(&tap.name)?;
    Ok((tap, wire))
}

/// The MAC of target `n`.
fn mac(n: usize) -> [u8; 6] {
    addr::mac(0x01, 0, n + 1)
}

/// A frame of UDP for target `n`, as far as a tap looks.
fn frame(n: usize) -> [u8; 60] {
    let mut frame = [0_u8; 60];
    frame[..6].copy_from_slice(&mac(n));
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[23] = 17;
    frame
}
