//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455 section 9.1).

/// One offer, or one accepted extension: a name and its parameters in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extension<'a> {
    pub(super) name: &'a str,
    pub(super) params: Vec<(&'a str, Option<&'a str>)>,
}

/// Reads a header value. The caller joins several headers of that name with commas first. `None` if the value breaks the grammar.
pub(super) fn parse(value: &str) -> Option<Vec<Extension<'_>>> {
    split(value, ',').filter(|one| !one.trim().is_empty()).map(parse_one).collect()
}

fn parse_one(value: &str) -> Option<Extension<'_>> {
    let mut parts = split(value, ';');
    let name = token(parts.next()?)?;
    let params = parts.map(parse_param).collect::<Option<_>>()?;
    Some(Extension { name, params })
}

fn parse_param(value: &str) -> Option<(&str, Option<&str>)> {
    let Some((name, value)) = value.split_once('=') else { return Some((token(value)?, None)) };
    let value = value.trim();
    // A quoted value must be a token without its quotes (section 9.1), so there is nothing to unescape.
    let value = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
    Some((token(name)?, Some(token(value)?)))
}

fn token(text: &str) -> Option<&str> {
    let text = text.trim();
    is_token(text).then_some(text)
}

/// Whether `text` is a token of HTTP (RFC 9110 section 5.6.2). Extensions, sub-protocols (RFC 6455 section 4.1) and the names of cookies
/// (RFC 6265 section 4.1.1) must be tokens.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
}

/// Splits at `at`, except inside quotes.
fn split(value: &str, at: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    value.split(move |c| {
        quoted ^= c == '"';
        c == at && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extensions as `name param param=value` words, separated by commas.
    fn check(value: &str, expected: Option<&str>) {
        let words = |one: &Extension<'_>| {
            let params =
                one.params.iter().map(|(name, value)| value.map_or(format!(" {name}"), |v| format!(" {name}={v}")));
            format!("{}{}", one.name, params.collect::<String>())
        };
        let found = parse(value).map(|all| all.iter().map(words).collect::<Vec<_>>().join(", "));
        assert_eq!(found.as_deref(), expected, "{value:?}");
    }

    #[test]
    fn extensions_follow_the_grammar_or_nothing_is_read() {
        check("", Some(""));
        check(" , ,", Some(""));
        check("a", Some("a"));
        check("a, b;x ;\ty=1", Some("a, b x y=1"));
        check("a; x=\"10\", b", Some("a x=10, b"));
        for broken in ["a; x=\"1,0\"", "a; x=\"10", "a; x=10\"", "a; x=", "a; =1", "a;", "a b", "a; é", ";"] {
            check(broken, None);
        }
    }
}
