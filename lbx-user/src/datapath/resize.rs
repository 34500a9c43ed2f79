//! A flow table of another size: the new one is made beside the old one, live entries are carried over, and
//! the pins change places once every program uses the new one.
//!
//! An entry's hash is `seal ^ target`, all 64 bits of it, and both buckets follow from the hash: no tuple is
//! needed to find its new place. The control block goes with the table, since it holds the mask: until a
//! program is replaced it must see the old one.

use super::clock::Rate;
use super::error::{Error, Result};
use super::load::Options;
use super::mmap::Array;
use super::pins::{self, Instance};
use super::{shape, sys};
use bytemuck::Zeroable;
use lbx_common::control::{AddressSelect, Control, flags};
use lbx_common::flow::{self, Bucket, ColdFlow};
use lbx_common::key::{SECRET_WORDS, Secret};
use lbx_common::limits::{ABI_VERSION, WAYS};
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// Maps that are replaced together.
const RESIZED: [&str; 3] = ["control", "flows", "flows_cold"];

/// The table that gives way.
pub(crate) struct Old {
    control: Array<Control>,
    flows: Array<Bucket>,
    cold: Array<ColdFlow>,
}

/// What is done about the maps that depend on the size of the flow table.
pub(crate) enum Plan {
    /// Nothing usable is pinned.
    Fresh,
    /// What is pinned is used.
    Keep(Rate),
    /// A new table is made.
    Resize(Rate, Old),
}

/// How many entries found no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Entries that were put into the new table.
    pub moved: u64,
    /// Entries both of whose buckets were full.
    pub lost: u64,
}

impl Plan {
    /// Looks at what is pinned.
    pub(crate) fn new(instance: &Instance, options: &Options) -> Result<Self> {
        for name in RESIZED {
            pins::unpin(&pin_path(instance, name, true))?;
        }
        let control = match instance.open_map("control") {
            Ok(fd) => Array::<Control>::new("control", &fd, true)?,
            Err(Error::NotLoaded(_)) => return Self::fresh(instance),
            Err(e) => return Err(e),
        };
        let now = control.get(0)?;
        match now.abi {
            0 => return Self::fresh(instance),
            ABI_VERSION => {}
            found => return Err(Error::Abi { found, expected: ABI_VERSION }),
        }
        let rate = Rate { hz: now.hz, shift: now.epoch_shift };
        let flows = Array::new("flows", &instance.open_map("flows")?, true)?;
        let cold = Array::new("flows_cold", &instance.open_map("flows_cold")?, true)?;
        if flows.len() == shape::buckets_for(options.flows) {
            return Ok(Self::Keep(rate));
        }
        Ok(Self::Resize(rate, Old { control, flows, cold }))
    }

    /// A loader that was killed before it wrote the control block left maps that nothing uses.
    fn fresh(instance: &Instance) -> Result<Self> {
        for shape in shape::SHAPES {
            pins::unpin(&instance.map(shape.name))?;
        }
        Ok(Self::Fresh)
    }

    /// Whether the maps of [`RESIZED`] are made anew beside the pinned ones.
    pub(crate) fn is_resize(&self) -> bool {
        matches!(self, Self::Resize(..))
    }

    /// The rate, if it is known already.
    pub(crate) fn rate(&self) -> Option<Rate> {
        match self {
            Self::Fresh => None,
            Self::Keep(rate) | Self::Resize(rate, _) => Some(*rate),
        }
    }

