//! Putting programs onto the ports of a plan, and taking them off where they no longer belong.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::config::{Config, TcChoice, XdpChoice};
use crate::datapath::{self, Attachment, Datapath, Device, Direction, Error, Point, TcMode, XdpMode};
use crate::host::plan::{Attach, Plan, PortPlan, Role};

/// How the daemon was started, or attached since.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    /// Also where the operator could be locked out.
    pub yes: bool,
    /// Take the place of foreign XDP programs.
    pub replace: bool,
}

/// What is attached where, and what went wrong.
#[derive(Debug, Clone, Default)]
pub struct Attached {
    /// By name of the port: what is on it.
    pub ports: BTreeMap<String, Vec<String>>,
    /// By name of the port: why there is nothing.
    pub errors: BTreeMap<String, String>,
}

/// Which of the switches in `wanted` have a program where frames leave by each of their uplinks, so that answers
/// of nat may go untranslated until there. A port without one that comes later hears nobody's answers yet.
///
/// # Errors
/// What is attached could not be listed.
pub fn leaving_ready(
    datapath: &Datapath,
    plans: &[Plan],
    wanted: &BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let now = datapath::list(datapath.instance())?;
    let leaves = |port: &PortPlan| {
        now.iter().any(|one| one.device.name == port.name && !one.is_dead() && one.point.is_egress())
    };
    let ready = plans.iter().filter(|plan| wanted.contains(&plan.switch)).filter(|plan| {
        let mut uplinks = plan.ports.iter().filter(|port| port.role == Role::Uplink);
        uplinks.all(|port| port.attach == Attach::None || leaves(port))
    });
    Ok(ready.map(|plan| plan.switch.clone()).collect())
}

/// Attaches what is missing and detaches what is too much. Switches in `held` keep what they have; in those in
/// `leaving`, the ports have a program for frames on their way out too.
///
/// # Errors
/// What is attached could not be listed. A port that fails is in [`Attached::errors`]; the others go on.
pub fn sync(
    datapath: &mut Datapath,
    config: &Config,
    plans: &[Plan],
    held: &BTreeMap<String, String>,
    leaving: &BTreeSet<String>,
    replace: bool,
) -> Result<Attached> {
    let instance = datapath.instance().clone();
    for gone in datapath::sweep(&instance)? {
        tracing::info!("{}: gone, its {} link removed", gone.device.name, gone.point);
    }
    let mut now = datapath::list(&instance)?;
    let mut attached = Attached::default();
    let mut wanted: Vec<(String, Point)> = Vec::new();
    for plan in plans {
        let switch = config.switch(&plan.switch);
        let (xdp, tc) = switch.map_or((XdpChoice::Auto, TcChoice::Auto), |switch| (switch.xdp, switch.tc));
        for port in &plan.ports {
            if held.contains_key(&plan.switch) || !plan.refusals.is_empty() {
                // What is there stays; nothing new comes.
                let there = now.iter().filter(|one| one.device.name == port.name);
                wanted.extend(there.map(|one| (port.name.clone(), one.point)));
                continue;
            }
            let mut points = put(datapath, &now, port, xdp, tc, replace);
            if leaving.contains(&plan.switch) && port.role != Role::Switch && port.attach != Attach::None {
                points = points.and_then(|mut points| {
                    points.extend(put_leaving(datapath, &now, port, tc)?);
                    Ok(points)
                });
            }
            match points {
                Ok(points) => wanted.extend(points.into_iter().map(|point| (port.name.clone(), point))),
                Err(error) => {
                    let text = format!("{error:#}");
                    tracing::error!("{}: {text}", port.name);
                    attached.errors.insert(port.name.clone(), text);
                }
            }
        }
    }
    for one in &now {
        let known = wanted.iter().any(|(name, point)| *name == one.device.name && *point == one.point);
        if !known && !attached.errors.contains_key(&one.device.name) {
            datapath.detach(&one.device, one.point)?;
            tracing::info!("{}: {} detached", one.device.name, one.point);
        }
    }
    now = datapath::list(&instance)?;
    for one in now {
        let mode = one.mode.map_or(String::new(), |mode| format!(" {}", mode.name()));
        attached.ports.entry(one.device.name).or_default().push(format!("{}{mode}", one.point));
    }
    Ok(attached)
}

