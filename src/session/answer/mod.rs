//! The answers of handlers: their receivers, their log lines and metrics, and the faults that make an answer unusable.
//!
//! * [`reply`]: to an event of a live session; the body goes to the client.
//! * [`connect`]: to a connect event that a handshake waits for.
//! * [`http`]: to an event whose client waits for an HTTP response of its own.
//! * [`others`]: to an event that no client waits for; only whether it was delivered matters.

mod connect;
mod framed_body;
mod greet;
mod head;
mod hints;
mod http;
mod others;
mod reply;
mod slice;
mod text;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tracing::field::display;
use tracing::{debug, warn};

pub(super) use self::connect::{ConnectAnswer, Greeting, HandshakeAnswer};
pub(super) use self::greet::greet;
use self::head::Destination;
pub use self::head::Head;
pub(super) use self::hints::Hints;
pub(super) use self::http::HttpAnswer;
pub use self::http::{HttpReply, ReplyBody};
pub(super) use self::others::{Delivery, OthersAnswer};
pub(super) use self::reply::Reply;

use super::cgi;
use super::endpoint::{Endpoint, Event};
use super::stderr::Stderr;
use crate::cluster::{Expecting, Settled};
use crate::metrics::FailureLabels;
use crate::metrics::router::Door;
use crate::proto::command::{Action, Command, Message, Name, Target};
use crate::proto::framing::FrameKind;
use crate::proto::id::SessionId;
use crate::router::Expected;
use crate::upstream::{Class, Failure, Outcome, Responder, Timing};

/// The size of a piece of a streamed reply. While PHP prints without a pause, bytes are collected up to this size.
const MAX_PIECE_BYTES: usize = 64 * 1024;

/// The limit of log lines of one kind about one event. One more line gives the number of lines left out.
const MAX_LINES: usize = 20;
/// The same limit for lines that the script wrote to standard error. It has room for a deep stack trace.
const MAX_PHP_LINES: usize = 200;

/// The receiver of the answer to an event.
pub enum Answer {
    /// To a session's event.
    Reply(Box<Reply>),
    /// To the connect event of an HTTP request that wants to become a session.
    Handshake(Box<HandshakeAnswer>),
    /// To an event whose client waits for an HTTP response of its own.
    Http(Box<HttpAnswer>),
    /// To an event that no client waits for.
    Others(Box<OthersAnswer>),
}

/// The data that every answer has about its event.
pub struct EventInfo {
    /// The endpoint of the session.
    pub endpoint: Arc<Endpoint>,
    /// The session of the event. `None` for a plain request.
    pub id: Option<SessionId>,
    /// Its name in log lines and metrics.
    pub label: &'static str,
    /// The class of the event.
    pub class: Class,
    /// Its number in the session.
    pub seq: u64,
    /// The kind of the client's frame. The reply is of the same kind unless the handler says otherwise.
    pub kind: FrameKind,
    /// Bytes of the event's body.
    pub bytes_in: usize,
    stderr: Stderr,
}

impl EventInfo {
    /// Collects the data that the answer needs about its event.
    pub(super) fn new(endpoint: Arc<Endpoint>, id: SessionId, event: &Event) -> Self {
        Self::named(endpoint, Some(id), event.class.label(), event)
    }

    /// The same for a plain request, which queues as a message does.
    pub(super) fn of_request(endpoint: Arc<Endpoint>, event: &Event) -> Self {
        Self::named(endpoint, None, cgi::REQUEST, event)
    }

    /// The same for an event whose name is not that of its class.
    pub(super) fn named(endpoint: Arc<Endpoint>, id: Option<SessionId>, label: &'static str, event: &Event) -> Self {
        Self {
            endpoint,
            id,
            label,
            class: event.class,
            seq: event.seq,
            kind: event.kind,
            bytes_in: event.body.len(),
            stderr: Stderr::default(),
        }
    }

    /// Moves the event into a new owner. Only its standard error is taken away from this one.
    fn take(&mut self) -> Self {
        Self { endpoint: self.endpoint.clone(), stderr: std::mem::take(&mut self.stderr), ..*self }
    }

    /// The fault of an answer with this head, judged by its status and by standard error. `body` is the part that came
    /// with the head.
    fn fault_of(&self, head: &Head, body: &[u8]) -> Option<Fault> {
        if head.status >= 500 {
            Some(Fault::Status(head.status))
        } else if self.stderr.has_died() {
            Some(Fault::Died)
        } else if self.stderr.says_not_run(head.status, body) {
            Some(Fault::NotRun)
        } else {
            None
        }
    }

