//! The answer to a close event.

use tokio::sync::oneshot;

use super::{EventInfo, Fault};
use crate::session::head::HeadReader;
use crate::upstream::Outcome;

/// Collects nothing: what a handler says to a close event reaches nobody.
pub struct CloseAnswer {
    pub(super) event: EventInfo,
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

    pub(super) fn stdout(&mut self, data: &[u8]) {
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

    pub(super) fn end(self, outcome: Outcome) {
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
