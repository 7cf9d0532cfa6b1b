//! Origins of the web pages that may connect: how they are written (`https://shop.example`, `https://*.shop.example`, `null`), and
//! which pages match them.

use std::fmt;

use toml::de::DeValue;

use super::item::Item;
use super::problem::{Report, did_you_mean};
use super::value::{Value, elements, read_str};

/// Origins of the pages that may open a session (RFC 6455 section 10.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Pages of the requested host, and clients that are not browsers.
    SameHost,
    /// Pages of these origins, and those of `SameHost`.
    List(Vec<OriginPattern>),
    /// All pages.
    Any,
}

/// A listed origin, in lower case and without the default port of its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// Exactly this origin: `https://shop.example`, `capacitor://localhost`, `file://`, `null`.
    Exact(Box<str>),
    /// Every host below a domain, at any depth, and not the domain itself: `https://*.shop.example`.
    Below {
        /// `https`
        scheme: Box<str>,
        /// `.shop.example`, with the port behind it if there is one.
        domain: Box<str>,
    },
}

/// Ports that browsers leave out of an origin (the URL standard's default ports).
const OWN_PORTS: [(&str, &str); 4] = [("https", "443"), ("http", "80"), ("wss", "443"), ("ws", "80")];

impl OriginPattern {
    /// Reads one; the error is the broken rule.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        if text == "null" || text == "file://" {
            return Ok(Self::Exact(text.into()));
        }
        if text.starts_with("file:") {
            return Err("pages from files all have the origin \"file://\" or \"null\"".into());
        }
        if text == "*" {
            return Err("to allow all pages, write origins = \"any\"".into());
        }
        let Some((scheme, authority)) = text.split_once("://") else {
            let hint = if is_domain(&text) { format!(", did you mean \"https://{text}\"?") } else { String::new() };
            return Err(format!("{RULE}{hint}"));
        };
        let is_scheme = |c: u8| c.is_ascii_alphanumeric() || b"+-.".contains(&c);
        let is_strange = |c: char| c.is_control() || "/?#@ ".contains(c);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) || authority.is_empty() || authority.contains(is_strange)
        {
            return Err(RULE.into());
        }
        let own_port = OWN_PORTS.iter().find(|(name, _)| *name == scheme);
        let authority =
            own_port.and_then(|(_, port)| authority.strip_suffix(port)?.strip_suffix(':')).unwrap_or(authority);
        let Some(below) = authority.strip_prefix('*') else {
            return match authority.contains('*') {
                true => Err(WILDCARD_RULE.into()),
                false => Ok(Self::Exact(format!("{scheme}://{authority}").into())),
            };
        };
        let (domain, port) = below.split_once(':').map_or((below, None), |(domain, port)| (domain, Some(port)));
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        match domain.strip_prefix('.') {
            // All hosts of a top-level domain cannot belong to one owner.
            Some(name) if is_port && is_domain(name) && (name.contains('.') || name == "localhost") => {
                Ok(Self::Below { scheme: scheme.into(), domain: below.into() })
            }
            _ => Err(WILDCARD_RULE.into()),
        }
    }

    /// Whether a page of this origin matches.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(origin),
            Self::Below { scheme, domain } => {
                let origin = origin.to_ascii_lowercase();
                let host = origin.split_once("://").filter(|(found, _)| **found == **scheme).map(|(_, host)| host);
                host.and_then(|host| host.strip_suffix(&**domain)).is_some_and(is_domain)
            }
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Below { scheme, domain } => write!(f, "{scheme}://*{domain}"),
        }
    }
}

const RULE: &str = "an origin is scheme://host or scheme://host:port, without a path";
const WILDCARD_RULE: &str = "\"*\" can only stand for all hosts below a domain, as in \"https://*.shop.example\"";

/// Whether this is a host name: labels separated by dots.
fn is_domain(name: &str) -> bool {
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    name.split('.').all(is_label)
}

