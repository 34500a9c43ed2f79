//! The few commands of bpf(2) that aya has no public door to: untyped element access, links by descriptor,
//! and test runs of pinned programs. Layouts from include/uapi/linux/bpf.h.

use bytemuck::{Pod, Zeroable};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub mod raw;
pub mod run;
pub mod trace;

pub use run::TestRun;

/// Commands of `enum bpf_cmd`.
mod cmd {
    pub const MAP_LOOKUP_ELEM: u32 = 1;
    pub const MAP_UPDATE_ELEM: u32 = 2;
    pub const MAP_DELETE_ELEM: u32 = 3;
    pub const MAP_GET_NEXT_KEY: u32 = 4;
    pub const OBJ_PIN: u32 = 6;
    pub const OBJ_GET: u32 = 7;
    pub const PROG_TEST_RUN: u32 = 10;
    pub const PROG_GET_FD_BY_ID: u32 = 13;
    pub const OBJ_GET_INFO_BY_FD: u32 = 15;
    pub const PROG_QUERY: u32 = 16;
    pub const BTF_GET_FD_BY_ID: u32 = 19;
    pub const MAP_LOOKUP_BATCH: u32 = 24;
    pub const MAP_UPDATE_BATCH: u32 = 26;
    pub const LINK_CREATE: u32 = 28;
    pub const LINK_UPDATE: u32 = 29;
    pub const LINK_GET_FD_BY_ID: u32 = 30;
    pub const LINK_GET_NEXT_ID: u32 = 31;
    pub const ITER_CREATE: u32 = 33;
    pub const LINK_DETACH: u32 = 34;
}

/// Hooks of `enum bpf_attach_type` that lbx uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Hook {
    /// `BPF_XDP`.
    Xdp = 37,
    /// `BPF_TCX_INGRESS`.
    TcxIngress = 46,
    /// `BPF_TCX_EGRESS`.
    TcxEgress = 47,
}

