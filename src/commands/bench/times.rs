//! Collects durations and gives their percentiles.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest duration that is recorded exactly; longer ones count as this. It is one hour.
const MAX_NANOS: u64 = 3_600_000_000_000;

/// A histogram of durations, to three significant digits.
pub struct Times(Histogram<u64>);

impl Times {
    /// An empty histogram.
    #[allow(clippy::new_without_default, reason = "it allocates what it needs for an hour")]
    #[must_use]
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_NANOS, 3).expect("the bounds are in order"))
    }

    /// Adds a duration; more than an hour counts as an hour.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// The percentiles of all durations so far.
    #[must_use]
    pub fn summary(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            count: self.0.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max() as f64 / 1000.0,
        }
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}

/// Percentiles, in microseconds; all are 0 if nothing was recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of recorded durations.
    pub count: u64,
    /// Half took no longer than this.
    pub p50_us: f64,
    /// 90 of 100 took no longer.
    pub p90_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// 999 of 1000 took no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}