impl Value for Origins {
    fn kind() -> String {
        "\"same-host\", \"any\" or a list such as [\"https://shop.example\", \"https://*.shop.example\", \"null\"]"
            .into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        if let DeValue::Array(_) = item.value {
            let mut origins = Vec::new();
            for element in elements(item, &Self::kind(), report)? {
                let text = read_str(&element, "an origin such as \"https://shop.example\"", report)?;
                match OriginPattern::parse(text) {
                    Ok(origin) => origins.push(origin),
                    Err(rule) => {
                        report.refuse(&element, rule);
                        return None;
                    }
                }
            }
            return Some(Self::List(origins));
        }
        match read_str(item, &Self::kind(), report)? {
            "same-host" => Some(Self::SameHost),
            "any" => Some(Self::Any),
            other => {
                let hint = match other {
                    "*" | "all" => ", did you mean \"any\"?".to_owned(),
                    "self" | "same-origin" | "same-site" => ", did you mean \"same-host\"?".to_owned(),
                    other => match OriginPattern::parse(other) {
                        Ok(origin) => format!(", did you mean [\"{origin}\"]?"),
                        Err(_) => did_you_mean(other, ["same-host", "any"]),
                    },
                };
                report.refuse(item, format!("must be {}{hint}", Self::kind()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_hosts_below_its_domain_and_for_nothing_else() {
        for (pattern, origin, expected) in [
            ("https://*.shop.example", "https://a.shop.example", true),
            ("https://*.shop.example", "https://a.b.shop.example", true),
            ("https://*.SHOP.example", "https://A.shop.Example", true),
            ("https://*.shop.example", "https://shop.example", false),
            ("https://*.shop.example", "https://.shop.example", false),
            ("https://*.shop.example", "https://evilshop.example", false),
            ("https://*.shop.example", "https://a.shop.example.evil.example", false),
            ("https://*.shop.example", "https://evil.example/.shop.example", false),
            ("https://*.shop.example", "https://evil.example:1.shop.example", false),
            ("https://*.shop.example", "https://a@b.shop.example", false),
            ("https://*.shop.example", "https://a..shop.example", false),
            ("https://*.shop.example", "http://a.shop.example", false),
            ("https://*.shop.example", "https://a.shop.example:8443", false),
            ("https://*.shop.example:8443", "https://a.shop.example:8443", true),
            ("https://*.shop.example:8443", "https://a.shop.example", false),
            ("https://*.shop.example:443", "https://a.shop.example", true),
            ("https://shop.example:443", "https://shop.example", true),
            ("http://shop.example:80", "http://shop.example", true),
            ("http://shop.example:443", "http://shop.example:443", true),
            ("https://shop.example", "https://a.shop.example", false),
            ("null", "null", true),
            ("null", "file://", false),
            ("file://", "file://", true),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("app://.", "app://.", true),
            ("http://[::1]:8080", "http://[::1]:8080", true),
        ] {
            let pattern = OriginPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(origin), expected, "{pattern} {origin}");
        }
    }

    #[test]
    fn other_wildcards_are_refused() {
        for (text, part) in [
            ("*", "origins = \"any\""),
            ("https://*", WILDCARD_RULE),
            ("https://*.example", WILDCARD_RULE),
            ("https://*.", WILDCARD_RULE),
            ("https://*shop.example", WILDCARD_RULE),
            ("https://a.*.shop.example", WILDCARD_RULE),
            ("https://*.shop.example:*", WILDCARD_RULE),
            ("https://*.*.example", WILDCARD_RULE),
            ("*.shop.example", RULE),
            ("shop.example", "did you mean \"https://shop.example\"?"),
            ("https://shop.example/", RULE),
            ("file:///srv/page.html", "\"file://\" or \"null\""),
            ("://shop.example", RULE),
        ] {
            let refusal = OriginPattern::parse(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }
}
