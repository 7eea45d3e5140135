//! A histogram of durations: 128 buckets for each power of two, so that a quantile is exact to below 1 %.

/// Counts of nanoseconds; printed in microseconds.
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: vec![0; 64 * 128],
            count: 0,
            sum: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub fn add(&mut self, nanoseconds: u64) {
        self.buckets[bucket_of(nanoseconds)] += 1;
        self.count += 1;
        self.sum += u128::from(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    /// The smallest duration that at least the share `quantile` of all values does not exceed, in µs.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let wanted = (self.count as f64 * quantile).ceil().max(1.0) as u64;
        let mut passed = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            passed += count;
            if count > 0 && passed >= wanted {
                return lowest_of(bucket) as f64 / 1000.0;
            }
        }
        0.0
    }

    /// A JSON object with `n`, `mean`, `p50` … `max` in µs.
    pub fn json(&self) -> String {
        let mean = if self.count > 0 {
            self.sum as f64 / self.count as f64 / 1000.0
        } else {
            0.0
        };
        format!(
            "{{\"n\":{},\"mean\":{mean:.2},\"p50\":{:.2},\"p90\":{:.2},\"p99\":{:.2},\"p999\":{:.2},\"max\":{:.2}}}",
            self.count,
            self.quantile(0.5),
            self.quantile(0.9),
            self.quantile(0.99),
            self.quantile(0.999),
            self.max as f64 / 1000.0
        )
    }
}

fn bucket_of(value: u64) -> usize {
    if value < 128 {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros() as usize;
    (exponent - 6) * 128 + ((value >> (exponent - 7)) as usize & 127)
}

fn lowest_of(bucket: usize) -> u64 {
    if bucket < 128 {
        return bucket as u64;
    }
    let exponent = bucket / 128 + 6;
    (1u64 << exponent) + (((bucket % 128) as u64) << (exponent - 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_bucket_that_begins_at_most_one_percent_below_it() {
        for value in [0, 1, 127, 128, 129, 255, 256, 1_000, 123_456_789, u64::MAX / 2] {
            let lowest = lowest_of(bucket_of(value));
            assert!(
                lowest <= value && value - lowest <= value / 128,
                "{value} -> {lowest}"
            );
        }
    }

    #[test]
    fn quantiles_count_from_below() {
        let mut histogram = Histogram::default();
        for value in 1..=100 {
            histogram.add(value * 1000);
        }
        assert!((histogram.quantile(0.5) - 50.0).abs() < 0.5);
        assert!((histogram.quantile(0.99) - 99.0).abs() < 1.0);
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }
}
