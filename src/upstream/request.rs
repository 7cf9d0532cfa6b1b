//! The interface of an upstream: the request, the responder that takes its answer, and the outcome.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::proto::fastcgi::request::ParamBlocks;
use crate::proto::fastcgi::response::{ProtocolStatus, ResponseError};
use crate::proto::id::SessionId;

/// The kind of event that a request carries. It decides how the request queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A new session. Has its own bounded queue, and a bounded share of the connections while messages wait.
    Connect,
    /// A frame. Waits in a bounded queue up to `queue_timeout`.
    Message,
    /// The end of a session. Never refused and never expired: it waits until a backend takes it.
    Close,
    /// A join, leave or other event of a channel. Queues like `Close`; its submitter has only a few of them under way.
    Presence,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 4] = [Class::Connect, Class::Message, Class::Close, Class::Presence];

    /// Whether the event waits as long as it takes, because no later event would tell PHP the same.
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

/// Requests that share a limit, for example those of all sessions of one user, whose scripts wait for the same lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Different for each group of an upstream.
    pub key: u64,
    /// How many of its requests may hold a connection, or wait in line for one, at the same time. At least 1.
    pub limit: u32,
}

/// One event for PHP.
#[derive(Debug)]
pub struct Request<R> {
    /// It decides how the request queues.
    pub class: Class,
    /// The group with which it shares a limit on connections.
    pub group: Option<Group>,
    /// Params of the app, of the session, of its profile, and of this event. `CONTENT_LENGTH` must be among them and must be
    /// exactly the length of `body`: otherwise php-fpm loses track of where the next request begins.
    pub params: ParamBlocks,
    /// Stdin. It must be complete: php-fpm would run the script on half a body too.
    pub body: Bytes,
    /// The handler may see the event twice: after an ambiguous failure it is sent once more.
    pub idempotent: bool,
    /// Takes the answer.
    pub responder: R,
}

/// Takes the answer to one request. It is called from the task of the FastCGI connection, so none of its methods may block.
///
/// Order of calls: any number of `stdout`, `stderr` and `pause`, then `end` once. `end` is called for every request
/// that was submitted, also for one that was never sent.
pub trait Responder: Send + 'static {
    /// A piece of stdout. Pieces come in order and are never empty.
    fn stdout(&mut self, data: &[u8]);

    /// No more bytes for now: bytes that are held back, to be sent together, should be sent.
    ///
    /// Called before waiting for php-fpm, but never between the last piece and [`end`](Self::end) if both came in one
    /// read. So a small reply is seen whole, as `stdout`, `end`.
    fn pause(&mut self);

    /// A piece of stderr. Pieces come in order and are never empty; lines may be split between them.
    fn stderr(&mut self, data: &[u8]);

    /// Ready when more stdout may be given. `Pending` registers the waker, and php-fpm is not read meanwhile.
    /// The bytes of one read (at most [`READ_BYTES`](super::READ_BYTES)) are all given, even if this turns pending in between.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when the answer is not wanted any more. A queued request is then dropped unsent, a running one aborted.
    /// `Pending` registers the waker.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// True if a script that has begun must run to its end, even if its answer is not wanted any more, because something follows
    /// that end. Then a request is cancelled only if no byte of it was sent.
    fn is_waited_for(&self) -> bool {
        false
    }

    /// Called with the result.
    fn end(self, outcome: Outcome);

    /// The session of this request, for log lines; `None` if it belongs to none.
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

/// How long each part of a complete request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From `submit` until a connection took the request.
    pub queued: Duration,
    /// From that moment until the first byte of the answer.
    pub first_byte: Duration,
    /// From the same moment until END_REQUEST.
    pub total: Duration,
}

/// Why a request has no complete answer, sorted by the side that must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    // We are full.
    /// The queue of its class is full.
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
    /// The script was silent for `response_timeout`.
    ResponseTimeout {
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// No END_REQUEST within `request_timeout`.
    RequestTimeout {
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// Its client did not read the answer for `slow_reader_hold`, and other requests waited for the connection.
    SlowReader {
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// The backend sent something that FastCGI does not allow.
    Protocol {
        /// The violation.
        error: ResponseError,
        /// Whether any byte of the answer had come.
        answered: bool,
    },
    /// END_REQUEST said that the request was not run (FCGI_OVERLOADED and its kin).
    Refused(ProtocolStatus),

    // The answer is not wanted any more.
    /// [`Responder::poll_cancelled`] was ready.
    Cancelled {
        /// Whether the script may have begun.
        sent: bool,
    },

    // The node is stopping.
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

    /// Whether a script may have begun to run. If false, the event certainly had no effect.
    pub const fn may_have_run(self) -> bool {
        match self {
            Failure::QueueFull
            | Failure::QueueTimeout
            | Failure::Unavailable
            | Failure::Stopping
            | Failure::Cancelled { sent: false } => false,
            // A number that the specification does not define says nothing.
            Failure::Refused(status) => matches!(status, ProtocolStatus::Unknown(_)),
            Failure::BackendClosed { .. }
            | Failure::ResponseTimeout { .. }
            | Failure::RequestTimeout { .. }
            | Failure::SlowReader { .. }
            | Failure::Protocol { .. }
            | Failure::Cancelled { sent: true } => true,
        }
    }

    /// The same failure, for a request that was sent once before and not answered. That attempt may have run, so a
    /// failure that says otherwise would be true only for the last attempt.
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
            Failure::SlowReader { .. } => f.write_str(
                "client did not read the answer for slow_reader_hold, and other requests waited for the connection",
            ),
            Failure::Protocol { error, .. } => write!(f, "backend broke the protocol: {error}"),
            Failure::Refused(status) => write!(f, "backend refused the request: {status:?}"),
            Failure::Cancelled { .. } => f.write_str("the answer is not wanted any more"),
            Failure::Stopping => f.write_str("upstream is shutting down"),
        }
    }
}

impl std::error::Error for Failure {}
