//! What is built, and what lbx says it will do to it.

use std::time::Instant;

use anyhow::Result;

use crate::demo::claims::Claim;
use crate::demo::stage::{self, Stage};
use crate::demo::story::Story;
use crate::lab::addr;
use crate::lab::offload::Offloads;
use crate::lab::vm::Family;
use crate::lab::{Lab, LabSpec, Lbx, VmKind};

/// Builds the lab and asks every VM directly, without lbx.
pub fn build(story: &mut Story) -> Result<Stage> {
    story.part("A small data centre, out of network namespaces");
    story.say(
        "One client, one switch between, and one virtual machine host: a Linux bridge with three QEMU guests \
         behind it. A second host is empty until the end. Nothing of it touches this machine's own network, and all of it is removed at the end.",
    );
    let start = Instant::now();
    let mut spec = LabSpec::hosts(&[3, 0], VmKind::Guest);
    spec.vips.extend(addr::vip(2).both());
    // Native XDP on a veth sees what the sender's stack left to its device: a wire would not carry that.
    spec.clients[0].offloads = Offloads::sender(false);
    let lab = Lab::start(spec)?;
    story.say(&format!("Booted in {:.1} s:", start.elapsed().as_secs_f64()));
    let mut rows = vec![["VM", "runs under", "behind", "own addresses", "weight"].map(String::from).to_vec()];
    for (vm, weight) in lab.vms.iter().zip(stage::WEIGHTS) {
        let addresses = format!("{}, {}", vm.addr.v4, vm.addr.v6);
        rows.push(vec![vm.spec.name.clone(), vm.accel(), vm.port.clone(), addresses, weight.to_string()]);
    }
    story.table(&rows);
    let mut answered = 0;
    for vm in &lab.vms {
        for family in [Family::V4, Family::V6] {
            let client = &lab.client().ns;
            let answer =
                client.run(|| crate::lab::client::http::request(vm.http(family), "GET", "/", b""))??;
            answered += u32::from(answer.vm == vm.spec.name);
        }
    }
    let name = "requests to the VMs' own addresses, answered by the VM asked";
    story.claim(Claim::equal(name, answered.into(), "of 6", 6.0));
    let lbx = Lbx::new(&lab, 0, &stage::config(&lab))?;
    Ok(Stage { lbx, lab })
}

/// Shows the plan, then starts the daemon and waits for the VIPs.
pub fn plan(story: &mut Story, stage: &mut Stage) -> Result<()> {
    story.part("lbx says what it will do, then does it");
    story.say(
        "The config names the bridge and three services. `web` hands packets to the VMs as they are; the VMs hold the \
         virtual address themselves and answer the client directly (dsr). `api` translates address and port \
         (nat). `flex` is like `web`, and its weights move. Nobody owns the virtual addresses: lbx answers ARP and neighbour solicitations for them.",
    );
    story.quote("lbx attach --dry-run", &stage.lbx.cli(&["attach", "--dry-run"])?);
    stage.lbx.run()?;
    for at in Stage::web().into_iter().chain(Stage::api()).chain([Stage::flex()]) {
        stage.wait_for(at)?;
    }
    story.say("`lbx run` is up, and the virtual addresses answer over IPv4 and IPv6:");
    story.quote("lbx status", &stage.lbx.cli(&["status"])?);
    let status = stage.lbx.json(&["status"])?;
    let ports = status["ports"].as_array().cloned().unwrap_or_default();
    let native = ports.iter().filter(|p| p["name"] == "up0" && p["attached"].to_string().contains("native"));
    story.claim(Claim::equal(
        "XDP runs in the uplink's driver (native)",
        native.count() as f64,
        "uplink",
        1.0,
    ));
    let active = status["targets_active"].as_f64().unwrap_or(0.0);
    story.claim(Claim::equal(
        "VMs found behind their taps and active, in all services",
        active,
        "targets",
        9.0,
    ));
    Ok(())
}
