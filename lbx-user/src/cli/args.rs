//! The words of the command line.

mod change;
mod look;
mod migration;
mod peers;
mod system;
mod values;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

pub use change::{Drain, Set, SetState, SetWeight, SetWhat, TargetName, WishedState};
pub use look::{FlowFilter, Flows, Load, Queues, Stats, Targets, Transport, Weights, Why, WhyFlow, WhyWhat};
pub use migration::{Migration, MigrationVerb, Migrations, Tell};
pub use peers::{Peers, PeersInit, PeersWhat};
pub use system::{Attach, AttachTimer, Bypass, Check, Detach, OnOff, Run};

/// Balances the traffic of services over virtual machines, inside the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "lbx",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 the daemon is not running, 4 timed out waiting."
)]
pub struct Args {
    /// What holds for every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, ClapArgs)]
pub struct Global {
    /// Name of the instance: several can run on one host, each with its own pins and socket
    #[arg(long, global = true, env = "LBX_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
    /// The config file
    #[arg(long, global = true, env = "LBX_CONFIG", default_value = "/etc/lbx/lbx.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON with a schema version instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The daemon: attach, steer, follow VMs, serve the API
    Run(Run),
    /// Check the config, and what it would do on this host
    Check(Check),
    /// Have the daemon read the config again: all of it or nothing
    Reload,
    /// How the instance is doing
    Status(Watch),
    /// Attach to switches of the config, or to a device; says what it will do to each port
    Attach(Attach),
    /// Undo an attach that nobody confirmed
    #[command(hide = true)]
    AttachTimer(AttachTimer),
    /// Remove every program, link and map of the instance
    Detach(Detach),
    /// Let every packet pass as on a plain bridge, or steer again; works without the daemon
    Bypass(Bypass),
    /// Look for what commonly goes wrong
    Doctor,
    /// The services
    Services(Watch),
    /// The targets, their states and who wishes them
    Targets(Targets),
    /// The weights, and the shares of the tables built from them
    Weights(Weights),
    /// The recorded flows
    Flows(Flows),
    /// The queues of the targets' vNICs: frames that wait, and how fast they go
    Queues(Queues),
    /// The health checks of the targets
    Health(Watch),
    /// The load of the host and of its VMs
    Load(Load),
    /// The other hosts that run lbx, and whether they are told and heard
    Peers(Peers),
    /// The migrations of VMs, with all phases and their times
    Migrations(Migrations),
    /// Say where the migration of a VM stands: what an orchestrator does at each step
    Migration(Migration),
    /// Explain a decision
    Why(Why),
    /// The counters
    Stats(Stats),
    /// No new flows to a target; its known ones keep going
    Drain(Drain),
    /// Take back a drain
    Undrain(TargetName),
    /// Override a weight or a state until it is cleared or the host restarts
    Set(Set),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the version
    Version,
}

/// `--watch`.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Watch {
    /// Show it again every SECS seconds, until Ctrl-C
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

/// `lbx completions`.
#[derive(Debug, ClapArgs)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn words_are_understood_as_in_the_readme() {
        for line in [
            "lbx why flow tcp 203.0.113.7:5555 192.0.2.10:80",
            "lbx why flow udp [2001:db8::7]:5555 [2001:db8::10]:53",
            "lbx drain web-1 --wait --timeout 5m",
            "lbx attach br0 --observe",
            "lbx attach --confirm",
            "lbx flows --client 203.0.113.0/24 --state established --older 10s --limit 5",
            "lbx stats --drops --watch",
            "lbx status --watch 5 --json",
            "lbx set weight web/web-1 50",
            "lbx set state web-1 --clear",
            "lbx queues --watch 1",
            "lbx queues web-1 --json",
            "lbx load --vm web-1 --json",
            "lbx load --host --watch",
            "lbx health --watch 1",
            "lbx bypass on",
            "lbx peers --watch 1",
            "lbx peers init /tmp/ca kvm1 kvm2",
            "lbx migration announce web-1 --to host-b --wait --timeout 30s",
            "lbx migration resumed web-1 --where there --host host-b",
            "lbx migrations web-1 --json",
        ] {
            Args::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in
            ["lbx drain web-1 --timeout 5m", "lbx set weight a", "lbx set weight a 5 --clear", "lbx bypass"]
        {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
