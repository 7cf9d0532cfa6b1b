//! Cookies: applies the `Set-Cookie` of an answer to the `Cookie` header of its session (RFC 6265).
//!
//! Plain data, with the time as an argument. For PHP a session acts like a browser: it keeps the cookies that answers set and sends them
//! back. It sends them only to the app that set them. So it ignores the attributes that restrict where a browser sends cookies (`Domain`,
//! `Secure`, `HttpOnly`, `SameSite`). TLS may end at a proxy before Longwire, and `Secure` cookies should work there too. A cookie whose
//! expiry has passed is deleted. A later expiry has no effect, because the handshake of a session is never repeated.

use std::fmt;

/// The most bytes of a cookie's name and value together (section 6.1).
pub const MAX_COOKIE_BYTES: usize = 4096;
/// Answers can add cookies until the header has this many (section 6.1).
pub const MAX_COOKIES: usize = 50;
/// Answers can add cookies until the header has this many bytes. The client's own header may be longer, up to `max_header_bytes`.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Why a `Set-Cookie` is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// There is no `=`, or no name before it.
    NoName,
    /// It has a control character.
    Control,
    /// Name and value have more than [`MAX_COOKIE_BYTES`].
    TooLong,
    /// The session would have more than [`MAX_COOKIES`].
    TooMany,
    /// The header would be longer than [`MAX_HEADER_BYTES`].
    Full,
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotKept::NoName => f.write_str("no name before \"=\""),
            NotKept::Control => f.write_str("it has a control character"),
            NotKept::TooLong => write!(f, "name and value have more than {MAX_COOKIE_BYTES} bytes"),
            NotKept::TooMany => write!(f, "the session already has {MAX_COOKIES} cookies"),
            NotKept::Full => write!(f, "the session's cookies would have more than {MAX_HEADER_BYTES} bytes"),
        }
    }
}

impl std::error::Error for NotKept {}

/// Applies the value of one `Set-Cookie` to the `Cookie` header of a session that was opened at `path`, and returns the new header. `now`
/// is in seconds since 1970.
///
/// `None`: the header does not change, because the cookie is not for that path or there was nothing to delete.
///
/// The new cookie is put first, because PHP takes the first of several cookies with the same name.
pub fn merge(header: &[u8], set_cookie: &[u8], path: &[u8], now: i64) -> Result<Option<Vec<u8>>, NotKept> {
    let mut parts = set_cookie.split(|b| *b == b';');
    let pair = parts.next().unwrap_or_default();
    let Some((name, value)) = split_at_equals(pair).filter(|(name, _)| !name.is_empty()) else {
        return Err(NotKept::NoName);
    };
    if set_cookie.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err(NotKept::Control);
    }
    if name.len() + value.len() > MAX_COOKIE_BYTES {
        return Err(NotKept::TooLong);
    }
    let attributes = Attributes::read(parts);
    if attributes.path.is_some_and(|of_cookie| !is_below(path, of_cookie)) {
        return Ok(None);
    }
    let others = || cookies(header).filter(|cookie| name_of(cookie) != name);
    let (before, kept) = (cookies(header).count(), others().count());
    if attributes.is_over(now) {
        // The other cookies stay exactly as they were written, so that a deletion never makes the header longer.
        let rest = || header.split(|b| *b == b';').filter(|cookie| name_of(cookie.trim_ascii()) != name);
        return Ok((kept < before).then(|| rest().collect::<Vec<_>>().join(&b';').trim_ascii().to_vec()));
    }
    if kept == before && kept >= MAX_COOKIES {
        return Err(NotKept::TooMany);
    }
    let cookie = [name, b"=", value].concat();
    let merged = std::iter::once(&cookie[..]).chain(others()).collect::<Vec<_>>().join(&b"; "[..]);
    if merged.len() > MAX_HEADER_BYTES && merged.len() > header.len() {
        return Err(NotKept::Full);
    }
    Ok(Some(merged))
}

/// The cookies of a header, in their order.
fn cookies(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|cookie| !cookie.is_empty())
}

fn name_of(cookie: &[u8]) -> &[u8] {
    split_at_equals(cookie).map_or(cookie, |(name, _)| name)
}

fn split_at_equals(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|b| *b == b'=')?;
    Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
}

