//! What becomes of a handler's answer: its head is read, the slice of its body that is the reply is framed and leaves
//! for the client while PHP still runs, wherever the framing allows it.
//!
//! ```text
//!             head whole                    first pause with something to send
//!   Head ------------------> Body: Stream -----------------------------------> Body: Stream, begun
//!    |  \                       |  end: one whole frame, or none                  |  end: the last piece
//!    |   \ lines                |                                                 |  end too early: ReplyBroken
//!    |    `--> Body: Lines      |
//!    |  \ length unknown where the framing needs it, negative offset
//!    |   `--> Body: Hold (bounded by max_reply_bytes), sliced and framed at the end
//!    | 5xx, a head that makes no sense
//!    `--> Discard
//! ```

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, warn};

use super::endpoint::{Endpoint, Event};
use super::head::{Head, HeadReader};
use super::text::TextCheck;
use crate::config::model::OnError;
use crate::metrics::FailureLabels;
use crate::outbox::{Close, Outbox};
use crate::proto::close::CloseReason;
use crate::proto::framing::deflate::{Deflater, deflate_whole};
use crate::proto::framing::{Affix, FrameKind, Framing};
use crate::proto::id::SessionId;
use crate::upstream::{Class, Failure, Outcome, Responder, Timing};

/// Bytes of stderr that one event may bring into the log; what is beyond is counted there.
const MAX_STDERR_BYTES: usize = 16 * 1024;

/// Who takes the answer to an event: the client, or a handshake that waits for leave to go on.
pub enum Answer {
    /// To a session's event.
    Reply(Box<Reply>),
    /// To the connect event of an HTTP request that wants to become a session.
    Handshake(Box<HandshakeAnswer>),
    /// To a close event.
    Close(Box<CloseAnswer>),
}

/// What every answer knows of its event.
pub struct EventInfo {
    /// Where the session came in.
    pub endpoint: Arc<Endpoint>,
    /// Whose event.
    pub id: SessionId,
    /// What happened.
    pub class: Class,
    /// Its number in the session.
    pub seq: u64,
    /// What came; the reply is of the same kind unless the handler says otherwise.
    pub kind: FrameKind,
    /// Bytes of the event's body.
    pub bytes_in: usize,
    stderr: Vec<u8>,
    stderr_beyond: usize,
}

impl EventInfo {
    /// What the answer to this event needs to know of it.
    pub(super) fn new(endpoint: Arc<Endpoint>, id: SessionId, event: &Event<'_>) -> Self {
        Self {
            endpoint,
            id,
            class: event.class,
            seq: event.seq,
            kind: event.kind,
            bytes_in: event.body.len(),
            stderr: Vec::new(),
            stderr_beyond: 0,
        }
    }

    fn take_stderr(&mut self, data: &[u8]) {
        let room = MAX_STDERR_BYTES - self.stderr.len();
        let taken = data.len().min(room);
        self.stderr.extend_from_slice(&data[..taken]);
        self.stderr_beyond += data.len() - taken;
    }

    fn complain(&self, complaints: &[String]) {
        for complaint in complaints {
            warn!(session = %self.id, script = %self.endpoint.app.script.display(), "bad header in the answer: {complaint}");
        }
    }

    /// The log lines of an event that has ended, and its counter when it failed.
    fn report(&self, status: u16, bytes_out: u64, result: Result<Timing, Fault>) {
        let (session, app, script) = (self.id, &self.endpoint.app, self.endpoint.app.script.display());
        let event = self.class.label();
        if !self.stderr.is_empty() {
            let text = String::from_utf8_lossy(&self.stderr);
            let cut = self.stderr_beyond;
            warn!(target: "longwire::php", %session, %script, event, seq = self.seq, cut_bytes = cut, "{}", text.trim_end());
        }
        match result {
            Ok(timing) => debug!(
                target: "longwire::event",
                %session, event, seq = self.seq, bytes_in = self.bytes_in, bytes_out, status,
                queued_us = timing.queued.as_micros() as u64,
                php_us = timing.total.as_micros() as u64,
            ),
            Err(fault) => {
                let labels = FailureLabels { app: app.name.clone(), event, cause: fault.label() };
                self.endpoint.hub.metrics.events_failed.get_or_create(&labels).inc();
                warn!(
                    target: "longwire::event",
                    %session, %script, event, seq = self.seq, cause = fault.label(), status,
                    bytes_in = self.bytes_in, bytes_out, "event failed: {fault}"
                );
            }
        }
    }
}

