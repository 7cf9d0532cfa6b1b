//! Brings paths of URLs into one canonical form, so that equivalent paths are equal (RFC 3986 section 6.2.2).
//!
//! ```text
//!   /ws  //ws  /w%73  /%77s            one path, "/ws"
//!   /a%2Fb                             one segment with a slash in it, not two
//!   /a/../ws  /%2e%2e/ws  /100%        not valid
//! ```
//!
//! The content of a segment is never removed, so Longwire compares the same segments that a program behind it decodes. Dot segments are
//! refused, not removed. Clients remove them before they send a request, and a proxy that checked the path with dot segments would have
//! checked a different path.

use std::borrow::Cow;

/// The canonical form of a path, for all comparisons: one slash between segments, percent-encoding only for bytes that need it, with digits
/// in upper case.
///
/// `None` if it is not a valid path: it has no leading slash, it has a dot segment, or a percent sign is not followed by two hexadecimal
/// digits.
pub fn canonical(path: &str) -> Option<Cow<'_, str>> {
    let segments = path.strip_prefix('/')?.split('/');
    if !path.contains("//") && segments.clone().all(is_plain) {
        return Some(Cow::Borrowed(path));
    }
    let mut canonical = String::with_capacity(path.len());
    for segment in segments.clone().filter(|segment| !segment.is_empty()) {
        canonical.push('/');
        push_segment(segment, &mut canonical)?;
    }
    if path.ends_with('/') {
        canonical.push('/');
    }
    Some(Cow::Owned(canonical))
}

/// The same path without the slash at its end; the root path becomes empty.
pub fn without_last_slash(canonical: &str) -> &str {
    canonical.strip_suffix('/').unwrap_or(canonical)
}

/// Whether a segment is already in canonical form and not a dot segment.
fn is_plain(segment: &str) -> bool {
    segment != "." && segment != ".." && segment.bytes().all(stands_for_itself)
}

fn push_segment(segment: &str, canonical: &mut String) -> Option<()> {
    let begin = canonical.len();
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => byte,
        };
        match stands_for_itself(byte) {
            true => canonical.push(char::from(byte)),
            false => {
                let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
                canonical.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    let is_step = matches!(&canonical[begin..], "." | "..");
    (!is_step).then_some(())
}

/// Whether a byte needs no encoding: `pchar` of RFC 3986 section 3.3, except percent-encoded bytes.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_path_are_one_and_others_stay_apart() {
        for (path, expected) in [
            ("/ws", Some("/ws")),
            ("/", Some("/")),
            ("//", Some("/")),
            ("//ws", Some("/ws")),
            ("/a///b", Some("/a/b")),
            ("/ws/", Some("/ws/")),
            ("/ws//", Some("/ws/")),
            ("/w%73", Some("/ws")),
            ("/%77%73/", Some("/ws/")),
            ("/a%21b", Some("/a!b")),
            ("/a%2fb", Some("/a%2Fb")),
            ("/a%5cb", Some("/a%5Cb")),
            ("/a\\b", Some("/a%5Cb")),
            ("/a%00", Some("/a%00")),
            ("/a%2573", Some("/a%2573")),
            ("/gr%c3%bc%C3%9fe", Some("/gr%C3%BC%C3%9Fe")),
            ("/grüße", Some("/gr%C3%BC%C3%9Fe")),
            ("/a b", Some("/a%20b")),
            ("/...", Some("/...")),
            ("/.well-known", Some("/.well-known")),
            ("", None),
            ("*", None),
            ("ws", None),
            ("/.", None),
            ("/a/./b", None),
            ("/a/../b", None),
            ("/%2e%2E/b", None),
            ("/a/.%2e", None),
            ("/a%", None),
            ("/a%2", None),
            ("/a%zz", None),
            ("/%+1", None),
        ] {
            assert_eq!(canonical(path).as_deref(), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_one_spelling_that_is_its_own(path in "(/|%2[ef]|%[0-9a-f]{2}|\\.|\\PC){0,12}") {
            if let Some(first) = canonical(&path) {
                prop_assert!(first.starts_with('/') && !first.contains("//"), "{}", first);
                prop_assert!(!without_last_slash(&first).split('/').any(|segment| [".", ".."].contains(&segment)));
                let again = canonical(&first);
                prop_assert_eq!(again.as_deref(), Some(&*first));
            }
        }

        #[test]
        fn every_byte_may_be_encoded_but_the_slash_between_segments(segments in prop::collection::vec("[a-z0-9%é /]{1,6}", 1..4)) {
            let encode = |segment: &String| segment.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let mixed = |segment: &String| segment.replace('%', "%25").replace('/', "%2f").replace(' ', "%20");
            let joined = |spell: &dyn Fn(&String) -> String| -> String {
                segments.iter().map(|segment| format!("/{}", spell(segment))).collect()
            };
            let (encoded, mixed) = (joined(&encode), joined(&mixed));
            prop_assert_eq!(canonical(&encoded), canonical(&mixed));
        }
    }
}
