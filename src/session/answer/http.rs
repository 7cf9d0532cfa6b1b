//! The answer to an event whose client waits for it as an HTTP response: a post to a session, or a plain request.
//!
//! ```text
//!            head whole              first pause with something to send, or a large piece
//!   Head -----------------> Body -------------------------------------------------------> Body, begun: a feed
//!    |                        |  end: one whole response                                    |  end: the feed is finished
//!    | a fault: 5xx to a      |                                                             |  end too early, or the script dies:
//!    v session's event, ...   | goes to others, negative offset: held to the end            |  it breaks off
//!   Failed
//! ```

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::head::{Destination, Head, HeadReader};
use super::slice::Slice;
use super::{EventInfo, Fault, MAX_PIECE_BYTES, refuse_encoded, reply_in};
use crate::config::model::OnError;
use crate::outbox::{Close, Feed, FeedReader, Outbox};
use crate::proto::close::CloseReason;
use crate::upstream::{Failure, Outcome, Timing};

/// The result for an HTTP client.
pub enum HttpReply {
    /// The handler's answer. Its body is complete, or has begun.
    Answer {
        /// Status and headers.
        head: Box<Head>,
        body: ReplyBody,
    },
    /// There is no usable answer.
    Failed {
        /// The status of the response.
        status: u16,
        /// The text that the app's `on_error` sends instead.
        text: String,
    },
}

/// The body of an answer.
pub enum ReplyBody {
    /// The complete body.
    Whole(Vec<u8>),
    /// The script is still printing the body.
    Feed {
        /// The reader of the body.
        reader: FeedReader,
        /// The feed of that reader, to see whether the client takes the body.
        feed: Arc<Feed>,
        /// The length of the body, if the handler announced it.
        len: Option<u64>,
    },
}

pub struct HttpAnswer {
    pub(super) event: EventInfo,
    /// The outbox of the event's session. `None` for a plain request.
    session: Option<Arc<Outbox>>,
    stage: ResponseStage,
    status: u16,
    bytes_out: u64,
    close: Option<(u16, Box<str>)>,
    /// The response has headers only.
    is_bodyless: bool,
    /// `Some` until the response begins.
    reply: Option<oneshot::Sender<HttpReply>>,
}

enum ResponseStage {
    Head(HeadReader),
    Body(Box<ResponseBody>),
    Failed(Fault),
}

struct ResponseBody {
    head: Head,
    slice: Slice,
    /// The body is held to the end: the offset is negative, or it goes to sessions other than the client's.
    is_held: bool,
    pending: Vec<u8>,
    feed: Option<Arc<Feed>>,
}

impl HttpAnswer {
    /// Makes the answer to an event that is about to be submitted.
    pub fn new(event: EventInfo, session: Option<Arc<Outbox>>, reply: oneshot::Sender<HttpReply>) -> Self {
        let stage = ResponseStage::Head(HeadReader::default());
        Self { event, session, stage, status: 0, bytes_out: 0, close: None, is_bodyless: false, reply: Some(reply) }
    }

    /// Sets the method of the request. PHP sends no body for a HEAD, even if it announces a length.
    pub fn for_method(mut self, method: &str) -> Self {
        self.is_bodyless = method == "HEAD";
        self
    }

    pub(super) fn stdout(&mut self, data: &[u8]) {
        match &mut self.stage {
            ResponseStage::Head(reader) => match reader.push(data, true) {
                Ok(None) => {}
                Ok(Some((head, used))) => {
                    self.begin_body(head, &data[used..]);
                    self.body(&data[used..]);
                }
                Err(error) => self.stage = ResponseStage::Failed(Fault::BadHead(error.to_string())),
            },
            ResponseStage::Body(_) => self.body(data),
            ResponseStage::Failed(_) => {}
        }
    }

