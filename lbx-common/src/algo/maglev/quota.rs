//! How many slots each weight gets.

/// Apportions `size` slots to weights: whole numbers that add up to `size`.
///
/// Largest remainder (Hamilton): every quota is its ideal share rounded down or up. No weight above 0 gets
/// nothing while there are slots enough: one whose ideal share is below one slot gets exactly one, and what
/// is left is apportioned to the others. With more weights than slots, the largest get one each. Ties go to
/// the earlier weight. All zero if there is no weight.
pub fn quotas(weights: &[u32], size: u32) -> Vec<u32> {
    let mut quotas = vec![0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
    if open.len() > size as usize {
        open.sort_by_key(|&i| core::cmp::Reverse(weights[i]));
        for &i in open.iter().take(size as usize) {
            quotas[i] = 1;
        }
        return quotas;
    }

    // Those below one slot get one; that lowers the shares of the rest, so look again until none is below.
    let mut slots = u64::from(size);
    let mut total: u64 = open.iter().map(|&i| u64::from(weights[i])).sum();
    loop {
        let small = |i: usize| u64::from(weights[i]) * slots < total;
        let (ones, rest): (Vec<_>, Vec<_>) = open.iter().partition(|&&i| small(i));
        if ones.is_empty() {
            break;
        }
        for i in ones {
            quotas[i] = 1;
            slots -= 1;
            total -= u64::from(weights[i]);
        }
        open = rest;
    }
    if open.is_empty() {
        return quotas;
    }

    let mut given = 0;
    for &i in &open {
        let quota = u64::from(weights[i]) * slots / total;
        quotas[i] = quota as u32;
        given += quota;
    }
    open.sort_by_key(|&i| core::cmp::Reverse(u64::from(weights[i]) * slots % total));
    for &i in open.iter().take((slots - given) as usize) {
        quotas[i] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_of_quotas() {
        let rows: &[(&[u32], u32, &[u32])] = &[
            (&[], 7, &[]),
            (&[0, 0], 7, &[0, 0]),
            (&[5], 7, &[7]),
            (&[1, 2, 3], 6, &[1, 2, 3]),
            (&[1, 1, 1], 7, &[3, 2, 2]),
            (&[1, 0, 1], 7, &[4, 0, 3]),
            (&[1, 1_000_000], 7, &[1, 6]),
            (&[1, 1, u32::MAX, u32::MAX], 7, &[1, 1, 3, 2]),
            (&[1, 3, 2], 2, &[0, 1, 1]),
            (&[1, 1, 1], 3, &[1, 1, 1]),
            (&[1, 1], 0, &[0, 0]),
        ];
        for (weights, size, expected) in rows {
            assert_eq!(&quotas(weights, *size), expected, "{weights:?} over {size}");
        }
    }

    proptest! {
        #[test]
        fn quotas_hold(
            weights in proptest::collection::vec(prop_oneof![3 => 0u32..1000, 1 => any::<u32>()], 1..150),
            size in prop_oneof![Just(65_537u32), 1u32..300],
        ) {
            let quotas = quotas(&weights, size);
            let positive = weights.iter().filter(|&&w| w > 0).count();
            let given: u64 = quotas.iter().map(|&q| u64::from(q)).sum();
            prop_assert_eq!(given, if positive == 0 { 0 } else { u64::from(size) });
            let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
            let small = weights.iter().any(|&w| w > 0 && u128::from(w) * u128::from(size) < total);
            for (&w, &q) in weights.iter().zip(&quotas) {
                prop_assert!(w > 0 || q == 0);
                prop_assert!(w == 0 || q > 0 || positive > size as usize);
                if !small {
                    // Within one slot of the ideal, both ways: |q * total - w * size| < total.
                    let ideal = u128::from(w) * u128::from(size);
                    prop_assert!((u128::from(q) * total).abs_diff(ideal) < total);
                }
            }
            // More weight never gets fewer slots, but for a tie in the remainders.
            for (&w, &q) in weights.iter().zip(&quotas) {
                for (&v, &p) in weights.iter().zip(&quotas) {
                    prop_assert!(w <= v || q >= p, "weights {} {} quotas {} {}", w, v, q, p);
                }
            }
        }
    }
}
