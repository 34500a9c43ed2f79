//! The words of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

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
    /// Attach to the switches of the config; says what it will do to each port
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

/// `lbx run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// Attach also where the default route or an SSH session runs, without the 60 seconds of probation
    #[arg(long)]
    pub yes: bool,
    /// Compute and count every verdict, change no packet
    #[arg(long)]
    pub observe: bool,
    /// Take the place of other XDP programs
    #[arg(long)]
    pub replace: bool,
}

/// `lbx check`.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// Only the file, not the host
    #[arg(long)]
    pub offline: bool,
    /// Print a commented example config and do nothing else
    #[arg(long)]
    pub example: bool,
}

/// `--watch`.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Watch {
    /// Show it again every SECS seconds, until Ctrl-C
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

/// `lbx attach`.
#[derive(Debug, ClapArgs)]
pub struct Attach {
    /// Only these switches of the config
    pub switches: Vec<String>,
    /// Attach also where the default route or your SSH session runs; undone after 60 s unless confirmed
    #[arg(long)]
    pub yes: bool,
    /// Keep what the last `attach --yes` did
    #[arg(long, conflicts_with_all = ["yes", "observe", "replace", "dry_run"])]
    pub confirm: bool,
    /// Compute and count every verdict, change no packet
    #[arg(long)]
    pub observe: bool,
    /// Take the place of other XDP programs
    #[arg(long)]
    pub replace: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Seconds until an unconfirmed attach is undone
    #[arg(long, hide = true, default_value_t = 60)]
    pub undo_after: u64,
}

/// `lbx attach-timer`.
#[derive(Debug, ClapArgs)]
pub struct AttachTimer {
    /// Seconds to wait
    pub seconds: u64,
    /// Which attach this is about
    pub token: String,
}

/// `lbx detach`.
#[derive(Debug, ClapArgs)]
pub struct Detach {
    /// Also while the daemon runs (it is asked to let go first)
    #[arg(long)]
    pub force: bool,
}

/// `lbx bypass`.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Bypass {
    /// Switch the bypass on or off
    pub state: OnOff,
}

/// A switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Packets pass as on a plain bridge
    On,
    /// Packets are steered
    Off,
}

