//! Values with several parts: lists of backends, routes, params, and the few keys that take a word or something longer.

use toml::de::DeValue;

use super::address::Address;
use super::aliases;
use super::item::Item;
use super::model::{ChannelRule, GroupBy, OnError, SlowReader};
use super::problem::{Place, Report, did_you_mean, nearest};
use super::schema::Entry;
use super::secret::SecretText;
use super::value::{Value, elements, integer, read_str};
use crate::proto::framing::is_token;
use crate::proto::path;

/// Further certificates of a listener and their keys, as paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificatePairs(pub Vec<(String, String)>);

impl Value for CertificatePairs {
    fn kind() -> String {
        "a list such as [{ cert = \"b.pem\", key = \"b.key\" }]".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let pairs = elements(item, &Self::kind(), report)?.into_iter().map(|pair| {
            let kind = "{ cert = \"b.pem\", key = \"b.key\" }";
            let [cert, key] = members(&pair, kind, ["cert", "key"], report)?;
            let cert = read_str(&cert, "a path", report).map(str::to_owned);
            let key = read_str(&key, "a path", report).map(str::to_owned);
            Some((cert?, key?))
        });
        pairs.collect::<Option<Vec<_>>>().map(Self)
    }
}

/// The members of an inline table that must have exactly these.
pub(super) fn members<'a, const N: usize>(
    item: &Item<'a>,
    kind: &str,
    names: [&str; N],
    report: &mut Report<'_>,
) -> Option<[Item<'a>; N]> {
    let entries = table_entries(item, kind, report)?;
    for (name, unknown) in entries.iter().filter(|(name, _)| !names.contains(name)) {
        report.refuse_key(unknown, format!("unknown key{}", did_you_mean(name, names)));
    }
    let found = names.map(|name| entries.iter().find(|(known, _)| *known == name).map(|(_, member)| member.clone()));
    let missing: Vec<&str> =
        names.into_iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(name, _)| name).collect();
    if !missing.is_empty() && entries.iter().all(|(name, _)| names.contains(name)) {
        report.refuse(item, format!("must be {kind}: {} missing", missing.join(" and ")));
    }
    let found: Option<Vec<Item<'a>>> = found.into_iter().collect();
    found.map(|found| found.try_into().unwrap_or_else(|_| unreachable!("as many as there are names")))
}

/// Paths and the names of the apps behind them.
#[derive(Clone, Debug)]
pub(super) struct Routes(pub Vec<(String, Entry<String>)>);

impl Value for Routes {
    fn kind() -> String {
        "a table of paths and app names: { \"/ws\" = \"chat\" }".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut routes: Vec<(String, Entry<String>)> = Vec::new();
        for (written, item) in table_entries(item, &Self::kind(), report)? {
            let path = match route_path(written) {
                Ok(path) if routes.iter().any(|(other, _)| *other == path) => {
                    report.refuse(&item, format!("the path {path:?} is in the table twice"));
                    continue;
                }
                Ok(path) => path,
                Err(rule) => {
                    report.refuse(&item, rule);
                    written.to_owned()
                }
            };
            let place = Some(report.place(&item.key, item.span.clone()));
            if let Some(value) = read_str(&item, "the name of an app", report) {
                routes.push((path, Entry { value: value.to_owned(), place }));
            }
        }
        if routes.is_empty() {
            report.refuse(item, "at least one path is needed");
            return None;
        }
        Some(Self(routes))
    }
}

/// A route in the form in which paths are compared: one spelling, without a slash at the end.
fn route_path(written: &str) -> Result<String, &'static str> {
    let (stem, is_prefix) = written.strip_suffix("/*").map_or((written, false), |stem| (stem, true));
    if !written.starts_with('/') || stem.contains(['*', '?', '#', ' ']) {
        return Err("a path begins with \"/\", has no query, and has \"*\" only at its end, as \"/*\"");
    }
    let stem = if stem.is_empty() { "/" } else { stem };
    let path = path::canonical(stem)
        .ok_or("a path has no dot segments, and each \"%\" is followed by two hexadecimal digits")?;
    let path = path::without_last_slash(&path);
    Ok(match (path, is_prefix) {
        (path, true) => format!("{path}/*"),
        ("", false) => "/".to_owned(),
        (path, false) => path.to_owned(),
    })
}

