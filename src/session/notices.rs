//! What apps are told of channels, on its way to PHP.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tracing::error;

use super::answer::{EventInfo, OthersAnswer};
use super::endpoint::{Endpoint, Event};
use super::{Answer, cgi};
use crate::cluster::presence::{Notice, Notices, Presence, What};
use crate::config::model::Events;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::framing::FrameKind;
use crate::upstream::{Class, Request};

/// Tells apps, found by their names, until the future is dropped: of each partition one notice after the other, of different partitions at
/// the same time.
pub async fn tell_apps(presence: Arc<Presence>, mut notices: Notices, apps: HashMap<String, Arc<Endpoint>>) {
    let apps = Arc::new(apps);
    let mut telling = JoinSet::new();
    loop {
        let Some((partition, notices)) = notices.recv().await else { return };
        while telling.try_join_next().is_some() {}
        let (apps, presence) = (apps.clone(), presence.clone());
        telling.spawn(async move {
            for notice in &notices {
                match apps.get(&notice.of.app.to_string()) {
                    Some(endpoint) if wants(endpoint.app.events, notice.what) => endpoint.tell(notice).await,
                    Some(_) => {}
                    None => error!(app = %notice.of.app, "another node has an app that wants events of channels; it is missing here"),
                }
            }
            presence.told(partition);
        });
    }
}

fn wants(events: Events, what: What) -> bool {
    match what {
        What::Join => events.join,
        What::Leave => events.leave,
        What::Occupied => events.occupied,
        What::Vacated => events.vacated,
    }
}

impl Endpoint {
    /// Until the handler has been told, or failed.
    async fn tell(self: &Arc<Self>, notice: &Notice) {
        let event = Event {
            class: Class::Presence,
            seq: 0,
            kind: FrameKind::Text,
            body: Bytes::new(),
            profile: EncodedParams::default(),
            close: None,
        };
        let info = EventInfo::named(self.clone(), Some(notice.of.session), cgi::event_of(notice.what), &event);
        let (answer, delivered) = OthersAnswer::new(info);
        let none = EncodedParams::default();
        self.upstream.submit(Request {
            class: event.class,
            group: None,
            params: [self.params.clone(), none.clone(), none, cgi::notice_params(notice, &self.app)],
            body: event.body,
            // It may come again anyway, when a keeper dies.
            idempotent: true,
            responder: Answer::Others(Box::new(answer)),
        });
        // An error means that the upstream ended without telling; it has logged why.
        let _ = delivered.await;
    }
}