    /// Fills the control block (the new one in a resize) and carries the entries over for the first time,
    /// before any program uses the new table.
    pub(crate) fn prepare(&self, instance: &Instance, options: &Options, rate: Rate) -> Result<Carried> {
        let resize = self.is_resize();
        let open = |name| {
            let path = pin_path(instance, name, resize);
            let fd = sys::open_pin(&path).map_err(Error::path("opening", &path))?;
            Ok::<_, Error>(fd)
        };
        let control = Array::<Control>::new("control", &open("control")?, true)?;
        let flows = Array::<Bucket>::new("flows", &open("flows")?, true)?;
        let cold = Array::<ColdFlow>::new("flows_cold", &open("flows_cold")?, true)?;
        if u64::from(cold.len()) != u64::from(flows.len()) * u64::from(WAYS) {
            let (found, expected) = (cold.len().into(), u64::from(flows.len()) * u64::from(WAYS));
            return Err(Error::Shape { name: "flows_cold", what: "its number of entries", found, expected });
        }
        let before = match self {
            Self::Resize(_, old) => old.control.get(0)?,
            _ => control.get(0)?,
        };
        let mut next = if before.abi == ABI_VERSION { before } else { fresh_control(options)? };
        next.bucket_mask = flows.len() - 1;
        next.hz = rate.hz;
        next.epoch_shift = rate.shift;
        next.answer_rate = options.answer_rate;
        next.idle = options.idle.limits(rate);
        next.learn_epochs = rate.epochs(options.learn);
        next.abi = ABI_VERSION;
        control.set(0, &next)?;
        match self {
            Self::Resize(_, old) => carry(&old.flows, &old.cold, &flows, &cold),
            _ => Ok(Carried::default()),
        }
    }

    /// After every link has its new program: what the old programs recorded in the meantime is carried over,
    /// and the new maps take the names of the old ones. After an error the old ones have them again.
    pub(crate) fn finish(&self, instance: &Instance) -> Result<Carried> {
        let Self::Resize(_, old) = self else { return Ok(Carried::default()) };
        let (control, flows, cold) = new_maps(instance)?;
        // Flags and the address table may have been flipped by another process meanwhile.
        let last = old.control.get(0)?;
        let now = control.get(0)?;
        control.set(0, &Control { flags: last.flags, addresses: last.addresses, ..now })?;
        let carried = carry(&old.flows, &old.cold, &flows, &cold)?;
        let before: Vec<OwnedFd> =
            RESIZED.into_iter().map(|name| instance.open_map(name)).collect::<Result<_>>()?;
        for (n, name) in RESIZED.into_iter().enumerate() {
            let (from, to) = (pin_path(instance, name, true), pin_path(instance, name, false));
            if let Err(error) = fs::rename(&from, &to) {
                for (name, map) in RESIZED.into_iter().zip(&before).take(n) {
                    let path = pin_path(instance, name, false);
                    pins::unpin(&path)?;
                    sys::pin(map, &path).map_err(Error::path("pinning", &path))?;
                }
                return Err(Error::path("renaming", &from)(error));
            }
        }
        Ok(carried)
    }

    /// The old programs are in force again: what the new ones recorded meanwhile goes back to the old table, as far
    /// as it can be read and has room. What does not is selected anew, as if it had not been recorded.
    pub(crate) fn carry_back(&self, instance: &Instance) {
        if let Self::Resize(_, old) = self
            && let Ok((_, flows, cold)) = new_maps(instance)
        {
            let _ = carry(&flows, &cold, &old.flows, &old.cold);
        }
    }
}

/// The maps made beside those in force.
fn new_maps(instance: &Instance) -> Result<(Array<Control>, Array<Bucket>, Array<ColdFlow>)> {
    let open = |name| {
        let path = pin_path(instance, name, true);
        sys::open_pin(&path).map_err(Error::path("opening", &path))
    };
    Ok((
        Array::new("control", &open("control")?, true)?,
        Array::new("flows", &open("flows")?, true)?,
        Array::new("flows_cold", &open("flows_cold")?, true)?,
    ))
}

/// Removes what a resize that did not come to its end made.
pub(crate) fn abandon(instance: &Instance) {
    for name in RESIZED {
        if let Err(error) = pins::unpin(&pin_path(instance, name, true)) {
            tracing::warn!("{error}");
        }
    }
}

