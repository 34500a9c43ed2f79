//! Live migrations of a guest under load, there and back, in three ways: with lbx that hears of them, with lbx that
//! hears of none, and over plain bridges without lbx.

mod figures;
mod hold;
mod line;
mod losses;
mod place;
mod probe;

use std::time::{Duration, Instant};

use anyhow::Result;

pub use self::figures::Figures;
pub use self::hold::Held;
use self::line::Line;
pub use self::losses::Losses;
use self::place::{DIRTY, Place};
use super::{Report, Samples, Settings, clock};
use crate::demo::Claim;

/// Names how many minutes there are: a turn that would begin later is left out.
const MINUTES_ENV: &str = "LBX_BENCH_MINUTES";

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// lbx on both hosts hears the guest's monitors, and they tell each other.
    Aware,
    /// lbx hears nothing.
    Unaware,
    /// There is no lbx; clients use the guests' own addresses.
    Plain,
    /// As aware, and packets of a guest that is stopped wait where it goes (`stopped = "hold"`).
    Hold,
}

impl Arm {
    /// Those that are compared.
    const ALL: [Self; 3] = [Self::Aware, Self::Unaware, Self::Plain];

    /// Whether lbx hears of migrations.
    const fn hears(self) -> bool {
        matches!(self, Self::Aware | Self::Hold)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Aware => "lbx, aware",
            Self::Unaware => "lbx, unaware",
            Self::Plain => "plain bridges",
            Self::Hold => "lbx, packets wait",
        }
    }
}

/// How much is asked of the guests.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Every way has its turn so often.
    turns: usize,
    /// There and back with lbx aware, in a turn; once in the other ways.
    pairs: usize,
    long: usize,
    /// Between two frames of one of these.
    frame: Duration,
    keep_alive: usize,
    fresh: usize,
    /// Between two requests of one of these.
    interval: Duration,
    /// Between two datagrams.
    datagram: Duration,
    /// Migrations while whose pause packets wait.
    held: usize,
}

const FULL: Pace = Pace {
    turns: 10,
    pairs: 5,
    long: 400,
    frame: Duration::from_millis(400),
    keep_alive: 8,
    fresh: 8,
    interval: Duration::from_millis(16),
    datagram: Duration::from_millis(2),
    held: 10,
};
const QUICK: Pace = Pace {
    turns: 1,
    pairs: 2,
    long: 32,
    frame: Duration::from_millis(100),
    keep_alive: 2,
    fresh: 2,
    interval: Duration::from_millis(20),
    datagram: Duration::from_millis(5),
    held: 1,
};

/// Measures all ways.
///
/// # Errors
/// When something does not start, or a migration fails.
pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    clock::unpin()?;
    report.section("migrate", "Live migration");
    let pace = settings.either(FULL, QUICK);
    report.say(&introduction(&pace));
    let (mut all, mut line) = (Arm::ALL.map(|arm| (arm, Figures::default())), None);
    let held = hold(pace.held)?;
    let minutes = std::env::var(MINUTES_ENV).ok().and_then(|text| text.parse().ok());
    let (start, most) = (Instant::now(), minutes.map_or(Duration::MAX, Duration::from_mins));
    for number in 1..=pace.turns {
        if start.elapsed() >= most {
            break;
        }
        match turn(&mut all, &pace, &mut line) {
            Ok(()) => eprintln!("turn {number} of {}", pace.turns),
            Err(error) if number == 1 => return Err(error),
            // What was measured before stands.
            Err(error) => {
                report.say(&format!("Ended early, in turn {number}: {error:#}"));
                report.claim(Claim::equal("migrate: ended early", 1.0, "", 0.0));
                break;
            }
        }
    }
    if let (Some(dir), Some(line)) = (&settings.plots, &line) {
        let [latency, share] = line.write(dir)?;
        report.picture("How long answers take during a migration", &latency);
        report.picture("Who gets what during a migration", &share);
    }
    table(report, &all);
    claims(report, &all);
    held.tell(report);
    Ok(())
}