    /// The result of an event whose answer was taken. The script may have died after its answer.
    fn ended(&self, timing: Timing) -> Result<Timing, Fault> {
        if self.stderr.has_died() { Err(Fault::Died) } else { Ok(timing) }
    }

    /// Runs the answer's actions on the session. If they make it join a partition that this node does not listen to
    /// yet, other nodes would not reach it there. Then nothing is run, and the actions are returned, to be run when the
    /// node listens.
    fn act_when_reached(&self, actions: Vec<Action>) -> Option<Held> {
        match self.endpoint.hub.cluster.expect(&actions) {
            Some(Expecting { kept, settled: Some(settled) }) => Some(Held { actions, settled, _kept: kept }),
            // `_kept` lives until the actions are done.
            _kept => {
                self.act(actions);
                None
            }
        }
    }

    /// Runs the answer's actions on the session.
    fn act(&self, actions: Vec<Action>) {
        let Some(id) = self.id else { return };
        let mut refused = 0;
        for action in actions {
            let label = action.label();
            let receipt = self.endpoint.hub.router.run_now(Door::Answer, &Command::new(Target::session(id), action));
            if receipt.refused > 0 {
                refused += 1;
                if refused <= MAX_LINES {
                    warn!(
                        session = %id, script = %self.endpoint.app.script.display(), action = label,
                        "refused: the session has reached its limit of channels or attribute bytes"
                    );
                }
            }
        }
        self.leave_out("refused", refused);
    }

    /// Sends a body to its destinations, except to the client itself. Returns whether the client is one of
    /// `destinations`.
    fn send_to(
        &self,
        destinations: &[Destination],
        kind: Option<FrameKind>,
        id: Option<&Name>,
        body: &[u8],
    ) -> Result<bool, Fault> {
        let mut to_client = destinations.is_empty();
        let mut message = None;
        for destination in destinations {
            let Destination::Sessions { to, except, except_self, key } = destination else {
                to_client = true;
                continue;
            };
            if kind == Some(FrameKind::Text) && str::from_utf8(body).is_err() {
                return Err(Fault::NotUtf8);
            }
            let body = message.get_or_insert_with(|| Bytes::copy_from_slice(body)).clone();
            let action = Action::Send(Message { body, kind, key: key.clone(), id: id.cloned() });
            let mut command = Command { to: to.clone(), except: except.clone(), action };
            if *except_self {
                command.except.sessions.extend(self.id);
            }
            self.endpoint.hub.cluster.run_now(Door::Answer, &command);
        }
        Ok(to_client)
    }

    /// The kind of a message to others. The handler's choice comes first. Otherwise a message on a WebSocket has the
    /// kind of its event. Without either, the bytes decide.
    fn kind_for_others(&self, said: Option<FrameKind>) -> Option<FrameKind> {
        said.or_else(|| (self.endpoint.http_settings().is_some() && self.class == Class::Message).then_some(self.kind))
    }

    /// Whether the body is a reply at all. It always is, except with `compat = "fooking"`. There it needs a
    /// `Content-Length` above 0, which does not count for connect, or a Longwire header that says where or how the body
    /// goes.
    fn is_reply(&self, head: &Head) -> bool {
        let is_asked_for = head.lines || !head.destinations.is_empty();
        let is_announced = self.class != Class::Connect && head.content_length.is_some_and(|length| length > 0);
        !self.endpoint.app.compat.is_fooking() || is_asked_for || is_announced
    }

    fn complain(&self, complaints: &[String]) {
        for complaint in complaints.iter().take(MAX_LINES) {
            warn!(session = self.id.map(display), script = %self.endpoint.app.script.display(), "bad header in the answer: {complaint}");
        }
        self.leave_out("bad header in the answer", complaints.len());
    }

    /// Logs one line with the number of lines beyond [`MAX_LINES`].
    fn leave_out(&self, what: &str, count: usize) {
        let unlogged = count.saturating_sub(MAX_LINES);
        if unlogged > 0 {
            let (session, script) = (self.id.map(display), self.endpoint.app.script.display());
            warn!(session, %script, unlogged, "{what}: more of the same, not logged");
        }
    }

