//! Sessions whose events share a bound on how many of them run at once: `concurrency_per` of an app.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use crate::config::model::{App, ConcurrencyPer, GroupBy};
use crate::proto::fastcgi::params::EncodedParams;
use crate::upstream::Group;

/// Clients choose their cookies, and must not be able to choose ones that share another user's bound.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The group of an event, or of a plain request. `own` are the params of the handshake, or of the request.
pub(super) fn of(app: &App, own: &EncodedParams, profile: &EncodedParams) -> Option<Group> {
    let ConcurrencyPer { by, limit } = app.concurrency_per.as_ref()?;
    let value = match by {
        GroupBy::Uid => value_of(profile, b"LONGWIRE_UID")?,
        GroupBy::Cookie(name) => cookie(value_of(own, b"HTTP_COOKIE")?, name)?,
    };
    Some(Group { key: KEYS.hash_one((app.name.as_str(), value)), limit: *limit })
}

fn value_of<'p>(params: &'p EncodedParams, name: &[u8]) -> Option<&'p [u8]> {
    params.pairs().find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The value of a cookie; of equal names the first, as PHP takes it. `None` for an empty value: that is nobody's.
fn cookie<'c>(header: &'c [u8], name: &str) -> Option<&'c [u8]> {
    let value = header.split(|byte| *byte == b';').find_map(|pair| {
        let value = pair.trim_ascii_start().strip_prefix(name.as_bytes())?;
        Some(value.strip_prefix(b"=")?.trim_ascii_end())
    })?;
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_and_the_first_counts() {
        let cases = [
            ("PHPSESSID=abc", Some("abc")),
            ("a=1; PHPSESSID=abc ; b=2", Some("abc")),
            ("a=1;PHPSESSID=abc;PHPSESSID=def", Some("abc")),
            ("XPHPSESSID=abc", None),
            ("PHPSESSIDX=abc", None),
            ("PHPSESSID", None),
            ("PHPSESSID=", None),
            ("a=PHPSESSID=abc", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(cookie(header.as_bytes(), "PHPSESSID"), expected.map(str::as_bytes), "{header}");
        }
    }
}
