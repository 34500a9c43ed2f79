//! Attachment: which program runs on which interface. Links are pinned, so they outlive every process; where
//! there is no link type (tc before Linux 6.6) a clsact filter with a fixed priority and name stands in.
//!
//! Pins of `links/`, all named after the device: `DEV-xdp`, `DEV-tcx-in`, `DEV-tcx-out` are links;
//! `DEV-IFINDEX-clsact-in`, `-clsact-out` and `-qdisc` are empty directories that remember a filter, and that
//! the qdisc under it is ours to remove (bpffs holds directories but no files).

mod point;

use super::error::{Error, Result};
use super::netlink::{self, Direction, FILTER_PRIORITY, XDP_ATTACHED_MULTI, XdpState};
use super::pins::{self, Instance, entries, escape, unescape};
use super::sys::{self, Hook};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use point::{Attachment, Device, Point, TcMode, XdpMode};

/// Name of the filter of a direction; the kernel and `tc filter show` list it.
pub(super) const fn filter_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "lbx_tc",
        Direction::Egress => "lbx_tc_egress",
    }
}

pub(super) fn link_path(instance: &Instance, device: &str, point: Point) -> PathBuf {
    instance.links().join(format!("{}{}", escape(device), point.suffix()))
}

fn marker_path(instance: &Instance, device: &Device, suffix: &str) -> PathBuf {
    instance.links().join(format!("{}-{}{suffix}", escape(&device.name), device.ifindex))
}

/// Attaches XDP, or puts the program into the link that is there. `replace` takes the place of a foreign
/// program.
pub(crate) fn attach_xdp(
    instance: &Instance,
    device: &Device,
    program: &OwnedFd,
    mode: XdpMode,
    replace: bool,
) -> Result<()> {
    let path = link_path(instance, &device.name, Point::Xdp);
    if let Ok(link) = sys::open_pin(&path) {
        let info = sys::link_info(&link).map_err(Error::path("reading", &path))?;
        let state = if info.ifindex == device.ifindex { netlink::xdp_state(device.ifindex)? } else { None };
        // With several programs on the interface the kernel does not say which is attached how.
        let right = |s: XdpState| s.mode == mode.attached() && s.prog_id == info.prog_id;
        if state.is_some_and(|s| s.mode == XDP_ATTACHED_MULTI || right(s)) {
            return sys::link_update(&link, program).map_err(Error::path("updating", &path));
        }
        // Another interface of that name, or another mode: the link goes, a new one comes.
        remove_link(&path, link)?;
    }
    if let Some(state) = netlink::xdp_state(device.ifindex)? {
        if !replace {
            return Err(foreign(device, state.prog_id));
        }
        evict_xdp(device, state)?;
    }
    let link =
        sys::link_create(program, device.ifindex, Hook::Xdp, mode.flags()).map_err(|source| match source
            .raw_os_error()
        {
            Some(libc::ENODEV) => Error::NoDevice(device.name.clone()),
            _ => Error::XdpUnsupported { device: device.name.clone(), mode: mode.name(), source },
        })?;
    sys::pin(&link, &path).map_err(Error::path("pinning", &path))
}

fn foreign(device: &Device, id: u32) -> Error {
    let name = sys::prog_by_id(id).and_then(|p| sys::prog_info(&p)).map(|i| i.name()).unwrap_or_default();
    Error::ForeignXdp { device: device.name.clone(), id, name }
}

/// Takes the XDP program that is there off an interface.
fn evict_xdp(device: &Device, state: XdpState) -> Result<()> {
    let what = || format!("taking the XDP program off {}", device.name);
    let mut id = 0;
    while let Some(next) = sys::next_link(id).map_err(Error::io(what()))? {
        id = next;
        // A link may vanish between being listed and being opened.
        let Ok(link) = sys::link_by_id(id) else { continue };
        let Ok(info) = sys::link_info(&link) else { continue };
        // Links are listed of all namespaces, and each numbers its interfaces by itself: the program is what tells
        // this one from somebody else's.
        let same = info.ifindex == device.ifindex && info.prog_id == state.prog_id;
        if info.link_type == sys::LINK_XDP && same {
            return sys::link_detach(&link).map_err(Error::io(what()));
        }
    }
    let flags =
        if state.mode == XdpMode::Generic.attached() { XdpMode::Generic } else { XdpMode::Native }.flags();
    netlink::detach_xdp(device.ifindex, flags)
}

