//! A loaded datapath in a network namespace of its own, and packets run through it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use lbx_common::algo::maglev::{self, Entry, Table};
use lbx_common::flow::TargetWord;
use lbx_common::reason::Reason;
use lbx_common::service::Service;
use lbx_common::target::{State, StateWord, Target, Weight};
use lbx_user::datapath::{
    self, Counters, Datapath, Device, Direction, Instance, Maps, Options, Point, TcMode, XdpMode,
};
use nix::sched::{CloneFlags, unshare};

use super::pool::{self, Loaded};
use super::run::{Runner, Verdict};
use super::seat::Seat;
use super::world::World;
use crate::lab::bpffs;
use crate::lab::record::{Item, Record};

/// Where a frame comes in: the hook, and the index of the port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hook {
    /// `lbx_xdp`.
    Xdp(u32),
    /// `lbx_tc` at ingress.
    Tc(u32),
    /// `lbx_tc_egress`: by the first port, from the second; from the host itself where both are one.
    Out(u32, u32),
}

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What was counted, by name.
    pub counted: BTreeMap<&'static str, u64>,
    /// Frames to targets, by index.
    pub targets: Vec<u64>,
}

/// The datapath, its devices and its programs. Not to be sent to another thread: the namespace is the thread's.
pub struct Bench {
    /// What it is configured with.
    pub world: World,
    maps: Maps,
    last: Counters,
    devices: Vec<Device>,
    runners: HashMap<Hook, Runner>,
    // Always there until it is dropped.
    loaded: Option<Loaded>,
    again: bool,
    _seat: Seat,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.runners.clear();
        // What a test that failed left behind is none to go on with.
        let Some(loaded) = self.loaded.take().filter(|_| self.again && !std::thread::panicking()) else {
            return;
        };
        if let Err(e) = pool::give(loaded) {
            eprintln!("not used again: {e:#}");
        }
    }
}

impl Bench {
    /// Makes a namespace for the calling thread, with one veth per port, loads the programs and fills the maps.
    pub fn new(world: World) -> Self {
        Self::with(world, load, false)
    }

    /// The same with programs that another test may have used before, as if they had just been loaded; when it is
    /// dropped, another test may.
    pub fn ready(world: World) -> Self {
        Self::with(world, |options| pool::take(options).unwrap_or_else(|| load(options)), true)
    }

