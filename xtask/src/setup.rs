//! `cargo xtask setup`: the eBPF toolchain, QEMU, the tools of the tests, and a guest kernel.
//!
//! Says first what it will do. Removes no package, starts no service, installs nothing that is there already.

mod packages;
mod policy;
pub mod toolchain;

use anyhow::{Context, Result};

use crate::{artifacts, bpffs, build, paths, user};

/// Arguments of `setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what there is and what would be done
    #[arg(long)]
    dry_run: bool,
}

/// One line of what setup is about to do.
#[derive(Debug)]
struct Item {
    what: String,
    there: bool,
}

/// Runs the verb.
///
/// # Errors
/// When something cannot be fetched, built or installed.
pub fn run(args: &Args) -> Result<()> {
    let plan = Plan::make()?;
    plan.print();
    if args.dry_run { Ok(()) } else { plan.carry_out() }
}

/// All of setup; cheap when everything is there.
///
/// # Errors
/// When something cannot be fetched, built or installed.
pub fn everything() -> Result<()> {
    run(&Args { dry_run: false })
}

/// What the benches need besides.
///
/// # Errors
/// When something cannot be fetched or installed.
pub fn for_benches() -> Result<()> {
    let plan = packages::Plan::for_benches()?;
    if !plan.is_empty() {
        println!(
            "What the benches need besides (removes no package, starts no service): {}",
            plan.describe()
        );
    }
    plan.install()
}

struct Plan {
    components: Vec<&'static str>,
    linker: bool,
    packages: packages::Plan,
}

impl Plan {
    fn make() -> Result<Self> {
        Ok(Self {
            components: toolchain::missing_components()?,
            linker: !toolchain::linker_is_there(),
            packages: packages::Plan::make()?,
        })
    }

    fn print(&self) {
        let toolchain = toolchain::channel();
        let components: &[_] =
            if self.components.is_empty() { &toolchain::COMPONENTS } else { &self.components };
        let components = components.join(", ");
        let items = [
            Item {
                what: format!("rustup components of {toolchain}: {components}"),
                there: self.components.is_empty(),
            },
            Item {
                what: format!("bpf-linker {} in {}", toolchain::LINKER_VERSION, paths::tools().display()),
                there: !self.linker,
            },
            Item { what: self.packages.describe(), there: self.packages.is_empty() },
            Item {
                what: format!(
                    "a guest kernel in {} (fetched and unpacked, not installed)",
                    paths::cache().display()
                ),
                there: artifacts::guest_kernel_is_there(),
            },
            Item {
                what: "BPF file system on /sys/fs/bpf (mounted while tests or the demo run, if absent)"
                    .to_owned(),
                there: bpffs::mounted(),
            },
        ];
        println!("What lbx needs to be built, shown and tested (removes no package, starts no service):");
        for item in items {
            println!("  [{}] {}", if item.there { "there" } else { " get " }, item.what);
        }
    }

    fn carry_out(&self) -> Result<()> {
        user::give_back_target()?;
        toolchain::add_components(&self.components)?;
        if self.linker {
            toolchain::install_linker()?;
        }
        self.packages.install()?;
        // The kernel program too: `lbx` without it would have to be compiled again with it.
        build::everything(false, false)?;
        artifacts::setup_image().context("the guest kernel could not be prepared")
    }
}