/// Attaches a tc program, or puts it into what is there. Answers by what it is attached.
pub(crate) fn attach_tc(
    instance: &Instance,
    device: &Device,
    program: &OwnedFd,
    direction: Direction,
    mode: TcMode,
) -> Result<Point> {
    let path = link_path(instance, &device.name, Point::Tcx(direction));
    if let Ok(link) = sys::open_pin(&path) {
        let info = sys::link_info(&link).map_err(Error::path("reading", &path))?;
        if info.ifindex == device.ifindex && mode == TcMode::Auto {
            sys::link_update(&link, program).map_err(Error::path("updating", &path))?;
            return Ok(Point::Tcx(direction));
        }
        remove_link(&path, link)?;
    }
    if mode == TcMode::Auto {
        let hook = match direction {
            Direction::Ingress => Hook::TcxIngress,
            Direction::Egress => Hook::TcxEgress,
        };
        match sys::link_create(program, device.ifindex, hook, 0) {
            Ok(link) => {
                sys::pin(&link, &path).map_err(Error::path("pinning", &path))?;
                // A filter from before (an older kernel's way, or a request that was withdrawn) would steer
                // what this link passes on.
                remove_filter(instance, device, direction)?;
                return Ok(Point::Tcx(direction));
            }
            // Unknown before 6.6, with either error by version.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {
                return Err(Error::NoDevice(device.name.clone()));
            }
            Err(e) => return Err(Error::io(format!("attaching tcx to {}", device.name))(e)),
        }
    }
    let made = netlink::add_clsact(device.ifindex)?;
    if made {
        mark(&marker_path(instance, device, "-qdisc"))?;
    }
    mark(&marker_path(instance, device, Point::Clsact(direction).suffix()))?;
    netlink::set_filter(device.ifindex, direction, filter_name(direction), program.as_raw_fd())?;
    Ok(Point::Clsact(direction))
}

fn mark(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::path("making", path)(e)),
        _ => Ok(()),
    }
}

/// Removes a link's pin and detaches it even if somebody else holds it open.
fn remove_link(path: &Path, link: OwnedFd) -> Result<()> {
    match sys::link_detach(&link) {
        // Dead already, or a link type that cannot: closing the last reference does it.
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOLINK | libc::EOPNOTSUPP | libc::EINVAL)) => {
            return Err(Error::path("detaching", path)(e));
        }
        _ => {}
    }
    drop(link);
    pins::unpin(path)
}

/// Removes the filter of a direction, and the qdisc if it is ours and nobody else uses it.
fn remove_filter(instance: &Instance, device: &Device, direction: Direction) -> Result<()> {
    let marker = marker_path(instance, device, Point::Clsact(direction).suffix());
    if !marker.exists() {
        return Ok(());
    }
    // An interface of the same index may be another one by now, in another namespace: only what is ours.
    let ours = netlink::filters(device.ifindex, direction)?
        .iter()
        .any(|f| f.priority == FILTER_PRIORITY && f.name.as_deref().is_some_and(|n| n.starts_with("lbx_tc")));
    if ours {
        netlink::delete_filter(device.ifindex, direction)?;
    }
    pins::remove_tree(&marker)?;
    let qdisc = marker_path(instance, device, "-qdisc");
    let used =
        Direction::ALL.into_iter().any(|d| marker_path(instance, device, Point::Clsact(d).suffix()).exists());
    if used || !qdisc.exists() {
        return Ok(());
    }
    let mut others = 0;
    for direction in Direction::ALL {
        others += netlink::filters(device.ifindex, direction)?.len();
    }
    if others == 0 {
        netlink::delete_clsact(device.ifindex)?;
    }
    pins::remove_tree(&qdisc)
}