    /// Logs the end of an event, and counts it if it failed. It must run before the client is told of a failure, so
    /// that a client that then asks for the metrics finds the failure counted.
    fn report(&self, status: u16, bytes_out: u64, result: &Result<Timing, Fault>) {
        let (session, script, event) = (self.id.map(display), self.endpoint.app.script.display(), self.label);
        // Each line is logged on its own: text that a client made a script log must not pass for one of our lines.
        let text = String::from_utf8_lossy(self.stderr.text());
        let mut lines = text.lines();
        for line in lines.by_ref().take(MAX_PHP_LINES) {
            warn!(target: "longwire::php", session, %script, event, seq = self.seq, "{line}");
        }
        let unlogged = lines.count();
        if unlogged > 0 {
            warn!(target: "longwire::php", session, %script, event, seq = self.seq, unlogged, "script wrote more lines to stderr, not logged");
        }
        let cut_bytes = self.stderr.beyond();
        if cut_bytes > 0 {
            warn!(target: "longwire::php", session, %script, event, seq = self.seq, cut_bytes, "script wrote more bytes to stderr, not logged");
        }
        match result {
            Ok(timing) => debug!(
                target: "longwire::event",
                session, event, seq = self.seq, bytes_in = self.bytes_in, bytes_out, status,
                queued_us = timing.queued.as_micros() as u64,
                php_us = timing.total.as_micros() as u64,
            ),
            Err(fault) => {
                fault.count(&self.endpoint, self.label);
                warn!(
                    target: "longwire::event",
                    session, %script, event, seq = self.seq, cause = fault.label(), status,
                    bytes_in = self.bytes_in, bytes_out, "event failed: {fault}"
                );
            }
        }
    }
}

/// Actions of an answer that wait until other nodes can reach the session in the partitions that it joins.
struct Held {
    actions: Vec<Action>,
    /// Ready when other nodes can reach it, or when they cannot for now.
    settled: Settled,
    _kept: Vec<Expected>,
}

impl Held {
    /// Waits, then runs the actions.
    async fn act(self, event: &EventInfo) {
        self.settled.await;
        event.act(self.actions);
    }
}

/// The slice of a whole body that is the reply.
fn reply_in(head: &Head, whole: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let len = whole.len() as u64;
    let from = match u64::try_from(head.content_offset) {
        Ok(offset) => offset.min(len),
        Err(_) => len.saturating_sub(head.content_offset.unsigned_abs()),
    };
    let wanted = head.content_length.unwrap_or(len - from);
    if wanted > len - from {
        return Err(Fault::Short { announced: wanted, missing: wanted - (len - from) });
    }
    if wanted == len {
        return Ok(whole);
    }
    Ok(whole[from as usize..(from + wanted) as usize].to_vec())
}

/// Refuses a compressed body that is to go out as a frame, because a frame has no `Content-Encoding` header.
fn refuse_encoded(head: &Head) -> Result<(), Fault> {
    match &head.encoding {
        Some(encoding) => Err(Fault::Encoded(encoding.clone())),
        None => Ok(()),
    }
}

/// The reason why an event has no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Upstream(Failure),
    /// The handler answered 5xx.
    Status(u16),
    /// PHP reported on standard error that the script died, and the reply was incomplete.
    Died,
    /// php-fpm answered itself, without running the script.
    NotRun,
    /// The head is malformed.
    BadHead(String),
    /// The body is shorter than `Content-Length`.
    Short {
        announced: u64,
        missing: u64,
    },
    /// A reply that had to be held back is larger than `max_reply_bytes`.
    TooLarge,
    /// A text reply that is not UTF-8.
    NotUtf8,
    /// The framing cannot carry it.
    Framing(String),
    /// The reply is compressed or otherwise encoded, and a frame has no header that says so.
    Encoded(Box<str>),
}

impl Fault {
    /// Whether a script may have begun to run.
    fn may_have_run(&self) -> bool {
        match self {
            Fault::Upstream(failure) => failure.may_have_run(),
            Fault::NotRun => false,
            _ => true,
        }
    }

    fn count(&self, endpoint: &Endpoint, event: &'static str) {
        let labels = FailureLabels { app: endpoint.app.name.clone(), event, cause: self.label() };
        endpoint.hub.metrics.events_failed.get_or_create(&labels).inc();
    }

