//! The answer to a connect event that a handshake waits for. It is collected whole, because it becomes an HTTP
//! response. A greeting by lines is an exception: the handshake continues as soon as the head is there, and the rest
//! becomes the [`Reply`] of the new session.
//!
//! ```text
//!            head: lines, and the client is admitted                  the session has its outbox
//!   Collect ---------------------------------------> Await(outbox) -------------------------------> Reply
//!     |  end: the answer                                  |
//!     v                                                   v  it never became live: the rest is discarded
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::head::{Head, HeadReader};
use super::slice::Slice;
use super::{EventInfo, Fault, Reply, reply_in};
use crate::outbox::Outbox;
use crate::upstream::{Outcome, Timing};

/// A handler's answer to a connect event, from before there was a session.
pub struct ConnectAnswer {
    /// Status, sub-protocol, cookies.
    pub head: Head,
    /// The body of the answer, for the client.
    pub greeting: Greeting,
}

/// The body of a handler's answer to a connect event.
pub enum Greeting {
    /// The body is complete.
    Whole {
        /// The event that it answers.
        event: EventInfo,
        /// The slice of the body that is the reply.
        body: Vec<u8>,
    },
    /// Lines that come as PHP flushes them.
    Lines {
        /// Takes the outbox through which the lines leave. If it is dropped, the lines are discarded.
        outbox: oneshot::Sender<Arc<Outbox>>,
        /// Closes when the event of a session that never became live has ended.
        ended: oneshot::Receiver<()>,
    },
}

impl Greeting {
    /// The body for a refusal.
    pub fn into_body(self) -> Vec<u8> {
        match self {
            Greeting::Whole { body, .. } => body,
            Greeting::Lines { .. } => Vec::new(),
        }
    }

    /// Discards the greeting because the session never became live. The future ends when PHP has finished the connect
    /// event.
    pub async fn give_up(self) {
        if let Greeting::Lines { outbox, ended } = self {
            drop(outbox);
            let _ = ended.await;
        }
    }
}

/// Collects the answer to a connect event that a handshake waits for.
pub struct HandshakeAnswer {
    pub(super) event: EventInfo,
    reader: HeadReader,
    head: Option<Head>,
    body: Vec<u8>,
    fault: Option<Fault>,
    /// `Some` until the handshake has its answer.
    sender: Option<oneshot::Sender<Result<ConnectAnswer, ConnectFailed>>>,
    client_gone: Pin<Box<WaitForCancellationFutureOwned>>,
    lines: Option<AwaitOutbox>,
}

/// The state of a greeting by lines, while it waits for its outbox.
struct AwaitOutbox {
    outbox: oneshot::Receiver<Arc<Outbox>>,
    never_lived: bool,
    _ended: oneshot::Sender<()>,
}

/// A connect event that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectFailed {
    /// PHP may have noted the session: its close event is owed.
    pub may_have_run: bool,
}