/// All ways once, each with guests of its own: what a guest's memory is full of is sent with it, and it fills.
fn turn(all: &mut [(Arm, Figures)], pace: &Pace, line: &mut Option<Line>) -> Result<()> {
    for (arm, figures) in all {
        let mut place = Place::build(*arm)?;
        match arm {
            Arm::Aware => place.round(pace.pairs, pace, figures, line)?,
            _ => place.round(1, pace, figures, &mut None)?,
        }
    }
    Ok(())
}

/// What clients see of so many migrations there and back with lbx aware, under the short form's load.
///
/// # Errors
/// When something does not start, or a migration fails.
pub fn aware(pairs: usize) -> Result<Figures> {
    let mut figures = Figures::default();
    Place::build(Arm::Aware)?.round(pairs, &QUICK, &mut figures, &mut None)?;
    Ok(figures)
}

/// What becomes of packets that wait for an idle guest, in so many migrations.
///
/// # Errors
/// When something does not start, or a migration fails.
pub fn hold(migrations: usize) -> Result<Held> {
    let mut held = Held::default();
    Place::build(Arm::Hold)?.hold(migrations, &mut held)?;
    Ok(held)
}

fn introduction(pace: &Pace) -> String {
    let per_second = |count: usize, interval: Duration| count as f64 / interval.as_secs_f64();
    format!(
        "A QEMU guest (TCG) that writes {DIRTY} MB a second to memory is migrated from one host to another and back \
         over TCP, on the segment that the clients use too; all on the same {} cores. A second guest stays. Each \
         migration begins as soon as the one before has no effects any more, up to {} in a turn, and the ways take \
         turns; where lbx is unaware, load begins anew for each pair. Load, over both guests: {} connections that move data \
         all the time, {} requests a second on {} HTTP connections that stay, {:.0} new connections a second, {:.0} \
         datagrams a second of one flow. Nothing is tried twice. With lbx, clients use a VIP that the first host \
         answers for; aware, lbx runs on both hosts, hears the guest's monitors there, and the hosts tell each other; \
         unaware, it is told nothing, and the guest is put back into use by hand before each pair. Latency: of \
         requests on connections that stay, from the command to a second after the end, of those that failed until \
         they did; one that takes longer than the pace stands for those that were to be asked meanwhile. Duration, memory sent and passes over it (medians): of migrations away from the host that clients \
         send to.",
        super::machine::cpus(),
        2 * pace.pairs,
        pace.long,
        per_second(pace.keep_alive, pace.interval).round(),
        pace.keep_alive,
        per_second(pace.fresh, pace.interval),
        per_second(1, pace.datagram),
    )
}

