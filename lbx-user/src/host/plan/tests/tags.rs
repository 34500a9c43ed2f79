//! Tags that the NIC strips before XDP sees the frame.

use super::*;

/// br0 separates VLANs; eth0 carries 1 untagged and, on a trunk, 20 tagged.
fn filtering(trunk: bool) -> View {
    let mut view = host();
    view.links[0].kind = bridge(true);
    view.links[1].vlans = vec![PortVlan { id: 1, pvid: true, untagged: true }];
    if trunk {
        view.links[1].vlans.push(PortVlan { id: 20, pvid: false, untagged: false });
    }
    view
}

#[test]
fn on_a_trunk_they_are_needed_even_by_untagged_services() {
    let stripping = [("eth0", driver("ixgbe", &["rx-vlan-hw-parse"]))];
    let uplink = |view: &View, switch: &str| {
        let plan = plan(view, &stripping, &config(switch, "", ""));
        (plan.ports.first().map(|port| (port.attach, port.reason.clone())), plan.refusals.join(" "))
    };
    let (port, refused) = uplink(&filtering(true), "");
    let (attach, reason) = port.unwrap();
    assert!(attach == Attach::Tc && reason.contains("VLAN 20 would look untagged"), "{reason}");
    assert_eq!(refused, "");
    // Insisting does not make it right.
    let (_, refused) = uplink(&filtering(true), "xdp = \"native\"");
    assert!(refused.contains("rxvlan"), "{refused}");
    // No frame with a tag passes the uplink, or nothing strips it.
    for switch in ["", "xdp = \"native\""] {
        assert_eq!(uplink(&filtering(false), switch).0.unwrap().0, Attach::Native);
        let plan = plan(&filtering(true), &[("eth0", driver("ixgbe", &[]))], &config(switch, "", ""));
        assert_eq!(plan.ports[0].attach, Attach::Native, "{:?}", plan.refusals);
    }
}
