//! Arguments of commands and queries as text. A JSON object and a query string take the same arguments.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::command::{Action, AttributeKey, Command, Except, Expect, Name, Page, Target};
use super::framing::FrameKind;
use super::id::SessionId;

/// An argument that cannot be used; the text says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadArgument(String);

impl BadArgument {
    /// A sentence that names the argument.
    pub fn new(wrong: impl Into<String>) -> Self {
        Self(wrong.into())
    }
}

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadArgument {}

/// One argument as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Argument {
    /// From a query string or a raw body: bytes, which may spell a number.
    Raw(Bytes),
    /// A JSON string.
    Text(String),
    /// A JSON number, boolean, null or object.
    Other(Value),
    /// A JSON array, or a name that appears several times in a query string.
    List(Vec<Argument>),
}

impl Argument {
    fn from_json(value: Value) -> Self {
        match value {
            Value::String(text) => Argument::Text(text),
            Value::Array(values) => Argument::List(values.into_iter().map(Argument::from_json).collect()),
            other => Argument::Other(other),
        }
    }

    fn bytes(&self, name: &str) -> Result<Bytes, BadArgument> {
        match self {
            Argument::Raw(bytes) => Ok(bytes.clone()),
            Argument::Text(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Argument::Other(_) | Argument::List(_) => Err(BadArgument::new(format!("{name}: expected one string"))),
        }
    }

    fn number(&self, name: &str, max: u16) -> Result<u16, BadArgument> {
        let number = match self {
            Argument::Raw(bytes) => str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
            // JSON Schema counts 1000.0 as a whole number.
            Argument::Other(value) => value
                .as_f64()
                .filter(|number| number.fract() == 0.0 && *number >= 0.0 && *number <= f64::from(max))
                .map(|number| number as u16),
            Argument::Text(_) | Argument::List(_) => None,
        };
        let number = number.filter(|number| *number <= max);
        number.ok_or_else(|| BadArgument::new(format!("{name}: expected a whole number from 0 to {max}")))
    }
}

/// The arguments of one request. Each is taken once; [`Arguments::finish`] refuses any that are left.
#[derive(Debug, Default)]
pub struct Arguments(BTreeMap<String, Argument>);

impl Arguments {
    /// Reads a JSON object.
    pub fn of_json(body: &[u8]) -> Result<Self, BadArgument> {
        serde_json::from_slice(body)
            .map_err(|error| BadArgument::new(format!("the arguments are not a valid JSON object: {error}")))
    }

    /// Reads a query string, as forms and PHP's `http_build_query` write it.
    pub fn of_query(query: &str) -> Result<Self, BadArgument> {
        let mut arguments = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(decoded(name))
                .map_err(|_| BadArgument::new("the name of an argument is not UTF-8"))?;
            let value = Argument::Raw(decoded(value).into());
            match arguments.0.get_mut(&name) {
                None => {
                    arguments.0.insert(name, value);
                }
                Some(Argument::List(values)) => values.push(value),
                Some(first) => *first = Argument::List(vec![first.clone(), value]),
            }
        }
        Ok(arguments)
    }

    /// Adds an argument whose value is a raw body.
    pub fn put(&mut self, name: &str, value: Bytes) -> Result<(), BadArgument> {
        match self.0.insert(name.to_owned(), Argument::Raw(value)) {
            None => Ok(()),
            Some(_) => {
                Err(BadArgument::new(format!("{name}: is the request body here, so it cannot be in the query string")))
            }
        }
    }

