//! The answer to an event of a session that has its outbox. Its head is read. The slice of its body that is the reply
//! is put into frames, which leave for the client while PHP still runs, if the framing allows it. If the head makes the
//! session join a partition that this node does not listen to yet, the body waits until other nodes can reach the
//! session there.
//!
//! ```text
//!             head whole                    first pause with something to send
//!   Head ------------------> Body: Stream -----------------------------------> Body: Stream, begun
//!    |  \                       |  end: one whole frame, or none                  |  end: the last piece
//!    |   \ lines                |                                                 |  end too early: ReplyBroken
//!    |    `--> Body: Lines      |
//!    |  \ length unknown where the framing needs it, negative offset
//!    |   | a body that goes to others
//!    |   `--> Body: Hold (bounded by max_reply_bytes), sliced and framed at the end
//!    | a status without a body, a redirect that answers connect, a body that is no reply in the app's manner
//!    `--> Discard
//! ```
//!
//! From each stage a fault leads to Failed: 5xx, a malformed head, a script that died before its reply was whole. A
//! reply that has begun to leave is then broken off.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::framed_body::{FramedBody, Mode, Shape, send_text};
use super::head::{Destination, Head, HeadReader};
use super::hints::Hint;
use super::slice::Slice;
use super::text::TextCheck;
use super::{EventInfo, Fault, Held, MAX_PIECE_BYTES, refuse_encoded};
use crate::config::model::OnError;
use crate::outbox::{Close, Outbox};
use crate::proto::close::CloseReason;
use crate::proto::framing::FrameKind;
use crate::upstream::{Class, Failure, Outcome, Timing};

/// The answer to an event of a session that has its outbox.
pub struct Reply {
    pub(super) event: EventInfo,
    pub(super) outbox: Arc<Outbox>,
    stage: ReplyStage,
    /// Actions that wait. Nothing of the body leaves before they are done.
    held: Option<Held>,
    status: u16,
    bytes_out: u64,
    close: Option<(u16, Box<str>)>,
    /// The reply has begun to leave and cannot be finished.
    is_broken: bool,
    /// This is a connect event that has admitted its client already and now greets it line by line.
    is_greeting: bool,
    /// The outbox was told that the event has ended.
    has_ended: bool,
}

/// A reply dropped before its end means that the task that ran the request has panicked. Then the session must not wait
/// for the end of this event.
impl Drop for Reply {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        if self.event.class == Class::Connect && !self.is_greeting {
            self.outbox.connect_counts();
        }
        self.outbox.ask_close(CloseReason::NodeFailed.into());
        self.outbox.event_ended(self.event.endpoint.may_run_several());
    }
}

enum ReplyStage {
    Head(HeadReader),
    Body(FramedBody),
    Discard,
    Failed(Fault),
}

impl Reply {
    /// Makes the reply to an event that is about to be submitted.
    pub fn new(event: EventInfo, outbox: Arc<Outbox>) -> Self {
        let stage = ReplyStage::Head(HeadReader::default());
        let (held, close) = (None, None);
        Self {
            event,
            outbox,
            stage,
            held,
            status: 0,
            bytes_out: 0,
            close,
            is_broken: false,
            is_greeting: false,
            has_ended: false,
        }
    }

    /// Makes the reply to a connect event whose answer has admitted the client with this head. `begun` is the part of
    /// its body that has come.
    pub(super) fn of_greeting(event: EventInfo, outbox: Arc<Outbox>, head: Head, begun: &[u8]) -> Self {
        let mut reply = Self::new(event, outbox);
        reply.is_greeting = true;
        reply.begin_body(head, begun);
        reply.body(begun);
        reply.pause();
        if reply.event.stderr.has_died() {
            reply.died();
        }
        // Also if nothing of its body is a reply.
        reply.outbox.admit();
        reply
    }

