//! A namespace with devices to attach to, and an instance of its own.

use crate::lab::netns::Netns;
use crate::lab::record::{Item, Record};
use crate::lab::{bpffs, cleanup, tools};
use lbx_user::datapath::{self, Datapath, Device, Instance, Options, Point};

/// A namespace with a veth pair `p0`-`p1` and a tap `t0`, and an instance of its own.
pub struct Place {
    /// The namespace.
    pub ns: Netns,
    /// The instance.
    pub instance: Instance,
    record: Record,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// With the links up and nothing loaded.
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: it loads BPF programs");
        bpffs::ensure().unwrap();
        let record = Record::create().unwrap();
        let instance = Instance::new(Some(&format!("{}-dp", record.id()))).unwrap();
        record.add(&Item::Dir(instance.dir().parent().unwrap().into())).unwrap();
        let ns = Netns::create(&record, "dp").unwrap();
        let links = [
            "link add p0 type veth peer name p1",
            "link set p0 up",
            "link set p1 up",
            "tuntap add t0 mode tap",
            "link set t0 up",
        ];
        tools::ip(&ns, &links.map(String::from)).unwrap();
        Self { ns, instance, record }
    }

    /// Runs `work` inside the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.ns.run(work).unwrap()
    }

    /// Loads over what is pinned.
    pub fn load(&self, options: &Options) -> datapath::Result<Datapath> {
        let object = datapath::ebpf_object().expect("build with `cargo xtask test`: it embeds the object");
        self.inside(|| Datapath::load(&self.instance, object, options))
    }

    /// An interface of the namespace.
    pub fn device(&self, name: &str) -> Device {
        self.inside(|| Device::by_name(name)).unwrap()
    }

    /// What is attached: device, point, dead or not.
    pub fn list(&self) -> Vec<(String, Point, bool)> {
        let list = self.inside(|| datapath::list(&self.instance)).unwrap();
        list.into_iter().map(|a| (a.device.name.clone(), a.point, a.is_dead())).collect()
    }

    /// Detaches and removes everything.
    pub fn detach_all(&self) -> Vec<String> {
        self.inside(|| datapath::detach_all(&self.instance)).unwrap()
    }

    /// Runs tc in the namespace.
    pub fn tc(&self, args: &str) -> String {
        tools::run(self.ns.command("tc").args(args.split(' '))).unwrap()
    }

    /// Runs ip in the namespace.
    pub fn ip(&self, line: &str) {
        tools::ip(&self.ns, &[line.into()]).unwrap();
    }

    /// Nothing of the instance is left: no pin, no XDP, no tcx, no qdisc.
    pub fn assert_clean(&self) {
        assert!(!self.instance.dir().parent().unwrap().exists());
        for device in ["p0", "t0"] {
            let device = self.device(device);
            assert_eq!(self.inside(|| datapath::xdp_state(device.ifindex)).unwrap(), None);
        }
        assert!(!self.tc("qdisc show").contains("clsact"), "{}", self.tc("qdisc show"));
        let net = tools::run(self.ns.command("bpftool").args(["net", "show"])).unwrap();
        assert!(!net.contains("lbx_"), "{net}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The pins first: a pinned link keeps its program alive after its namespace.
        let _ = self.ns.run(|| datapath::detach_all(&self.instance));
        if let Err(e) = cleanup::remove(self.record.dir()) {
            eprintln!("{e:#}");
        }
    }
}

/// Maps of a size for tests.
pub fn small() -> Options {
    Options { flows: 4096, table_pool: 65_537, ..Options::default() }
}

/// The program on a device at a point.
pub fn prog_of(place: &Place, name: &str, point: Point) -> u32 {
    let list = place.inside(|| datapath::list(&place.instance)).unwrap();
    list.iter().find(|a| a.device.name == name && a.point == point).unwrap().prog_id
}
