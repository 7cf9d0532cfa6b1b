//! What goes into an upstream and what comes out: the request, who takes its answer, and how it ended.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::proto::fastcgi::request::ParamBlocks;
use crate::proto::fastcgi::response::{ProtocolStatus, ResponseError};
use crate::proto::id::SessionId;

/// What kind of event a request carries; decides how it queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A new session. Has its own bounded queue, and a bounded share of the connections while messages wait.
    Connect,
    /// A frame. Waits in a bounded queue up to `queue_timeout`.
    Message,
    /// A session ended. Never shed and never late: it waits until a backend takes it.
    Close,
    /// Something about a channel. As `Close`; its submitter keeps few of them under way.
    Presence,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 4] = [Class::Connect, Class::Message, Class::Close, Class::Presence];

    /// Whether PHP is told for as long as it takes, since nobody else would ever tell it.
    pub const fn is_owed(self) -> bool {
        matches!(self, Class::Close | Class::Presence)
    }

    /// The word in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Class::Connect => "connect",
            Class::Message => "message",
            Class::Close => "close",
            Class::Presence => "presence",
        }
    }
}

/// Requests that share a bound: those of all sessions of one user, say, whose scripts wait for the same lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Tells it from other groups of the same upstream.
    pub key: u64,
    /// The most of its requests that hold a connection, or wait for one in line with everybody's, at a time. At least 1.
    pub limit: u32,
}

/// One event for PHP.
#[derive(Debug)]
pub struct Request<R> {
    /// How it queues.
    pub class: Class,
    /// With what others it shares a bound on connections.
    pub group: Option<Group>,
    /// What is the same for the app, for the session, for its profile, and this event's own. `CONTENT_LENGTH` must be among them and be
    /// exactly the length of `body`: php-fpm loses the connection's footing otherwise.
    pub params: ParamBlocks,
    /// Stdin, whole: php-fpm runs the script on half a body too.
    pub body: Bytes,
    /// The handler may see it twice: an ambiguous failure is tried once more.
    pub idempotent: bool,
    /// Who takes the answer.
    pub responder: R,
}

/// Who takes the answer to one request. Called from the task of the FastCGI connection, so nothing here may block.
///
/// Order of calls: any number of `stdout`, `stderr` and `pause`, then `end` once. `end` is called for every request
/// that was submitted, also for one that was never sent.
pub trait Responder: Send + 'static {
    /// A piece of stdout. Pieces come in order and are never empty.
    fn stdout(&mut self, data: &[u8]);

    /// No more bytes for now: what is held back to be sent together should leave.
    ///
    /// Called before php-fpm is waited for, never between the last piece and [`end`](Self::end) when both came in one
    /// read: a small reply is seen whole as `stdout`, `end`.
    fn pause(&mut self);

    /// A piece of stderr. Pieces come in order and are never empty; lines may be split between them.
    fn stderr(&mut self, data: &[u8]);

    /// Ready when more stdout may be given; `Pending` registers the waker, and php-fpm is not read from meanwhile.
    /// What one read brought is given whole (at most [`READ_BYTES`](super::READ_BYTES)) whatever this says in between.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when nobody wants the answer any more. A queued request is then dropped unsent, a running one aborted.
    /// `Pending` registers the waker.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// A script that has begun is waited for, even if nobody wants its answer any more: something is to happen after its end. Then only a request of
    /// which no byte was sent is cancelled.
    fn is_waited_for(&self) -> bool {
        false
    }

    /// How it ended.
    fn end(self, outcome: Outcome);

    /// Whose request this is, for log lines; of a session, or nobody's.
    fn label(&self) -> Option<SessionId>;
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// END_REQUEST came: the answer is complete.
    Done(Timing),
    /// The answer is missing or incomplete.
    Failed(Failure),
}

/// Where the time of a complete request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From `submit` until it was given to a connection.
    pub queued: Duration,
    /// From then until the first byte of the answer.
    pub first_byte: Duration,
    /// From then until END_REQUEST.
    pub total: Duration,
}

