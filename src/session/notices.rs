//! Delivers channel events (join, leave, occupied, vacated) to the apps' PHP scripts.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::error;

use super::cgi;
use super::delivery::Owed;
use super::endpoint::Endpoint;
use crate::cluster::presence::{ChannelChange, Notice, Notices, Presence};
use crate::config::model::Events;
use crate::proto::fastcgi::params::EncodedParams;
use crate::upstream::Class;

/// Delivers notices to apps, which are found by name, until the future is dropped. The notices of one partition are
/// delivered one after the other, those of different partitions at the same time.
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
                    Some(endpoint) if wants(endpoint.app.events, notice.change) => endpoint.tell(notice).await,
                    Some(_) => {}
                    None => error!(app = %notice.of.app, "channel event dropped: the app has no channel events on this node, but has them on another node: configure the same events on all nodes"),
                }
            }
            presence.told(partition);
        });
    }
}

fn wants(events: Events, change: ChannelChange) -> bool {
    match change {
        ChannelChange::Join => events.join,
        ChannelChange::Leave => events.leave,
        ChannelChange::Occupied => events.occupied,
        ChannelChange::Vacated => events.vacated,
    }
}

impl Endpoint {
    /// Delivers one notice. The future ends when the handler has run, or has failed.
    async fn tell(self: &Arc<Self>, notice: &Notice) {
        let none = EncodedParams::default();
        let params = [self.params.clone(), none.clone(), none, cgi::notice_params(notice, &self.app)];
        let label = cgi::event_of(notice.change);
        self.deliver(Owed { id: notice.of.session, class: Class::Presence, label, seq: 0, params }).await;
    }
}
