//! The answer to an event of a session that has its outbox: its head is read, the slice of its body that is the reply is
//! framed and leaves for the client while PHP still runs, wherever the framing allows it; and, where the head has the session join
//! what this node does not listen to yet, when other nodes reach it there.
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
//! From each stage a fault leads to Failed: 5xx, a head that makes no sense, a script that died before its reply was whole. A reply that
//! has begun to leave is broken then.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tracing::warn;

use super::head::{Destination, Head, HeadReader};
use super::hints::Hint;
use super::slice::Slice;
use super::text::TextCheck;
use super::{ConnectAnswer, EventInfo, Fault, Greeting, Held, MAX_PIECE_BYTES, refuse_encoded};
use crate::config::model::OnError;
use crate::outbox::{Close, Outbox};
use crate::proto::close::CloseReason;
use crate::proto::command::Name;
use crate::proto::framing::deflate::{Deflater, deflate_whole};
use crate::proto::framing::{Affix, FrameKind};
use crate::session::endpoint::Endpoint;
use crate::upstream::{Class, Failure, Outcome, Timing};

/// The answer to an event of a session that has its outbox.
pub struct Reply {
    pub(super) event: EventInfo,
    pub(super) outbox: Arc<Outbox>,
    stage: Stage,
    /// Nothing of the body leaves before this is done.
    held: Option<Held>,
    status: u16,
    bytes_out: u64,
    close: Option<(u16, Box<str>)>,
    /// The reply had begun to leave and cannot be finished.
    is_broken: bool,
    /// To a connect event that has let its client in already, and now greets it line by line.
    is_greeting: bool,
    /// The outbox knows that the event is over.
    has_ended: bool,
}

/// Torn down without an end: the task that ran the request panicked. The session must not wait for what will not come.
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

enum Stage {
    Head(HeadReader),
    Body(Body),
    Discard,
    Failed(Fault),
}

struct Body {
    kind: FrameKind,
    /// Where it goes; to the client when there is none.
    destinations: Vec<Destination>,
    /// Of what goes to others than the client.
    kind_for_others: Option<FrameKind>,
    slice: Slice,
    /// What its publisher calls it.
    id: Option<Name>,
    mode: Mode,
    /// Bytes of the reply that have not left yet.
    pending: Vec<u8>,
    /// For text on a framing that checks it.
    text: Option<TextCheck>,
    is_json: bool,
}

enum Mode {
    /// Leaves in pieces.
    Stream { begun: bool, shape: Shape },
    /// Each line is a frame.
    Lines,
    /// Held back to the end; `from_end` is a negative `Content-Offset`.
    Hold { from_end: Option<u64> },
}

/// What the pieces of a streamed reply are on the wire.
enum Shape {
    /// What the framing makes of them; fragments on a WebSocket, compressed where that was negotiated.
    Pieces(Option<Box<Deflater>>),
    /// The payload of one WebSocket frame of so many bytes.
    OneFrame(usize),
}

