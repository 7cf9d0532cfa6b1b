//! The answers to queries.

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::Router;
use super::groups::Groups;
use crate::proto::command::{AttributeKey, Name, Page, Query};
use crate::proto::id::SessionId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum QueryAnswer {
    /// There is no such session or attribute.
    Absent,
    /// An attribute's value.
    #[serde(skip)]
    Value(Bytes),
    /// JSON, as another node wrote it.
    #[serde(skip)]
    Json(Bytes),
    /// To [`Query::Session`].
    Session(SessionAnswer),
    /// To [`Query::Channel`].
    Channel {
        channel: Name,
        /// Its members now.
        count: usize,
        /// Some of them.
        sessions: Vec<SessionId>,
        /// Ask again with this as `after`.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<SessionId>,
    },
    /// To [`Query::Uid`].
    Uid {
        uid: Name,
        /// Sessions bound to it now.
        count: usize,
        /// Some of them.
        sessions: Vec<SessionId>,
        /// Ask again with this as `after`.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<SessionId>,
    },
    /// To [`Query::Channels`].
    Channels {
        /// Channels now.
        count: usize,
        /// Some of them.
        channels: Vec<ChannelCount>,
        /// Ask again with this as `after`.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<Name>,
    },
    /// To [`Query::Sessions`].
    Sessions {
        /// Sessions now.
        count: usize,
        /// Some of them.
        sessions: Vec<SessionId>,
        /// Ask again with this as `after`.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<SessionId>,
    },
    /// To [`Query::Node`].
    Node(NodeAnswer),
    /// To [`Query::Nodes`].
    Nodes {
        /// By their numbers.
        nodes: Vec<NodeAnswer>,
    },
}

impl QueryAnswer {
    /// The answer as JSON. Empty if there is no answer, or if it is not JSON.
    pub fn json(&self) -> Vec<u8> {
        match self {
            QueryAnswer::Absent | QueryAnswer::Value(_) => Vec::new(),
            QueryAnswer::Json(json) => json.to_vec(),
            answer => serde_json::to_vec(answer).expect("names are text and nothing else can fail"),
        }
    }
}

/// A session, as queries show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionAnswer {
    pub session: SessionId,
    pub uid: Option<Name>,
    /// Its attributes. Values that are not UTF-8 are shown with replacement characters.
    #[serde(serialize_with = "as_map")]
    pub attributes: Vec<(AttributeKey, Bytes)>,
    /// The channels that it is in.
    pub channels: Vec<Name>,
    pub app: String,
    pub listener: String,
    /// `length`, `delimiter`, `gap`, `raw`, `websocket`, `event-stream` or `lua`.
    pub framing: &'static str,
    /// Bytes that wait for the client to read.
    pub queued_bytes: usize,
    /// Its age in seconds.
    pub seconds: u64,
}

fn as_map<S: Serializer>(attributes: &[(AttributeKey, Bytes)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(attributes.len()))?;
    for (key, value) in attributes {
        map.serialize_entry(key, &String::from_utf8_lossy(value))?;
    }
    map.end()
}

/// A channel and the number of its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelCount {
    pub channel: Name,
    /// Its members now.
    pub count: usize,
}

/// A node, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// Its name.
    pub node: String,
    /// Its number, which is part of its sessions' ids.
    pub number: u16,
    /// The version of Longwire.
    pub version: String,
    pub sessions: usize,
    /// Channels that have members.
    pub channels: usize,
    /// Uids that have sessions.
    pub uids: usize,
    /// Whether it is stopping.
    pub draining: bool,
    /// How many seconds it has been running.
    pub seconds: u64,
}

