//! Loading: maps made or adopted, programs loaded, tail calls filled, existing links taken over.
//!
//! A start of the daemon and an upgrade are the same thing: a new version of the programs is loaded over the
//! maps that are there and put into the links that are there, one store each; then the old version goes.

use super::clock::{self, Clock, IdleTimes, Rate};
use super::error::{Error, Result};
use super::links::{self, Device, Point, TcMode, XdpMode};
use super::live::{self, Sight};
use super::maps::{Access, Maps, absent};
use super::netlink::Direction;
use super::pins::{self, Instance};
use super::resize::{self, Plan};
use super::upgrade::{self, InForce};
use super::{caps, cpus, shape, sys, verify};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use lbx_common::limits::{FLOWS_DEFAULT, TABLE_POOL, WAYS};
use lbx_common::steer::slow::Slow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// What is configured before anything is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// Slots of the flow table (rounded up to a power of two).
    pub flows: u32,
    /// Slots of the pool all tables live in.
    pub table_pool: u32,
    /// Idle times.
    pub idle: IdleTimes,
    /// Answers (RST, unreachable, too big, ARP, ND, echo) per second and CPU.
    pub answer_rate: u32,
    /// After this time a client's MAC is shown to the bridge again.
    pub learn: Duration,
    /// Let first packets see how deep queues are, where the kernel allows it.
    pub live_depth: bool,
    /// Start observing instead of steering, if the maps are new.
    pub observe: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flows: FLOWS_DEFAULT,
            table_pool: TABLE_POOL,
            idle: IdleTimes::default(),
            answer_rate: 1000,
            learn: Duration::from_mins(1),
            live_depth: true,
            observe: false,
        }
    }
}

/// One version of the programs, loaded.
pub(crate) struct Programs {
    instance: Instance,
    object: Vec<u8>,
    version: u32,
    options: Options,
    // While the flow table is being replaced, its maps have another name.
    resize: bool,
    sight: Option<Sight>,
    tc: OwnedFd,
    tc_egress: Option<OwnedFd>,
    xdp: HashMap<u32, OwnedFd>,
}

impl Programs {
    /// The tc program for frames coming in.
    pub(crate) fn tc(&self) -> &OwnedFd {
        &self.tc
    }

    /// The tc program for frames going out, if the object has one.
    pub(crate) fn tc_egress(&self) -> Option<&OwnedFd> {
        self.tc_egress.as_ref()
    }

    /// The XDP program of a port: the same code with the port's index as a constant, so that the hot path
    /// does not look it up.
    pub(crate) fn xdp(&mut self, port: u32) -> Result<&OwnedFd> {
        match self.xdp.entry(port) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let from = Source { version: self.version, resize: self.resize, sight: self.sight };
                let mut ebpf = open(&self.instance, &self.object, &self.options, from, Some(port))?;
                Ok(entry.insert(xdp_program(&mut ebpf, "lbx_xdp")?))
            }
        }
    }
}

/// A loaded datapath: the maps, and the programs ready to be attached.
pub struct Datapath {
    programs: Programs,
    maps: Maps,
    notes: Vec<String>,
}

impl Datapath {
    /// Loads the programs over new or pinned maps, takes over what is attached, and retires the version of the
    /// programs that ran before. Nothing is attached that was not.
    pub fn load(instance: &Instance, object: &[u8], options: &Options) -> Result<Self> {
        caps::check()?;
        instance.create()?;
        let lock = instance.lock()?;
        let version = instance.versions().last().map_or(1, |v| v + 1);
        let dir = instance.progs(version);
        fs::create_dir(&dir).map_err(Error::path("making", &dir))?;
        let loaded = Self::put_in_force(instance, object, options, version);
        if loaded.is_err() {
            // The version before stays in force; what was made of this one must not confuse the next start.
            resize::abandon(instance);
            let _ = instance.remove_version(version);
        }
        drop(lock);
        let (programs, clock, rate, mut notes) = loaded?;
        for old in instance.versions() {
            if old != version
                && let Err(error) = instance.remove_version(old)
            {
                notes.push(error.to_string());
            }
        }
        let maps = Maps::open(instance, Access::Write, Some(Clock::new(clock, rate)))?;
        if maps.table_pool() != options.table_pool / 2 * 2 + 2 {
            notes.push(format!(
                "the table pool keeps its {} slots; `lbx detach` and attach again to change it",
                maps.table_pool()
            ));
        }
        Ok(Self { programs, maps, notes })
    }