fn table(report: &mut Report, all: &[(Arm, Figures)]) {
    let of = |part: u64, whole: u64| format!("{part} of {whole}");
    let head = [
        "",
        "migrations",
        "connections broken",
        "requests failed",
        "new connections failed",
        "MB sent",
        "passes",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (arm, figures) in all {
        rows.push(vec![
            arm.name().to_owned(),
            figures.migrations.to_string(),
            of(figures.broken, figures.long),
            of(figures.failed, figures.requests),
            of(figures.fresh_failed, figures.fresh),
            format!("{:.0}", figures.sent.median()),
            format!("{:.0}", figures.passes.median()),
        ]);
    }
    report.table(&rows);
    datagrams(report, all);
    let head = ["milliseconds", "latency p50", "p99", "max", "duration", "p99", "pause", "p99"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let ms = |value: f64| format!("{value:.1}");
    for (arm, figures) in all {
        let median_and_p99 = |samples: &Samples| [ms(samples.median()), ms(samples.quantile(0.99))];
        let [p50, p99] = median_and_p99(&figures.latency);
        let mut row = vec![arm.name().to_owned(), p50, p99, ms(figures.latency.max())];
        row.extend([&figures.duration, &figures.pause].into_iter().flat_map(median_and_p99));
        rows.push(row);
    }
    report.table(&rows);
    report.say(
        "The outage. Silence: the longest time between two answered datagrams, less the time from STOP to RESUME. \
         Blackhole: from QEMU's STOP to the state in the maps, where the guest leaves the host that clients send to (when \
         it leaves the other one, packets go into the ring that it has left until the other one has said so). Delivery: from QEMU's \
         RESUME to maps there that send packets to where the guest is, which is what lbx adds to the pause.",
    );
    let head = ["milliseconds", "silence", "p99", "blackhole", "p99", "delivery", "p99"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (arm, figures) in all {
        let mut row =
            vec![arm.name().to_owned(), ms(figures.beyond.median()), ms(figures.beyond.quantile(0.99))];
        for samples in [&figures.blackhole, &figures.delivery] {
            let fine = |value: f64| if samples.is_empty() { "-".into() } else { format!("{value:.3}") };
            row.extend([fine(samples.median()), fine(samples.quantile(0.99))]);
        }
        rows.push(row);
    }
    report.table(&rows);
}

/// Where those went that were not answered.
fn datagrams(report: &mut Report, all: &[(Arm, Figures)]) {
    report.say(
        "Datagrams that were not answered, each known by its number. Dropped: by lbx, which counts them. In the ring: of \
         the tap that the guest came from, read out of it when the guest has left. Taken: by QEMU out of that ring, \
         which takes one frame more when it has stopped the guest, and never hands it over. Answer: the guest has \
         received them. Full: frames of all kinds that the rings of the guest's taps had no room for, and datagrams \
         that a socket had none for, the guest's or the client's. Unexplained: by migration, how far what is in none of \
         these places is from what lbx counted as dropped, in either direction. Outside: sent before STOP, or when the \
         guest ran and lbx knew where, and neither in the ring nor taken.",
    );
    let head =
        ["", "lost", "dropped by lbx", "in the ring", "taken", "answer", "full", "unexplained", "outside"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (arm, figures) in all {
        let losses = &figures.losses;
        let mut row = vec![arm.name().to_owned(), format!("{} of {}", losses.lost, figures.datagrams)];
        row.extend(
            [losses.dropped, losses.ring, losses.taken, losses.answers].map(|count| count.to_string()),
        );
        // Only where lbx hears of migrations does it say when it knows, and whose packets it drops.
        let known = |count: u64| if *arm == Arm::Aware { count.to_string() } else { "-".into() };
        row.extend([losses.full, losses.unexplained, losses.outside].map(known));
        rows.push(row);
    }
    report.table(&rows);
}

fn claims(report: &mut Report, all: &[(Arm, Figures)]) {
    let [(_, aware), (_, unaware), _] = all else { return };
    for (what, count) in [
        ("connections broken", aware.broken),
        ("requests failed", aware.failed),
        ("new connections failed", aware.fresh_failed),
        ("datagrams lost and unexplained", aware.losses.unexplained),
        ("datagrams lost that were sent outside of the pause", aware.losses.outside),
    ] {
        report.claim(Claim::equal(&format!("migrate: {what}, aware"), count as f64, "", 0.0));
    }
    for (what, value, goal) in [
        ("STOP to blackhole, median", aware.blackhole.median(), 0.5),
        ("RESUME to delivery, median", aware.delivery.median(), 1.0),
        ("RESUME to delivery, p99", aware.delivery.quantile(0.99), 5.0),
    ] {
        report.claim(Claim::at_most(&format!("migrate: {what}"), value, "ms", goal));
    }
    let (mine, other) = (aware.duration.median(), unaware.duration.median());
    report.claim(Claim::at_most("migrate: duration, aware / unaware", mine / other, "", 1.0));
    let (mine, other) = (aware.latency.quantile(0.99), unaware.latency.quantile(0.99));
    report.claim(Claim::at_most("migrate: p99 latency, aware / unaware", mine / other, "", 1.0));
}