/// Patterns of channels, each with its rule for slow readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChannelRules(pub Vec<ChannelRule>);

impl Value for ChannelRules {
    fn kind() -> String {
        "a table of channels and rules: { \"prices/*\" = \"latest\" }".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut rules = Vec::new();
        for (written, item) in table_entries(item, &Self::kind(), report)? {
            let (pattern, is_prefix) = match written.strip_suffix('*') {
                Some(prefix) => (prefix, true),
                None => (written, false),
            };
            if pattern.contains('*') || !is_prefix && pattern.is_empty() {
                report.refuse(&item, "must be a channel's name, with \"*\" only as its last character");
            }
            rules.extend(SlowReader::read(&item, report).map(|rule| ChannelRule {
                pattern: pattern.into(),
                is_prefix,
                rule,
            }));
        }
        Some(Self(rules))
    }
}

/// Sub-protocols of WebSocket, each at most once, in the order written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subprotocols(pub Vec<String>);

impl Value for Subprotocols {
    fn kind() -> String {
        "a list of sub-protocols such as [\"mqtt\"]".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut protocols: Vec<String> = Vec::new();
        for element in elements(item, &Self::kind(), report)? {
            let text = read_str(&element, "a sub-protocol such as \"mqtt\"", report)?;
            if !is_token(text) {
                report.refuse(&element, "a sub-protocol is made of A-Z a-z 0-9 and !#$%&'*+-.^_`|~");
                return None;
            }
            if protocols.iter().any(|known| known == text) {
                report.refuse(&element, "is in the list twice");
                return None;
            }
            protocols.push(text.to_owned());
        }
        Some(Self(protocols))
    }
}

const ON_ERROR_ALIASES: &[(&str, &[&str])] =
    &[("ignore", &["continue", "none", "nothing", "log", "keep"]), ("close", &["disconnect", "kick", "drop", "end"])];

impl Value for OnError {
    fn kind() -> String {
        "\"ignore\", \"close\" or { send = \"text\" }".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let rule = || format!("must be {}", Self::kind());
        match item.value {
            DeValue::String(word) if word == "ignore" => Some(Self::Ignore),
            DeValue::String(word) if word == "close" => Some(Self::Close),
            DeValue::String(word) => {
                let hint = match aliases::word(word, ON_ERROR_ALIASES) {
                    Some(word) => format!(", did you mean \"{word}\"?"),
                    None => did_you_mean(word, ["ignore", "close"]),
                };
                report.refuse(item, format!("{}{hint}", rule()));
                None
            }
            DeValue::Table(_) => {
                let entries = table_entries(item, &Self::kind(), report)?;
                let [("send", text)] = entries.as_slice() else {
                    report.refuse(item, rule());
                    return None;
                };
                String::read(text, report).map(Self::Send)
            }
            _ => {
                report.wrong_type(item, &Self::kind());
                None
            }
        }
    }
}

impl Value for GroupBy {
    fn kind() -> String {
        "\"uid\" or \"cookie:NAME\"".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        match read_str(item, &Self::kind(), report)? {
            "uid" => Some(Self::Uid),
            other => {
                let name = other.strip_prefix("cookie:").filter(|name| is_token(name));
                if name.is_none() {
                    report.refuse(item, format!("must be {}", Self::kind()));
                }
                name.map(|name| Self::Cookie(name.to_owned()))
            }
        }
    }
}

/// Constant params; the values may refer to secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Params(pub Vec<(String, SecretText, Place)>);

/// Params that [`crate::config::model::App::params`] must not replace. They belong to the contract; replaced, they would tell
/// PHP something false.
const RESERVED_PARAMS: [&str; 18] = [
    "SESSIONID",
    "EVENT",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SERVER_ADDR",
    "SERVER_PORT",
    "HTTPS",
    "REQUEST_METHOD",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "DOCUMENT_ROOT",
    "REQUEST_URI",
    "QUERY_STRING",
    "SERVER_PROTOCOL",
    "GATEWAY_INTERFACE",
    "SERVER_SOFTWARE",
];

impl Value for Params {
    const IS_SECRET: bool = true;

