//! Shared parts of the resolving: references between tables, addresses, rates, secrets.

use std::path::Path;

use crate::config::Secret;
use crate::config::address::Address;
use crate::config::model::{Bind, Rate};
use crate::config::problem::{Place, Report, did_you_mean};
use crate::config::schema::Entry;
use crate::config::secret::SecretText;
use crate::config::written;

/// Resolved values by name. `None` if the value has errors, so that a reference to it is not reported as another error.
pub(super) type Resolved<T> = Vec<(String, Option<T>)>;

/// Finds the target of a reference. `what` is the table of the names: `apps`.
pub(super) fn refer<'t, T>(
    entry: &Entry<String>,
    known: &'t Resolved<T>,
    what: &str,
    report: &mut Report<'_>,
) -> Option<&'t T> {
    match known.iter().find(|(name, _)| *name == entry.value) {
        Some((_, target)) => target.as_ref(),
        None => {
            if let Some(place) = &entry.place {
                let hint = did_you_mean(&entry.value, known.iter().map(|(name, _)| name.as_str()));
                report.error(place, format!("there is no [{what}.{}]{hint}", entry.value));
            }
            None
        }
    }
}

/// The address to use.
pub(super) fn resolve_address(
    address: &Address,
    place: Option<&Place>,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<Bind> {
    match (address.resolve(base), place) {
        (Ok(bind), _) => Some(bind),
        (Err(rule), Some(place)) => {
            report.error(place, rule);
            None
        }
        (Err(rule), None) => unreachable!("a default address is a number: {rule}"),
    }
}

/// A rate. Unless the operator sets one, its burst is the amount of one second. `key` is the key of the rate.
pub(super) fn resolve_rate(
    key: &str,
    rate: &Entry<written::PerSecond>,
    burst: &Option<Entry<written::Burst>>,
    report: &mut Report<'_>,
) -> Rate {
    let per_second = rate.value.0;
    check_burst(key, per_second, burst.as_ref().and_then(|burst| burst.place.as_ref()), report);
    Rate { per_second, burst: burst.as_ref().map_or(per_second, |burst| burst.value.0) }
}

/// Warns of a burst whose rate has no limit.
pub(super) fn check_burst(key: &str, per_second: u64, burst: Option<&Place>, report: &mut Report<'_>) {
    if let Some(place) = burst.filter(|_| per_second == 0) {
        report.warn(place, format!("has no effect while {key} is 0"));
    }
}

/// A text that may be stored elsewhere.
pub(super) fn resolve_secret_text(
    text: &SecretText,
    place: Option<&Place>,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let place = place?;
    match Secret::read(text, base) {
        Ok((secret, warning)) => {
            if let Some(warning) = warning {
                report.warn(place, warning);
            }
            Some(secret)
        }
        Err(rule) => {
            report.error(place, rule);
            None
        }
    }
}

/// Processors that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