impl Reply {
    /// For an event that is about to be submitted.
    pub fn new(event: EventInfo, outbox: Arc<Outbox>) -> Self {
        let stage = Stage::Head(HeadReader::default());
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

    /// To a connect event whose answer let the client in with this head; `begun` is what has come of its body.
    pub(super) fn of_greeting(event: EventInfo, outbox: Arc<Outbox>, head: Head, begun: &[u8]) -> Self {
        let mut reply = Self::new(event, outbox);
        reply.is_greeting = true;
        reply.begin_body(head, begun);
        reply.body(begun);
        reply.pause();
        if reply.event.stderr.has_died() {
            reply.died();
        }
        // Also where nothing of its body is a reply.
        reply.outbox.admit();
        reply
    }

    /// Some of it has left for the client, and nobody else gets the rest.
    pub(super) fn is_for_the_client_alone(&self) -> bool {
        match &self.stage {
            Stage::Body(Body { mode: Mode::Lines, destinations, .. }) => {
                self.bytes_out > 0 && destinations.iter().all(|destination| *destination == Destination::Client)
            }
            Stage::Body(body) => body.has_begun(),
            _ => false,
        }
    }

    pub(super) fn stdout(&mut self, data: &[u8]) {
        match &mut self.stage {
            Stage::Head(reader) => match reader.push(data, false) {
                Ok(None) => {}
                Ok(Some((head, used))) => {
                    self.begin_body(head, &data[used..]);
                    self.body(&data[used..]);
                }
                Err(error) => self.fail(Fault::BadHead(error.to_string())),
            },
            Stage::Body(_) => self.body(data),
            Stage::Discard | Stage::Failed(_) => {}
        }
    }

    fn begin_body(&mut self, mut head: Head, begun: &[u8]) {
        let slice = Slice::of(&head);
        self.event.complain(&head.complaints);
        self.status = head.status;
        self.close = head.close.take();
        // A greeting was judged by its head before there was a session. It stands as far as it came.
        if let Some(fault) = self.event.fault_of(&head, begun).filter(|_| !self.is_greeting) {
            return self.fail(fault);
        }
        let refuses = self.event.class == Class::Connect && head.refuses();
        if !refuses {
            self.held = self.event.act_when_reached(std::mem::take(&mut head.actions));
            self.outbox.leave_cookies(std::mem::take(&mut head.cookies));
        }
        // The page that a redirect brings is for browsers, and those come over HTTP.
        if !head.has_body() || refuses && head.status < 400 || !self.event.is_reply(&head) {
            self.stage = Stage::Discard;
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
                // PHP has let it in, and may go on talking for as long as it likes.
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
        self.stage = Stage::Body(Body {
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

    /// A frame's head says how long it is. That of a compressed one is known at its end.
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
        let Stage::Body(body) = &mut self.stage else { return };
        if data.starts_with(Hint::BYTE_ORDER_MARK) && body.pending.is_empty() && self.bytes_out == 0 {
            self.event.hint(Hint::ByteOrderMark);
        }
        let data = if matches!(body.mode, Mode::Hold { from_end: Some(_) }) { data } else { body.slice.take(data) };
        body.pending.extend_from_slice(data);
        let max_bytes = self.event.endpoint.app.max_reply_bytes;
        if body.pending.len() < MAX_PIECE_BYTES.min(max_bytes) {
            return;
        }
        // The outbox must see what is here, or it would find room for more and more while PHP never pauses. What still is
        // pending after that has to be held back.
        self.pause();
        match &self.stage {
            // What will leave when the session is where it should be is no more than one read: there is no room for another one.
            Stage::Body(Body { mode: Mode::Stream { .. } | Mode::Lines, .. }) if self.held.is_some() => {}
            Stage::Body(body) if body.pending.len() > max_bytes => self.fail(Fault::TooLarge),
            _ => {}
        }
    }

    /// PHP says that the script died: what has come of its reply is not the whole, unless all that was announced has.
    pub(super) fn died(&mut self) {
        if let Stage::Body(body) = &self.stage
            && !body.slice.is_through()
        {
            if let Mode::Lines = body.mode {
                // Each is whole by itself, whether it came in the same read as this news or before.
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
            // It was told to when nothing could leave.
            self.pause();
        }
        self.outbox.poll_room(cx, self.streams())
    }

    /// PHP must not hear of a session's end while it still hears of its beginning. A greeting by lines has let its client in, and may
    /// go on for as long as it likes.
    pub(super) fn is_waited_for(&self) -> bool {
        let by_lines = matches!(&self.stage, Stage::Body(Body { mode: Mode::Lines, .. }));
        self.event.class == Class::Connect && !self.is_greeting && !by_lines
    }

    /// It is what the outbox holds others back for.
    fn streams(&self) -> bool {
        matches!(&self.stage, Stage::Body(body) if body.has_begun())
    }

    /// Does what was held.
    fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            self.event.act(held.actions);
        }
    }

    /// What can leave now leaves.
    pub(super) fn pause(&mut self) {
        if self.held.is_some() {
            return;
        }
        let result = match &mut self.stage {
            Stage::Body(body) => match body.mode {
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
        // Nobody waits for a reply.
        self.let_go();
        // All that was announced is there. What becomes of the script behind it is counted, and takes nothing back.
        let is_whole = matches!(&self.stage, Stage::Body(body) if body.slice.is_through())
            && (matches!(outcome, Outcome::Done(_)) || self.event.class == Class::Message);
        if let Stage::Body(body) = &mut self.stage
            && (is_whole || matches!(outcome, Outcome::Done(_)))
        {
            let result = body.finish(&self.outbox, &self.event);
            self.sent(result);
        }
        let stands = is_whole && matches!(self.stage, Stage::Body(_));
        let result = match (outcome, std::mem::replace(&mut self.stage, Stage::Discard)) {
            (Outcome::Failed(failure), stage) => {
                if let Failure::SlowReader { .. } = failure {
                    self.outbox.ask_close(Close::new(CloseReason::SlowReader).because(failure.to_string()));
                }
                if let Stage::Body(body) = stage
                    && body.has_begun()
                    && !stands
                {
                    self.break_off();
                }
                Err(Fault::Upstream(failure))
            }
            (_, Stage::Failed(fault)) => Err(fault),
            // No empty line ever came, not even the one that php-fpm always sends.
            (_, Stage::Head(_)) => Err(Fault::BadHead("the answer ended inside its headers".to_owned())),
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

    /// Does with the session what the end of its event means. `stands`: the script died behind a reply that has all it announced,
    /// which is counted and changes nothing.
    fn consequences(&mut self, outcome: Outcome, result: &Result<Timing, Fault>, stands: bool) {
        let failed = result.is_err() && !stands;
        match self.event.class {
            // There it decides nothing.
            Class::Connect if self.event.endpoint.app.compat.is_fooking() => {
                self.outbox.connect_counts();
                self.outbox.admit();
            }
            Class::Connect if !self.is_greeting => match outcome {
                Outcome::Done(_) => match result {
                    Err(fault @ (Fault::BadHead(_) | Fault::Died | Fault::NotRun)) if !stands => {
                        // Neither an admission nor a refusal.
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
                        // Nobody knows whether PHP has noted the session: its close event clears that up.
                        self.outbox.connect_counts();
                    }
                    self.outbox.ask_close(Close::new(CloseReason::ConnectFailed).because(failure.to_string()));
                }
            },
            // Whatever followed would pass for the rest of the broken frame; the session is being closed for it.
            Class::Connect | Class::Message if self.is_broken => {}
            Class::Connect | Class::Message if failed => match &self.event.endpoint.app.on_error {
                OnError::Ignore => {}
                OnError::Send(text) => {
                    // Nothing is left to be said about a text that does not fit.
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
        let stage = std::mem::replace(&mut self.stage, Stage::Failed(fault));
        if matches!(stage, Stage::Body(body) if body.has_begun()) {
            self.break_off();
        }
    }

    /// A frame that has begun to leave cannot be taken back, and must not be ended as if it were whole.
    fn break_off(&mut self) {
        self.is_broken = true;
        self.outbox.break_stream();
    }
}

impl Body {
    fn has_begun(&self) -> bool {
        matches!(self.mode, Mode::Stream { begun: true, .. })
    }

    /// Sends what is pending as a piece of a streamed frame.
    fn stream(&mut self, outbox: &Outbox, event: &EventInfo, is_last: bool) -> Result<u64, Fault> {
        if self.pending.is_empty() && !is_last {
            return Ok(0);
        }
        let Mode::Stream { begun, shape } = &mut self.mode else { unreachable!("only called in this mode") };
        let framing = outbox.framing();
        let is_first = !*begun;
        if is_first && !outbox.begin_stream(matches!(shape, Shape::OneFrame(_))) {
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
        let begin = match shape {
            _ if !is_first => Affix::EMPTY,
            Shape::OneFrame(len) => framing.whole(self.kind, *len).expect("a WebSocket frame of any length has a head"),
            Shape::Pieces(deflater) => {
                *deflater = framing.deflate().map(|deflate| Box::new(Deflater::new(deflate)));
                let begin = framing.begin(self.slice.announced());
                begin.expect("begin_body has seen that this framing can carry it").unwrap_or(Affix::EMPTY)
            }
        };
        *begun = true;
        let deflated;
        let (piece, body): (Affix, &[u8]) = match shape {
            Shape::OneFrame(_) => (Affix::EMPTY, &self.pending),
            Shape::Pieces(Some(deflater)) => {
                deflated = deflater.piece(&self.pending, is_last);
                (framing.piece_deflated(self.kind, is_first, is_last, deflated.len()), &deflated)
            }
            Shape::Pieces(None) => (framing.piece(self.kind, is_first, is_last, self.pending.len()), &self.pending),
        };
        let tail = if is_last { framing.tail() } else { &[] };
        outbox.write_piece(&[IoSlice::new(&begin), IoSlice::new(&piece), IoSlice::new(body), IoSlice::new(tail)]);
        if is_last {
            outbox.end_stream();
            event.endpoint.hub.metrics.frames_out.inc();
        }
        let sent = self.pending.len() as u64;
        self.pending.clear();
        Ok(sent)
    }

    /// Sends every whole line that is pending, and at the end what is left.
    fn lines(&mut self, outbox: &Outbox, event: &EventInfo, is_last: bool) -> Result<u64, Fault> {
        let mut from = 0;
        let mut sent = 0;
        let mut result = Ok(());
        while let Some(len) = memchr::memchr(b'\n', &self.pending[from..]) {
            result = match len {
                _ if len > event.endpoint.app.max_reply_bytes => Err(Fault::TooLarge),
                _ => self.send(outbox, event, &self.pending[from..from + len]),
            };
            if result.is_err() {
                break;
            }
            from += len + 1;
            sent += len as u64;
        }
        self.pending.drain(..from);
        if is_last && result.is_ok() && !self.pending.is_empty() {
            result = self.send(outbox, event, &self.pending);
            sent += self.pending.len() as u64;
        }
        result.map(|()| sent)
    }

    /// Sends one whole frame to everybody who is to have it.
    fn send(&self, outbox: &Outbox, event: &EventInfo, frame: &[u8]) -> Result<(), Fault> {
        match event.send_to(&self.destinations, self.kind_for_others, self.id.as_ref(), frame)? {
            true => send_whole(outbox, &event.endpoint, self.kind, self.id.as_ref(), frame),
            false => Ok(()),
        }
    }

    /// The answer is complete: sends the rest.
    fn finish(&mut self, outbox: &Outbox, event: &EventInfo) -> Result<u64, Fault> {
        if let Mode::Hold { from_end: Some(from_end) } = self.mode {
            self.slice.skip((self.pending.len() as u64).saturating_sub(from_end));
            let whole = std::mem::take(&mut self.pending);
            self.pending = self.slice.take(&whole).to_vec();
        }
        self.slice.check_whole()?;
        match self.mode {
            Mode::Lines => self.lines(outbox, event, true),
            Mode::Stream { begun: true, .. } => self.stream(outbox, event, true),
            Mode::Stream { .. } | Mode::Hold { .. } => {
                // An empty body is no reply, unless the handler announced just that.
                if self.pending.is_empty() && self.slice.announced().is_none() {
                    if self.is_json {
                        event.hint(Hint::EmptyJson);
                    }
                    return Ok(0);
                }
                self.send(outbox, event, &self.pending)?;
                Ok(self.pending.len() as u64)
            }
        }
    }
}

fn send_text(outbox: &Outbox, text: &[u8]) -> Result<(), Fault> {
    match outbox.framing().codec() {
        Some(codec) => outbox.write_by(codec, text).map_err(|why| Fault::Framing(why.into()))?,
        None => {
            let frame = outbox.framing().encode(FrameKind::Text, text);
            outbox.write_frame(&[IoSlice::new(&frame.map_err(|error| Fault::Framing(error.to_string()))?)]);
        }
    }
    Ok(())
}

/// Sends one whole frame, compressed where that was negotiated and is worth it.
fn send_whole(
    outbox: &Outbox,
    endpoint: &Endpoint,
    kind: FrameKind,
    id: Option<&Name>,
    body: &[u8],
) -> Result<(), Fault> {
    let framing = outbox.framing();
    if let Some(codec) = framing.codec() {
        outbox.write_by(codec, body).map_err(|why| Fault::Framing(why.into()))?;
        endpoint.hub.metrics.frames_out.inc();
        return Ok(());
    }
    if framing.is_text_checked() && kind == FrameKind::Text && str::from_utf8(body).is_err() {
        return Err(Fault::NotUtf8);
    }
    let min_bytes = endpoint.websocket.as_ref().map_or(0, |websocket| websocket.deflate_min_bytes);
    match framing.deflate() {
        Some(deflate) if body.len() >= min_bytes => {
            let body = deflate_whole(deflate, body);
            let head = framing.whole_deflated(kind, body.len());
            outbox.write_frame(&[IoSlice::new(&head), IoSlice::new(&body)]);
        }
        _ if !framing.wraps() => {
            let frame = framing
                .encode_with_id(kind, id.map(Name::as_bytes), body)
                .map_err(|error| Fault::Framing(error.to_string()))?;
            outbox.write_frame(&[IoSlice::new(&frame)]);
        }
        _ => {
            let head = framing.whole(kind, body.len()).map_err(|error| Fault::Framing(error.to_string()))?;
            outbox.write_frame(&[IoSlice::new(&head), IoSlice::new(body), IoSlice::new(framing.tail())]);
        }
    }
    endpoint.hub.metrics.frames_out.inc();
    Ok(())
}

/// What a handler said to a connect event, now that the session that it admitted is there: what it asked for is done with
/// the session, and the body is its first frame. True when lines follow, as an event of the session that is in flight.
pub(in crate::session) async fn greet(outbox: &Arc<Outbox>, answer: ConnectAnswer) -> bool {
    let ConnectAnswer { mut head, greeting } = answer;
    let (event, body) = match greeting {
        Greeting::Whole { event, body } => (event, body),
        Greeting::Lines { outbox: lines, .. } => {
            // An error means that the event has ended meanwhile, and whoever ended it has said why.
            let follow = lines.send(outbox.clone()).is_ok();
            if !follow {
                outbox.admit();
            }
            return follow;
        }
    };
    if let Some(held) = event.act_when_reached(std::mem::take(&mut head.actions)) {
        held.act(&event).await;
    }
    let sent = first_frame(outbox, &event, &head, &body);
    // The first frame has left: what others have sent meanwhile follows it.
    outbox.admit();
    if let Some((code, text)) = head.close {
        outbox.ask_close(Close::by_handler(code, text));
    }
    if let Err(fault) = sent {
        fault.count(&event.endpoint, event.label);
        warn!(session = %outbox.id(), script = %event.endpoint.app.script.display(), cause = fault.label(), "no reply to connect: {fault}");
    }
    false
}

fn first_frame(outbox: &Outbox, event: &EventInfo, head: &Head, body: &[u8]) -> Result<(), Fault> {
    let is_empty = body.is_empty() && head.content_length.is_none();
    if !head.has_body() || is_empty || !event.is_reply(head) {
        return Ok(());
    }
    refuse_encoded(head)?;
    match event.send_to(&head.destinations, head.kind, head.id.as_ref(), body)? {
        true => {
            let kind = head.kind.unwrap_or(FrameKind::Text);
            send_whole(outbox, &event.endpoint, kind, head.id.as_ref(), body)
        }
        false => Ok(()),
    }
}