    fn with(world: World, load: impl FnOnce(&Options) -> Loaded, again: bool) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it loads BPF programs");
        let seat = Seat::take();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let devices = make_devices(world.ports.len());
        let loaded = load(&world.options);
        let maps = Maps::open_pinned_writable(&loaded.instance).unwrap();
        let (last, runners) = (Counters::default(), HashMap::new());
        let mut bench =
            Self { world, maps, last, devices, runners, loaded: Some(loaded), again, _seat: seat };
        bench.configure();
        bench.settle();
        bench
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("there until it is dropped")
    }

    /// Puts every map back to what it was after loading, as for the next test; the names of those that were not so,
    /// and of those that still are not.
    pub fn put_back(&self) -> [Vec<String>; 2] {
        let before = self.loaded().changed().unwrap();
        self.loaded().restore().unwrap();
        [before, self.loaded().changed().unwrap()]
    }

    /// The instance its maps are pinned under.
    pub fn instance(&self) -> &Instance {
        &self.loaded().instance
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Interface of the port at an index.
    pub fn ifindex(&self, port: u32) -> u32 {
        self.devices[port as usize].ifindex
    }

    fn configure(&mut self) {
        for (index, device) in self.devices.iter().enumerate() {
            let port = lbx_common::port::Port { ifindex: device.ifindex, ..self.world.ports[index] };
            self.maps().write_port(index as u32, &port).unwrap();
        }
        let world = self.world.clone();
        for (index, service, target) in world.targets() {
            let ifindex = self.ifindex(target.port);
            let entry = target.entry(service, &world.services[service], ifindex);
            self.maps().write_target(index, &entry).unwrap();
        }
        for service in 0..world.services.len() {
            self.write_service(service);
        }
        self.maps().write_addresses(&world.addresses()).unwrap();
    }

    /// Waits for the start of an epoch: what follows, up to about a second of it, happens in one. Answers how
    /// long an epoch is.
    pub fn at_the_start_of_an_epoch(&self) -> Duration {
        let (clock, rate) = (self.maps().clock().unwrap(), self.maps().rate().unwrap());
        let epoch = rate.epoch(clock.jiffies_now().unwrap());
        while rate.epoch(clock.jiffies_now().unwrap()) == epoch {
            std::thread::sleep(Duration::from_millis(1));
        }
        rate.epoch_duration(1)
    }

    /// Builds a service's table from the weights in [`Self::world`] and writes it with the service's fields.
    pub fn write_service(&self, service: usize) {
        let svc = &self.world.services[service];
        let mut entries = Vec::new();
        let mut members = Vec::new();
        for (index, of, target) in self.world.targets().filter(|(_, of, _)| *of == service) {
            let word = TargetWord::new(index as u16, 0, 1);
            let seed = maglev::seed(&format!("{of}-{index}/0"));
            entries.push(Entry { id: word.0, seed, weight: target.weight });
            members.push(index);
            let weight = Weight { weight: target.weight, configured: target.weight };
            self.maps().write_weight(index, 0, weight).unwrap();
        }
        let table = Table::build(&entries, svc.table);
        let slots: Vec<TargetWord> = table.slots().iter().map(|w| TargetWord(*w)).collect();
        let (table, _) = self.maps().place_table(service as u32, &slots).unwrap();
        let run = self.maps().place_members(service as u32, &members).unwrap();
        let entry = Service {
            table_base: table.base,
            table_len: table.len,
            members_first: run.base,
            members: run.len as u16,
            flags: svc.flags,
            algorithm: svc.algorithm,
            forward: svc.forward as u8,
            vlan: svc.vlan,
            new_flow_rate: svc.rate,
            kept_ways: svc.kept,
            ..Service::default()
        };
        self.maps().write_service(service as u32, &entry).unwrap();
    }

    /// Flips a target's state.
    pub fn set_state(&self, target: u32, state: State) {
        self.maps().set_state(target, StateWord::new(state)).unwrap();
    }

    /// Changes a target's entry in place.
    pub fn change_target(&self, target: u32, change: impl FnOnce(&mut Target)) {
        let mut entry = self.maps().target(target).unwrap();
        change(&mut entry);
        self.maps().write_target(target, &entry).unwrap();
    }

    /// Forgets what was counted so far.
    pub fn settle(&mut self) {
        self.last = self.counters();
    }

    /// All counters.
    pub fn counters(&self) -> Counters {
        let targets = self.world.targets().count() as u32;
        self.maps().counters(self.world.services.len() as u32, targets).unwrap()
    }

    /// The program at a hook, attached the way the product attaches it.
    pub fn runner(&mut self, hook: Hook) -> &mut Runner {
        if !self.runners.contains_key(&hook) {
            let runner = self.attach(hook);
            self.runners.insert(hook, runner);
        }
        self.runners.get_mut(&hook).expect("just put there")
    }

    fn attach(&mut self, hook: Hook) -> Runner {
        let (Hook::Xdp(index) | Hook::Tc(index) | Hook::Out(index, _)) = hook;
        let device = self.devices[index as usize].clone();
        let loaded = self.loaded.as_mut().expect("there until it is dropped");
        let datapath = &mut loaded.datapath;
        let point = match hook {
            Hook::Xdp(_) => {
                datapath.attach_xdp(&device, index, XdpMode::Native, false).unwrap();
                Point::Xdp
            }
            Hook::Tc(_) => datapath.attach_tc(&device, Direction::Ingress, TcMode::Auto).unwrap(),
            Hook::Out(..) => datapath.attach_tc(&device, Direction::Egress, TcMode::Auto).unwrap(),
        };
        let list = datapath::list(&loaded.instance).unwrap();
        let found = list.iter().find(|a| a.device.name == device.name && a.point == point).unwrap();
        let program = datapath::prog_by_id(found.prog_id).unwrap();
        match hook {
            Hook::Xdp(_) => Runner::xdp(program),
            Hook::Tc(_) => Runner::tc(program, device.ifindex),
            Hook::Out(port, from) if port == from => Runner::leaving(program, device.ifindex, 0),
            Hook::Out(_, from) => {
                Runner::leaving(program, device.ifindex, self.devices[from as usize].ifindex)
            }
        }
    }

    /// Opens flows of increasing client ports until one goes to the VM; its port. What was counted is forgotten.
    pub fn flow_to(&mut self, hook: Hook, v4: bool, vm: u8, first_port: u16) -> u16 {
        let found = (first_port..first_port + 200).find(|port| {
            let frame = super::world::tcp_packet(v4, *port, crate::packets::tcp::SYN).build();
            self.run(hook, &frame).vm() == vm
        });
        found.expect("a flow to every VM")
    }

    /// Runs a frame and reads what it did.
    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> Ran {
        self.run_gso(hook, frame, 0)
    }

    /// Runs a superframe whose segments carry `gso` bytes.
    pub fn run_gso(&mut self, hook: Hook, frame: &[u8], gso: u32) -> Ran {
        let (verdict, out) = self.runner(hook).run(frame, gso).unwrap();
        let frame = out.to_vec();
        let (counted, targets) = self.counted();
        Ran { verdict, frame, counted, targets }
    }

    /// What was counted since the last look: reasons by name, and packets by target.
    pub fn counted(&mut self) -> (BTreeMap<&'static str, u64>, Vec<u64>) {
        let now = self.counters();
        let delta = |r: Reason| now.reason(r) - self.last.reason(r);
        let counted = Reason::ALL.iter().map(|r| (r.name(), delta(*r))).filter(|(_, n)| *n > 0).collect();
        let targets =
            now.targets.iter().zip(&self.last.targets).map(|(a, b)| a.packets - b.packets).collect();
        self.last = now;
        (counted, targets)
    }
}