/// Why a request has no complete answer, sorted by who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    // We are full.
    /// As many requests of its class wait as may.
    QueueFull,
    /// It waited for `queue_timeout` and no connection became free.
    QueueTimeout,

    // The backend failed.
    /// It waited for `queue_timeout` and no backend could be connected to.
    Unavailable,
    /// The connection ended before END_REQUEST: the worker was killed or crashed, or php-fpm was stopped.
    BackendClosed {
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// Silence for `response_timeout`.
    ResponseTimeout {
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// No END_REQUEST within `request_timeout`.
    RequestTimeout {
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// Its client did not take the answer for `slow_reader_hold`, and others waited for the connection.
    SlowReader {
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// The backend sent what FastCGI does not allow.
    Protocol {
        /// What it was.
        error: ResponseError,
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// END_REQUEST said that the request was not run (FCGI_OVERLOADED and its kin).
    Refused(ProtocolStatus),

    // Nobody wants it.
    /// [`Responder::poll_cancelled`] was ready.
    Cancelled {
        /// Whether the script may have begun.
        sent: bool,
    },

    // We are leaving.
    /// The upstream was shut down before the request was sent.
    Stopping,
}

impl Failure {
    /// The word in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Failure::QueueFull => "queue_full",
            Failure::QueueTimeout => "queue_timeout",
            Failure::Unavailable => "unavailable",
            Failure::BackendClosed { .. } => "backend_closed",
            Failure::ResponseTimeout { .. } => "response_timeout",
            Failure::RequestTimeout { .. } => "request_timeout",
            Failure::SlowReader { .. } => "slow_reader",
            Failure::Protocol { .. } => "protocol",
            Failure::Refused(_) => "refused",
            Failure::Cancelled { .. } => "cancelled",
            Failure::Stopping => "stopping",
        }
    }

    /// Whether a script may have begun to run. When false the event certainly had no effect.
    pub const fn may_have_run(self) -> bool {
        match self {
            Failure::QueueFull
            | Failure::QueueTimeout
            | Failure::Unavailable
            | Failure::Stopping
            | Failure::Cancelled { sent: false } => false,
            // A number that the specification does not have says nothing.
            Failure::Refused(status) => matches!(status, ProtocolStatus::Unknown(_)),
            Failure::BackendClosed { .. }
            | Failure::ResponseTimeout { .. }
            | Failure::RequestTimeout { .. }
            | Failure::SlowReader { .. }
            | Failure::Protocol { .. }
            | Failure::Cancelled { sent: true } => true,
        }
    }

    /// The same failure, of a request that had been sent once before and was not answered. That attempt may have run, so a
    /// failure that says the opposite speaks for the last attempt only.
    pub(super) const fn of_one_that_was_sent(self) -> Self {
        if self.may_have_run() { self } else { Failure::BackendClosed { answered: false } }
    }

    /// Whether any byte of the answer was given to the responder.
    pub const fn answered(self) -> bool {
        match self {
            Failure::BackendClosed { answered }
            | Failure::ResponseTimeout { answered }
            | Failure::RequestTimeout { answered }
            | Failure::SlowReader { answered }
            | Failure::Protocol { answered, .. } => answered,
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::QueueFull => f.write_str("queue is full"),
            Failure::QueueTimeout => f.write_str("no connection became free within queue_timeout"),
            Failure::Unavailable => f.write_str("no backend could be connected to within queue_timeout"),
            Failure::BackendClosed { .. } => f.write_str("backend closed before END_REQUEST"),
            Failure::ResponseTimeout { .. } => f.write_str("script was silent for response_timeout"),
            Failure::RequestTimeout { .. } => f.write_str("script did not end within request_timeout"),
            Failure::SlowReader { .. } => {
                f.write_str("client did not take the answer for slow_reader_hold, and others waited for its connection")
            }
            Failure::Protocol { error, .. } => write!(f, "backend broke the protocol: {error}"),
            Failure::Refused(status) => write!(f, "backend refused the request: {status:?}"),
            Failure::Cancelled { .. } => f.write_str("nobody waits for the answer any more"),
            Failure::Stopping => f.write_str("upstream is shutting down"),
        }
    }
}

impl std::error::Error for Failure {}
