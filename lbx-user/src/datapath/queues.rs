//! The programs that read the queues of taps out of the kernel, and the tables they share with us.
//!
//! Nothing here is pinned: the programs go with the daemon, and the datapath does not need them.

use super::btf::Btf;
use super::error::{Error, Result};
use super::mmap::Array;
use super::{object, sys};
use aya::maps::{MapData, RingBuf};
use aya::programs::{Iter, RawTracePoint};
use aya::{Ebpf, EbpfLoader};
use lbx_common::queue::{
    Arrivals, Found, MAX_RINGS, OFFSETS, Offsets, RINGS_A_RUN, Ring, Run, WHOLE_EVERY, Watched,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

/// Where the word is that says that user space was told.
const TOLD: usize = std::mem::offset_of!(Arrivals, told);

/// The loaded programs.
pub struct Queues {
    find: OwnedFd,
    read: OwnedFd,
    watched: Array<Watched>,
    rings: Array<Ring>,
    arrivals: Array<Arrivals>,
    window: Array<u64>,
    runs: OwnedFd,
    deep: RingBuf<MapData>,
    netns: u32,
    ring_offset: u32,
    // Holds the tracepoint.
    _ebpf: Ebpf,
}

impl Queues {
    /// Loads them for the caller's network namespace and begins to count arrivals. Refused where the kernel has no
    /// type information, the rights are missing, or reading kernel memory is locked down.
    pub fn load() -> Result<Self> {
        let object = object::measure_object().ok_or(Error::NoObject)?;
        let offsets = offsets(&Btf::of_kernel("tun")?)?;
        let words: [u32; OFFSETS] = bytemuck::cast(offsets);
        let types = aya::Btf::from_sys_fs().map_err(|e| Error::Types(e.to_string()))?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&types)).override_global("OFFSETS_OF_MEMBERS", &words, true);
        let mut ebpf = loader.load(object)?;
        let find = {
            let name = "lbx_find_queues";
            let program: &mut Iter = program(&mut ebpf, name)?.try_into().map_err(refused(name))?;
            program.load("task_file", &types).map_err(refused(name))?;
            duplicate(program.fd().map_err(refused(name))?)?
        };
        let read = {
            let name = "lbx_read_rings";
            let program: &mut RawTracePoint = program(&mut ebpf, name)?.try_into().map_err(refused(name))?;
            program.load().map_err(refused(name))?;
            duplicate(program.fd().map_err(refused(name))?)?
        };
        let watched = Array::new("watched", &map(&ebpf, "watched")?, true)?;
        let rings = Array::new("rings", &map(&ebpf, "rings")?, true)?;
        let arrivals = Array::new("arrivals", &map(&ebpf, "arrivals")?, true)?;
        let window = Array::new("window", &map(&ebpf, "window")?, true)?;
        let runs = map(&ebpf, "runs")?;
        let deep = ebpf.take_map("deep").ok_or_else(|| Error::Missing("map deep".into()))?;
        let deep = RingBuf::try_from(deep)
            .map_err(|e| Error::Io { what: "opening deep".into(), source: std::io::Error::other(e) })?;
        {
            let name = "lbx_arrivals";
            let program: &mut RawTracePoint = program(&mut ebpf, name)?.try_into().map_err(refused(name))?;
            program.load().map_err(refused(name))?;
            program.attach("xdp_devmap_xmit").map_err(refused(name))?;
        }
        let netns = std::fs::metadata("/proc/thread-self/ns/net")
            .map_err(Error::io("looking at this network namespace"))?
            .ino() as u32;
        Ok(Self {
            find,
            read,
            watched,
            rings,
            arrivals,
            window,
            runs,
            deep,
            netns,
            ring_offset: offsets.queue_ring,
            _ebpf: ebpf,
        })
    }

    /// The queues in use of taps of this namespace that a process holds open, or any process; one each, by
    /// interface and number.
    pub fn find(&self, pid: Option<u32>) -> Result<Vec<Found>> {
        let link = sys::trace::iter_link(&self.find, pid);
        let link = match link {
            // The process is gone.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(Vec::new()),
            other => other.map_err(Error::io("making an iterator over open files"))?,
        };
        let mut bytes = Vec::new();
        sys::trace::iterate(&link, &mut bytes).map_err(Error::io("iterating over open files"))?;
        let records = bytes.chunks_exact(size_of::<Found>()).map(bytemuck::pod_read_unaligned::<Found>);
        let mut found: Vec<Found> = records.filter(|one| one.netns == self.netns).collect();
        // A descriptor that was passed on or duplicated shows the same queue again.
        found.sort_by_key(|one| (one.at.ifindex, one.at.queue, one.at.file, one.pid));
        found.dedup_by_key(|one| one.at.file);
        Ok(found)
    }

    /// Watches a queue at a place of the tables, with its counters at zero.
    pub fn watch(&self, index: u32, queue: &Watched) -> Result<()> {
        self.arrivals.set(index, &Arrivals::default())?;
        self.rings.set(index, &Ring::default())?;
        self.watched.set(index, queue)
    }

    /// Leaves a place empty.
    pub fn forget(&self, index: u32) -> Result<()> {
        self.watched.set(index, &Watched::default())
    }

    /// Counts what comes to a device (by its address) at these places.
    pub fn count(&self, dev: u64, run: Run) -> Result<()> {
        sys::update(&self.runs, &dev.to_ne_bytes(), bytemuck::bytes_of(&run))
            .map_err(Error::io("entering a device into runs"))
    }

    /// Counts a device no more.
    pub fn uncount(&self, dev: u64) -> Result<()> {
        sys::delete(&self.runs, &dev.to_ne_bytes())
            .map(drop)
            .map_err(Error::io("removing a device from runs"))
    }

    /// Reads the rings at the first `count` places. Of those that were empty, in a round (counted by the caller) only
    /// one in [`WHOLE_EVERY`] is read whole and checked to be still there; without a round all are.
    pub fn read(&self, count: u32, round: Option<u32>) -> Result<()> {
        let round = round.map_or(WHOLE_EVERY, |round| round % WHOLE_EVERY);
        let count = count.min(MAX_RINGS);
        for first in (0..count).step_by(RINGS_A_RUN as usize) {
            let args = [first, (count - first).min(RINGS_A_RUN), round].map(u64::from);
            let run = sys::TestRun::of(&self.read).context(bytemuck::bytes_of(&args));
            run.run().map_err(Error::io("reading rings"))?;
        }
        Ok(())
    }

    /// Address of the ring (`struct ptr_ring`) of a queue.
    pub fn ring_of(&self, queue: &Watched) -> u64 {
        queue.file + u64::from(self.ring_offset)
    }

    /// The ring at a place, as [`Queues::read`] last read it.
    pub fn ring(&self, index: u32) -> Result<Ring> {
        self.rings.get(index)
    }

    /// What came to the queue at a place. Its peak counts if it is of the window in force.
    pub fn arrivals(&self, index: u32) -> Result<Arrivals> {
        self.arrivals.get(index)
    }

    /// Readable when a queue has become more than a burst by frames of XDP.
    pub fn told(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the ring buffer inside `self` and is open as long as it.
        unsafe { BorrowedFd::borrow_raw(self.deep.as_raw_fd()) }
    }

    /// Takes out what was told; whether there was anything.
    pub fn hear(&mut self) -> bool {
        let mut heard = false;
        while self.deep.next().is_some() {
            heard = true;
        }
        heard
    }

    /// Wants to be told again of the queue at a place.
    pub fn rearm(&self, index: u32) -> Result<()> {
        self.arrivals.word32(index, TOLD / 4)?.store(0, Ordering::Release);
        Ok(())
    }

    /// Begins a new window for peaks; answers the one that was in force.
    pub fn next_window(&self) -> Result<u32> {
        Ok(self.window.word64(0, 0)?.fetch_add(1, Ordering::AcqRel) as u32)
    }
}