/// Why an event has no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Upstream(Failure),
    /// The handler answered 5xx.
    Status(u16),
    /// The head makes no sense.
    BadHead(String),
    /// `Content-Length` above what came.
    Short {
        announced: u64,
        missing: u64,
    },
    /// A reply that had to be held back is above `max_reply_bytes`.
    TooLarge,
    /// A text reply that is not UTF-8.
    NotUtf8,
    /// The framing cannot carry it.
    Framing(String),
}

impl Fault {
    fn label(&self) -> &'static str {
        match self {
            Fault::Upstream(failure) => failure.label(),
            Fault::Status(_) => "status",
            Fault::BadHead(_) => "bad_head",
            Fault::Short { .. } => "reply_short",
            Fault::TooLarge => "reply_too_large",
            Fault::NotUtf8 => "reply_not_utf8",
            Fault::Framing(_) => "reply_unframeable",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Upstream(failure) => failure.fmt(f),
            Fault::Status(status) => write!(f, "handler answered {status}"),
            Fault::BadHead(what) => write!(f, "bad head in the answer: {what}"),
            Fault::Short { announced, missing } => {
                write!(f, "Content-Length is {announced}, but {missing} bytes of that did not come")
            }
            Fault::TooLarge => f.write_str("reply is above max_reply_bytes"),
            Fault::NotUtf8 => f.write_str("text reply is not UTF-8 (Longwire-Type: binary sends any bytes)"),
            Fault::Framing(what) => write!(f, "reply does not fit the framing: {what}"),
        }
    }
}

impl Responder for Answer {
    fn stdout(&mut self, data: &[u8]) {
        match self {
            Answer::Reply(reply) => reply.stdout(data),
            Answer::Handshake(answer) => answer.stdout(data),
            Answer::Close(answer) => answer.stdout(data),
        }
    }

    fn pause(&mut self) {
        if let Answer::Reply(reply) = self {
            reply.pause();
        }
    }

    fn stderr(&mut self, data: &[u8]) {
        self.event_mut().take_stderr(data);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Answer::Reply(reply) => reply.outbox.poll_room(cx),
            Answer::Handshake(_) | Answer::Close(_) => Poll::Ready(()),
        }
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Answer::Reply(reply) => reply.outbox.poll_unwanted(cx, reply.has_begun()),
            Answer::Handshake(answer) => answer.client_gone.as_mut().poll(cx),
            // Owed, whoever still listens.
            Answer::Close(_) => Poll::Pending,
        }
    }

    fn end(self, outcome: Outcome) {
        match self {
            Answer::Reply(reply) => reply.end(outcome),
            Answer::Handshake(answer) => answer.end(outcome),
            Answer::Close(answer) => (*answer).end(outcome),
        }
    }

    fn label(&self) -> SessionId {
        self.event().id
    }
}

impl Answer {
    fn event(&self) -> &EventInfo {
        match self {
            Answer::Reply(reply) => &reply.event,
            Answer::Handshake(answer) => &answer.event,
            Answer::Close(answer) => &answer.event,
        }
    }

    fn event_mut(&mut self) -> &mut EventInfo {
        match self {
            Answer::Reply(reply) => &mut reply.event,
            Answer::Handshake(answer) => &mut answer.event,
            Answer::Close(answer) => &mut answer.event,
        }
    }
}