    /// Whether some of it has left for the client, and the rest goes only there too.
    pub(super) fn is_for_the_client_alone(&self) -> bool {
        match &self.stage {
            ReplyStage::Body(FramedBody { mode: Mode::Lines, destinations, .. }) => {
                self.bytes_out > 0 && destinations.iter().all(|destination| *destination == Destination::Client)
            }
            ReplyStage::Body(body) => body.has_begun(),
            _ => false,
        }
    }

    pub(super) fn stdout(&mut self, data: &[u8]) {
        match &mut self.stage {
            ReplyStage::Head(reader) => match reader.push(data, false) {
                Ok(None) => {}
                Ok(Some((head, used))) => {
                    self.begin_body(head, &data[used..]);
                    self.body(&data[used..]);
                }
                Err(error) => self.fail(Fault::BadHead(error.to_string())),
            },
            ReplyStage::Body(_) => self.body(data),
            ReplyStage::Discard | ReplyStage::Failed(_) => {}
        }
    }

    fn begin_body(&mut self, mut head: Head, begun: &[u8]) {
        let slice = Slice::of(&head);
        self.event.complain(&head.complaints);
        self.status = head.status;
        self.close = head.close.take();
        // The head of a greeting was judged before there was a session. The lines that have come still count.
        if let Some(fault) = self.event.fault_of(&head, begun).filter(|_| !self.is_greeting) {
            return self.fail(fault);
        }
        let refuses = self.event.class == Class::Connect && head.refuses();
        if !refuses {
            self.held = self.event.act_when_reached(std::mem::take(&mut head.actions));
            self.outbox.leave_cookies(std::mem::take(&mut head.cookies));
        }
        // The page of a redirect is for browsers, which come over HTTP.
        if !head.has_body() || refuses && head.status < 400 || !self.event.is_reply(&head) {
            self.stage = ReplyStage::Discard;
            return;
        }
        if let Err(fault) = refuse_encoded(&head) {
            return self.fail(fault);
        }
        let framing = self.outbox.framing();
        let kind = head.kind.unwrap_or(self.event.kind);
        let is_checked = framing.is_text_checked() && kind == FrameKind::Text;
        let from_end = (head.content_offset < 0).then(|| head.content_offset.unsigned_abs());
        let to_others = head.destinations.iter().any(|destination| *destination != Destination::Client);
        let can_stream = match framing.begin(head.content_length) {
            _ if to_others => false,
            Ok(begin) => begin.is_some(),
            Err(error) => return self.fail(Fault::Framing(error.to_string())),
        };
        let mode = if head.lines {
            if self.event.class == Class::Connect && !refuses && !self.is_greeting {
                // PHP has admitted the client, and may continue to print lines for as long as it likes.
                self.is_greeting = true;
                self.outbox.connect_counts();
                self.outbox.admit();
            }
            Mode::Lines
        } else if from_end.is_some() || !can_stream {
            Mode::Hold { from_end }
        } else {
            Mode::Stream { begun: false, shape: self.shape(head.content_length) }
        };
        self.stage = ReplyStage::Body(FramedBody {
            kind,
            destinations: head.destinations,
            kind_for_others: self.event.kind_for_others(head.kind),
            slice,
            id: head.id,
            mode,
            pending: Vec::new(),
            text: is_checked.then(TextCheck::default),
            is_json: head.is_json,
        });
    }

    /// Chooses the form of a streamed reply. A frame's head states its length, and the length of a compressed frame is
    /// known only at its end.
    fn shape(&self, announced: Option<u64>) -> Shape {
        let framing = self.outbox.framing();
        match announced.map(usize::try_from) {
            Some(Ok(len)) if framing.has_fragments() => match framing.deflate() {
                Some(_) if len >= self.outbox.terms().deflate_min_bytes => Shape::Pieces(None),
                _ => Shape::OneFrame(len),
            },
            _ => Shape::Pieces(None),
        }
    }

