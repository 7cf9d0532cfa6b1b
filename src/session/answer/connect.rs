//! The answer to a connect event that a handshake waits for: collected whole, because it becomes an HTTP response.

use std::pin::Pin;

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{EventInfo, Fault, reply_in};
use crate::session::head::{Head, HeadReader};
use crate::upstream::{Outcome, Timing};

/// What a handler said to a connect event before there was a session.
pub struct ConnectAnswer {
    /// Whose it is.
    pub event: EventInfo,
    /// Status, sub-protocol, cookies.
    pub head: Head,
    /// The slice of the body that is the reply.
    pub body: Vec<u8>,
}

/// Collects the answer to a connect event that a handshake waits for.
pub struct HandshakeAnswer {
    pub(super) event: EventInfo,
    reader: HeadReader,
    head: Option<Head>,
    body: Vec<u8>,
    fault: Option<Fault>,
    sender: oneshot::Sender<Result<ConnectAnswer, ConnectFailed>>,
    pub(super) client_gone: Pin<Box<WaitForCancellationFutureOwned>>,
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

    pub(super) fn stdout(&mut self, data: &[u8]) {
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

    pub(super) fn end(mut self: Box<Self>, outcome: Outcome) {
        let status = self.head.as_ref().map_or(0, |head| head.status);
        let answer = self.answer(outcome);
        let bytes_out = answer.as_ref().map_or(0, |(_, body, _)| body.len() as u64);
        let result = match &answer {
            Ok(_) if status >= 500 => Err(Fault::Status(status)),
            Ok((_, _, timing)) => Ok(*timing),
            Err(fault) => Err(fault.clone()),
        };
        self.event.report(status, bytes_out, result);
        let event = self.event;
        let answer = answer.map(|(head, body, _)| ConnectAnswer { event, head, body }).map_err(|fault| ConnectFailed {
            may_have_run: match fault {
                Fault::Upstream(failure) => failure.may_have_run(),
                _ => true,
            },
        });
        // The handshake waits for this whatever the client does.
        let _ = self.sender.send(answer);
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
        let body = reply_in(&head, whole)?;
        Ok((head, body, timing))
    }
}