    /// Loads a version and puts it in force; after an error the one before still is.
    fn put_in_force(
        instance: &Instance,
        object: &[u8],
        options: &Options,
        version: u32,
    ) -> Result<(Programs, OwnedFd, Rate, Vec<String>)> {
        instance.check_maps()?;
        let plan = Plan::new(instance, options)?;
        let resize = plan.is_resize();
        let mut notes = Vec::new();
        let (mut ebpf, sight) =
            see(instance, object, options, Source { version, resize, sight: None }, &mut notes)?;
        verify::all(&mut ebpf)?;
        let clock = xdp_fd(&mut ebpf, "lbx_clock")?;
        sys::pin(&clock, &instance.progs(version).join("lbx_clock"))
            .map_err(Error::io("pinning lbx_clock"))?;
        // An older object that is compared with this one may have none.
        if ebpf.program(cpus::PROGRAM).is_some() {
            let cpu = xdp_fd(&mut ebpf, cpus::PROGRAM)?;
            sys::pin(&cpu, &instance.progs(version).join(cpus::PROGRAM))
                .map_err(Error::io("pinning lbx_cpu"))?;
        }
        fill_tail(&mut ebpf, "xdp_tail", Slow::xdp_program)?;
        fill_tail(&mut ebpf, "tc_tail", Slow::tc_program)?;
        let tc = tc_fd(&mut ebpf, "lbx_tc")?;
        let tc_egress = match tc_fd(&mut ebpf, "lbx_tc_egress") {
            Err(Error::Missing(_)) => None,
            other => Some(other?),
        };
        let rate = match plan.rate() {
            Some(rate) => rate,
            None => Rate::new(clock::measure(&clock)?),
        };
        let mut programs = Programs {
            instance: instance.clone(),
            object: object.to_vec(),
            version,
            options: options.clone(),
            resize,
            sight,
            tc,
            tc_egress,
            xdp: HashMap::new(),
        };
        let InForce { carried, notes: more } =
            upgrade::put_in_force(&plan, &mut programs, instance, options, rate)?;
        notes.extend(more);
        programs.resize = false;
        if resize {
            notes.push(format!(
                "flow table resized to {} slots: {} carried over, {} had no room",
                shape::buckets_for(options.flows) * WAYS,
                carried.moved,
                carried.lost,
            ));
        }
        Ok((programs, clock, rate, notes))
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.programs.instance
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// What happened at load that an operator should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Attaches XDP to an interface as port `port`, or puts this version into the link that is there.
    /// `replace` takes the place of a foreign program; without it that is [`Error::ForeignXdp`]. A driver
    /// that cannot is [`Error::XdpUnsupported`], and nothing has changed.
    pub fn attach_xdp(&mut self, device: &Device, port: u32, mode: XdpMode, replace: bool) -> Result<()> {
        let _lock = self.instance().lock()?;
        let instance = self.programs.instance.clone();
        let program = self.programs.xdp(port)?;
        links::attach_xdp(&instance, device, program, mode, replace)
    }

    /// Attaches the tc program to an interface in one direction, or puts this version into what is there.
    /// Answers whether that is a tcx link or a clsact filter.
    pub fn attach_tc(&mut self, device: &Device, direction: Direction, mode: TcMode) -> Result<Point> {
        let _lock = self.instance().lock()?;
        let program = match direction {
            Direction::Ingress => Some(self.programs.tc()),
            Direction::Egress => self.programs.tc_egress(),
        };
        let program = program.ok_or_else(|| Error::Missing("program lbx_tc_egress".into()))?;
        links::attach_tc(self.instance(), device, program, direction, mode)
    }

    /// Takes lbx off an interface at one point; that it is not there is fine.
    pub fn detach(&mut self, device: &Device, point: Point) -> Result<()> {
        let _lock = self.instance().lock()?;
        links::detach(self.instance(), device, point)
    }

    /// Drops the programs kept for ports that no longer exist.
    pub fn retain_ports(&mut self, keep: impl Fn(u32) -> bool) {
        self.programs.xdp.retain(|port, _| keep(*port));
    }
}

/// Which version of the programs is opened, and with what.
#[derive(Clone, Copy)]
struct Source {
    version: u32,
    resize: bool,
    sight: Option<Sight>,
}

/// Opens the object with sight of queues if this kernel allows it, else without and with a note.
fn see(
    instance: &Instance,
    object: &[u8],
    options: &Options,
    from: Source,
    notes: &mut Vec<String>,
) -> Result<(Ebpf, Option<Sight>)> {
    let seeing = || {
        let sight = Sight::of_kernel()?;
        let mut ebpf = open(instance, object, options, Source { sight: Some(sight), ..from }, None)?;
        let program = xdp_program(&mut ebpf, live::DEPTH)?;
        sys::pin(&program, &instance.progs(from.version).join(live::DEPTH))
            .map_err(Error::io("pinning lbx_depth"))?;
        Ok::<_, Error>((ebpf, Some(sight)))
    };
    if options.live_depth {
        match seeing() {
            Ok(seen) => return Ok(seen),
            Err(error) => notes
                .push(format!("queues cannot be read in the kernel, p2c compares open flows alone: {error}")),
        }
    }
    Ok((open(instance, object, options, from, None)?, None))
}

/// Parses the object over the pinned maps; maps that are not pinned yet are made and pinned. Without a port
/// the programs look it up by the ingress interface, as those that all ports share must.
fn open(
    instance: &Instance,
    object: &[u8],
    options: &Options,
    Source { version, resize, sight }: Source,
    port: Option<u32>,
) -> Result<Ebpf> {
    let buckets = shape::buckets_for(options.flows);
    let (cpu_count, cpu_room) = (cpus::count(), aya::util::nr_cpus().map_or(1, |n| n as u32));
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(cpus::MAP, cpu_room)
        .override_global("CPU_COUNT", &cpu_count, false)
        .map_max_entries("flows", buckets)
        .map_max_entries("flows_cold", buckets * WAYS)
        .map_max_entries("slots", options.table_pool / 2 + 1);
    if let Some(port) = &port {
        loader.override_global("PORT_INDEX", port, true);
    }
    if let Some(Sight(offsets)) = &sight {
        loader.override_global("LIVE_DEPTH", &1_u32, true).override_global(
            "OFFSETS_OF_MEMBERS",
            offsets,
            true,
        );
    }
    for shape in shape::SHAPES {
        loader.map_pin_path(shape.in_object(), resize::pin_path(instance, shape.name, resize));
    }
    let of_version = instance.progs(version);
    let made = pins::entries(&of_version);
    for name in &made {
        loader.map_pin_path(name, of_version.join(name));
    }
    // Loading fills sections of data with what the object has: for a moment nothing is known to be absent.
    let absent = instance.open_map("absent").and_then(|map| Ok((absent::read(&map)?, map))).ok();
    let ebpf = loader.load(object)?;
    if let Some((known, map)) = absent {
        absent::write(&map, known)?;
    }
    // Whatever else the programs have (tail calls, notes to each other) belongs to this version of them.
    for (name, map) in ebpf.maps() {
        if !name.starts_with('.') && shape::shape(name).is_none() && !made.iter().any(|m| m == name) {
            let path = of_version.join(name);
            map.pin(&path).map_err(|e| Error::path("pinning", &path)(std::io::Error::other(e)))?;
        }
    }
    Ok(ebpf)
}

/// Loads an XDP program and answers its descriptor.
fn xdp_program(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd> {
    let program: &mut Xdp = program(ebpf, name)?.try_into().map_err(refused(name))?;
    program.load().map_err(refused(name))?;
    duplicate(program.fd().map_err(refused(name))?)
}

/// The descriptor of an XDP program that is loaded.
fn xdp_fd(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd> {
    let program: &mut Xdp = program(ebpf, name)?.try_into().map_err(refused(name))?;
    duplicate(program.fd().map_err(refused(name))?)
}

/// The descriptor of a classifier that is loaded.
fn tc_fd(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd> {
    let program: &mut SchedClassifier = program(ebpf, name)?.try_into().map_err(refused(name))?;
    duplicate(program.fd().map_err(refused(name))?)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).ok_or_else(|| Error::Missing(format!("program {name}")))
}

pub(super) fn refused(name: &str) -> impl FnOnce(aya::programs::ProgramError) -> Error {
    let name = name.to_owned();
    move |source| Error::Program { name, source }
}

fn duplicate(fd: &impl AsFd) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().map_err(Error::io("duplicating a descriptor"))
}

/// Puts the rare paths of a front-end into its tail-call array.
fn fill_tail(ebpf: &mut Ebpf, array: &str, name_of: fn(Slow) -> &'static str) -> Result<()> {
    for slow in Slow::ALL {
        let name = name_of(slow);
        let is_xdp = matches!(program(ebpf, name)?, Program::Xdp(_));
        let fd = if is_xdp { xdp_fd(ebpf, name)? } else { tc_fd(ebpf, name)? };
        let Some(aya::maps::Map::ProgramArray(map)) = ebpf.map(array) else {
            return Err(Error::Missing(format!("map {array}")));
        };
        sys::update(map.fd(), &(slow as u32).to_ne_bytes(), &fd.as_raw_fd().to_ne_bytes())
            .map_err(Error::io(format!("entering {name} into {array}")))?;
    }
    Ok(())
}

/// Detaches everything of an instance and removes every pin, the maps and flows included.
pub fn detach_all(instance: &Instance) -> Result<Vec<String>> {
    if !instance.dir().exists() {
        return Ok(Vec::new());
    }
    let lock = instance.lock()?;
    let done = links::detach_all(instance)?;
    pins::remove_tree(&instance.dir().join("progs"))?;
    instance.remove()?;
    drop(lock);
    Ok(done)
}
