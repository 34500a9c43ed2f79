//! Putting a new version of the programs in force, with the flow table it brings: all of it, or nothing.
//!
//! Until the last step the version before can be put back: its programs are kept open, its tail calls stay pinned,
//! and the maps it uses have lost at most their names.

use super::clock::Rate;
use super::error::{Error, Result};
use super::links::{self, Attachment, Point, filter_name, link_path};
use super::load::{Options, Programs};
use super::netlink::{self, Direction};
use super::pins::Instance;
use super::resize::{Carried, Plan};
use super::{maps, sys};
use std::os::fd::{AsRawFd, OwnedFd};

/// What a version brought with it.
#[derive(Debug)]
pub(crate) struct InForce {
    /// Flows that were carried over into another table.
    pub carried: Carried,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Puts the version in force. After an error everything is as it was before.
pub(crate) fn put_in_force(
    plan: &Plan,
    programs: &mut Programs,
    instance: &Instance,
    options: &Options,
    rate: Rate,
) -> Result<InForce> {
    let first = plan.prepare(instance, options, rate)?;
    let mut swapped = Vec::new();
    let put = swap(instance, programs, &mut swapped);
    let (leave, second) = match put.and_then(|leave| Ok((leave, plan.finish(instance)?))) {
        Ok(done) => done,
        Err(error) => {
            back(instance, &swapped);
            plan.carry_back(instance);
            return Err(error);
        }
    };
    // From here on the new version is the one in force: what still fails is a note.
    let carried = Carried { moved: first.moved + second.moved, lost: first.lost.max(second.lost) };
    Ok(InForce { carried, notes: tidy(instance, &leave) })
}

/// Puts the new programs into everything that is attached and alive, and notes what was there. Answers what this
/// version has no program for.
fn swap(
    instance: &Instance,
    programs: &mut Programs,
    swapped: &mut Vec<(Attachment, OwnedFd)>,
) -> Result<Vec<Attachment>> {
    let mut leave = Vec::new();
    let attached = links::list(instance)?;
    if attached.is_empty() {
        return Ok(leave);
    }
    let port_of = instance.open_map("port_of")?;
    for attachment in attached.into_iter().filter(|one| !one.is_dead()) {
        let program = match attachment.point {
            Point::Xdp => match maps::port_of(&port_of, attachment.device.ifindex)? {
                Some(port) => Some(programs.xdp(port)?),
                None => None,
            },
            point if point.direction() == Direction::Ingress => Some(programs.tc()),
            _ => programs.tc_egress(),
        };
        let Some(program) = program else {
            leave.push(attachment);
            continue;
        };
        let before = sys::prog_by_id(attachment.prog_id)
            .map_err(Error::io(format!("opening the program on {}", attachment.device.name)))?;
        put(instance, &attachment, program)?;
        swapped.push((attachment, before));
    }
    Ok(leave)
}

/// Puts a program into what is attached: one store, no packet sees neither or both.
fn put(instance: &Instance, attachment: &Attachment, program: &OwnedFd) -> Result<()> {
    let device = &attachment.device;
    if let Point::Clsact(direction) = attachment.point {
        return netlink::set_filter(device.ifindex, direction, filter_name(direction), program.as_raw_fd());
    }
    let path = link_path(instance, &device.name, attachment.point);
    let link = sys::open_pin(&path).map_err(Error::path("opening", &path))?;
    sys::link_update(&link, program).map_err(Error::path("updating", &path))
}

/// Puts back what was there. What fails here stays with the new program; it goes on working, since it holds its maps.
fn back(instance: &Instance, swapped: &[(Attachment, OwnedFd)]) {
    for (attachment, before) in swapped.iter().rev() {
        if let Err(error) = put(instance, attachment, before) {
            tracing::error!("{}: cannot put the version before back: {error}", attachment.device.name);
        }
    }
}

/// Removes what belongs to no interface or no program of this version any more.
fn tidy(instance: &Instance, leave: &[Attachment]) -> Vec<String> {
    let mut notes = Vec::new();
    match links::sweep(instance) {
        Ok(gone) => notes.extend(
            gone.iter().map(|one| format!("{}: gone, its {} link removed", one.device.name, one.point)),
        ),
        Err(error) => notes.push(error.to_string()),
    }
    for Attachment { device, point, .. } in leave {
        notes.push(match links::detach(instance, device, *point) {
            Ok(()) => format!("{}: {point} detached, this version has no program for it", device.name),
            Err(error) => error.to_string(),
        });
    }
    notes
}