    /// Refuses arguments that nothing has taken.
    pub fn finish(self) -> Result<(), BadArgument> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(BadArgument::new(format!("{name:?}: unknown argument"))),
        }
    }

    /// Whether an argument of this name is still there.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn take(&mut self, name: &str) -> Option<Argument> {
        self.0.remove(name)
    }

    fn need(&mut self, name: &str) -> Result<Argument, BadArgument> {
        self.take(name).ok_or_else(|| BadArgument::new(format!("{name}: is missing")))
    }

    /// A command for the sessions that the arguments `to` and `except` select.
    pub fn command(
        mut self,
        action: impl FnOnce(&mut Self) -> Result<Action, BadArgument>,
    ) -> Result<Command, BadArgument> {
        let to = match self.need("to")? {
            Argument::List(ids) => Target::Sessions(ids.iter().map(one_of_list).collect::<Result<_, _>>()?),
            one => target("to", &one)?,
        };
        let except = self.except()?;
        let action = action(&mut self)?;
        self.finish()?;
        Ok(Command { to, except, action })
    }

    fn except(&mut self) -> Result<Except, BadArgument> {
        let mut except = Except::default();
        let written = match self.take("except") {
            None => Vec::new(),
            Some(Argument::List(written)) => written,
            Some(one @ Argument::Raw(_)) => vec![one],
            Some(_) => return Err(BadArgument::new("except: expected a list of targets")),
        };
        for one in &written {
            except.add(target("except", one)?).map_err(|wrong| BadArgument::new(format!("except: {wrong}")))?;
        }
        Ok(except)
    }

    /// The name of a channel or a uid, which must be given.
    pub fn name(&mut self, name: &str) -> Result<Name, BadArgument> {
        let bytes = self.need(name)?.bytes(name)?;
        Name::new(&bytes).map_err(|error| BadArgument::new(format!("{name}: {error}")))
    }

    /// The same for an optional argument.
    pub fn name_if_any(&mut self, name: &str) -> Result<Option<Name>, BadArgument> {
        if self.has(name) { self.name(name).map(Some) } else { Ok(None) }
    }

    pub fn attribute_key(&mut self) -> Result<AttributeKey, BadArgument> {
        let bytes = self.need("key")?.bytes("key")?;
        AttributeKey::new(&bytes).ok_or_else(|| BadArgument::new("key: expected 1 to 64 characters of A-Z a-z 0-9 _"))
    }

    /// Optional bytes: as text in `name`, or as base64 in `name_base64`.
    pub fn blob(&mut self, name: &str) -> Result<Option<Bytes>, BadArgument> {
        let encoded_name = format!("{name}_base64");
        match (self.take(name), self.take(&encoded_name)) {
            (None, None) => Ok(None),
            (Some(plain), None) => plain.bytes(name).map(Some),
            (None, Some(encoded)) => match STANDARD.decode(encoded.bytes(&encoded_name)?) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) => Err(BadArgument::new(format!("{encoded_name}: is not base64: {error}"))),
            },
            (Some(_), Some(_)) => {
                Err(BadArgument::new(format!("{name} and {encoded_name} are both given: use one of them")))
            }
        }
    }

    /// The optional frame kind of a message.
    pub fn kind(&mut self) -> Result<Option<FrameKind>, BadArgument> {
        let Some(written) = self.take("kind") else { return Ok(None) };
        match &written.bytes("kind")?[..] {
            b"text" => Ok(Some(FrameKind::Text)),
            b"binary" => Ok(Some(FrameKind::Binary)),
            _ => Err(BadArgument::new("kind: expected \"text\" or \"binary\"")),
        }
    }

    /// An optional whole number.
    pub fn number(&mut self, name: &str, max: u16) -> Result<Option<u16>, BadArgument> {
        self.take(name).map(|written| written.number(name, max)).transpose()
    }

    /// Optional text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, BadArgument> {
        let Some(written) = self.take(name) else { return Ok(None) };
        let text = String::from_utf8(written.bytes(name)?.into());
        text.map(Some).map_err(|_| BadArgument::new(format!("{name}: is not UTF-8")))
    }

    /// The value that an attribute must have now; `null` means that it must not exist.
    pub fn expect(&mut self) -> Result<Expect, BadArgument> {
        match self.0.get("expect") {
            Some(Argument::Other(Value::Null)) => {
                self.take("expect");
                Ok(Expect::Absent)
            }
            _ => match self.blob("expect")? {
                None => Ok(Expect::Anything),
                Some(value) => Expect::value(value).map_err(|wrong| BadArgument::new(format!("expect: {wrong}"))),
            },
        }
    }

    /// The part of a list that the caller asks for.
    pub fn page(&mut self) -> Result<Page, BadArgument> {
        let after = self.take("after").map(|after| after.bytes("after")).transpose()?;
        let limit = self.number("limit", Page::MAX_LIMIT as u16)?;
        Ok(Page { after: after.map(|after| after[..].into()), limit: limit.map_or(Page::DEFAULT_LIMIT, usize::from) })
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// The members of a JSON object. A name that appears twice is refused, because RFC 8259 section 4 leaves its meaning open: of two
/// targets neither is clearly the right one.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Arguments;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Arguments, M::Error> {
        let mut arguments = BTreeMap::new();
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            if arguments.contains_key(&name) {
                return Err(M::Error::custom(format_args!("{name:?} appears twice")));
            }
            arguments.insert(name, Argument::from_json(value));
        }
        Ok(Arguments(arguments))
    }
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode(text.replace('+', " ").as_bytes()).collect()
}