/// The answer to an event of a session that has its outbox.
pub struct Reply {
    event: EventInfo,
    outbox: Arc<Outbox>,
    stage: Stage,
    status: u16,
    bytes_out: u64,
    close: Option<(u16, Box<str>)>,
    /// The reply had begun to leave and cannot be finished.
    is_broken: bool,
}

enum Stage {
    Head(HeadReader),
    Body(Body),
    Discard,
    Failed(Fault),
}

struct Body {
    kind: FrameKind,
    /// Bytes of the body before the reply.
    skip: u64,
    /// `Content-Length`, and how much of it is still to come.
    announced: Option<u64>,
    left: Option<u64>,
    mode: Mode,
    /// Bytes of the reply that have not left yet.
    pending: Vec<u8>,
    /// For text on a framing that checks it.
    text: Option<TextCheck>,
}

enum Mode {
    /// Leaves in pieces.
    Stream { begun: bool, deflater: Option<Box<Deflater>> },
    /// Each line is a frame.
    Lines,
    /// Held back to the end; `from_end` is a negative `Content-Offset`.
    Hold { from_end: Option<u64> },
}

impl Reply {
    /// For an event that is about to be submitted.
    pub fn new(event: EventInfo, outbox: Arc<Outbox>) -> Self {
        let stage = Stage::Head(HeadReader::default());
        Self { event, outbox, stage, status: 200, bytes_out: 0, close: None, is_broken: false }
    }

    fn has_begun(&self) -> bool {
        matches!(&self.stage, Stage::Body(body) if body.has_begun())
    }

    fn stdout(&mut self, data: &[u8]) {
        match &mut self.stage {
            Stage::Head(reader) => match reader.push(data, false) {
                Ok(None) => {}
                Ok(Some((head, used))) => {
                    self.begin_body(head);
                    self.body(&data[used..]);
                }
                Err(error) => self.fail(Fault::BadHead(error.to_string())),
            },
            Stage::Body(_) => self.body(data),
            Stage::Discard | Stage::Failed(_) => {}
        }
    }

    fn begin_body(&mut self, head: Head) {
        self.event.complain(&head.complaints);
        self.status = head.status;
        self.close = head.close;
        if head.status >= 500 {
            self.stage = Stage::Discard;
            return;
        }
        let framing = self.outbox.framing();
        let kind = head.kind.unwrap_or(self.event.kind);
        let is_checked = matches!(framing, Framing::WebSocket { .. }) && kind == FrameKind::Text;
        let from_end = (head.content_offset < 0).then(|| head.content_offset.unsigned_abs());
        let can_stream = match framing.begin(head.content_length) {
            Ok(begin) => begin.is_some(),
            Err(error) => return self.fail(Fault::Framing(error.to_string())),
        };
        let mode = if head.lines {
            Mode::Lines
        } else if from_end.is_some() || !can_stream {
            Mode::Hold { from_end }
        } else {
            Mode::Stream { begun: false, deflater: None }
        };
        self.stage = Stage::Body(Body {
            kind,
            skip: u64::try_from(head.content_offset).unwrap_or(0),
            announced: head.content_length,
            left: head.content_length,
            mode,
            pending: Vec::new(),
            text: is_checked.then(TextCheck::default),
        });
    }

    fn body(&mut self, data: &[u8]) {
        let Stage::Body(body) = &mut self.stage else { return };
        let data = if matches!(body.mode, Mode::Hold { from_end: Some(_) }) { data } else { body.slice(data) };
        body.pending.extend_from_slice(data);
        let max_bytes = self.event.endpoint.app.max_reply_bytes;
        if body.pending.len() <= max_bytes {
            return;
        }
        // Lines and pieces that nobody has paused for yet are not what the bound is about.
        self.pause();
        match &self.stage {
            Stage::Body(body) if body.pending.len() > max_bytes => self.fail(Fault::TooLarge),
            _ => {}
        }
    }