    fn body(&mut self, data: &[u8]) {
        let ReplyStage::Body(body) = &mut self.stage else { return };
        if data.starts_with(Hint::BYTE_ORDER_MARK) && body.pending.is_empty() && self.bytes_out == 0 {
            self.event.hint(Hint::ByteOrderMark);
        }
        let data = if matches!(body.mode, Mode::Hold { from_end: Some(_) }) { data } else { body.slice.take(data) };
        body.pending.extend_from_slice(data);
        let max_bytes = self.event.endpoint.app.max_reply_bytes;
        if body.pending.len() < MAX_PIECE_BYTES.min(max_bytes) {
            return;
        }
        // The outbox must get these bytes now. Otherwise it would see room for more and more while PHP never pauses.
        // Bytes that are still pending after that have to be held back.
        self.pause();
        match &self.stage {
            // While actions wait, the body leaves later. It is at most one read, because `poll_room` admits no other.
            ReplyStage::Body(FramedBody { mode: Mode::Stream { .. } | Mode::Lines, .. }) if self.held.is_some() => {}
            ReplyStage::Body(body) if body.pending.len() > max_bytes => self.fail(Fault::TooLarge),
            _ => {}
        }
    }

    /// PHP reports that the script died. Then the reply is incomplete, unless everything that was announced has come.
    pub(super) fn died(&mut self) {
        if let ReplyStage::Body(body) = &self.stage
            && !body.slice.is_through()
        {
            if let Mode::Lines = body.mode {
                // Each line is whole by itself, even if it came in the same read as the report.
                self.pause();
            }
            self.fail(Fault::Died);
        }
    }

