//! Several measurements of one thing.

/// Measurements, in any unit.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|&v| v < value);
        self.0.insert(at, value);
    }

    /// Number of them.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest; NaN of none, which no goal holds for.
    pub fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// The middle one, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.as_slice() {
            [] => f64::NAN,
            all if all.len() % 2 == 1 => all[middle],
            all => f64::midpoint(all[middle - 1], all[middle]),
        }
    }

    /// The one that a share (0 to 1) of them does not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut all: Vec<f64> = values.into_iter().collect();
        all.sort_by(f64::total_cmp);
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics_do_not_depend_on_order() {
        let mut samples = Samples::new();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0] {
            samples.push(value);
        }
        assert_eq!((samples.min(), samples.median(), samples.max()), (1.0, 3.0, 5.0));
        samples.push(100.0);
        assert_eq!((samples.median(), samples.len()), (3.5, 6));
        let quantiles = (samples.quantile(0.5), samples.quantile(0.99), samples.quantile(0.0));
        assert_eq!(quantiles, (3.0, 100.0, 1.0));
        let all: Samples = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!((all.min(), all.median()), (1.0, 2.0));
        assert!(Samples::new().median().is_nan() && Samples::new().quantile(0.5).is_nan());
    }
}
