//! A token bucket: it allows a rate in the long run and a burst at once.
//!
//! Plain data. The time is an argument, in milliseconds since any fixed moment. A bucket without a rate limit is never
//! empty.

use crate::config::model::Rate;

/// Tokens are counted in thousandths: a rate of one token per second adds one thousandth each millisecond.
const TOKEN: i64 = 1000;

/// The tokens left of a rate. The level may be negative: then the debt is paid before there is a token again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct Bucket {
    level: i64,
    at: u64,
}

impl Bucket {
    /// A full bucket, as after a long silence.
    pub(in crate::session) fn full(rate: Rate, now: u64) -> Self {
        Self { level: most(rate), at: now }
    }

    /// Takes a token if there is one.
    pub(in crate::session) fn take(&mut self, rate: Rate, now: u64) -> bool {
        let has_one = self.wait(rate, now) == 0;
        if has_one {
            self.charge(rate, 1, now);
        }
        has_one
    }

    /// Takes `tokens`, even if there are not enough. Returns false if some were missing: those are owed.
    pub(in crate::session) fn charge(&mut self, rate: Rate, tokens: usize, now: u64) -> bool {
        if !rate.is_bound() {
            return true;
        }
        self.refill(rate, now);
        let taken = i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(TOKEN);
        self.level = self.level.saturating_sub(taken);
        self.level >= 0
    }

    /// Cancels the debt.
    pub(in crate::session) fn forgive(&mut self) {
        self.level = self.level.max(0);
    }

    /// Milliseconds until there is a token, or 0 if there is one.
    pub(in crate::session) fn wait(&mut self, rate: Rate, now: u64) -> u64 {
        if !rate.is_bound() {
            return 0;
        }
        self.refill(rate, now);
        u64::try_from(TOKEN.saturating_sub(self.level)).map_or(0, |missing| missing.div_ceil(rate.per_second))
    }

    fn refill(&mut self, rate: Rate, now: u64) {
        let come = now.saturating_sub(self.at).saturating_mul(rate.per_second);
        self.level = self.level.saturating_add_unsigned(come).min(most(rate));
        self.at = self.at.max(now);
    }
}

fn most(rate: Rate) -> i64 {
    i64::try_from(rate.burst).unwrap_or(i64::MAX).saturating_mul(TOKEN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { per_second: 4, burst: 2 };

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::full(RATE, 1000);
        let taken: Vec<bool> = [1000, 1000, 1000, 1249, 1250, 1251, 1500].map(|now| bucket.take(RATE, now)).into();
        assert_eq!(taken, [true, true, false, false, true, false, true]);
        assert_eq!(bucket.wait(RATE, 1600), 150);
    }

    #[test]
    fn what_is_taken_beyond_is_owed_until_it_is_paid_or_forgiven() {
        let mut bucket = Bucket::full(RATE, 0);
        assert!(bucket.charge(RATE, 2, 0));
        assert!(!bucket.charge(RATE, 2, 0));
        assert_eq!(bucket.wait(RATE, 0), 750);
        bucket.forgive();
        assert_eq!(bucket.wait(RATE, 0), 250);
    }

    #[test]
    fn no_rate_is_no_bound() {
        let none = Rate::default();
        let mut bucket = Bucket::full(none, 0);
        assert!(bucket.charge(none, usize::MAX, 0) && bucket.take(none, 0));
        assert_eq!(bucket.wait(none, 0), 0);
    }

    proptest! {
        /// However often tokens are taken, they are never more than the burst plus the rate for the time that has
        /// passed.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            per_second in 1_u64..10_000_000,
            burst in 1_u64..10_000_000,
            asked in proptest::collection::vec(0_u64..2000, 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let mut bucket = Bucket::full(rate, 7);
            let (mut now, mut taken) = (7, 0_u64);
            for pause in asked {
                now += pause;
                taken += u64::from(bucket.take(rate, now));
                prop_assert!(taken <= burst + (now - 7) * per_second / 1000);
            }
        }

        /// After exactly the returned wait there is a token, and not a millisecond earlier.
        #[test]
        fn the_wait_is_exact(per_second in 1_u64..5000, burst in 1_u64..50, owed in 0_usize..10_000) {
            let rate = Rate { per_second, burst };
            let mut bucket = Bucket::full(rate, 0);
            bucket.charge(rate, owed, 0);
            let wait = bucket.wait(rate, 0);
            prop_assert!(wait == 0 || !bucket.clone().take(rate, wait - 1));
            prop_assert!(bucket.take(rate, wait));
        }

        #[test]
        fn no_number_is_a_panic(per_second in any::<u64>(), burst in any::<u64>(), tokens in any::<usize>(), now in any::<u64>()) {
            let rate = Rate { per_second, burst };
            let mut bucket = Bucket::full(rate, 0);
            let _ = (bucket.charge(rate, tokens, now), bucket.charge(rate, tokens, 0), bucket.wait(rate, now));
        }
    }
}