    fn kind() -> String {
        "a table of names and strings: { SHOP = \"7\", API_KEY = \"env:API_KEY\" }".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut params = Vec::new();
        for (name, item) in table_entries(item, &Self::kind(), report)? {
            if !is_param_name(name) {
                report.refuse(&item, "a param's name is made of A-Z a-z 0-9 _ and does not begin with a digit");
            } else if RESERVED_PARAMS.contains(&name) || name.starts_with("LONGWIRE_") {
                report.refuse(&item, "this param is set by longwire itself");
            }
            if let Some(value) = SecretText::read(&item, report) {
                params.push((name.to_owned(), value, report.place_of(&item)));
            }
        }
        Some(Self(params))
    }
}

/// Whether `name` can be the name of a param, or the beginning of one.
pub(super) fn is_param_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 127
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Addresses with weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backends(pub Vec<WrittenBackend>);

/// One address with its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenBackend {
    pub address: Address,
    pub weight: u32,
    pub place: Place,
}

/// Weights compare backends. With a larger ratio than this, the light backend is not needed at all.
const HEAVIEST: i128 = 1000;

impl Value for Backends {
    fn kind() -> String {
        "a list of addresses: [\"unix:/run/php/php8.2-fpm.sock\"] or [{ address = \"10.0.0.7:9000\", weight = 2 }]"
            .into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let elements = elements(item, &Self::kind(), report)?;
        if elements.is_empty() {
            report.refuse(item, "at least one address is needed");
            return None;
        }
        let backends: Vec<_> = elements.iter().map(|element| WrittenBackend::read(element, report)).collect();
        backends.into_iter().collect::<Option<_>>().map(Self)
    }
}

impl WrittenBackend {
    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let place = report.place(&item.key, item.span.clone());
        let Some(entries) = item.entries() else {
            return Address::read(item, report).map(|address| Self { address, weight: 1, place });
        };
        let (mut address, mut weight) = (None, Some(1));
        for (name, item) in &entries {
            match *name {
                "address" => address = Address::read(item, report),
                "weight" => match integer(item.value) {
                    Some(number @ 1..=HEAVIEST) => weight = Some(number as u32),
                    _ => {
                        report.refuse(item, format!("must be an integer from 1 to {HEAVIEST}"));
                        weight = None;
                    }
                },
                other => {
                    let hint = did_you_mean(other, ["address", "weight"]);
                    report.refuse_key(item, format!("unknown key{hint}"));
                }
            }
        }
        if !entries.iter().any(|(name, _)| nearest(name, ["address"]).is_some()) {
            report.error(&place, "missing address");
        }
        Some(Self { address: address?, weight: weight?, place })
    }
}

/// `php_admin_value` lines of an embedded pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ini(pub Vec<(String, String)>);

// Values may contain a password, for example session.save_path.
impl Value for Ini {
    const IS_SECRET: bool = true;

    fn kind() -> String {
        "a table of php.ini keys: { memory_limit = \"256M\" }".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut lines = Vec::new();
        for (name, item) in table_entries(item, &Self::kind(), report)? {
            if name.is_empty() || !name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c)) {
                report.refuse(&item, "a php.ini key is made of A-Z a-z 0-9 . _ -");
            }
            let value = match item.value {
                DeValue::Boolean(on) => Some(if *on { "on".to_owned() } else { "off".to_owned() }),
                DeValue::Integer(_) => integer(item.value).map(|number| number.to_string()),
                // A line break would begin another line in php-fpm's configuration.
                DeValue::String(text) if text.contains(['\n', '\r', '\0']) => {
                    report.refuse(&item, "must be one line");
                    None
                }
                DeValue::String(text) => Some(text.clone().into_owned()),
                _ => {
                    report.wrong_type(&item, "a string, an integer or a boolean");
                    None
                }
            };
            lines.extend(value.map(|value| (name.to_owned(), value)));
        }
        Some(Self(lines))
    }
}

pub(super) fn table_entries<'a>(
    item: &Item<'a>,
    kind: &str,
    report: &mut Report<'_>,
) -> Option<Vec<(&'a str, Item<'a>)>> {
    let entries = item.entries();
    if entries.is_none() {
        report.wrong_type(item, kind);
    }
    entries
}
