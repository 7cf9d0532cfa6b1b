//! Errors of one client. They are counted and never stop a run.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::Serialize;

use super::BenchError;

/// Why a connection could not be opened, has ended, or had an error.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection could not be opened.
    Connect(io::Error),
    /// The TLS handshake failed.
    Tls(String),
    /// The WebSocket handshake was answered with another status than 101.
    Refused { status: u16, body: String },
    /// The server closed. Only WebSocket has a code.
    Closed { code: Option<u16>, reason: String },
    /// The connection broke.
    Lost(io::Error),
    /// The server's bytes break the protocol.
    Broken(String),
    /// Nothing came in time: no connection, no handshake, no answer.
    Timeout(&'static str),
    /// A reply to a POST had an error status.
    Status { status: u16, body: String },
    /// The router port refused the publisher or a message.
    Router(String),
}

impl Trouble {
    /// The name in reports, `kind`.
    const fn label(&self) -> &'static str {
        match self {
            Trouble::Connect(_) => "connect",
            Trouble::Tls(_) => "tls",
            Trouble::Refused { .. } => "refused",
            Trouble::Closed { .. } => "closed",
            Trouble::Lost(_) => "lost_connection",
            Trouble::Broken(_) => "protocol",
            Trouble::Timeout(_) => "timeout",
            Trouble::Status { .. } => "http_status",
            Trouble::Router(_) => "router",
        }
    }

    const fn code(&self) -> Option<u16> {
        match self {
            Trouble::Refused { status, .. } | Trouble::Status { status, .. } => Some(*status),
            Trouble::Closed { code, .. } => *code,
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Connect(error) => write!(f, "cannot connect: {error}"),
            Trouble::Tls(error) => write!(f, "TLS: {error}"),
            Trouble::Refused { status, body } if body.is_empty() => {
                write!(f, "the handshake was refused with {status}")
            }
            Trouble::Refused { status, body } => write!(f, "the handshake was refused with {status}: {body}"),
            Trouble::Closed { code: None, .. } => f.write_str("the server closed"),
            Trouble::Closed { code: Some(code), reason } => write!(f, "the server closed with {code} {reason}"),
            Trouble::Lost(error) => write!(f, "connection lost: {error}"),
            Trouble::Broken(text) | Trouble::Router(text) => f.write_str(text),
            Trouble::Timeout(what) => write!(f, "{what} in time"),
            Trouble::Status { status, body } => write!(f, "a request was answered with {status}: {body}"),
        }
    }
}

/// The number of errors of each kind.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<(&'static str, Option<u16>), (u64, String)>);

impl Troubles {
    pub(super) fn count(&mut self, trouble: &Trouble) {
        let entry = self.0.entry((trouble.label(), trouble.code())).or_insert_with(|| (0, trouble.to_string()));
        entry.0 += 1;
    }

    /// The text of the most frequent kind.
    pub(super) fn worst(&self) -> Option<&str> {
        self.0.values().max_by_key(|(count, _)| *count).map(|(_, example)| example.as_str())
    }

    /// The error of a run in which none of so many connections could be opened.
    pub(super) fn nothing_opened(&self, connections: usize, url: &str) -> BenchError {
        let why = self.worst().unwrap_or("interrupted");
        BenchError::Nobody(format!("none of {connections} connections to {url} could be opened: {why}"))
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    pub(super) fn list(&self) -> Vec<Counted> {
        let list = self.0.iter().map(|((kind, code), (count, example))| Counted {
            kind,
            code: *code,
            count: *count,
            example: example.trim().to_owned(),
        });
        list.collect()
    }
}

/// One kind, in a report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Counted {
    pub(super) kind: &'static str,
    /// The HTTP status or close code, if there was one.
    pub(super) code: Option<u16>,
    pub(super) count: u64,
    /// The text of the first error of this kind.
    pub(super) example: String,
}
