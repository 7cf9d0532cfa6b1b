//! The client that a proxy names: `X-Forwarded-For`, and `Forwarded` of RFC 7239.
//!
//! Each proxy appends an element with the address of its peer, so an element is only as trustworthy as the proxy that wrote it. Elements
//! are read from the right, while their writer is trusted. Anything to the left of the first untrusted address is never read: a client may
//! have written anything there, even half a quoted string.
//!
//! Leaves to `http` which proxies are trusted and how the result is used. (Addresses are those of `core::net`: values, not sockets.)

use core::net::{IpAddr, Ipv6Addr};
use std::fmt;

/// The header that a proxy writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `X-Forwarded-For: 192.0.2.43, 198.51.100.7`, with `X-Forwarded-Proto` beside it.
    XForwardedFor,
    /// `Forwarded: for=192.0.2.43;proto=https, for="[2001:db8::7]:4711"`
    Forwarded,
}

/// The client that a proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    /// Its port, if the proxy gives it.
    pub port: Option<u16>,
    /// Whether it used TLS, if the proxy says so.
    pub scheme: Option<Scheme>,
}

/// Whether a client used TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// Reads `http` or `https`, or `ws` or `wss` for WebSocket.
    pub fn read(text: &str) -> Option<Self> {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        match () {
            () if is("https") || is("wss") => Some(Scheme::Https),
            () if is("http") || is("ws") => Some(Scheme::Http),
            () => None,
        }
    }
}

/// Why a header does not give the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoClient {
    /// A trusted proxy has written an invalid element.
    Broken,
    /// A trusted proxy hides the client's address: `unknown`, or `_hidden`.
    Nameless,
}

impl fmt::Display for NoClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoClient::Broken => "malformed",
            NoClient::Nameless => "without an address",
        })
    }
}

/// The client in the value of a header, whose lines the caller joins with commas. It is the rightmost address that is not trusted, or the
/// leftmost one if all are. `None` if the value has no elements.
pub fn client(dialect: Dialect, value: &[u8], is_trusted: impl Fn(IpAddr) -> bool) -> Result<Option<Client>, NoClient> {
    let mut rest = value;
    let mut found = None;
    while let Some(element) = take_last_element(&mut rest, dialect) {
        let element = str::from_utf8(element).map_err(|_| NoClient::Broken)?.trim_matches([' ', '\t']);
        if element.is_empty() {
            // RFC 9110 section 5.6.1.2: empty elements of a list are ignored.
            continue;
        }
        let client = match dialect {
            Dialect::XForwardedFor => {
                read_node(element).map(|(address, port)| Client { address, port, scheme: None })?
            }
            Dialect::Forwarded => read_element(element)?,
        };
        found = Some(client);
        if !is_trusted(client.address) {
            break;
        }
    }
    Ok(found)
}

/// Takes the element after the last comma that is not inside quotes.
fn take_last_element<'a>(rest: &mut &'a [u8], dialect: Dialect) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let mut is_quoted = false;
    for at in (0..rest.len()).rev() {
        match rest[at] {
            b'"' if dialect == Dialect::Forwarded && !is_escaped(rest, at) => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                let element = &rest[at + 1..];
                *rest = &rest[..at];
                return Some(element);
            }
            _ => {}
        }
    }
    Some(std::mem::take(rest))
}

/// Whether an odd number of backslashes precedes the byte at `at`.
fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// `for=192.0.2.43;proto=https;by=203.0.113.60` (RFC 7239 section 4).
fn read_element(element: &str) -> Result<Client, NoClient> {
    let (mut node, mut scheme) = (None, None);
    for pair in split_unquoted(element) {
        let pair = pair.trim_matches([' ', '\t']);
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=').ok_or(NoClient::Broken)?;
        let value = unquote(value).ok_or(NoClient::Broken)?;
        let slot = match () {
            () if name.eq_ignore_ascii_case("for") => &mut node,
            () if name.eq_ignore_ascii_case("proto") => &mut scheme,
            () => continue,
        };
        if slot.replace(value).is_some() {
            return Err(NoClient::Broken);
        }
    }
    let (address, port) = read_node(&node.ok_or(NoClient::Nameless)?)?;
    Ok(Client { address, port, scheme: scheme.and_then(|scheme| Scheme::read(&scheme)) })
}

/// The pieces between semicolons, except semicolons inside quotes.
fn split_unquoted(element: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    element.split(move |c: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match c {
            '\\' if is_quoted => is_escaped = !was_escaped,
            '"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        c == ';' && !is_quoted
    })
}