    /// What can leave now leaves.
    fn pause(&mut self) {
        let result = match &mut self.stage {
            Stage::Body(body) => match body.mode {
                Mode::Stream { .. } => body.stream(&self.outbox, &self.event.endpoint, false),
                Mode::Lines => body.lines(&self.outbox, &self.event.endpoint, false),
                Mode::Hold { .. } => Ok(0),
            },
            _ => Ok(0),
        };
        self.sent(result);
    }

    fn end(mut self: Box<Self>, outcome: Outcome) {
        if let (Outcome::Done(_), Stage::Body(body)) = (outcome, &mut self.stage) {
            let result = body.finish(&self.outbox, &self.event.endpoint);
            self.sent(result);
        }
        let result = match (outcome, std::mem::replace(&mut self.stage, Stage::Discard)) {
            (Outcome::Failed(failure), stage) => {
                if let Stage::Body(body) = stage
                    && body.has_begun()
                {
                    self.break_off();
                }
                Err(Fault::Upstream(failure))
            }
            (_, Stage::Failed(fault)) => Err(fault),
            // No empty line ever came, not even the one that php-fpm always sends.
            (_, Stage::Head(_)) => Err(Fault::BadHead("the answer ended inside its headers".to_owned())),
            (_, Stage::Discard) if self.status >= 500 => Err(Fault::Status(self.status)),
            (Outcome::Done(timing), _) => Ok(timing),
        };
        self.consequences(outcome, result.is_err());
        self.event.report(self.status, self.bytes_out, result);
        self.outbox.event_ended();
    }

    /// What the end of an event means for its session.
    fn consequences(&mut self, outcome: Outcome, failed: bool) {
        let refused = self.status >= 400;
        match self.event.class {
            Class::Connect => match outcome {
                Outcome::Done(_) if refused => {
                    self.outbox.ask_close(Close::new(CloseReason::Refused).because(format!("status {}", self.status)));
                }
                Outcome::Done(_) => self.outbox.connect_counts(),
                Outcome::Failed(failure) => {
                    if failure.may_have_run() {
                        // Nobody knows whether PHP has noted the session: its close event clears that up.
                        self.outbox.connect_counts();
                    }
                    self.outbox.ask_close(Close::new(CloseReason::ConnectFailed).because(failure.to_string()));
                }
            },
            // Whatever followed would pass for the rest of the broken frame; the session is being closed for it.
            Class::Message if self.is_broken => {}
            Class::Message if failed => match &self.event.endpoint.app.on_error {
                OnError::Ignore => {}
                OnError::Send(text) => {
                    if let Ok(frame) = self.outbox.framing().encode(FrameKind::Text, text.as_bytes()) {
                        self.outbox.write_frame(&[IoSlice::new(&frame)]);
                    }
                }
                OnError::Close => self.outbox.ask_close(CloseReason::HandlerFailed.into()),
            },
            Class::Message | Class::Close => {}
        }
        if let Some((code, text)) = self.close.take()
            && !failed
        {
            let close = Close { code: Some(code), text: Some(text), ..Close::new(CloseReason::HandlerClosed) };
            self.outbox.ask_close(close);
        }
    }

    fn sent(&mut self, result: Result<u64, Fault>) {
        match result {
            Ok(bytes) => self.bytes_out += bytes,
            Err(fault) => self.fail(fault),
        }
    }

    fn fail(&mut self, fault: Fault) {
        let stage = std::mem::replace(&mut self.stage, Stage::Failed(fault));
        if matches!(stage, Stage::Body(body) if body.has_begun()) {
            self.break_off();
        }
    }

    /// A frame that has begun to leave cannot be taken back, and must not be ended as if it were whole.
    fn break_off(&mut self) {
        self.is_broken = true;
        self.outbox.ask_close(CloseReason::ReplyBroken.into());
    }
}

impl Body {
    fn has_begun(&self) -> bool {
        matches!(self.mode, Mode::Stream { begun: true, .. })
    }