/// The peak of a queue, if one was seen in a window.
pub fn peak_in(arrivals: &Arrivals, window: u32) -> Option<u32> {
    (arrivals.window == window && arrivals.sent + arrivals.drops > 0).then_some(arrivals.peak)
}

/// Offsets of the members that the programs read.
pub(super) fn offsets(btf: &Btf) -> Result<Offsets> {
    Ok(Offsets {
        file_inode: btf.offset("file", "f_inode")?,
        file_private: btf.offset("file", "private_data")?,
        inode_rdev: btf.offset("inode", "i_rdev")?,
        task_tgid: btf.offset("task_struct", "tgid")?,
        queue_tun: btf.offset("tun_file", "tun")?,
        queue_index: btf.offset("tun_file", "queue_index")?,
        queue_ring: btf.offset("tun_file", "tx_ring")?,
        ring_producer: btf.offset("ptr_ring", "producer")?,
        ring_head: btf.offset("ptr_ring", "consumer_head")?,
        ring_size: btf.offset("ptr_ring", "size")?,
        ring_slots: btf.offset("ptr_ring", "queue")?,
        tun_files: btf.offset("tun_struct", "tfiles")?,
        tun_queues: btf.offset("tun_struct", "numqueues")?,
        tun_dev: btf.offset("tun_struct", "dev")?,
        dev_ifindex: btf.offset("net_device", "ifindex")?,
        dev_net: btf.offset("net_device", "nd_net.net")?,
        net_inum: btf.offset("net", "ns.inum")?,
    })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name).ok_or_else(|| Error::Missing(format!("program {name}")))
}

fn refused(name: &str) -> impl FnOnce(aya::programs::ProgramError) -> Error {
    let name = name.to_owned();
    move |source| Error::Program { name, source }
}

fn map(ebpf: &Ebpf, name: &str) -> Result<OwnedFd> {
    match ebpf.map(name) {
        Some(aya::maps::Map::Array(map) | aya::maps::Map::HashMap(map)) => duplicate(map.fd()),
        _ => Err(Error::Missing(format!("map {name}"))),
    }
}

fn duplicate(fd: &impl AsFd) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().map_err(Error::io("duplicating a descriptor"))
}