/// A token is returned unchanged, a quoted string without its quotes and backslashes (RFC 9110 section 5.6.4).
fn unquote(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else {
        return (!value.is_empty() && !value.contains(['"', '\\', ' ', '\t'])).then(|| value.to_owned());
    };
    let mut text = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

/// `192.0.2.43`, `192.0.2.43:4711`, `2001:db8::7`, `[2001:db8::7]`, `[2001:db8::7]:4711` (RFC 7239 section 6, and other forms that proxies
/// write).
fn read_node(node: &str) -> Result<(IpAddr, Option<u16>), NoClient> {
    if let Ok(address) = node.parse::<IpAddr>() {
        return Ok((address.to_canonical(), None));
    }
    let (host, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or(NoClient::Broken)?;
            let port = match behind {
                "" => None,
                behind => Some(behind.strip_prefix(':').ok_or(NoClient::Broken)?),
            };
            (IpAddr::V6(host.parse::<Ipv6Addr>().map_err(|_| NoClient::Broken)?), port)
        }
        None => {
            let (host, port) = node.split_once(':').map_or((node, None), |(host, port)| (host, Some(port)));
            if host.eq_ignore_ascii_case("unknown") || is_obfuscated(host) {
                return Err(NoClient::Nameless);
            }
            (IpAddr::V4(host.parse().map_err(|_| NoClient::Broken)?), port)
        }
    };
    let port = match port {
        Some(port) if is_obfuscated(port) => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| NoClient::Broken)?)
        }
        Some(_) => return Err(NoClient::Broken),
        None => None,
    };
    Ok((host.to_canonical(), port))
}