    fn begin_body(&mut self, mut head: Head, begun: &[u8]) {
        if self.session.is_none() && (!head.actions.is_empty() || head.close.is_some()) {
            head.complaints
                .push("Longwire-Join, -Leave, -Uid, -Set and -Close have no session to act on here".to_owned());
        }
        self.event.complain(&head.complaints);
        self.status = head.status;
        match self.event.fault_of(&head, begun) {
            // A 5xx page of the handler goes to the client as it is.
            Some(Fault::Status(_)) if self.session.is_none() => {}
            Some(fault) => {
                self.stage = ResponseStage::Failed(fault);
                return;
            }
            None => {}
        }
        if !head.has_body() {
            (head.content_length, head.content_offset) = (None, 0);
            head.destinations.clear();
            self.is_bodyless = true;
        }
        if let Some(outbox) = &self.session {
            self.close = head.close.take();
            self.event.act(std::mem::take(&mut head.actions));
            outbox.leave_cookies(std::mem::take(&mut head.cookies));
            if !self.event.is_reply(&head) {
                (head.content_length, head.content_offset) = (Some(0), 0);
            }
        }
        let to_others = head.destinations.iter().any(|destination| *destination != Destination::Client);
        let is_held = to_others || head.content_offset < 0;
        // A held body is sliced when it is complete.
        let slice = if is_held || self.is_bodyless { Slice::of(&Head::default()) } else { Slice::of(&head) };
        self.stage =
            ResponseStage::Body(Box::new(ResponseBody { head, slice, is_held, pending: Vec::new(), feed: None }));
    }

    fn body(&mut self, data: &[u8]) {
        let ResponseStage::Body(body) = &mut self.stage else { return };
        if self.is_bodyless {
            return;
        }
        let data = body.slice.take(data);
        body.pending.extend_from_slice(data);
        if body.pending.len() >= MAX_PIECE_BYTES {
            self.pause();
        }
        if let ResponseStage::Body(body) = &self.stage
            && body.pending.len() > self.event.endpoint.app.max_reply_bytes
        {
            self.stage = ResponseStage::Failed(Fault::TooLarge);
        }
    }

    /// PHP reports that the script died. Then the body is incomplete, unless everything that was announced has come.
    pub(super) fn died(&mut self) {
        if let ResponseStage::Body(body) = &self.stage
            && self.status < 500
            && !body.slice.is_through()
        {
            body.feed.iter().for_each(|feed| feed.break_off());
            self.stage = ResponseStage::Failed(Fault::Died);
        }
    }

    /// Sends everything that can be sent now.
    pub(super) fn pause(&mut self) {
        let ResponseStage::Body(body) = &mut self.stage else { return };
        if body.is_held || body.pending.is_empty() {
            return;
        }
        if body.feed.is_none()
            && let Some(reply) = self.reply.take()
        {
            let (feed, reader) = Feed::stream();
            let begun = ReplyBody::Feed { reader, feed: feed.clone(), len: body.slice.announced() };
            // If the client is gone, sending fails and drops the reader, which abandons the feed.
            let _ = reply.send(HttpReply::Answer { head: Box::new(body.head.clone()), body: begun });
            body.feed = Some(feed);
        }
        body.flush(&mut self.bytes_out);
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.feed() {
            Some(feed) => feed.poll_room(cx),
            None => Poll::Ready(()),
        }
    }