/// `lbx targets`.
#[derive(Debug, ClapArgs)]
pub struct Targets {
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// `lbx weights`.
#[derive(Debug, ClapArgs)]
pub struct Weights {
    /// Only this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Also each queue, and the last repair of each table
    #[arg(long, short)]
    pub verbose: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// `lbx flows`.
#[derive(Debug, ClapArgs)]
pub struct Flows {
    /// What to show
    #[command(flatten)]
    pub filter: FlowFilter,
    /// Most flows to show
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: usize,
    /// Only how many there are, by target
    #[arg(long)]
    pub count: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// Which flows.
#[derive(Debug, Clone, Default, ClapArgs, serde::Serialize, serde::Deserialize)]
pub struct FlowFilter {
    /// Only flows of this service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only flows to this target (`web-1`, or `web/web-1`)
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Only clients in this prefix (`203.0.113.0/24`, or an address)
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub client: Option<ipnet::IpNet>,
    /// Only flows in this state: new, established, closed, datagram
    #[arg(long, value_name = "STATE")]
    pub state: Option<FlowState>,
    /// Only flows at least this old (`10s`, `5m`)
    #[arg(long, value_name = "AGE", value_parser = seconds)]
    pub older: Option<u64>,
    /// Only flows at most this old
    #[arg(long, value_name = "AGE", value_parser = seconds)]
    pub younger: Option<u64>,
}

/// State of a flow, by its idle class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// One packet seen, or a handshake that did not finish
    New,
    /// An established TCP connection
    Established,
    /// A TCP connection that was closed
    Closed,
    /// UDP and other traffic without a state
    Datagram,
}

impl FlowState {
    /// From the idle class of an entry.
    pub const fn from_class(class: usize) -> Self {
        match class {
            0 => Self::New,
            1 => Self::Established,
            2 => Self::Closed,
            _ => Self::Datagram,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Datagram => "datagram",
        }
    }
}

/// `lbx why`.
#[derive(Debug, ClapArgs)]
pub struct Why {
    /// What to explain
    #[command(subcommand)]
    pub what: WhyWhat,
}

/// What `lbx why` explains.
#[derive(Debug, Clone, Subcommand)]
pub enum WhyWhat {
    /// Where a flow goes, or would go: `why flow tcp 203.0.113.7:5555 192.0.2.10:80`
    Flow(WhyFlow),
    /// Why a target has the share it has
    Weight(TargetName),
}

/// A flow.
#[derive(Debug, Clone, ClapArgs)]
pub struct WhyFlow {
    /// Transport protocol
    pub protocol: Transport,
    /// Client address and port
    #[arg(value_name = "SRC:PORT")]
    pub client: SocketAddr,
    /// VIP and port
    #[arg(value_name = "DST:PORT")]
    pub vip: SocketAddr,
    /// VLAN the client's packets come on
    #[arg(long)]
    pub vlan: Option<u16>,
    /// Switch they come in by, if the VIP is on several
    #[arg(long)]
    pub switch: Option<String>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// TCP (6)
    Tcp,
    /// UDP (17)
    Udp,
}

impl Transport {
    /// IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// `lbx stats`.
#[derive(Debug, ClapArgs)]
pub struct Stats {
    /// Only what was dropped, and why
    #[arg(long)]
    pub drops: bool,
    /// Also counters that are zero
    #[arg(long)]
    pub all: bool,
    /// Show it again and again
    #[command(flatten)]
    pub watch: Watch,
}

/// A target's name.
#[derive(Debug, Clone, ClapArgs)]
pub struct TargetName {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
}

/// `lbx drain`.
#[derive(Debug, ClapArgs)]
pub struct Drain {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
    /// Return when its last flow is gone
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this long (`90s`, `10m`): exit code 4
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "wait")]
    pub timeout: Option<u64>,
}

/// `lbx set`.
#[derive(Debug, ClapArgs)]
pub struct Set {
    /// What to set
    #[command(subcommand)]
    pub what: SetWhat,
}

/// What `lbx set` sets.
#[derive(Debug, Clone, Subcommand)]
pub enum SetWhat {
    /// Share of new flows
    Weight(SetWeight),
    /// What the datapath does with the target's packets
    State(SetState),
}

/// `lbx set weight`.
#[derive(Debug, Clone, ClapArgs)]
pub struct SetWeight {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
    /// The weight, relative to the service's other targets
    #[arg(required_unless_present = "clear", value_parser = clap::value_parser!(u32).range(0..=65_535))]
    pub weight: Option<u32>,
    /// Back to the weight of the config
    #[arg(long, conflicts_with = "weight")]
    pub clear: bool,
}

/// `lbx set state`.
#[derive(Debug, Clone, ClapArgs)]
pub struct SetState {
    /// `web-1`, or `web/web-1` where several services have one
    pub target: String,
    /// The state
    #[arg(required_unless_present = "clear")]
    pub state: Option<WishedState>,
    /// Wish nothing any more
    #[arg(long, conflicts_with = "state")]
    pub clear: bool,
}

/// States an operator can wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WishedState {
    /// Takes new flows and known ones, unless another owner objects
    Active,
    /// No new flows
    Draining,
    /// Every packet is dropped and counted, for as long as the daemon renews it
    Blackholed,
    /// Gone: known flows are selected anew
    Down,
}

impl WishedState {
    /// The state as the datapath knows it.
    pub const fn state(self) -> lbx_common::target::State {
        use lbx_common::target::State;
        match self {
            Self::Active => State::Active,
            Self::Draining => State::Draining,
            Self::Blackholed => State::Blackholed,
            Self::Down => State::Down,
        }
    }
}

/// `lbx completions`.
#[derive(Debug, ClapArgs)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `10s`, `5m`, `90`: whole seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write it like 10s, 5m, 2h or 1d".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write it like 10s, 5m, 2h or 1d".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too long".to_owned())
}

/// A prefix, or an address as a prefix of full length.
fn prefix(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse::<ipnet::IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
        .map(|net| net.trunc())
        .map_err(|_| "write it like 203.0.113.0/24, 2001:db8::/32 or 203.0.113.7".to_owned())
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
            "lbx bypass on",
        ] {
            Args::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in ["lbx drain web-1 --timeout 5m", "lbx set weight a", "lbx set weight a 5 --clear", "lbx bypass"] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn an_address_is_a_prefix() {
        assert_eq!(prefix("203.0.113.7").unwrap().prefix_len(), 32);
        assert_eq!(prefix("2001:db8::5/32").unwrap().to_string(), "2001:db8::/32");
        assert!(prefix("web").is_err());
        assert_eq!(seconds("5m"), Ok(300));
        assert!(seconds("5x").is_err());
    }
}