    /// The part of these bytes of the body that belongs to the reply.
    fn slice<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let skipped = self.skip.min(data.len() as u64);
        self.skip -= skipped;
        let data = &data[skipped as usize..];
        match &mut self.left {
            None => data,
            Some(left) => {
                let taken = (*left).min(data.len() as u64);
                *left -= taken;
                &data[..taken as usize]
            }
        }
    }

    /// Sends what is pending as a piece of a streamed frame.
    fn stream(&mut self, outbox: &Outbox, endpoint: &Endpoint, is_last: bool) -> Result<u64, Fault> {
        if self.pending.is_empty() && !is_last {
            return Ok(0);
        }
        let Mode::Stream { begun, deflater } = &mut self.mode else { unreachable!("only called in this mode") };
        let framing = outbox.framing();
        let is_first = !*begun;
        if is_first && !outbox.begin_stream() {
            // Another event's reply is in the middle of its frame: this one waits, to begin later or to be sent whole.
            return Ok(0);
        }
        // Before the first byte leaves; what is not text has not begun then.
        if let Some(check) = &mut self.text
            && !(check.push(&self.pending) && (!is_last || check.is_whole()))
        {
            if is_first {
                outbox.end_stream();
            }
            return Err(Fault::NotUtf8);
        }
        let begin = if is_first {
            outbox.begin_stream();
            if let Some(deflate) = framing.deflate() {
                *deflater = Some(Box::new(Deflater::new(deflate)));
            }
            framing.begin(self.announced).expect("begin_body has seen that this framing can carry it")
        } else {
            None
        };
        *begun = true;
        let begin = begin.unwrap_or(Affix::EMPTY);
        let deflated;
        let (piece, body): (Affix, &[u8]) = match deflater {
            Some(deflater) => {
                deflated = deflater.piece(&self.pending, is_last);
                (framing.piece_deflated(self.kind, is_first, is_last, deflated.len()), &deflated)
            }
            None => (framing.piece(self.kind, is_first, is_last, self.pending.len()), &self.pending),
        };
        let tail = if is_last { framing.tail() } else { &[] };
        outbox.write(&[IoSlice::new(&begin), IoSlice::new(&piece), IoSlice::new(body), IoSlice::new(tail)]);
        if is_last {
            outbox.end_stream();
            endpoint.hub.metrics.frames_out.inc();
        }
        let sent = self.pending.len() as u64;
        self.pending.clear();
        Ok(sent)
    }

    /// Sends every whole line that is pending, and at the end what is left.
    fn lines(&mut self, outbox: &Outbox, endpoint: &Endpoint, is_last: bool) -> Result<u64, Fault> {
        let mut from = 0;
        let mut sent = 0;
        let mut result = Ok(());
        while let Some(len) = self.pending[from..].iter().position(|b| *b == b'\n') {
            result = match len {
                _ if len > endpoint.app.max_reply_bytes => Err(Fault::TooLarge),
                _ => send_whole(outbox, endpoint, self.kind, &self.pending[from..from + len]),
            };
            if result.is_err() {
                break;
            }
            from += len + 1;
            sent += len as u64;
        }
        self.pending.drain(..from);
        if is_last && result.is_ok() && !self.pending.is_empty() {
            result = send_whole(outbox, endpoint, self.kind, &self.pending);
            sent += self.pending.len() as u64;
        }
        result.map(|()| sent)
    }

    /// The answer is complete: sends the rest.
    fn finish(&mut self, outbox: &Outbox, endpoint: &Endpoint) -> Result<u64, Fault> {
        if let Mode::Hold { from_end: Some(from_end) } = self.mode {
            self.skip = (self.pending.len() as u64).saturating_sub(from_end);
            let whole = std::mem::take(&mut self.pending);
            self.pending = self.slice(&whole).to_vec();
        }
        if let (Some(announced), Some(missing @ 1..)) = (self.announced, self.left) {
            return Err(Fault::Short { announced, missing });
        }
        match self.mode {
            Mode::Lines => self.lines(outbox, endpoint, true),
            Mode::Stream { begun: true, .. } => self.stream(outbox, endpoint, true),
            Mode::Stream { .. } | Mode::Hold { .. } => {
                // An empty body is no reply, unless the handler announced just that.
                if self.pending.is_empty() && self.announced.is_none() {
                    return Ok(0);
                }
                send_whole(outbox, endpoint, self.kind, &self.pending)?;
                Ok(self.pending.len() as u64)
            }
        }
    }
}

