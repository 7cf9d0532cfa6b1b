//! The close of a session: its reason, code, text and detail.

use std::io;

use crate::proto::close::CloseReason;

/// The close of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The reason, a row of the table of close reasons.
    pub reason: CloseReason,
    /// The code for the peer, chosen by a handler, a command or the peer. `None` for the reason's own code.
    pub code: Option<u16>,
    /// The text for the peer. `None` for the reason's own text.
    pub text: Option<Box<str>>,
    /// More detail about the reason, for the log.
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

    /// Adds detail about the reason, for the log.
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

    /// Whether the client is gone or does not read, so that no reply and no close frame can reach it.
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
            // The errors of TCP_USER_TIMEOUT and of failed keepalive probes (tcp(7)).
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => CloseReason::PeerTimeout,
            _ => CloseReason::ClientGone,
        };
        Self::new(reason).because(error.to_string())
    }
}
