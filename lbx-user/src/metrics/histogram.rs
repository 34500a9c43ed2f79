//! Histograms that were counted elsewhere.

use std::fmt;

use lbx_common::response::{Response, upper};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Labels;

/// Response times, by target.
#[derive(Debug)]
pub(super) struct Responses(pub Vec<(Labels, Response)>);

impl Collector for Responses {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let help = "From a request to its first answer, of the flows that are timed";
        let mut family =
            encoder.encode_descriptor("target_response_seconds", help, None, MetricType::Histogram)?;
        for (labels, response) in &self.0 {
            let buckets = buckets(response);
            let mut one = family.encode_family(labels)?;
            one.encode_histogram::<Labels>(response.sum as f64 / 1e9, response.count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Upper bounds in seconds with what each bucket counts; the last has no bound.
fn buckets(response: &Response) -> Vec<(f64, u64)> {
    let last = response.buckets.len() - 1;
    let bound = |n: usize| if n == last { f64::INFINITY } else { upper(n) as f64 / 1e6 };
    response.buckets.iter().enumerate().map(|(n, count)| (bound(n), *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn buckets_add_up_in_seconds() {
        let mut response = Response { count: 5, sum: 3_000_000, ..Response::default() };
        (response.buckets[0], response.buckets[10], response.buckets[31]) = (1, 3, 1);
        let mut registry = Registry::with_prefix("lbx");
        registry.register_collector(Box::new(Responses(vec![(vec![("target", "a".to_owned())], response)])));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "lbx_target_response_seconds_count{target=\"a\"} 5",
            "lbx_target_response_seconds_sum{target=\"a\"} 0.003",
            "lbx_target_response_seconds_bucket{le=\"0.000001\",target=\"a\"} 1",
            "lbx_target_response_seconds_bucket{le=\"0.001024\",target=\"a\"} 4",
            "lbx_target_response_seconds_bucket{le=\"+Inf\",target=\"a\"} 5",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