/// Sends one whole frame, compressed where that was negotiated and is worth it.
fn send_whole(outbox: &Outbox, endpoint: &Endpoint, kind: FrameKind, body: &[u8]) -> Result<(), Fault> {
    let framing = outbox.framing();
    if matches!(framing, Framing::WebSocket { .. }) && kind == FrameKind::Text && str::from_utf8(body).is_err() {
        return Err(Fault::NotUtf8);
    }
    let min_bytes = endpoint.websocket.as_ref().map_or(0, |websocket| websocket.deflate_min_bytes);
    match framing.deflate() {
        Some(deflate) if body.len() >= min_bytes => {
            let body = deflate_whole(deflate, body);
            let head = framing.whole_deflated(kind, body.len());
            outbox.write_frame(&[IoSlice::new(&head), IoSlice::new(&body)]);
        }
        _ => {
            let head = framing.whole(kind, body.len()).map_err(|error| Fault::Framing(error.to_string()))?;
            outbox.write_frame(&[IoSlice::new(&head), IoSlice::new(body), IoSlice::new(framing.tail())]);
        }
    }
    endpoint.hub.metrics.frames_out.inc();
    Ok(())
}

/// Sends what a handler said to a connect event as the first frame of the session that it admitted.
pub(super) fn send_connect_reply(outbox: &Outbox, endpoint: &Endpoint, kind: FrameKind, answer: &ConnectAnswer) {
    if answer.body.is_empty() && answer.head.content_length.is_none() {
        return;
    }
    if let Err(fault) = send_whole(outbox, endpoint, kind, &answer.body) {
        let app = &endpoint.app;
        let labels = FailureLabels { app: app.name.clone(), event: Class::Connect.label(), cause: fault.label() };
        endpoint.hub.metrics.events_failed.get_or_create(&labels).inc();
        warn!(session = %outbox.id(), script = %app.script.display(), cause = fault.label(), "no reply to connect: {fault}");
    }
}

/// What a handler said to a connect event before there was a session.
#[derive(Debug)]
pub struct ConnectAnswer {
    /// Status, sub-protocol, cookies.
    pub head: Head,
    /// The slice of the body that is the reply.
    pub body: Vec<u8>,
}

/// Collects the answer to a connect event that a handshake waits for.
pub struct HandshakeAnswer {
    event: EventInfo,
    reader: HeadReader,
    head: Option<Head>,
    body: Vec<u8>,
    fault: Option<Fault>,
    sender: oneshot::Sender<Result<ConnectAnswer, ConnectFailed>>,
    client_gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Collects nothing: what a handler says to a close event reaches nobody.
pub struct CloseAnswer {
    event: EventInfo,
    reader: HeadReader,
    status: u16,
    fault: Option<Fault>,
    delivered: oneshot::Sender<()>,
}

impl CloseAnswer {
    /// The answer, and a receiver that is told when the event is delivered.
    pub fn new(event: EventInfo) -> (Self, oneshot::Receiver<()>) {
        let (delivered, receiver) = oneshot::channel();
        (Self { event, reader: HeadReader::default(), status: 0, fault: None, delivered }, receiver)
    }

    fn stdout(&mut self, data: &[u8]) {
        if self.status != 0 || self.fault.is_some() {
            return;
        }
        match self.reader.push(data, false) {
            Ok(Some((head, _))) => {
                self.status = head.status;
                self.fault = (head.status >= 500).then_some(Fault::Status(head.status));
            }
            Ok(None) => {}
            Err(error) => self.fault = Some(Fault::BadHead(error.to_string())),
        }
    }