fn target(name: &str, written: &Argument) -> Result<Target, BadArgument> {
    Target::parse(&written.bytes(name)?).map_err(|wrong| BadArgument::new(format!("{name}: {wrong}")))
}

/// A list may hold only sessions, as `session:ID` or as the bare id.
fn one_of_list(written: &Argument) -> Result<SessionId, BadArgument> {
    let bytes = written.bytes("to")?;
    let id = bytes.strip_prefix(b"session:").unwrap_or(&bytes);
    SessionId::from_bytes(id).ok_or_else(|| {
        BadArgument::new(format!(
            "to: a list holds session ids only, and {:?} is not one",
            String::from_utf8_lossy(&bytes)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Arguments {
        Arguments::of_json(json.as_bytes()).unwrap()
    }

    fn touch(arguments: Arguments) -> Result<Command, String> {
        arguments.command(|_| Ok(Action::Touch)).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn the_same_command_from_a_body_and_from_a_query_string() {
        let ids = "AAAN5xSVtmv6fR3q";
        for (json, query) in [
            (r#"{"to": "all"}"#.to_owned(), "to=all".to_owned()),
            (
                r#"{"to": "channel:a b", "except": ["uid:7", "uid:8"]}"#.to_owned(),
                "to=channel:a+b&except=uid:7&except=uid%3A8".to_owned(),
            ),
            (format!(r#"{{"to": ["{ids}", "session:{ids}"]}}"#), format!("to={ids}&to=session:{ids}")),
        ] {
            let from_query = Arguments::of_query(&query).unwrap();
            assert_eq!(touch(of(&json)).unwrap(), touch(from_query).unwrap(), "{query}");
        }
        let gbk = touch(Arguments::of_query("to=channel:%b7%bf").unwrap()).unwrap();
        assert_eq!(gbk.to, Target::Channel(Name::new(b"\xb7\xbf").unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, expected) in [
            (r#"{}"#, "to: is missing"),
            (r#"{"to": 7}"#, "to: expected one string"),
            (r#"{"to": ["x"]}"#, "to: a list holds session ids only, and \"x\" is not one"),
            (r#"{"to": "all", "except": "uid:7"}"#, "except: expected a list of targets"),
            (
                r#"{"to": "all", "except": ["all"]}"#,
                "except: \"all\" cannot be excluded: name sessions, uids or channels",
            ),
            (r#"{"to": "all", "tp": "x"}"#, "\"tp\": unknown argument"),
        ] {
            assert_eq!(touch(of(json)).unwrap_err(), expected, "{json}");
        }
        for (body, expected) in [
            (&b"[]"[..], "expected an object"),
            (b"{", "EOF while parsing"),
            (b"{} {}", "trailing characters"),
            (br#"{"to": "all", "to": "uid:7"}"#, "\"to\" appears twice"),
        ] {
            let wrong = Arguments::of_json(body).unwrap_err().to_string();
            assert!(wrong.contains(expected), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_numbers_in_json_and_digits_in_a_query_string() {
        assert_eq!(of(r#"{"limit": 3}"#).page().unwrap().limit, 3);
        assert_eq!(of(r#"{"limit": 3.0}"#).page().unwrap().limit, 3);
        assert_eq!(Arguments::of_query("limit=3").unwrap().page().unwrap().limit, 3);
        for wrong in [r#"{"limit": "3"}"#, r#"{"limit": 1001}"#, r#"{"limit": -1}"#, r#"{"limit": 1.5}"#] {
            assert!(of(wrong).page().is_err(), "{wrong}");
        }
    }

    #[test]
    fn expectations() {
        assert_eq!(of("{}").expect().unwrap(), Expect::Anything);
        assert_eq!(of(r#"{"expect": null}"#).expect().unwrap(), Expect::Absent);
        assert_eq!(of(r#"{"expect": "a"}"#).expect().unwrap(), Expect::Value("a".into()));
        assert_eq!(of(r#"{"expect_base64": "/w=="}"#).expect().unwrap(), Expect::Value(b"\xff"[..].into()));
        assert!(of(r#"{"expect_base64": "?"}"#).expect().is_err());
        let of_length = |len: usize| of(&format!(r#"{{"expect": "{}"}}"#, "x".repeat(len))).expect();
        assert!(of_length(Expect::MAX_BYTES).is_ok());
        let wrong = of_length(Expect::MAX_BYTES + 1).unwrap_err().to_string();
        assert_eq!(wrong, "expect: has 49153 bytes, but an attribute has at most 49152");
    }
}