/// One call; `attr` is the part of `union bpf_attr` the command reads.
fn bpf<T: Pod>(command: u32, attr: &mut T) -> io::Result<i64> {
    let attr: *mut T = attr;
    // SAFETY: `attr` is exclusively borrowed, initialised (Pod) and of the size passed; the pointers some
    // attributes hold are live borrows of their callers in this file, sized as the map or program demands.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call that answers with a new descriptor.
fn bpf_fd<T: Pod>(command: u32, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)? as RawFd;
    // SAFETY: these commands return a descriptor the kernel just made for us (close-on-exec); nobody else
    // owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_MAP_*_ELEM`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn elem(map: &impl AsFd, key: &[u8], value: u64) -> Elem {
    Elem { map_fd: raw(map), pad: 0, key: address(key), value, flags: 0 }
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

/// Reads an element into `value`, which is as long as the map's value (for a per-CPU map: rounded up to 8,
/// times the possible CPUs). `Ok(false)`: there is none.
pub fn lookup(map: &impl AsFd, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = elem(map, key, value.as_mut_ptr() as u64);
    match bpf(cmd::MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Writes an element (`BPF_ANY`).
pub fn update(map: &impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(cmd::MAP_UPDATE_ELEM, &mut elem(map, key, address(value))).map(drop)
}

/// Deletes an element. `Ok(false)`: there was none.
pub fn delete(map: &impl AsFd, key: &[u8]) -> io::Result<bool> {
    match bpf(cmd::MAP_DELETE_ELEM, &mut elem(map, key, 0)) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads the key after another, or the first, into `next`. `Ok(false)`: there is none. If the other is gone by now, the
/// kernel begins anew.
pub fn next_key(map: &impl AsFd, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attr = elem(map, key.unwrap_or_default(), next.as_mut_ptr() as u64);
    if key.is_none() {
        attr.key = 0;
    }
    match bpf(cmd::MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Obj {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins a map, program or link.
pub fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(cmd::OBJ_PIN, &mut Obj { path: path.as_ptr() as u64, fd: raw(object), flags: 0 }).map(drop)
}

/// Opens what is pinned at a path.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    bpf_fd(cmd::OBJ_GET, &mut Obj { path: path.as_ptr() as u64, fd: 0, flags: 0 })
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InfoByFd {
    fd: u32,
    len: u32,
    info: u64,
}

fn info<T: Pod>(fd: &impl AsFd) -> io::Result<T> {
    let mut value = T::zeroed();
    let info = bytemuck::bytes_of_mut(&mut value).as_mut_ptr() as u64;
    bpf(cmd::OBJ_GET_INFO_BY_FD, &mut InfoByFd { fd: raw(fd), len: size_of::<T>() as u32, info })?;
    Ok(value)
}

/// First fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Id of the map.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// Flags it was made with.
    pub flags: u32,
}

/// What the kernel knows of a map.
pub fn map_info(map: &impl AsFd) -> io::Result<MapInfo> {
    info(map)
}

/// First fields of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
pub struct ProgInfo {
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// Id of the program.
    pub id: u32,
    /// Hash of the instructions.
    pub tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

impl ProgInfo {
    /// The name (at most 15 characters).
    pub fn name(&self) -> String {
        let end = self.name.iter().position(|&b| b == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

/// What the kernel knows of a program.
pub fn prog_info(program: &impl AsFd) -> io::Result<ProgInfo> {
    info(program)
}

/// `struct bpf_link_info` as far as XDP and tcx links go.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
pub struct LinkInfo {
    /// `enum bpf_link_type`: 6 XDP, 11 tcx.
    pub link_type: u32,
    /// Id of the link.
    pub id: u32,
    /// Program it runs.
    pub prog_id: u32,
    pad: u32,
    /// Interface; 0 once the interface is gone.
    pub ifindex: u32,
    /// [`Hook`] (tcx only).
    pub attach_type: u32,
    rest: [u64; 4],
}

/// `BPF_LINK_TYPE_XDP`.
pub const LINK_XDP: u32 = 6;

/// What the kernel knows of a link.
pub fn link_info(link: &impl AsFd) -> io::Result<LinkInfo> {
    info(link)
}

/// `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreate {
    prog_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 2],
}

/// Attaches a program to an interface of the caller's network namespace. `flags`: XDP mode, or 0.
pub fn link_create(program: &impl AsFd, ifindex: u32, hook: Hook, flags: u32) -> io::Result<OwnedFd> {
    let mut attr =
        LinkCreate { prog_fd: raw(program), ifindex, attach_type: hook as u32, flags, rest: [0; 2] };
    bpf_fd(cmd::LINK_CREATE, &mut attr)
}

/// Puts another program into a link; no packet sees neither or both.
pub fn link_update(link: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    bpf(cmd::LINK_UPDATE, &mut [raw(link), raw(program), 0, 0]).map(drop)
}

/// Detaches a link, whoever holds it.
pub fn link_detach(link: &impl AsFd) -> io::Result<()> {
    bpf(cmd::LINK_DETACH, &mut [raw(link)]).map(drop)
}

/// The id of the link after `id`.
pub fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut attr = [id, 0, 0];
    match bpf(cmd::LINK_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(attr[1])),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens a link by id.
pub fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(cmd::LINK_GET_FD_BY_ID, &mut [id, 0, 0])
}

/// Opens a program by id.
pub fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(cmd::PROG_GET_FD_BY_ID, &mut [id, 0, 0])
}

/// Opens the types (BTF) of a program by their id.
pub fn btf_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(cmd::BTF_GET_FD_BY_ID, &mut [id, 0, 0])
}

/// `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    // prog_attach_flags, link_ids, link_attach_flags, revision: not asked for.
    rest: [u64; 4],
}

/// The ids of the programs at a tcx hook of an interface, in their order; none before Linux 6.6.
pub fn tcx_programs(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    // BPF_MPROG_MAX (kernel/bpf/mprog.c): there are never more.
    let mut ids = [0u32; 64];
    let mut attr = Query {
        ifindex,
        attach_type: hook as u32,
        prog_ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::zeroed()
    };
    match bpf(cmd::PROG_QUERY, &mut attr) {
        Ok(_) => Ok(ids[..(attr.count as usize).min(ids.len())].to_vec()),
        // An attach type that this kernel does not know.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}