/// RFC 7239 section 6.3.
fn is_obfuscated(text: &str) -> bool {
    text.strip_prefix('_').is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Dialect::{Forwarded, XForwardedFor};
    use super::*;

    /// 10.0.0.0/8 and fd00::/8 are trusted.
    fn is_trusted(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.octets()[0] == 0xfd,
        }
    }

    #[track_caller]
    fn check(dialect: Dialect, value: &str, expected: Result<Option<&str>, NoClient>) {
        let found = client(dialect, value.as_bytes(), is_trusted).map(|client| {
            client.map(|Client { address, port, scheme }| {
                let port = port.map_or(String::new(), |port| format!(" {port}"));
                let scheme = scheme.map_or(String::new(), |scheme| format!(" {scheme:?}"));
                format!("{address}{port}{scheme}")
            })
        });
        assert_eq!(found, expected.map(|text| text.map(str::to_owned)), "{value}");
    }

    #[test]
    fn the_rightmost_stranger_is_the_client() {
        for (value, expected) in [
            ("192.0.2.1", Ok(Some("192.0.2.1"))),
            ("192.0.2.1, 10.0.0.1,\t10.0.0.2", Ok(Some("192.0.2.1"))),
            ("1.1.1.1, 192.0.2.1, 10.0.0.1", Ok(Some("192.0.2.1"))),
            ("\"; DROP TABLE x, 192.0.2.1, 10.0.0.1", Ok(Some("192.0.2.1"))),
            ("10.0.0.3, 10.0.0.1", Ok(Some("10.0.0.3"))),
            ("192.0.2.1:4711", Ok(Some("192.0.2.1 4711"))),
            ("2001:db8::7", Ok(Some("2001:db8::7"))),
            ("[2001:db8::7]", Ok(Some("2001:db8::7"))),
            ("[2001:db8::7]:4711, fd00::1", Ok(Some("2001:db8::7 4711"))),
            ("::ffff:192.0.2.1", Ok(Some("192.0.2.1"))),
            ("192.0.2.1, ::ffff:10.0.0.1", Ok(Some("192.0.2.1"))),
            ("192.0.2.1,,", Ok(Some("192.0.2.1"))),
            ("", Ok(None)),
            (" , ", Ok(None)),
            ("unknown", Err(NoClient::Nameless)),
            ("192.0.2.1, _hidden", Err(NoClient::Nameless)),
            ("192.0.2.1, nonsense, 10.0.0.1", Err(NoClient::Broken)),
            ("192.0.2.1:", Err(NoClient::Broken)),
            ("192.0.2.1:65536", Err(NoClient::Broken)),
            ("192.0.2.1:+1", Err(NoClient::Broken)),
            ("192.0.2.1 x", Err(NoClient::Broken)),
            ("[192.0.2.1]", Err(NoClient::Broken)),
            ("[2001:db8::7", Err(NoClient::Broken)),
            ("[2001:db8::7]4711", Err(NoClient::Broken)),
            ("192.0.2.999", Err(NoClient::Broken)),
        ] {
            check(XForwardedFor, value, expected);
        }
    }

    #[test]
    fn elements_of_rfc_7239_are_read_from_the_right() {
        for (value, expected) in [
            ("for=192.0.2.43", Ok(Some("192.0.2.43"))),
            ("For=\"192.0.2.43:4711\";Proto=HTTPS;by=203.0.113.43", Ok(Some("192.0.2.43 4711 Https"))),
            ("for=\"[2001:db8:cafe::17]:4711\"", Ok(Some("2001:db8:cafe::17 4711"))),
            ("for=\"[2001:db8:cafe::17]\" ; proto=http", Ok(Some("2001:db8:cafe::17 Http"))),
            ("proto=https;for=192.0.2.1, for=10.0.0.1;proto=http", Ok(Some("192.0.2.1 Https"))),
            ("for=1.1.1.1;proto=https, for=192.0.2.1", Ok(Some("192.0.2.1"))),
            ("for=\"\\1\\92.0.2.1\"", Ok(Some("192.0.2.1"))),
            ("for=192.0.2.1;host=\"a,b;c\\\",d\", for=10.0.0.1", Ok(Some("192.0.2.1"))),
            // A quote that a client left open does not affect the elements of trusted proxies.
            ("for=\", for=192.0.2.1", Ok(Some("192.0.2.1"))),
            ("for=\"1.1.1.1, for=192.0.2.1;host=\"shop\"", Ok(Some("192.0.2.1"))),
            ("\\, for=192.0.2.1, for=10.0.0.1", Ok(Some("192.0.2.1"))),
            ("for=\"192.0.2.1:_port\"", Ok(Some("192.0.2.1"))),
            ("for=192.0.2.1;proto=gopher", Ok(Some("192.0.2.1"))),
            ("for=unknown", Err(NoClient::Nameless)),
            ("for=_hidden, for=10.0.0.1", Err(NoClient::Nameless)),
            ("for=\"_hidden:80\"", Err(NoClient::Nameless)),
            ("by=10.0.0.1;proto=https", Err(NoClient::Nameless)),
            ("for=192.0.2.1;for=192.0.2.2", Err(NoClient::Broken)),
            ("192.0.2.1", Err(NoClient::Broken)),
            ("for=", Err(NoClient::Broken)),
            ("for=\"192.0.2.1", Err(NoClient::Broken)),
            ("for=\"192.0.2.1\"x", Err(NoClient::Broken)),
            ("for=\"192.0.2.1\\", Err(NoClient::Broken)),
            ("for=192.0.2.1 x", Err(NoClient::Broken)),
            ("", Ok(None)),
        ] {
            check(Forwarded, value, expected);
        }
        assert_eq!(client(Forwarded, b"for=\xff", is_trusted), Err(NoClient::Broken));
    }

    fn some_node() -> impl Strategy<Value = (IpAddr, Option<u16>)> {
        let address = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_canonical())
        ];
        (address, proptest::option::of(any::<u16>()))
    }

    proptest! {
        #[test]
        fn what_a_trusted_proxy_adds_is_found_behind_whatever_a_client_sent(
            forged in any::<Vec<u8>>(), (address, port) in some_node(), hops in 0_u8..4, dialect in 0_u8..2,
        ) {
            prop_assume!(!is_trusted(address));
            let node = match (address, port) {
                (IpAddr::V4(address), None) => address.to_string(),
                (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
                (IpAddr::V6(address), None) => format!("[{address}]"),
                (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
            };
            let (dialect, before, after) = match dialect {
                0 => (XForwardedFor, "", ""),
                _ => (Forwarded, "for=\"", "\""),
            };
            let mut value = forged;
            value.extend(format!(", {before}{node}{after}").bytes());
            for hop in 0..hops {
                value.extend(format!(", {before}10.0.0.{hop}{after}").bytes());
            }
            let expected = Client { address, port, scheme: None };
            prop_assert_eq!(client(dialect, &value, is_trusted), Ok(Some(expected)));
        }

        #[test]
        fn random_bytes_are_never_a_panic(value in "[for=\",;:\\[\\]\\\\ 10._a]{0,40}", bytes in any::<Vec<u8>>()) {
            for dialect in [XForwardedFor, Forwarded] {
                let _ = client(dialect, value.as_bytes(), is_trusted);
                let _ = client(dialect, &bytes, is_trusted);
            }
        }
    }
}