    fn end(self, outcome: Outcome) {
        let result = match (outcome, self.fault) {
            (Outcome::Failed(failure), _) => Err(Fault::Upstream(failure)),
            (_, Some(fault)) => Err(fault),
            (Outcome::Done(timing), None) => Ok(timing),
        };
        self.event.report(self.status, 0, result);
        // The node may have given up waiting.
        let _ = self.delivered.send(());
    }
}

/// A connect event that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectFailed {
    /// PHP may have noted the session: its close event is owed.
    pub may_have_run: bool,
}

impl HandshakeAnswer {
    /// The answer, and where it will arrive. `client_gone` cancels the event.
    pub fn new(
        event: EventInfo,
        client_gone: CancellationToken,
    ) -> (Self, oneshot::Receiver<Result<ConnectAnswer, ConnectFailed>>) {
        let (sender, receiver) = oneshot::channel();
        let answer = Self {
            event,
            reader: HeadReader::default(),
            head: None,
            body: Vec::new(),
            fault: None,
            sender,
            client_gone: Box::pin(client_gone.cancelled_owned()),
        };
        (answer, receiver)
    }

    fn stdout(&mut self, data: &[u8]) {
        let mut data = data;
        if self.fault.is_some() {
            return;
        }
        if self.head.is_none() {
            match self.reader.push(data, true) {
                Ok(Some((head, used))) => {
                    self.event.complain(&head.complaints);
                    self.head = Some(head);
                    data = &data[used..];
                }
                Ok(None) => return,
                Err(error) => {
                    self.fault = Some(Fault::BadHead(error.to_string()));
                    return;
                }
            }
        }
        self.body.extend_from_slice(data);
        if self.body.len() > self.event.endpoint.app.max_reply_bytes {
            self.fault = Some(Fault::TooLarge);
            self.body = Vec::new();
        }
    }

    fn end(mut self: Box<Self>, outcome: Outcome) {
        let status = self.head.as_ref().map_or(200, |head| head.status);
        let answer = self.answer(outcome);
        let bytes_out = answer.as_ref().map_or(0, |(answer, _)| answer.body.len() as u64);
        let (answer, result) = match answer {
            Ok((answer, timing)) if status >= 500 => (Ok(answer), Err((Fault::Status(status), timing))),
            Ok((answer, timing)) => (Ok(answer), Ok(timing)),
            Err(fault) => {
                let may_have_run = match &fault {
                    Fault::Upstream(failure) => failure.may_have_run(),
                    _ => true,
                };
                (Err(ConnectFailed { may_have_run }), Err((fault, Timing::default())))
            }
        };
        self.event.report(status, bytes_out, result.map_err(|(fault, _)| fault));
        // The handshake waits for this whatever the client does.
        let _ = self.sender.send(answer);
    }

    fn answer(&mut self, outcome: Outcome) -> Result<(ConnectAnswer, Timing), Fault> {
        let timing = match outcome {
            Outcome::Done(timing) => timing,
            Outcome::Failed(failure) => return Err(Fault::Upstream(failure)),
        };
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let head = self.head.take().ok_or_else(|| Fault::BadHead("the answer ended inside its headers".to_owned()))?;
        let whole = std::mem::take(&mut self.body);
        let len = whole.len() as u64;
        let from = match u64::try_from(head.content_offset) {
            Ok(offset) => offset.min(len),
            Err(_) => len.saturating_sub(head.content_offset.unsigned_abs()),
        };
        let wanted = head.content_length.unwrap_or(len - from);
        if wanted > len - from {
            return Err(Fault::Short { announced: wanted, missing: wanted - (len - from) });
        }
        let body = whole[from as usize..(from + wanted) as usize].to_vec();
        Ok((ConnectAnswer { head, body }, timing))
    }
}
