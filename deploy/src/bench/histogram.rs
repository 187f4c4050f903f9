//! A histogram of nanoseconds: counts in buckets less than one hundredth wide, so that it can go between processes as numbers.
//!
//! `hdrhistogram` was considered: it has more than is needed here, and its form between processes is binary.

use serde::{Deserialize, Serialize};

/// Bits of a value that a bucket keeps: 128 buckets for each doubling.
const KEPT: u32 = 7;
const PER_DOUBLING: u64 = 1 << KEPT;
/// Up to 2^44 ns, almost five hours.
const BUCKETS: usize = ((44 - KEPT as usize) + 1) << KEPT;

/// Counts by bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Vec<(usize, u64)>", into = "Vec<(usize, u64)>")]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl From<Vec<(usize, u64)>> for Histogram {
    fn from(pairs: Vec<(usize, u64)>) -> Self {
        let mut made = Self::default();
        for (bucket, count) in pairs {
            if let Some(there) = made.counts.get_mut(bucket) {
                *there += count;
                made.total += count;
            }
        }
        made
    }
}

impl From<Histogram> for Vec<(usize, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect()
    }
}

fn bucket_of(ns: u64) -> usize {
    let doublings = (63 - (ns | PER_DOUBLING).leading_zeros()) - KEPT;
    let bucket = (u64::from(doublings) << KEPT) + (ns >> doublings);
    usize::try_from(bucket).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The least value of a bucket, and how many it has.
fn range_of(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    let doublings = (bucket >> KEPT).saturating_sub(1);
    ((bucket - (doublings << KEPT)) << doublings, 1 << doublings)
}

/// The middle of a bucket.
fn value_of(bucket: usize) -> u64 {
    let (from, width) = range_of(bucket);
    from + width / 2
}

/// Where a bucket ends, and the next one begins.
fn end_of(bucket: usize) -> u64 {
    let (from, width) = range_of(bucket);
    from + width
}

impl Histogram {
    /// Counts one.
    pub(super) fn record(&mut self, ns: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(ns)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// How many were counted.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The value below which so many thousandths are, in microseconds. Of nothing it is not a number, which JSON has as
    /// null.
    pub(super) fn permille_us(&self, permille: u64) -> f64 {
        let rank = (self.total * permille).div_ceil(1_000).max(1);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return micros(value_of(bucket));
            }
        }
        f64::NAN
    }

    /// For programs: the end of each bucket that counts anything, in microseconds, and its count.
    pub(super) fn buckets_us(&self) -> Vec<(f64, u64)> {
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(bucket, count)| (micros(end_of(bucket)), *count)).collect()
    }

    /// For a picture: from the first bar that counts anything to the last, so many for each doubling (a power of two up to 128): where
    /// each ends, in microseconds, and its count.
    pub(super) fn bars(&self, for_each_doubling: usize) -> Vec<(f64, u64)> {
        let wide = (1 << KEPT) / for_each_doubling.clamp(1, 1 << KEPT);
        let sums = self.counts.chunks(wide).map(|counts| counts.iter().sum::<u64>()).enumerate();
        let bars: Vec<_> = sums.map(|(bar, count)| (micros(end_of(wide * (bar + 1) - 1)), count)).collect();
        let first = bars.iter().position(|(_, count)| *count > 0).unwrap_or(bars.len());
        let end = bars.iter().rposition(|(_, count)| *count > 0).map_or(first, |last| last + 1);
        bars.get(first..end).unwrap_or_default().to_vec()
    }
}

#[expect(clippy::cast_precision_loss, reason = "hours in nanoseconds are far below 2^53")]
fn micros(ns: u64) -> f64 {
    ns as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_within_a_hundredth() {
        for ns in [0, 1, 127, 128, 255, 256, 1_000, 123_456, 9_876_543_210] {
            let back = value_of(bucket_of(ns));
            assert!(back.abs_diff(ns) * 100 <= ns, "{ns} {back}");
            assert_eq!(bucket_of(end_of(bucket_of(ns))), bucket_of(ns) + 1, "{ns}");
        }
    }

    #[test]
    fn percentiles_survive_the_way_between_processes() {
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|us| histogram.record(us * 1_000));
        let text = serde_json::to_string(&histogram).unwrap();
        let back: Histogram = serde_json::from_str(&text).unwrap();
        assert_eq!(back.total(), 1_000);
        for (permille, us) in [(500, 500.0), (990, 990.0)] {
            let found = back.permille_us(permille);
            assert!((found - us).abs() < us / 100.0, "{found}");
        }
        assert!(Histogram::default().permille_us(500).is_nan());
        let buckets = back.buckets_us();
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 1_000);
        assert!(buckets.iter().all(|(end_us, _)| (1.0..1_010.0).contains(end_us)), "{buckets:?}");
        for for_each_doubling in [1, 2, 4, 8] {
            let bars = back.bars(for_each_doubling);
            assert_eq!(bars.iter().map(|(_, count)| count).sum::<u64>(), 1_000);
            assert!(bars.iter().all(|(end_us, _)| (1.0..1_100.0).contains(end_us)), "{bars:?}");
            assert!((10 * for_each_doubling..=11 * for_each_doubling).contains(&bars.len()), "{bars:?}");
        }
        assert!(Histogram::default().bars(8).is_empty());
    }
}