/// Section 5.1.4. A cookie without a path gets the folder of the request's path, so it always matches and is not checked here.
fn is_below(path: &[u8], of_cookie: &[u8]) -> bool {
    path.strip_prefix(of_cookie)
        .is_some_and(|rest| rest.is_empty() || of_cookie.ends_with(b"/") || rest.starts_with(b"/"))
}

#[derive(Default)]
struct Attributes<'a> {
    path: Option<&'a [u8]>,
    /// Seconds, if the value is a number.
    max_age: Option<i64>,
    /// Seconds since 1970.
    expires: Option<i64>,
}

impl<'a> Attributes<'a> {
    /// Section 5.2: if an attribute appears several times, the last one counts. An invalid one is ignored.
    fn read(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut attributes = Self::default();
        for part in parts {
            let (name, value) = split_at_equals(part).unwrap_or((part.trim_ascii(), b""));
            if name.eq_ignore_ascii_case(b"Path") {
                attributes.path = Some(value).filter(|path| path.starts_with(b"/"));
            } else if name.eq_ignore_ascii_case(b"Max-Age") {
                attributes.max_age = max_age(value).or(attributes.max_age);
            } else if name.eq_ignore_ascii_case(b"Expires") {
                attributes.expires = date(value).or(attributes.expires);
            }
        }
        attributes
    }

    fn is_over(&self, now: i64) -> bool {
        match (self.max_age, self.expires) {
            (Some(seconds), _) => seconds <= 0,
            (None, Some(expires)) => expires <= now,
            (None, None) => false,
        }
    }
}

/// Section 5.2.2. Only the sign of the result matters, so a number with too many digits for an integer is accepted too.
fn max_age(value: &[u8]) -> Option<i64> {
    let (is_past, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| match digits.iter().any(|b| *b != b'0') {
        true if is_past => -1,
        true => 1,
        false => 0,
    })
}

