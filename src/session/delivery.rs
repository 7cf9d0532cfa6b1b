//! Events that are owed, and that no client waits for: of a session that has ended, or of a channel. Each is told until PHP has run the
//! script for it.
//!
//! The upstream sees to it while no backend can be reached. A php-fpm that is there and does not find the script (a deploy
//! that moves it) answers at once, so here is what waits then: one event of an endpoint at a time is tried again, once in [`RETRY`]. When one
//! was run, the others follow at once.

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

/// From one attempt to the next, like a backend that was away.
const RETRY: Duration = Duration::from_secs(1);

/// An event that is owed, as PHP is told of it. It has no body.
pub(super) struct Owed {
    /// Whose.
    pub(super) id: SessionId,
    pub(super) class: Class,
    /// Its name in logs and metrics.
    pub(super) label: &'static str,
    pub(super) seq: u64,
    pub(super) params: ParamBlocks,
}

/// Whether PHP lacks the script of an endpoint.
#[derive(Default)]
pub(super) struct Absence {
    /// Held by the event that is tried again; the others wait here in the order in which they came.
    turn: Mutex<()>,
    /// How often the script was back.
    returns: AtomicU64,
}

impl Endpoint {
    /// Hands PHP an event; the future ends when it is delivered, or has failed in a way that trying again does not mend.
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
            // PHP can tell that it has seen a close event by its key; one of a channel may come again anyway.
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
    // An error means that the upstream ended without telling; it has logged why.
    matches!(told.await, Ok(Delivery::NotRun))
}
