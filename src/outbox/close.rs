//! How and why a session is to end.

use std::io;

use crate::proto::close::CloseReason;

/// How and why a session is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The row of the table.
    pub reason: CloseReason,
    /// For the peer, instead of the reason's own code: a handler's or the peer's choice.
    pub code: Option<u16>,
    /// For the peer, instead of the reason's own text.
    pub text: Option<Box<str>>,
    /// For the log: the fact behind the reason.
    pub detail: Option<Box<str>>,
}

impl Close {
    /// A close with the code and text of its reason.
    pub fn new(reason: CloseReason) -> Self {
        Self { reason, code: None, text: None, detail: None }
    }

    /// A close that a handler asked for, with its own code and text.
    pub fn by_handler(code: u16, text: Box<str>) -> Self {
        Self { code: Some(code), text: Some(text), ..Self::new(CloseReason::HandlerClosed) }
    }

    /// A close that a command asked for, with its own code and text.
    pub fn by_command(code: u16, text: Box<str>) -> Self {
        Self { code: Some(code), text: Some(text), ..Self::new(CloseReason::RouterClosed) }
    }

    /// Adds the fact behind the reason, for the log.
    pub fn because(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The code that the peer and PHP see.
    pub fn code(&self) -> u16 {
        self.code.unwrap_or_else(|| self.reason.code())
    }

    /// The text that the peer sees.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_else(|| self.reason.text())
    }

    /// Nobody is there to read: no reply and no close frame can arrive any more.
    pub fn is_abrupt(&self) -> bool {
        matches!(self.reason, CloseReason::ClientGone | CloseReason::PeerTimeout | CloseReason::SlowReader)
    }
}

impl From<CloseReason> for Close {
    fn from(reason: CloseReason) -> Self {
        Self::new(reason)
    }
}

impl From<io::Error> for Close {
    fn from(error: io::Error) -> Self {
        let reason = match error.kind() {
            // What TCP_USER_TIMEOUT and failed keepalive probes give (tcp(7)).
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => CloseReason::PeerTimeout,
            _ => CloseReason::ClientGone,
        };
        Self::new(reason).because(error.to_string())
    }
}