    /// Ready when the event may be cancelled. A plain request is cancelled when its client is gone. A post may matter
    /// for more than its client, so it is cancelled only when its session has ended, or when a response that has begun
    /// is not read any more.
    pub(super) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let ResponseStage::Body(body) = &self.stage
            && let Some(feed) = &body.feed
            // A client that has everything that was announced stops reading, but the script may still have work to do.
            && !body.slice.is_through()
            && feed.poll_abandoned(cx).is_ready()
        {
            return Poll::Ready(());
        }
        match (&self.session, &mut self.reply) {
            (Some(outbox), _) => outbox.poll_unwanted(cx, false),
            (None, Some(reply)) => reply.poll_closed(cx),
            (None, None) => Poll::Pending,
        }
    }

    fn feed(&self) -> Option<&Arc<Feed>> {
        match &self.stage {
            ResponseStage::Body(body) => body.feed.as_ref(),
            _ => None,
        }
    }

    pub(super) fn end(mut self, outcome: Outcome) {
        let result = self.finish(outcome);
        // A script that died after a whole reply is counted, and changes nothing else.
        let counted =
            result.clone().and_then(|timing| if self.status < 500 { self.event.ended(timing) } else { Ok(timing) });
        self.event.report(self.status, self.bytes_out, &counted);
        if let Err(fault) = &result {
            self.fail(fault);
        } else if let (Some((code, text)), Some(outbox)) = (self.close.take(), &self.session) {
            outbox.ask_close(Close::by_handler(code, text));
        }
        if let Some(outbox) = &self.session {
            outbox.event_ended(self.event.endpoint.may_run_several());
        }
    }

    fn finish(&mut self, outcome: Outcome) -> Result<Timing, Fault> {
        match (outcome, std::mem::replace(&mut self.stage, ResponseStage::Head(HeadReader::default()))) {
            (Outcome::Failed(failure), stage) => {
                if let ResponseStage::Body(body) = stage
                    && let Some(feed) = body.feed
                {
                    feed.break_off();
                }
                Err(Fault::Upstream(failure))
            }
            (_, ResponseStage::Failed(fault)) => Err(fault),
            (_, ResponseStage::Head(_)) => Err(Fault::BadHead("the answer ended inside its headers".to_owned())),
            (Outcome::Done(timing), ResponseStage::Body(body)) => {
                self.finish_body(*body)?;
                Ok(timing)
            }
        }
    }

    fn finish_body(&mut self, mut body: ResponseBody) -> Result<(), Fault> {
        if let Some(feed) = body.feed.clone() {
            body.flush(&mut self.bytes_out);
            return match body.slice.check_whole() {
                Ok(()) => {
                    feed.finish();
                    Ok(())
                }
                Err(fault) => {
                    feed.break_off();
                    Err(fault)
                }
            };
        }
        let mut head = body.head;
        let mut reply = body.pending;
        if body.is_held {
            reply = reply_in(&head, reply)?;
            let kind = self.event.kind_for_others(head.kind);
            if !head.destinations.is_empty() {
                refuse_encoded(&head)?;
            }
            if !head.destinations.is_empty()
                && !self.event.send_to(&head.destinations, kind, head.id.as_ref(), &reply)?
            {
                // The body has gone to others. The client gets an empty response that confirms it.
                reply = Vec::new();
                head.status = if head.status == 200 { 204 } else { head.status };
            }
        } else {
            body.slice.check_whole()?;
        }
        self.bytes_out += reply.len() as u64;
        if let Some(sender) = self.reply.take() {
            // If the client is gone, its answer is only in the log.
            let _ = sender.send(HttpReply::Answer { head: Box::new(head), body: ReplyBody::Whole(reply) });
        }
        Ok(())
    }

    /// Applies `on_error` of a failed event to its session, and answers its client.
    fn fail(&mut self, fault: &Fault) {
        let mut text = String::new();
        if let Some(outbox) = &self.session {
            match &self.event.endpoint.app.on_error {
                OnError::Ignore => {}
                OnError::Send(instead) => text.clone_from(instead),
                OnError::Close => outbox.ask_close(CloseReason::HandlerFailed.into()),
            }
        }
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(HttpReply::Failed { status: status_of(fault), text });
        }
    }
}

impl ResponseBody {
    fn flush(&mut self, bytes_out: &mut u64) {
        if let Some(feed) = &self.feed
            && !self.pending.is_empty()
        {
            *bytes_out += self.pending.len() as u64;
            feed.push(std::mem::take(&mut self.pending).into());
        }
    }
}

/// The status that nginx would answer if its FastCGI backend failed so.
fn status_of(fault: &Fault) -> u16 {
    match fault {
        Fault::Status(status) => *status,
        Fault::Died => 500,
        Fault::NotRun => 503,
        Fault::Upstream(
            Failure::QueueFull
            | Failure::QueueTimeout
            | Failure::Unavailable
            | Failure::Refused(_)
            | Failure::Stopping
            | Failure::Cancelled { .. },
        ) => 503,
        Fault::Upstream(Failure::ResponseTimeout { .. } | Failure::RequestTimeout { .. }) => 504,
        _ => 502,
    }
}
