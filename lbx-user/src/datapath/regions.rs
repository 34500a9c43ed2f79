//! Room for tables: first fit over what the services say is in use.
//!
//! Nothing else records what is in use, so nothing can disagree with it after a restart.

/// A run of elements: first, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First element.
    pub base: u32,
    /// Number of elements.
    pub len: u32,
}

impl Region {
    const fn end(self) -> u64 {
        self.base as u64 + self.len as u64
    }
}

/// The lowest place where `len` elements fit between the regions in use (in any order).
pub fn first_fit(used: &mut Vec<Region>, pool: u32, len: u32) -> Option<u32> {
    used.retain(|r| r.len > 0);
    used.sort_unstable_by_key(|r| r.base);
    let mut at = 0u64;
    for region in used.iter() {
        if u64::from(region.base) >= at + u64::from(len) {
            break;
        }
        at = at.max(region.end());
    }
    (at + u64::from(len) <= u64::from(pool)).then_some(at as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lowest_hole_that_is_large_enough_is_taken() {
        let mut used =
            vec![Region { base: 50, len: 10 }, Region { base: 0, len: 20 }, Region { base: 22, len: 8 }];
        assert_eq!(first_fit(&mut used, 100, 2), Some(20));
        assert_eq!(first_fit(&mut used, 100, 20), Some(30));
        assert_eq!(first_fit(&mut used, 100, 40), Some(60));
        assert_eq!(first_fit(&mut used, 100, 41), None);
        assert_eq!(first_fit(&mut Vec::new(), 5, 5), Some(0));
        assert_eq!(first_fit(&mut Vec::new(), 5, 6), None);
    }

    proptest! {
        #[test]
        fn regions_never_overlap(lens in proptest::collection::vec((1u32..50, any::<bool>()), 1..60)) {
            let mut used: Vec<Region> = Vec::new();
            for (len, free) in lens {
                if free && !used.is_empty() {
                    used.remove(len as usize % used.len());
                }
                if let Some(base) = first_fit(&mut used, 500, len) {
                    let new = Region { base, len };
                    prop_assert!(new.end() <= 500);
                    prop_assert!(used.iter().all(|r| r.end() <= base.into() || new.end() <= r.base.into()));
                    used.push(new);
                }
            }
        }
    }
}