/// A date in seconds since 1970. By section 5.1.1 its parts may be in any order, with any separators between them.
fn date(text: &[u8]) -> Option<i64> {
    let is_mark = |b: &u8| matches!(b, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e);
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_mark).filter(|token| !token.is_empty()) {
        if time.is_none()
            && let Some(found) = time_of(token)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some(found) = leading_number(token, 1, 2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = month_of(token)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some(found) = leading_number(token, 2, 4)
        {
            year = Some(found);
        }
    }
    let ((hour, minute, second), day, month) = (time?, day?, month?);
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let is_a_date = (1..=31).contains(&day) && year >= 1601 && hour <= 23 && minute <= 59 && second <= 59;
    is_a_date.then(|| days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn time_of(token: &[u8]) -> Option<(i64, i64, i64)> {
    let mut parts = token.splitn(3, |b| *b == b':');
    let whole = |part: &[u8]| leading_number(part, 1, 2).filter(|_| part.iter().all(u8::is_ascii_digit));
    Some((whole(parts.next()?)?, whole(parts.next()?)?, leading_number(parts.next()?, 1, 2)?))
}

/// The number at the beginning of a token, if its number of digits is allowed.
fn leading_number(token: &[u8], least: usize, most: usize) -> Option<i64> {
    let digits = token.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = token[..digits].iter().take(5).fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    (least..=most).contains(&digits).then_some(number)
}

fn month_of(token: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let name = token.first_chunk::<3>()?.to_ascii_lowercase();
    MONTHS.iter().position(|month| month[..] == name[..]).map(|index| index as i64 + 1)
}

/// In the Gregorian calendar. Years begin in March here, so that a leap day is the last day of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-01.
    const NOW: i64 = 1_767_225_600;

    fn merged(header: &str, set_cookie: &str) -> Result<Option<String>, NotKept> {
        let text = |header: Option<Vec<u8>>| header.map(|header| String::from_utf8(header).unwrap());
        merge(header.as_bytes(), set_cookie.as_bytes(), b"/shop/ws", NOW).map(text)
    }

    #[test]
    fn cookies_are_set_replaced_and_deleted() {
        let cases = [
            ("", "a=1", Some("a=1")),
            ("b=2", "a=1; path=/; HttpOnly; SameSite=Lax", Some("a=1; b=2")),
            ("a=0;b=2 ; a=9", "a=1", Some("a=1; b=2")),
            ("A=0", "a=1", Some("a=1; A=0")),
            ("", " a = x=y ; Path=/", Some("a=x=y")),
            ("", "a=\"quoted, with space\"", Some("a=\"quoted, with space\"")),
            ("a=0", "a=", Some("a=")),
            ("", "a=1; Secure; Domain=elsewhere.example", Some("a=1")),
            // The header that PHP's setcookie() and session_destroy() send to delete a cookie.
            ("a=0; b=2", "a=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0; path=/", Some("b=2")),
            ("a=0", "a=x; Max-Age=-1", Some("")),
            ("a=0", "a=x; Expires=Wed, 31 Dec 2025 23:59:59 GMT", Some("")),
            ("a=0", "a=x; Expires=Thu, 01 Jan 2026 00:00:01 GMT", Some("a=x")),
            ("a=0", "a=x; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", Some("a=x")),
            ("a=0", "a=x; Max-Age=soon; Expires=yesterday", Some("a=x")),
            ("b=2", "a=x; Max-Age=0", None),
        ];
        for (header, set_cookie, expected) in cases {
            assert_eq!(merged(header, set_cookie), Ok(expected.map(str::to_owned)), "{header:?} and {set_cookie:?}");
        }
    }

    #[test]
    fn a_cookie_of_another_path_is_not_the_sessions() {
        for path in ["/", "/shop", "/shop/", "/shop/ws", "", "shop"] {
            assert_eq!(merged("", &format!("a=1; Path={path}")), Ok(Some("a=1".to_owned())), "{path}");
        }
        for path in ["/sho", "/shop/w", "/shop/ws/", "/admin", "/Shop"] {
            assert_eq!(merged("a=0", &format!("a=1; Path={path}")), Ok(None), "{path}");
            assert_eq!(merged("a=0", &format!("a=1; Max-Age=0; Path={path}")), Ok(None), "{path}");
        }
    }

    #[test]
    fn cookies_are_bounded_and_what_is_none_is_refused() {
        for (set_cookie, expected) in [
            ("", NotKept::NoName),
            ("a", NotKept::NoName),
            ("=1", NotKept::NoName),
            (" =1; Path=/", NotKept::NoName),
            ("a=1\x002", NotKept::Control),
        ] {
            assert_eq!(merged("", set_cookie), Err(expected), "{set_cookie:?}");
        }
        let long = format!("a={}", "x".repeat(MAX_COOKIE_BYTES));
        assert_eq!(merged("", &long), Err(NotKept::TooLong));
        let many: Vec<String> = (0..MAX_COOKIES).map(|n| format!("c{n}=1")).collect();
        assert_eq!(merged(&many.join("; "), "a=1"), Err(NotKept::TooMany));
        assert!(merged(&many.join("; "), "c7=2").is_ok(), "it takes the place of another");
        let large = (0..4).map(|n| format!("c{n}={}", "x".repeat(4000))).collect::<Vec<_>>().join("; ");
        assert_eq!(merged(&large, &format!("a={}", "y".repeat(1000))), Err(NotKept::Full));
        assert!(merged(&large, "c0=small").is_ok());
        // A client's own header may be as long as its listener allows. A logout works there too, because it adds nothing.
        let crowd = format!("a=1{}", ";b".repeat(30_000));
        assert_eq!(merged(&crowd, "a=; Max-Age=0"), Ok(Some(crowd[4..].to_owned())));
    }

    #[test]
    fn dates_are_read_as_browsers_read_them() {
        let cases = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("29-Feb-2024 12:00:00", Some(1_709_208_000)),
            ("Wed, 09 Nov 2123 10:11:12 GMT", Some(4_855_198_272)),
            ("1 Jan 69 0:0:0", Some(3_124_224_000)),
            ("Thu, 32 Jan 2026 00:00:00 GMT", None),
            ("Thu, 01 Jan 2026 24:00:00 GMT", None),
            ("Thu, 01 Jan 1600 00:00:00 GMT", None),
            ("Jan 2026", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(date(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_no_cookie_makes_another(
            header in proptest::collection::vec(any::<u8>(), 0..80),
            set_cookie in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(Some(merged)) = merge(&header, &set_cookie, b"/", NOW) {
                prop_assert!(cookies(&merged).count() <= cookies(&header).count() + 1);
            }
        }
    }
}