    fn label(&self) -> &'static str {
        match self {
            Fault::Upstream(failure) => failure.label(),
            Fault::Status(_) => "status",
            Fault::Died => "fatal_error",
            Fault::NotRun => "script_not_run",
            Fault::BadHead(_) => "bad_head",
            Fault::Short { .. } => "reply_short",
            Fault::TooLarge => "reply_too_large",
            Fault::NotUtf8 => "reply_not_utf8",
            Fault::Framing(_) => "reply_unframeable",
            Fault::Encoded(_) => "reply_encoded",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Upstream(failure) => failure.fmt(f),
            Fault::Status(status) => write!(f, "handler answered {status}"),
            Fault::Died => f.write_str("script ended in a fatal error (PHP's own message is in the log)"),
            Fault::NotRun => f.write_str(
                "php-fpm did not run the script: the file does not exist, is not readable, or security.limit_extensions forbids it",
            ),
            Fault::BadHead(what) => write!(f, "bad head in the answer: {what}"),
            Fault::Short { announced, missing } => {
                write!(f, "Content-Length is {announced}, but the body is {missing} bytes short")
            }
            Fault::TooLarge => f.write_str("reply is larger than max_reply_bytes"),
            Fault::NotUtf8 => f.write_str("text reply is not UTF-8 (send Longwire-Type: binary for other bytes)"),
            Fault::Framing(what) => write!(f, "reply does not fit the framing: {what}"),
            Fault::Encoded(encoding) => {
                write!(f, "reply has Content-Encoding: {encoding}, but a frame has no headers; send it uncompressed")
            }
        }
    }
}

impl Responder for Answer {
    fn stdout(&mut self, data: &[u8]) {
        match self {
            Answer::Reply(reply) => reply.stdout(data),
            Answer::Handshake(answer) => answer.stdout(data),
            Answer::Http(answer) => answer.stdout(data),
            Answer::Others(answer) => answer.stdout(data),
        }
    }

    fn pause(&mut self) {
        match self {
            Answer::Reply(reply) => reply.pause(),
            Answer::Http(answer) => answer.pause(),
            Answer::Handshake(_) | Answer::Others(_) => {}
        }
    }

    fn stderr(&mut self, data: &[u8]) {
        if self.event_mut().stderr.take(data) {
            match self {
                Answer::Reply(reply) => reply.died(),
                Answer::Http(answer) => answer.died(),
                Answer::Handshake(answer) => answer.died(),
                // Nothing is sent before the end.
                Answer::Others(_) => {}
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = self.go_live(cx);
        match self {
            Answer::Reply(reply) => reply.poll_room(cx),
            Answer::Http(answer) => answer.poll_room(cx),
            Answer::Handshake(answer) if answer.is_waiting() => Poll::Pending,
            Answer::Handshake(_) | Answer::Others(_) => Poll::Ready(()),
        }
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(false) = self.go_live(cx) {
            return Poll::Ready(());
        }
        match self {
            Answer::Reply(reply) => reply.outbox.poll_unwanted(cx, reply.is_for_the_client_alone()),
            Answer::Handshake(_) => Poll::Pending,
            Answer::Http(answer) => answer.poll_cancelled(cx),
            // The event must be delivered, even if no task waits for it any more.
            Answer::Others(_) => Poll::Pending,
        }
    }

    fn is_waited_for(&self) -> bool {
        match self {
            Answer::Reply(reply) => reply.is_waited_for(),
            // A handshake waits for the answer, until a greeting by lines begins.
            Answer::Handshake(answer) => !answer.greets(),
            Answer::Http(_) | Answer::Others(_) => false,
        }
    }

    fn end(self, outcome: Outcome) {
        match self {
            Answer::Reply(reply) => reply.end(outcome),
            Answer::Handshake(answer) => answer.end(outcome),
            Answer::Http(answer) => (*answer).end(outcome),
            Answer::Others(answer) => (*answer).end(outcome),
        }
    }

    fn label(&self) -> Option<SessionId> {
        self.event().id
    }
}

impl Answer {
    /// Turns a greeting by lines into the reply of its session. Ready with true when that is done. Ready with false
    /// when the handshake does not want the answer any more.
    fn go_live(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Answer::Handshake(answer) = self else { return Poll::Pending };
        let Some(outbox) = ready!(answer.poll_outbox(cx)) else { return Poll::Ready(false) };
        *self = Answer::Reply(answer.take_reply(outbox));
        Poll::Ready(true)
    }

    fn event(&self) -> &EventInfo {
        match self {
            Answer::Reply(reply) => &reply.event,
            Answer::Handshake(answer) => &answer.event,
            Answer::Http(answer) => &answer.event,
            Answer::Others(answer) => &answer.event,
        }
    }

    fn event_mut(&mut self) -> &mut EventInfo {
        match self {
            Answer::Reply(reply) => &mut reply.event,
            Answer::Handshake(answer) => &mut answer.event,
            Answer::Http(answer) => &mut answer.event,
            Answer::Others(answer) => &mut answer.event,
        }
    }
}
