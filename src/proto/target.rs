//! The sessions that a command selects, and those that it leaves out.

use std::fmt;

use super::id::SessionId;
use super::name::{BadName, Name};

/// The sessions that a command applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These sessions. One that is named several times counts once.
    Sessions(Vec<SessionId>),
    /// All sessions bound to a uid.
    Uid(Name),
    /// The members of a channel.
    Channel(Name),
    /// Every session.
    All,
}

/// The form for the log: the one that `parse` reads, or the number of sessions if there are several.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Sessions(ids) => match ids.as_slice() {
                [id] => write!(f, "session:{id}"),
                ids => write!(f, "{} sessions", ids.len()),
            },
            Target::Uid(uid) => write!(f, "uid:{uid}"),
            Target::Channel(channel) => write!(f, "channel:{channel}"),
            Target::All => f.write_str("all"),
        }
    }
}

impl Target {
    pub fn session(id: SessionId) -> Self {
        Target::Sessions(vec![id])
    }

    /// Reads `session:SID`, `uid:U`, `channel:C` or `all`.
    ///
    /// # Errors
    ///
    /// The rule that `text` breaks.
    pub fn parse(text: &[u8]) -> Result<Self, BadTarget> {
        match split_word(text) {
            (b"all", None) => Ok(Target::All),
            (b"session", Some(id)) => {
                SessionId::from_bytes(id).map(Target::session).ok_or_else(|| BadTarget::Session(quoted(id)))
            }
            (b"uid", Some(uid)) => Name::new(uid).map(Target::Uid).map_err(BadTarget::Uid),
            (b"channel", Some(name)) => Name::new(name).map(Target::Channel).map_err(BadTarget::Channel),
            _ => Err(BadTarget::Unknown(quoted(text))),
        }
    }
}

/// Sessions that a command leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Except {
    /// These sessions.
    pub sessions: Vec<SessionId>,
    /// Sessions bound to one of these uids.
    pub uids: Vec<Name>,
    /// Sessions in one of these channels.
    pub channels: Vec<Name>,
}

impl Except {
    /// No session is left out.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.uids.is_empty() && self.channels.is_empty()
    }

    /// Also leaves out the sessions that `target` selects; `all` cannot be left out.
    ///
    /// # Errors
    ///
    /// If `target` is `all`.
    pub fn add(&mut self, target: Target) -> Result<(), BadTarget> {
        match target {
            Target::Sessions(sessions) => self.sessions.extend(sessions),
            Target::Uid(uid) => self.uids.push(uid),
            Target::Channel(channel) => self.channels.push(channel),
            Target::All => return Err(BadTarget::AllExcluded),
        }
        Ok(())
    }
}

/// The reason why a text selects no sessions. Shown as a clause for a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// Not a session id; the text as it is shown.
    Session(String),
    /// Not a uid.
    Uid(BadName),
    /// Not a channel's name.
    Channel(BadName),
    /// None of the four forms; the text as it is shown.
    Unknown(String),
    /// A command cannot leave out every session.
    AllExcluded,
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadTarget::Session(shown) => write!(f, "{shown} is not a session id"),
            BadTarget::Uid(error) => write!(f, "uid: {error}"),
            BadTarget::Channel(error) => write!(f, "channel: {error}"),
            BadTarget::Unknown(shown) => {
                write!(f, "{shown} is not a target: use session:ID, uid:NAME, channel:NAME or all")
            }
            BadTarget::AllExcluded => f.write_str("\"all\" cannot be excluded: name sessions, uids or channels"),
        }
    }
}

impl std::error::Error for BadTarget {}

/// The part before the first colon, and the part after it.
fn split_word(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|b| *b == b':') {
        Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    }
}

/// Input to show in an error message: escaped, and cut after 80 bytes.
fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN { format!("{shown:?}...") } else { format!("{shown:?}") }
}
