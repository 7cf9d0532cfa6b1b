//! Groups of sessions whose events share a limit on how many run at once: `concurrency_per` of an app.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use percent_encoding::percent_decode;

use crate::config::model::{App, ConcurrencyPer, GroupBy};
use crate::proto::fastcgi::params::EncodedParams;
use crate::upstream::Group;

/// A random hash key. Clients choose their cookies, and must not be able to find one that shares another user's limit.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The group of an event, or of a plain request. `own` are the params of the handshake, or of the request.
pub(super) fn of(app: &App, own: &EncodedParams, profile: &EncodedParams) -> Option<Group> {
    let ConcurrencyPer { by, limit } = app.concurrency_per.as_ref()?;
    let value = match by {
        GroupBy::Uid => Cow::Borrowed(value_of(profile, b"LONGWIRE_UID")?),
        GroupBy::Cookie(name) => cookie(value_of(own, b"HTTP_COOKIE")?, name)?,
    };
    Some(Group { key: KEYS.hash_one((app.name.as_str(), &value[..])), limit: *limit })
}

fn value_of<'p>(params: &'p EncodedParams, name: &[u8]) -> Option<&'p [u8]> {
    params.pairs().find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The value of a cookie as PHP reads it. So one user has one group, however the client spells the cookie. The
/// first of several equal names counts. `.`, ` ` and `[` in a name become `_` (`php_register_variable_ex`), and the
/// value is percent-decoded (`php_default_treat_data`). `None` for an empty value, which identifies no user.
fn cookie<'c>(header: &'c [u8], name: &str) -> Option<Cow<'c, [u8]>> {
    let is_it = |spelt: &[u8]| {
        spelt.len() == name.len() && spelt.iter().zip(name.bytes()).all(|(a, b)| mangled(*a) == mangled(b))
    };
    let value = header.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii_start();
        let (spelt, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        is_it(spelt).then(|| value[1..].trim_ascii_end())
    })?;
    (!value.is_empty()).then(|| percent_decode(value).into())
}

fn mangled(byte: u8) -> u8 {
    if matches!(byte, b'.' | b' ' | b'[') { b'_' } else { byte }
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
            ("PHPSESSID=%61b%63", Some("abc")),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(cookie(header.as_bytes(), "PHPSESSID").as_deref(), expected.map(str::as_bytes), "{header}");
        }
        for spelling in ["my_shop", "my.shop", "my shop", "my[shop"] {
            assert_eq!(cookie(format!("{spelling}=1").as_bytes(), "my_shop").as_deref(), Some(&b"1"[..]), "{spelling}");
        }
    }
}