impl Ran {
    /// Panics unless the verdict, the frame and everything that was counted are as expected.
    #[track_caller]
    pub fn is(&self, what: &str, verdict: Verdict, frame: &[u8], counted: &[Reason]) {
        let mut expected: BTreeMap<&'static str, u64> = BTreeMap::new();
        for reason in counted {
            *expected.entry(reason.name()).or_default() += 1;
        }
        assert_eq!((self.verdict, &self.counted), (verdict, &expected), "{what}");
        assert!(
            self.frame == frame,
            "{what}: the frame differs\n  is     {}\n  should {}",
            hex(&self.frame),
            hex(frame)
        );
    }

    /// Passed as it came.
    #[track_caller]
    pub fn passed(&self, what: &str, frame: &[u8], counted: &[Reason]) {
        self.is(what, Verdict::Pass, frame, counted);
    }

    /// Dropped.
    #[track_caller]
    pub fn dropped(&self, what: &str, counted: &[Reason]) {
        self.is(what, Verdict::Drop, &self.frame, counted);
    }

    /// Sent to a VM by `dsr`: the destination MAC, and nothing else. Answers which VM.
    #[track_caller]
    pub fn steered(&self, what: &str, frame: &[u8], counted: &[Reason]) -> u8 {
        let vm = self.vm();
        let mut expected = frame.to_vec();
        expected[..6].copy_from_slice(&super::world::vm_mac(vm));
        self.is(what, Verdict::Redirect, &expected, counted);
        vm
    }

    /// The VM the frame is addressed to.
    #[track_caller]
    pub fn vm(&self) -> u8 {
        let mac = &self.frame[..6];
        assert_eq!(
            mac[..5],
            super::world::vm_mac(0)[..5],
            "not to a VM: {:?} {}",
            self.verdict,
            hex(&self.frame)
        );
        mac[5]
    }

    /// The frame read by etherparse, every checksum recomputed.
    #[track_caller]
    pub fn parsed(&self) -> crate::packets::check::Parsed {
        match crate::packets::check::check(&self.frame) {
            Ok(parsed) => parsed,
            Err(e) => panic!("{e:#}: {}", hex(&self.frame)),
        }
    }
}

fn load(options: &Options) -> Loaded {
    bpffs::ensure().unwrap();
    let record = Record::create().unwrap();
    let instance = Instance::new(Some(&format!("t{}", record.id()))).unwrap();
    record.add(&Item::Dir(instance.dir().parent().unwrap().into())).unwrap();
    let datapath = Datapath::load(&instance, &object(), options).unwrap();
    Loaded::new(datapath, record, options).unwrap()
}

/// The kernel program: the one that is embedded, or that of the file `LBX_DATAPATH` names, to compare two builds of
/// it without building anything else.
fn object() -> Vec<u8> {
    match std::env::var_os("LBX_DATAPATH") {
        Some(path) => std::fs::read(path).expect("LBX_DATAPATH"),
        None => datapath::ebpf_object().expect("`cargo xtask test bpf` embeds the kernel program").to_vec(),
    }
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// One veth a port, left down so that the kernel itself sends nothing through the programs.
fn make_devices(n: usize) -> Vec<Device> {
    let lines: String = (0..n).fold(String::new(), |mut text, i| {
        let _ = writeln!(text, "link add b{i} type veth peer name c{i}");
        text
    });
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "ip");
    (0..n).map(|i| Device::by_name(&format!("b{i}")).unwrap()).collect()
}