/// One port: what is right is left alone.
fn put(
    datapath: &mut Datapath,
    now: &[Attachment],
    port: &PortPlan,
    xdp: XdpChoice,
    tc: TcChoice,
    replace: bool,
) -> Result<Vec<Point>> {
    let device = Device { name: port.name.clone(), ifindex: port.index };
    let there =
        |point: Point| now.iter().find(|one| one.device == device && one.point == point && !one.is_dead());
    match port.attach {
        Attach::None => Ok(Vec::new()),
        Attach::Native | Attach::Generic => {
            let mode = if port.attach == Attach::Native { XdpMode::Native } else { XdpMode::Generic };
            if there(Point::Xdp).is_some_and(|one| one.mode.is_none_or(|known| known == mode)) {
                return Ok(vec![Point::Xdp]);
            }
            let index = datapath.maps().port_of(port.index)?.context("it has no entry in the ports map")?;
            match datapath.attach_xdp(&device, index, mode, replace || port.replaces.is_some()) {
                Ok(()) => {
                    tracing::info!("{}: xdp {} attached ({})", port.name, mode.name(), port.reason);
                    Ok(vec![Point::Xdp])
                }
                Err(error @ Error::XdpUnsupported { .. }) if xdp == XdpChoice::Auto => {
                    tracing::warn!("{}: {error}; taking tc instead", port.name);
                    put_tc(datapath, &device, Direction::Ingress, tc, &there)
                }
                Err(error) => Err(error.into()),
            }
        }
        Attach::Tc => {
            // What the host itself sends leaves the bridge's own device by egress.
            let direction = if port.role == Role::Switch { Direction::Egress } else { Direction::Ingress };
            match put_tc(datapath, &device, direction, tc, &there) {
                Err(error)
                    if direction == Direction::Egress
                        && matches!(error.downcast_ref(), Some(Error::Missing(_))) =>
                {
                    tracing::debug!(
                        "{}: this version has no program for traffic of the host itself",
                        port.name
                    );
                    Ok(Vec::new())
                }
                other => other,
            }
        }
    }
}

/// The program for frames on their way out of a port.
fn put_leaving(
    datapath: &mut Datapath,
    now: &[Attachment],
    port: &PortPlan,
    tc: TcChoice,
) -> Result<Vec<Point>> {
    let device = Device { name: port.name.clone(), ifindex: port.index };
    let there =
        |point: Point| now.iter().find(|one| one.device == device && one.point == point && !one.is_dead());
    put_tc(datapath, &device, Direction::Egress, tc, &there)
}

fn put_tc<'a>(
    datapath: &mut Datapath,
    device: &Device,
    direction: Direction,
    tc: TcChoice,
    there: &impl Fn(Point) -> Option<&'a Attachment>,
) -> Result<Vec<Point>> {
    let mode = if tc == TcChoice::Clsact { TcMode::Clsact } else { TcMode::Auto };
    let points = [Point::Tcx(direction), Point::Clsact(direction)];
    let usable = |point: &Point| tc != TcChoice::Clsact || matches!(point, Point::Clsact(_));
    if let Some(point) = points.into_iter().filter(usable).find(|point| there(*point).is_some()) {
        return Ok(vec![point]);
    }
    let point = datapath.attach_tc(device, direction, mode)?;
    tracing::info!("{}: {point} attached", device.name);
    Ok(vec![point])
}

/// Whether any port of a plan has a program of this instance.
pub fn is_attached(datapath: &Datapath, plan: &Plan) -> bool {
    let now = datapath::list(datapath.instance()).unwrap_or_default();
    plan.ports.iter().any(|port| now.iter().any(|one| one.device.name == port.name && !one.is_dead()))
}

/// Takes every program of this instance off a plan's ports. Whether there was any.
///
/// # Errors
/// What the kernel refused.
pub fn detach(datapath: &mut Datapath, plan: &Plan) -> Result<bool> {
    let mut any = false;
    for one in datapath::list(&datapath.instance().clone())? {
        if plan.ports.iter().any(|port| port.name == one.device.name) {
            datapath.detach(&one.device, one.point)?;
            tracing::info!("{}: {} detached", one.device.name, one.point);
            any = true;
        }
    }
    Ok(any)
}
