//! Any map as bytes, for whoever wants to keep what is in it and put it back: the tests of the programs.

use super::{MapInfo, address, bpf, cmd, delete, lookup, map_info, next_key, open_pin, raw, update};
use bytemuck::{Pod, Zeroable};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_PERCPU_ARRAY`.
const ARRAYS: [u32; 2] = [2, 6];
/// Maps with a value for each CPU: hash, array, hash that forgets (`enum bpf_map_type`).
const PER_CPU: [u32; 3] = [5, 6, 10];

/// A map, its keys and values no more than bytes.
pub struct RawMap {
    fd: OwnedFd,
    info: MapInfo,
    /// Bytes that the kernel reads or writes for a value.
    value: usize,
}

/// `BPF_MAP_*_BATCH`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl RawMap {
    /// Opens what is pinned, if it is a map.
    pub fn open(pin: &Path) -> io::Result<Option<Self>> {
        let fd = open_pin(pin)?;
        // The kernel answers about programs and links too, with other shapes.
        let kind = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if kind != Path::new("anon_inode:bpf-map") {
            return Ok(None);
        }
        Self::of(fd).map(Some)
    }

    /// Of a map's descriptor.
    pub fn of(fd: OwnedFd) -> io::Result<Self> {
        let info = map_info(&fd)?;
        let mut value = info.value_size as usize;
        if PER_CPU.contains(&info.map_type) {
            let cpus = aya::util::nr_cpus().map_err(|(file, error)| {
                io::Error::new(error.kind(), format!("the number of CPUs, {file}: {error}"))
            })?;
            value = value.next_multiple_of(8) * cpus;
        }
        Ok(Self { fd, info, value })
    }

    /// The same through a descriptor of its own.
    pub fn of_borrowed(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Self::of(fd.try_clone_to_owned()?)
    }

    /// Its shape.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Whether it is an array, with one value an element or one a CPU: the kind that has all its elements always.
    pub fn is_array(&self) -> bool {
        ARRAYS.contains(&self.info.map_type)
    }

    /// The value at a key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.same("key", key.len(), self.info.key_size as usize)?;
        let mut value = vec![0; self.value];
        Ok(lookup(&self.fd, key, &mut value)?.then_some(value))
    }

    /// Writes the value at a key.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.same("key", key.len(), self.info.key_size as usize)?;
        self.same("value", value.len(), self.value)?;
        update(&self.fd, key, value)
    }

    /// Takes out every key, while nobody else puts any in.
    pub fn clear(&self) -> io::Result<()> {
        let mut key = vec![0; self.info.key_size as usize];
        let mut after: Option<Vec<u8>> = None;
        while next_key(&self.fd, after.as_deref(), &mut key)? {
            // What only seems to be there, as a device that an array of devices has not, is gone already.
            delete(&self.fd, &key)?;
            // The keys of an array of devices go on after one that is gone; those of a hash begin anew.
            after = (self.info.key_size == 4).then(|| key.clone());
        }
        Ok(())
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> io::Result<bool> {
        let mut key = vec![0; self.info.key_size as usize];
        let mut after: Option<Vec<u8>> = None;
        while next_key(&self.fd, after.as_deref(), &mut key)? {
            if self.get(&key)?.is_some() {
                return Ok(false);
            }
            after = Some(key.clone());
        }
        Ok(true)
    }

    /// The values of an array in order.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut values = vec![0; self.info.max_entries as usize * self.value];
        self.batch(cmd::MAP_LOOKUP_BATCH, values.as_mut_ptr() as u64)?;
        Ok(values)
    }

    /// Writes all values of an array.
    pub fn write_all(&self, values: &[u8]) -> io::Result<()> {
        self.same("values", values.len(), self.info.max_entries as usize * self.value)?;
        self.batch(cmd::MAP_UPDATE_BATCH, address(values))
    }

    /// One call for all elements of an array; `values` has room for them.
    fn batch(&self, command: u32, values: u64) -> io::Result<()> {
        if !self.is_array() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the map is no array"));
        }
        let mut keys: Vec<u32> = (0..self.info.max_entries).collect();
        let mut next = 0_u32;
        let mut attr = Batch {
            next: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values,
            count: self.info.max_entries,
            map_fd: raw(&self.fd),
            ..Batch::zeroed()
        };
        match bpf(command, &mut attr) {
            // There are no more than were asked for.
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(e),
            _ => {}
        }
        self.same("elements", attr.count as usize, self.info.max_entries as usize)
    }

    /// The kernel reads and writes as many bytes as the map's shape says.
    fn same(&self, what: &str, found: usize, expected: usize) -> io::Result<()> {
        if found == expected {
            return Ok(());
        }
        let text = format!("map {}: {what} of {found}, and it has {expected}", self.info.id);
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}