pub(super) fn answer(router: &Router, query: &Query) -> QueryAnswer {
    match query {
        Query::Session(id) => session(router, *id).map_or(QueryAnswer::Absent, QueryAnswer::Session),
        Query::Attribute(id, key) => attribute(router, *id, key).map_or(QueryAnswer::Absent, QueryAnswer::Value),
        Query::Channel(channel, page) => {
            let (count, sessions, next) = members(&router.channels, channel, page);
            QueryAnswer::Channel { channel: channel.clone(), count, sessions, next }
        }
        Query::Uid(uid, page) => {
            let (count, sessions, next) = members(&router.uids, uid, page);
            QueryAnswer::Uid { uid: uid.clone(), count, sessions, next }
        }
        Query::Channels(page) => {
            if page.limit == 0 {
                return QueryAnswer::Channels { count: router.channels.len(), channels: Vec::new(), next: None };
            }
            let all = router.channels.all();
            let count = all.len();
            let (some, next) = cut(all, page, |(name, _)| name.as_bytes());
            let next = next.map(|(name, _)| name);
            let channels = some.into_iter().map(|(channel, count)| ChannelCount { channel, count }).collect();
            QueryAnswer::Channels { count, channels, next }
        }
        Query::Sessions(page) => {
            if page.limit == 0 {
                return QueryAnswer::Sessions { count: router.sessions.len(), sessions: Vec::new(), next: None };
            }
            let all = router.sessions.ids();
            let count = all.len();
            let (sessions, next) = cut(all, page, |id| id.as_str().as_bytes());
            QueryAnswer::Sessions { count, sessions, next }
        }
        Query::Node => QueryAnswer::Node(node(router)),
        Query::Nodes => QueryAnswer::Nodes { nodes: vec![node(router)] },
    }
}

fn node(router: &Router) -> NodeAnswer {
    NodeAnswer {
        node: router.node.name.clone(),
        number: router.node.number,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sessions: router.sessions.len(),
        channels: router.channels.len(),
        uids: router.uids.len(),
        draining: router.node.draining.is_cancelled(),
        seconds: router.node.started.elapsed().as_secs(),
    }
}

fn session(router: &Router, id: SessionId) -> Option<SessionAnswer> {
    let (outbox, profile) = router
        .sessions
        .with(id, |entry| (entry.outbox.clone(), entry.profile.as_deref().cloned().unwrap_or_default()))?;
    Some(SessionAnswer {
        session: id,
        uid: profile.uid().cloned(),
        attributes: profile.attributes().to_vec(),
        channels: profile.channels().to_vec(),
        app: outbox.terms().app.clone(),
        listener: outbox.terms().listener.clone(),
        framing: outbox.framing().label(),
        queued_bytes: outbox.queued_bytes(),
        seconds: outbox.age().as_secs(),
    })
}

fn attribute(router: &Router, id: SessionId, key: &AttributeKey) -> Option<Bytes> {
    router.sessions.with(id, |entry| entry.profile.as_ref()?.attribute(key).cloned()).flatten()
}

fn members(groups: &Groups, name: &Name, page: &Page) -> (usize, Vec<SessionId>, Option<SessionId>) {
    if page.limit == 0 {
        return (groups.count(name), Vec::new(), None);
    }
    let all = groups.ids(name);
    let count = all.len();
    let (some, next) = cut(all, page, |id| id.as_str().as_bytes());
    (count, some, next)
}

/// The part of a list that a page asks for. The second value is the last item of that part, if the list continues after
/// it.
fn cut<T: Ord + Clone>(mut all: Vec<T>, page: &Page, key: impl Fn(&T) -> &[u8]) -> (Vec<T>, Option<T>) {
    if let Some(after) = &page.after {
        all.retain(|item| key(item) > &after[..]);
    }
    let limit = page.limit.min(Page::MAX_LIMIT);
    let goes_on = all.len() > limit;
    if goes_on && limit > 0 {
        // Only the items of the page have to be sorted.
        all.select_nth_unstable(limit - 1);
        all.truncate(limit);
    }
    all.sort_unstable();
    let next = all.last().filter(|_| goes_on).cloned();
    (all, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_into_the_whole_list() {
        let all: Vec<String> = (0..57).rev().map(|number| format!("{number:02}")).collect();
        let (mut page, mut joined, mut pages) = (Page { after: None, limit: 10 }, Vec::new(), 0);
        loop {
            let (some, next) = cut(all.clone(), &page, |item| item.as_bytes());
            joined.extend(some);
            pages += 1;
            let Some(next) = next else { break };
            page.after = Some(next.into_bytes().into());
        }
        assert_eq!(pages, 6);
        assert_eq!(joined, (0..57).map(|number| format!("{number:02}")).collect::<Vec<_>>());
    }
}