    /// Ready when more of the body may come.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(held) = &mut self.held {
            ready!(held.settled.as_mut().poll(cx));
            self.let_go();
            // An earlier pause could send nothing, so make up for it.
            self.pause();
        }
        self.outbox.poll_room(cx, self.streams())
    }

    /// Whether the session's end must wait for this event. PHP must not get the close event while it still runs the
    /// connect event. A greeting by lines is an exception: it has admitted its client, and may continue for as long as
    /// it likes.
    pub(super) fn is_waited_for(&self) -> bool {
        let by_lines = matches!(&self.stage, ReplyStage::Body(FramedBody { mode: Mode::Lines, .. }));
        self.event.class == Class::Connect && !self.is_greeting && !by_lines
    }

    /// Whether this is the streaming reply that the outbox holds other frames back for.
    fn streams(&self) -> bool {
        matches!(&self.stage, ReplyStage::Body(body) if body.has_begun())
    }

    /// Runs the actions that wait.
    fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            self.event.act(held.actions);
        }
    }

    /// Sends everything that can be sent now.
    pub(super) fn pause(&mut self) {
        if self.held.is_some() {
            return;
        }
        let result = match &mut self.stage {
            ReplyStage::Body(body) => match body.mode {
                Mode::Stream { .. } => body.stream(&self.outbox, &self.event, false),
                Mode::Lines => body.lines(&self.outbox, &self.event, false),
                Mode::Hold { .. } => Ok(0),
            },
            _ => Ok(0),
        };
        self.sent(result);
    }

    pub(super) fn end(mut self: Box<Self>, outcome: Outcome) {
        if let Outcome::Done(_) = outcome
            && let Some(held) = self.held.take()
        {
            let tasks = self.event.endpoint.hub.tasks.clone();
            tasks.spawn(async move {
                held.act(&self.event).await;
                self.end(outcome);
            });
            return;
        }
        // No reply follows a failed event, so its actions need not wait.
        self.let_go();
        // Everything that was announced has come. A failure of the script after that is counted, but the reply stands.
        let is_whole = matches!(&self.stage, ReplyStage::Body(body) if body.slice.is_through())
            && (matches!(outcome, Outcome::Done(_)) || self.event.class == Class::Message);
        if let ReplyStage::Body(body) = &mut self.stage
            && (is_whole || matches!(outcome, Outcome::Done(_)))
        {
            let result = body.finish(&self.outbox, &self.event);
            self.sent(result);
        }
        let stands = is_whole && matches!(self.stage, ReplyStage::Body(_));
        let result = match (outcome, std::mem::replace(&mut self.stage, ReplyStage::Discard)) {
            (Outcome::Failed(failure), stage) => {
                if let Failure::SlowReader { .. } = failure {
                    self.outbox.ask_close(Close::new(CloseReason::SlowReader).because(failure.to_string()));
                }
                if let ReplyStage::Body(body) = stage
                    && body.has_begun()
                    && !stands
                {
                    self.break_off();
                }
                Err(Fault::Upstream(failure))
            }
            (_, ReplyStage::Failed(fault)) => Err(fault),
            // The empty line after the headers is missing, although php-fpm always sends it.
            (_, ReplyStage::Head(_)) => Err(Fault::BadHead("the answer ended inside its headers".to_owned())),
            (Outcome::Done(timing), _) => self.event.ended(timing),
        };
        self.event.report(self.status, self.bytes_out, &result);
        self.consequences(outcome, &result, stands);
        self.has_ended = true;
        #[cfg(test)]
        if crate::outbox::faults::Fault::EndNotTold.is_on() {
            return;
        }
        self.outbox.event_ended(self.event.endpoint.may_run_several());
    }

    /// Applies the end of the event to the session. `stands` means that the script died after a reply that has
    /// everything it announced. That is counted and changes nothing else.
    fn consequences(&mut self, outcome: Outcome, result: &Result<Timing, Fault>, stands: bool) {
        let failed = result.is_err() && !stands;
        match self.event.class {
            // In fooking's manner, connect decides nothing.
            Class::Connect if self.event.endpoint.app.compat.is_fooking() => {
                self.outbox.connect_counts();
                self.outbox.admit();
            }
            Class::Connect if !self.is_greeting => match outcome {
                Outcome::Done(_) => match result {
                    Err(fault @ (Fault::BadHead(_) | Fault::Died | Fault::NotRun)) if !stands => {
                        // The answer neither admits nor refuses the session.
                        if fault.may_have_run() {
                            self.outbox.connect_counts();
                        }
                        self.outbox.ask_close(Close::new(CloseReason::ConnectFailed).because(fault.to_string()));
                    }
                    _ if self.status >= 300 => {
                        let detail = format!("status {}", self.status);
                        self.outbox.ask_close(Close::new(CloseReason::Refused).because(detail));
                    }
                    _ => {
                        self.outbox.connect_counts();
                        self.outbox.admit();
                    }
                },
                Outcome::Failed(failure) => {
                    if failure.may_have_run() {
                        // It is unknown whether PHP has noted the session, so a close event follows.
                        self.outbox.connect_counts();
                    }
                    self.outbox.ask_close(Close::new(CloseReason::ConnectFailed).because(failure.to_string()));
                }
            },
            // Any further bytes would pass for the rest of the broken frame. The session is being closed because of it.
            Class::Connect | Class::Message if self.is_broken => {}
            Class::Connect | Class::Message if failed => match &self.event.endpoint.app.on_error {
                OnError::Ignore => {}
                OnError::Send(text) => {
                    // A text that does not fit the framing cannot be sent, and the event's failure is logged already.
                    let _ = send_text(&self.outbox, text.as_bytes());
                }
                OnError::Close => self.outbox.ask_close(CloseReason::HandlerFailed.into()),
            },
            Class::Connect | Class::Message | Class::Close | Class::Presence => {}
        }
        if let Some((code, text)) = self.close.take()
            && !failed
        {
            self.outbox.ask_close(Close::by_handler(code, text));
        }
    }

    fn sent(&mut self, result: Result<u64, Fault>) {
        match result {
            Ok(bytes) => self.bytes_out += bytes,
            Err(fault) => self.fail(fault),
        }
    }

    fn fail(&mut self, fault: Fault) {
        let stage = std::mem::replace(&mut self.stage, ReplyStage::Failed(fault));
        if matches!(stage, ReplyStage::Body(body) if body.has_begun()) {
            self.break_off();
        }
    }

    /// Breaks the reply off. A frame that has begun to leave cannot be taken back, and must not end as if it were
    /// whole.
    fn break_off(&mut self) {
        self.is_broken = true;
        self.outbox.break_stream();
    }
}
