//! Events that must be delivered and that no client waits for: those of a session that has ended, or of a channel. Each
//! is retried until PHP has run the script for it.
//!
//! While no backend is reachable, the upstream does that. But a reachable php-fpm that does not find the script (a
//! deploy moves it) answers at once, so such events wait here. One event of an endpoint at a time is retried, once in
//! [`RETRY`]. When one has run, the others follow at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot};

use super::answer::{Answer, Delivery, EventInfo, OthersAnswer};
use super::endpoint::{Endpoint, Event};
use super::group;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::fastcgi::request::ParamBlocks;
use crate::proto::framing::FrameKind;
use crate::proto::id::SessionId;
use crate::upstream::{Class, Request};

/// The time between two attempts, the same as for an unreachable backend.
const RETRY: Duration = Duration::from_secs(1);

/// An event that must be delivered, encoded for PHP. It has no body.
pub(super) struct Owed {
    /// The session of the event.
    pub(super) id: SessionId,
    pub(super) class: Class,
    /// Its name in logs and metrics.
    pub(super) label: &'static str,
    pub(super) seq: u64,
    pub(super) params: ParamBlocks,
}

/// Tracks whether PHP lacks the script of an endpoint.
#[derive(Default)]
pub(super) struct Absence {
    /// Held by the event that is retried. The others wait for it in the order in which they came.
    turn: Mutex<()>,
    /// How often the script has come back.
    returns: AtomicU64,
}

impl Endpoint {
    /// Delivers an event to PHP. The future ends when it is delivered, or has failed in a way that a retry does not
    /// help.
    pub(super) fn deliver(self: &Arc<Self>, owed: Owed) -> impl Future<Output = ()> + Send + use<> {
        let endpoint = self.clone();
        let mut seen = endpoint.absence.returns();
        let mut told = endpoint.tell_once(&owed);
        async move {
            while is_not_run(told).await {
                let turn = endpoint.absence.turn.lock().await;
                if endpoint.absence.returns() == seen {
                    loop {
                        tokio::time::sleep(RETRY).await;
                        if !is_not_run(endpoint.tell_once(&owed)).await {
                            endpoint.absence.returns.fetch_add(1, Ordering::AcqRel);
                            return;
                        }
                    }
                }
                drop(turn);
                seen = endpoint.absence.returns();
                told = endpoint.tell_once(&owed);
            }
        }
    }

    fn tell_once(self: &Arc<Self>, owed: &Owed) -> oneshot::Receiver<Delivery> {
        let event = Event {
            class: owed.class,
            seq: owed.seq,
            kind: FrameKind::Text,
            body: Bytes::new(),
            profile: EncodedParams::default(),
        };
        let (answer, delivered) = OthersAnswer::new(EventInfo::named(self.clone(), Some(owed.id), owed.label, &event));
        let [_, own, profile, _] = &owed.params;
        let group = if owed.class == Class::Presence { None } else { group::of(&self.app, own, profile) };
        self.ask(Request {
            class: owed.class,
            group,
            params: owed.params.clone(),
            body: event.body,
            // PHP can recognize a repeated close event by its key. A channel event may come twice anyway.
            idempotent: true,
            responder: Answer::Others(Box::new(answer)),
        });
        delivered
    }
}

impl Absence {
    fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }
}

async fn is_not_run(told: oneshot::Receiver<Delivery>) -> bool {
    // An error means that the upstream dropped the event. It has logged the reason.
    matches!(told.await, Ok(Delivery::NotRun))
}