/// Path of a map's pin; while a resize is under way the maps concerned have another name.
pub(crate) fn pin_path(instance: &Instance, name: &str, resize: bool) -> std::path::PathBuf {
    if resize && RESIZED.contains(&name) { instance.map(&format!("{name}-new")) } else { instance.map(name) }
}

fn fresh_control(options: &Options) -> Result<Control> {
    let mut control = Control::zeroed();
    control.flags = if options.observe { flags::OBSERVE } else { 0 };
    control.addresses = AddressSelect::new(1, 0);
    control.secret = random_secret()?;
    Ok(control)
}

/// Keys of the flow hash from the kernel's random source.
fn random_secret() -> Result<Secret> {
    let mut secret = [0u64; SECRET_WORDS];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut secret);
    // SAFETY: the pointer and length are those of `bytes`, which is exclusively borrowed.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes come whole and uninterrupted (getrandom(2)).
    if got == size_of::<Secret>() as isize {
        return Ok(secret);
    }
    Err(Error::io("reading random bytes")(std::io::Error::last_os_error()))
}

/// Puts every live entry of one table into another, with its cold half, unless it is there already.
fn carry(
    from: &Array<Bucket>,
    from_cold: &Array<ColdFlow>,
    to: &Array<Bucket>,
    to_cold: &Array<ColdFlow>,
) -> Result<Carried> {
    let (from_mask, mask) = (from.len() - 1, to.len() - 1);
    let mut carried = Carried::default();
    for bucket in 0..from.len() {
        for way in 0..WAYS {
            let at = way as usize * 2;
            let (seal, word) = (from.load64(bucket, at)?, from.load64(bucket, at + 1)?);
            let hash = seal ^ (word & 0xffff_ffff);
            let torn =
                bucket != flow::bucket_one(hash, from_mask) && bucket != flow::bucket_two(hash, from_mask);
            if seal == 0 || torn {
                continue;
            }
            let cold = from_cold.get(bucket * WAYS + way)?;
            match insert(to, to_cold, mask, hash, seal, word, &cold)? {
                Placed::Moved => carried.moved += 1,
                Placed::Present => {}
                Placed::Full => carried.lost += 1,
            }
        }
    }
    Ok(carried)
}

enum Placed {
    Moved,
    Present,
    Full,
}