/// Detaches one attachment; that it is gone already is fine.
pub(crate) fn detach(instance: &Instance, device: &Device, point: Point) -> Result<()> {
    if let Point::Clsact(direction) = point {
        return remove_filter(instance, device, direction);
    }
    let path = link_path(instance, &device.name, point);
    match sys::open_pin(&path) {
        Ok(link) => remove_link(&path, link),
        Err(_) => pins::unpin(&path),
    }
}

/// What is attached, from the pins and the kernel, in the order of names.
pub fn list(instance: &Instance) -> Result<Vec<Attachment>> {
    let mut found = Vec::new();
    for name in entries(&instance.links()) {
        for point in Point::ALL {
            let Some(stem) = name.strip_suffix(point.suffix()) else { continue };
            found.push(match point {
                Point::Clsact(direction) => {
                    let Some((device, ifindex)) = stem.rsplit_once('-') else { continue };
                    let Ok(ifindex) = ifindex.parse() else { continue };
                    clsact_attachment(Device { name: unescape(device), ifindex }, direction)
                }
                _ => link_attachment(instance, unescape(stem), point)?,
            });
        }
    }
    found.sort_by(|a, b| (&a.device.name, a.point).cmp(&(&b.device.name, b.point)));
    Ok(found)
}

fn link_attachment(instance: &Instance, name: String, point: Point) -> Result<Attachment> {
    let path = link_path(instance, &name, point);
    let link = sys::open_pin(&path).map_err(Error::path("opening", &path))?;
    let info = sys::link_info(&link).map_err(Error::path("reading", &path))?;
    let mut mode = None;
    if point == Point::Xdp && info.ifindex != 0 {
        // The link does not know its mode; from another network namespace neither can be asked.
        let state = netlink::xdp_state(info.ifindex).ok().flatten().filter(|s| s.prog_id == info.prog_id);
        mode = state.and_then(|s| {
            [XdpMode::Native, XdpMode::Generic].into_iter().find(|mode| mode.attached() == s.mode)
        });
    }
    Ok(Attachment { device: Device { name, ifindex: info.ifindex }, point, mode, prog_id: info.prog_id })
}

fn clsact_attachment(device: Device, direction: Direction) -> Attachment {
    let filters = netlink::filters(device.ifindex, direction).unwrap_or_default();
    let ours = filters.into_iter().find(|f| f.priority == FILTER_PRIORITY);
    let prog_id = ours.and_then(|f| f.prog_id).unwrap_or(0);
    Attachment { device, point: Point::Clsact(direction), mode: None, prog_id }
}

/// The programs at the tcx hooks of an interface, whoever attached them: direction, id, name. None before
/// Linux 6.6, which has no such hooks.
pub fn tcx_programs(ifindex: u32) -> Result<Vec<(Direction, u32, String)>> {
    let mut found = Vec::new();
    for (direction, hook) in [(Direction::Ingress, Hook::TcxIngress), (Direction::Egress, Hook::TcxEgress)] {
        let ids = sys::tcx_programs(ifindex, hook)
            .map_err(Error::io(format!("asking for the programs of interface {ifindex}")))?;
        found.extend(ids.into_iter().map(|id| {
            // Without a name if it has gone since.
            let name =
                sys::prog_by_id(id).and_then(|program| sys::prog_info(&program)).map(|info| info.name());
            (direction, id, name.unwrap_or_default())
        }));
    }
    Ok(found)
}

/// Removes the pins of interfaces that are gone. Answers what was removed.
pub fn sweep(instance: &Instance) -> Result<Vec<Attachment>> {
    let mut dead = list(instance)?;
    dead.retain(Attachment::is_dead);
    for attachment in &dead {
        detach(instance, &attachment.device, attachment.point)?;
    }
    Ok(dead)
}

/// Takes lbx off one point of an interface, without loading anything; that it is not there is fine.
pub fn detach_point(instance: &Instance, device: &Device, point: Point) -> Result<()> {
    let _lock = instance.lock()?;
    detach(instance, device, point)
}

/// Detaches everything; lines for the operator.
pub(crate) fn detach_all(instance: &Instance) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for attachment in list(instance)? {
        detach(instance, &attachment.device, attachment.point)?;
        done.push(format!("{}: {} detached", attachment.device.name, attachment.point));
    }
    Ok(done)
}
