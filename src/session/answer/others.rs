//! The answer to an event that no client waits for: the event of a session that has ended, or of a channel.

use tokio::sync::oneshot;

use super::head::{Head, HeadReader};
use super::{EventInfo, Fault, refuse_encoded, reply_in};
use crate::upstream::{Failure, Outcome};

/// The answer to such an event. Its body goes to the sessions that `Longwire-To` names, and is discarded without that
/// header.
pub struct OthersAnswer {
    pub(super) event: EventInfo,
    reader: HeadReader,
    head: Option<Head>,
    /// The body. It is collected only if there are destinations.
    body: Vec<u8>,
    fault: Option<Fault>,
    delivered: oneshot::Sender<Delivery>,
}

/// The outcome of an event that no client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The handler has run, or the event has failed for good.
    Over,
    /// php-fpm did not run the script, or a backend refused the request. It is retried, as if the backend were
    /// unreachable.
    NotRun,
}

impl OthersAnswer {
    /// Makes the answer and the receiver of the event's outcome.
    pub fn new(event: EventInfo) -> (Self, oneshot::Receiver<Delivery>) {
        let (delivered, receiver) = oneshot::channel();
        (Self { event, reader: HeadReader::default(), head: None, body: Vec::new(), fault: None, delivered }, receiver)
    }

    pub(super) fn stdout(&mut self, data: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let mut data = data;
        if self.head.is_none() {
            match self.reader.push(data, false) {
                Ok(Some((head, used))) => {
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
        if self.head.as_ref().is_some_and(|head| !head.destinations.is_empty()) {
            self.body.extend_from_slice(data);
            if self.body.len() > self.event.endpoint.app.max_reply_bytes {
                self.fault = Some(Fault::TooLarge);
                self.body = Vec::new();
            }
        }
    }

    fn take_head(&mut self, mut head: Head, body: &[u8]) {
        if !head.actions.is_empty() {
            head.complaints.push("Longwire-Join, -Leave, -Uid and -Set have no session to act on here".to_owned());
        }
        self.event.complain(&head.complaints);
        self.fault = self.event.fault_of(&head, body);
        self.head = Some(head);
    }

    pub(super) fn end(mut self, outcome: Outcome) {
        let status = self.head.as_ref().map_or(0, |head| head.status);
        let result = match (outcome, self.fault.take()) {
            (Outcome::Failed(failure), _) => Err(Fault::Upstream(failure)),
            (_, Some(fault)) => Err(fault),
            (Outcome::Done(timing), None) => self.event.ended(timing).and_then(|timing| Ok((timing, self.send()?))),
        };
        let is_not_run = match &result {
            Err(Fault::Upstream(failure @ Failure::Refused(_))) => !failure.may_have_run(),
            result => matches!(result, Err(Fault::NotRun)),
        };
        let delivery = if is_not_run { Delivery::NotRun } else { Delivery::Over };
        let bytes_out = result.as_ref().map_or(0, |(_, bytes)| *bytes);
        self.event.report(status, bytes_out, &result.map(|(timing, _)| timing));
        // An error means that the node has stopped waiting.
        let _ = self.delivered.send(delivery);
    }

    /// Sends the body to its destinations. Returns how many bytes were sent.
    fn send(&mut self) -> Result<u64, Fault> {
        let Some(head) = self.head.take() else { return Ok(0) };
        if !head.has_body() {
            return Ok(0);
        }
        let body = reply_in(&head, std::mem::take(&mut self.body))?;
        if head.destinations.is_empty() || body.is_empty() && head.content_length.is_none() {
            return Ok(0);
        }
        refuse_encoded(&head)?;
        self.event.send_to(&head.destinations, self.event.kind_for_others(head.kind), head.id.as_ref(), &body)?;
        Ok(body.len() as u64)
    }
}