fn insert(
    to: &Array<Bucket>,
    to_cold: &Array<ColdFlow>,
    mask: u32,
    hash: u64,
    seal: u64,
    word: u64,
    cold: &ColdFlow,
) -> Result<Placed> {
    let places = [flow::bucket_one(hash, mask), flow::bucket_two(hash, mask)];
    let mut free = None;
    for bucket in places {
        let mut vacant = 0;
        let mut first = None;
        for way in 0..WAYS {
            match to.load64(bucket, way as usize * 2)? {
                0 => {
                    vacant += 1;
                    first = first.or(Some(way));
                }
                // The same flow, whatever it is bound to now: the new program's word counts.
                other if other ^ (to.load64(bucket, way as usize * 2 + 1)? & 0xffff_ffff) == hash => {
                    return Ok(Placed::Present);
                }
                _ => {}
            }
        }
        // The emptier bucket of the two, as the programs choose.
        if let Some(way) = first
            && free.is_none_or(|(most, _, _)| vacant > most)
        {
            free = Some((vacant, bucket, way));
        }
    }
    let Some((_, bucket, way)) = free else { return Ok(Placed::Full) };
    to_cold.set(bucket * WAYS + way, cold)?;
    to.word64(bucket, way as usize * 2 + 1)?.store(word, Ordering::Release);
    // Last, and only if no program took the place since: until then the entry is free.
    let place = to.word64(bucket, way as usize * 2)?;
    let won = place.compare_exchange(0, seal, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    Ok(if won { Placed::Moved } else { Placed::Full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lbx_common::flow::{FlowEntry, TargetWord, seal};

    fn table(buckets: u32) -> (Array<Bucket>, Array<ColdFlow>) {
        (Array::anonymous("flows", buckets).unwrap(), Array::anonymous("cold", buckets * WAYS).unwrap())
    }

    /// Fills a table with flows whose hashes are spread like real ones.
    fn fill(flows: &Array<Bucket>, cold: &Array<ColdFlow>, n: u64) -> Vec<(u64, TargetWord)> {
        let mut made = Vec::new();
        for i in 0..n {
            let hash = lbx_common::key::rehash(i + 1, 3);
            let target = TargetWord::new(i as u16, 1, 2);
            let entry = FlowEntry {
                seal: seal(hash, target),
                target,
                epoch: i as u16,
                flags: flow::flags::CONFIRMED,
            };
            let words: [u64; 2] = bytemuck::cast(entry);
            let tuple = ColdFlow { born: i as u32, ..ColdFlow::default() };
            if let Placed::Moved =
                insert(flows, cold, flows.len() - 1, hash, words[0], words[1], &tuple).unwrap()
            {
                made.push((hash, target));
            }
        }
        made
    }

    fn find(flows: &Array<Bucket>, cold: &Array<ColdFlow>, hash: u64) -> Option<(FlowEntry, ColdFlow)> {
        let mask = flows.len() - 1;
        [flow::bucket_one(hash, mask), flow::bucket_two(hash, mask)].into_iter().find_map(|bucket| {
            let ways = flows.get(bucket).unwrap().ways;
            let way = ways.iter().position(|e| e.seal != 0 && e.seal ^ u64::from(e.target.0) == hash)?;
            Some((ways[way], cold.get(bucket * WAYS + way as u32).unwrap()))
        })
    }

    #[test]
    fn every_entry_is_found_in_a_larger_table_with_all_it_had() {
        let (from, from_cold) = table(256);
        let made = fill(&from, &from_cold, 600);
        assert!(made.len() > 590);
        let (to, to_cold) = table(1024);
        let carried = carry(&from, &from_cold, &to, &to_cold).unwrap();
        assert_eq!(carried, Carried { moved: made.len() as u64, lost: 0 });
        for (hash, target) in &made {
            let (entry, tuple) = find(&to, &to_cold, *hash).unwrap();
            assert_eq!(entry.target, *target);
            assert_eq!((tuple.born as u16, entry.epoch), (entry.epoch, target.target() as u16));
            assert_eq!(entry.flags, flow::flags::CONFIRMED);
        }
        // A second time finds all of them there.
        assert_eq!(carry(&from, &from_cold, &to, &to_cold).unwrap(), Carried::default());
    }

    #[test]
    fn a_smaller_table_takes_what_it_can_and_counts_the_rest() {
        let (from, from_cold) = table(256);
        let made = fill(&from, &from_cold, 600).len() as u64;
        let (to, to_cold) = table(64);
        let carried = carry(&from, &from_cold, &to, &to_cold).unwrap();
        assert_eq!(carried.moved + carried.lost, made);
        assert!(carried.moved > 200 && carried.moved <= 256);
    }

    #[test]
    fn torn_entries_are_left_behind() {
        let (from, from_cold) = table(256);
        fill(&from, &from_cold, 1);
        let bucket = (0..256).find(|b| from.load64(*b, 0).unwrap() != 0).unwrap();
        let seal = from.word64(bucket, 0).unwrap();
        seal.store(seal.load(Ordering::Relaxed) ^ (0xff << 43) ^ (1 << 30), Ordering::Relaxed);
        let (to, to_cold) = table(16);
        let carried = carry(&from, &from_cold, &to, &to_cold).unwrap();
        assert_eq!(carried.moved, 0);
    }

    #[test]
    fn secrets_differ() {
        let (a, b) = (random_secret().unwrap(), random_secret().unwrap());
        assert_ne!(a, b);
        assert!(a.iter().all(|word| *word != 0));
    }
}
