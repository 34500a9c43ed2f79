//! PID 1 of a lab guest, or the same server as a process in a namespace: `lbx-guest lbx.name=vm1 lbx.ip=...`.

use anyhow::Result;
use lbx_tests::guest::{announce, init, nested, params::Params};

fn main() {
    let is_init = announce::is_init();
    if let Err(e) = run(is_init) {
        eprintln!("lbx-guest: {e:#}");
        if is_init {
            // The console's last line is what the lab shows; a panic of the kernel would push it away.
            let _ = init::power_off();
        }
        std::process::exit(1);
    }
}

fn run(is_init: bool) -> Result<()> {
    let params = if is_init { init::boot()? } else { Params::parse(std::env::args().skip(1))? };
    if params.probe {
        println!("{} probe", init::UP);
        return init::power_off();
    }
    if params.nested {
        println!("{} nested", init::UP);
        nested::run()?;
        return init::power_off();
    }
    let state = init::start(params)?;
    println!("{} {}", init::UP, state.name());
    loop {
        std::thread::park();
    }
}