impl HandshakeAnswer {
    /// Makes the answer and the receiver of its result. `client_gone` cancels the event.
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
            sender: Some(sender),
            client_gone: Box::pin(client_gone.cancelled_owned()),
            lines: None,
        };
        (answer, receiver)
    }

    pub(super) fn stdout(&mut self, data: &[u8]) {
        let mut data = data;
        if self.fault.is_some() {
            return;
        }
        if self.head.is_none() {
            match self.reader.push(data, true) {
                Ok(Some((mut head, used))) => {
                    self.event.complain(&std::mem::take(&mut head.complaints));
                    data = &data[used..];
                    self.take_head(head, data);
                }
                Ok(None) => return,
                Err(error) => {
                    self.fault = Some(Fault::BadHead(error.to_string()));
                    return;
                }
            }
        }
        self.body.extend_from_slice(data);
        // In lines mode each line has a limit of its own, and at most one read is kept before the lines leave.
        if self.lines.is_none() && self.body.len() > self.event.endpoint.app.max_reply_bytes {
            self.fault = Some(Fault::TooLarge);
            self.body = Vec::new();
        }
    }

    /// PHP reports that the script died. Then the answer is incomplete, unless everything that was announced has come.
    pub(super) fn died(&mut self) {
        if let Some(head) = &self.head
            && head.status < 500
        {
            let mut slice = Slice::of(head);
            slice.take(&self.body);
            if head.content_offset < 0 || !slice.is_through() {
                self.fault.get_or_insert(Fault::Died);
            }
        }
    }

    /// Takes the head. With a greeting by lines, the handshake continues now, before the body is complete.
    fn take_head(&mut self, head: Head, begun: &[u8]) {
        let fault = self.event.fault_of(&head, begun);
        let lets_in = !head.refuses() && fault.is_none();
        if let Some(Fault::Died) = fault {
            self.fault = fault;
        }
        if head.lines
            && head.has_body()
            && lets_in
            && let Some(sender) = self.sender.take()
        {
            let (outbox, awaited) = oneshot::channel();
            let (is_over, ended) = oneshot::channel();
            self.lines = Some(AwaitOutbox { outbox: awaited, never_lived: false, _ended: is_over });
            let greeting = Greeting::Lines { outbox, ended };
            // The handshake waits for this even if the client is gone.
            let _ = sender.send(Ok(ConnectAnswer { head: head.clone(), greeting }));
        }
        self.head = Some(head);
    }

    /// Ready with the outbox through which the answer continues, which [`Self::take_reply`] takes. Ready with `None` if
    /// the answer is not wanted any more.
    pub(super) fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Outbox>>> {
        let Some(lines) = &mut self.lines else {
            ready!(self.client_gone.as_mut().poll(cx));
            return Poll::Ready(None);
        };
        if lines.never_lived {
            return Poll::Ready(None);
        }
        let outbox = ready!(Pin::new(&mut lines.outbox).poll(cx)).ok();
        lines.never_lived = outbox.is_none();
        Poll::Ready(outbox)
    }

    /// Whether it is a greeting by lines, whose end the handshake does not wait for.
    pub(super) fn greets(&self) -> bool {
        self.lines.is_some()
    }

    /// Whether it waits for its outbox. No more of it may be read until then.
    pub(super) fn is_waiting(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| !lines.never_lived)
    }

    /// Turns the rest into the reply of a live session.
    pub(super) fn take_reply(&mut self, outbox: Arc<Outbox>) -> Box<Reply> {
        let head = self.head.take().expect("lines are awaited for a head");
        Box::new(Reply::of_greeting(self.event.take(), outbox, head, &std::mem::take(&mut self.body)))
    }

    pub(super) fn end(mut self: Box<Self>, outcome: Outcome) {
        if self.is_waiting()
            && let Some(lines) = self.lines.take()
        {
            let tasks = self.event.endpoint.hub.tasks.clone();
            tasks.spawn(async move {
                match lines.outbox.await {
                    Ok(outbox) => self.take_reply(outbox).end(outcome),
                    Err(_) => self.end(outcome),
                }
            });
            return;
        }
        let status = self.head.as_ref().map_or(0, |head| head.status);
        let answer = self.answer(outcome);
        let bytes_out = answer.as_ref().map_or(0, |(_, body, _)| body.len() as u64);
        let result = match &answer {
            Ok(_) if status >= 500 => Err(Fault::Status(status)),
            Ok((_, _, timing)) => self.event.ended(*timing),
            Err(fault) => Err(fault.clone()),
        };
        self.event.report(status, bytes_out, &result);
        let Some(sender) = self.sender else { return };
        let event = self.event;
        let answer = match answer {
            Ok((head, body, _)) => Ok(ConnectAnswer { head, greeting: Greeting::Whole { event, body } }),
            Err(fault) => Err(ConnectFailed { may_have_run: fault.may_have_run() }),
        };
        // The handshake waits for this even if the client is gone.
        let _ = sender.send(answer);
    }

    fn answer(&mut self, outcome: Outcome) -> Result<(Head, Vec<u8>, Timing), Fault> {
        let timing = match outcome {
            Outcome::Done(timing) => timing,
            Outcome::Failed(failure) => return Err(Fault::Upstream(failure)),
        };
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let head = self.head.take().ok_or_else(|| Fault::BadHead("the answer ended inside its headers".to_owned()))?;
        let whole = std::mem::take(&mut self.body);
        match self.event.fault_of(&head, &whole) {
            // A refusal.
            None | Some(Fault::Status(_)) => {}
            // Whether the death spoils the answer was decided when it happened.
            Some(Fault::Died) => {}
            Some(fault) => return Err(fault),
        }
        let body = if head.has_body() { reply_in(&head, whole)? } else { Vec::new() };
        Ok((head, body, timing))
    }
}
