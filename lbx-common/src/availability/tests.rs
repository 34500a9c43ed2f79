//! Figures of VMs and hosts in the situations they are made for.

#![expect(clippy::float_cmp, reason = "bounds are reached exactly")]

use super::*;
use proptest::prelude::*;

fn vm(cpu: f64, steal: f64) -> Vm {
    Vm { cpu: Some(cpu), steal: Some(steal), memory: Some(0.5), migrating: false }
}

fn host(cpu: f64, cpus: f64, vcpus: f64) -> Host {
    Host {
        cpu: Some(cpu),
        cpus: Some(cpus),
        vcpus: Some(vcpus),
        memory_pressure: Some(0.0),
        io_pressure: Some(0.0),
    }
}

fn availability(vm: &Vm, host: &Host) -> f64 {
    Figures::of(vm, host).availability(vm.migrating).unwrap()
}

#[test]
fn half_a_vm_on_a_saturated_host_is_no_half() {
    assert!(availability(&vm(0.5, 0.0), &host(1.0, 3.0, 6.0)) < 0.01);
    assert!((availability(&vm(0.5, 0.0), &host(0.5, 8.0, 4.0)) - 0.5).abs() < 1e-9, "its own is the lower");
    // 8 idle CPUs for 32 vCPUs: a quarter of what each would have alone.
    assert!((availability(&vm(0.1, 0.0), &host(0.5, 16.0, 32.0)) - 0.25).abs() < 1e-9);
}

#[test]
fn waiting_for_a_cpu_is_use() {
    assert!((availability(&vm(0.3, 0.5), &host(0.1, 4.0, 4.0)) - 0.2).abs() < 1e-9);
    assert_eq!(availability(&vm(0.8, 0.8), &host(0.1, 4.0, 4.0)), 0.0);
}

#[test]
fn memory_counts_near_its_end() {
    let with = |memory| Vm { memory: Some(memory), ..vm(0.1, 0.0) };
    let idle = host(0.0, 4.0, 4.0);
    assert!((availability(&with(0.79), &idle) - 0.9).abs() < 1e-9);
    assert!((availability(&with(0.9), &idle) - 0.5).abs() < 1e-9);
    assert_eq!(availability(&with(1.0), &idle), 0.0);
}

#[test]
fn pressure_of_the_host_is_everybodys() {
    let pressed = Host { io_pressure: Some(0.7), ..host(0.2, 4.0, 4.0) };
    assert!((availability(&vm(0.1, 0.0), &pressed) - 0.3).abs() < 1e-9);
}

#[test]
fn a_migrating_vm_is_not_available() {
    let vm = Vm { migrating: true, ..vm(0.0, 0.0) };
    assert_eq!(availability(&vm, &host(0.0, 4.0, 4.0)), 0.0);
    let unknown = Vm { migrating: true, ..Vm::default() };
    assert_eq!(availability(&unknown, &Host::default()), 0.0, "whatever else is known");
}

#[test]
fn what_is_missing_is_named_and_left_out() {
    let figures = Figures::of(&Vm { cpu: Some(0.25), ..Vm::default() }, &Host::default());
    assert_eq!((figures.vm, figures.host), (Some(0.75), None));
    assert_eq!(figures.availability(false), Some(0.75));
    let names: Vec<_> = figures.missing.names().collect();
    assert_eq!(names[..2], ["vm_steal", "vm_memory"]);
    assert_eq!(names.len(), 7);
    let none = Figures::of(&Vm::default(), &host(0.5, 4.0, 4.0));
    assert_eq!(none.availability(false), None, "of the VM itself nothing is known");
    assert!(Figures::of(&vm(0.1, 0.1), &host(0.1, 1.0, 1.0)).missing.is_empty());
}

fn reading() -> impl Strategy<Value = Option<f64>> {
    proptest::option::of(prop_oneof![8 => 0.0..1.0f64, 1 => any::<f64>()])
}

proptest! {
    #[test]
    fn always_a_share_and_never_better_for_more_load(
        readings in proptest::array::uniform8(reading()),
        more in 0.0..1.0f64,
    ) {
        let [cpu, steal, memory, host_cpu, cpus, vcpus, memory_pressure, io_pressure] = readings;
        let vm = Vm { cpu, steal, memory, migrating: false };
        let host = Host { cpu: host_cpu, cpus: cpus.map(f64::abs), vcpus: vcpus.map(f64::abs), memory_pressure, io_pressure };
        let Some(free) = Figures::of(&vm, &host).availability(false) else {
            prop_assert!(cpu.is_none() && steal.is_none() && memory.is_none());
            return Ok(());
        };
        prop_assert!((0.0..=1.0).contains(&free), "{}", free);
        let busier = Vm { cpu: cpu.map(|cpu| cpu + more), ..vm };
        prop_assert!(Figures::of(&busier, &host).availability(false).unwrap() <= free);
        let fuller = Host { cpu: host_cpu.map(|cpu| cpu + more), ..host };
        prop_assert!(Figures::of(&vm, &fuller).availability(false).unwrap() <= free);
    }
}
