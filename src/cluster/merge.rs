//! One answer to a query from what several nodes know, and what each of them tells.

use std::collections::BTreeMap;

use crate::proto::command::{Name, Page, Query};
use crate::proto::envelope::Found;
use crate::proto::id::SessionId;
use crate::router::{Answer, ChannelCount, NodeAnswer};

/// What a node tells another one of its answer.
pub(super) fn found_by(answer: Answer) -> Found {
    let page = |count: usize, ids: Vec<SessionId>, goes_on| Found::List {
        count: count as u64,
        items: ids.iter().map(|id| (name_of(*id), 0)).collect(),
        goes_on,
    };
    match answer {
        Answer::Absent => Found::Absent,
        Answer::Value(value) => Found::Whole(value),
        Answer::Channel { count, sessions, next, .. }
        | Answer::Uid { count, sessions, next, .. }
        | Answer::Sessions { count, sessions, next } => page(count, sessions, next.is_some()),
        Answer::Channels { count, channels, next } => Found::List {
            count: count as u64,
            items: channels.into_iter().map(|one| (one.channel, one.count as u32)).collect(),
            goes_on: next.is_some(),
        },
        other => Found::Whole(other.json().into()),
    }
}

/// Puts what other nodes found to what this node knows.
///
/// A page of the whole is made of the same pages of the parts: whatever belongs into the first entries of all belongs into the
/// first of its own. Counts of sessions add up, because a session is on one node. A channel may be on several, so of channels
/// the count says how many there are on each node, added up, unless the whole list fits into the page.
pub(super) fn merge(query: &Query, own: Answer, found: Vec<Found>) -> Answer {
    match (query, own) {
        (Query::Channel(_, page), Answer::Channel { channel, count, sessions, next }) => {
            let (count, sessions, next) = of_sessions(page, count, sessions, next.is_some(), found);
            Answer::Channel { channel, count, sessions, next }
        }
        (Query::Uid(_, page), Answer::Uid { uid, count, sessions, next }) => {
            let (count, sessions, next) = of_sessions(page, count, sessions, next.is_some(), found);
            Answer::Uid { uid, count, sessions, next }
        }
        (Query::Sessions(page), Answer::Sessions { count, sessions, next }) => {
            let (count, sessions, next) = of_sessions(page, count, sessions, next.is_some(), found);
            Answer::Sessions { count, sessions, next }
        }
        (Query::Channels(page), Answer::Channels { count, channels, next }) => {
            let mut by_name: BTreeMap<Name, usize> = channels.into_iter().map(|one| (one.channel, one.count)).collect();
            let (mut count, mut goes_on) = (count, next.is_some());
            for found in found {
                if let Found::List { count: more, items, goes_on: on } = found {
                    count += more as usize;
                    goes_on |= on;
                    items.into_iter().for_each(|(name, members)| *by_name.entry(name).or_default() += members as usize);
                }
            }
            goes_on |= by_name.len() > page.limit.min(Page::MAX_LIMIT);
            if !goes_on && page.after.is_none() && page.limit > 0 {
                count = by_name.len();
            }
            let channels: Vec<ChannelCount> = by_name
                .into_iter()
                .take(page.limit.min(Page::MAX_LIMIT))
                .map(|(channel, count)| ChannelCount { channel, count })
                .collect();
            let next = channels.last().filter(|_| goes_on).map(|last| last.channel.clone());
            Answer::Channels { count, channels, next }
        }
        (Query::Nodes, Answer::Nodes { mut nodes }) => {
            nodes.extend(found.iter().filter_map(node_in));
            nodes.sort_unstable_by_key(|node| node.number);
            Answer::Nodes { nodes }
        }
        (_, own) => own,
    }
}

/// What the one node that has a session says of it.
pub(super) fn of_one(query: &Query, found: Option<Found>) -> Option<Answer> {
    match (query, found?) {
        (_, Found::Absent) => Some(Answer::Absent),
        (Query::Attribute(..), Found::Whole(value)) => Some(Answer::Value(value)),
        (_, Found::Whole(json)) => Some(Answer::Json(json)),
        (_, Found::List { .. }) => None,
    }
}

/// What another node says of itself.
fn node_in(found: &Found) -> Option<NodeAnswer> {
    match found {
        Found::Whole(json) => serde_json::from_slice(json).ok(),
        Found::Absent | Found::List { .. } => None,
    }
}

fn of_sessions(
    page: &Page,
    count: usize,
    sessions: Vec<SessionId>,
    goes_on: bool,
    found: Vec<Found>,
) -> (usize, Vec<SessionId>, Option<SessionId>) {
    let (mut count, mut sessions, mut goes_on) = (count, sessions, goes_on);
    for found in found {
        if let Found::List { count: more, items, goes_on: on } = found {
            count += more as usize;
            goes_on |= on;
            sessions.extend(items.iter().filter_map(|(name, _)| SessionId::from_bytes(name.as_bytes())));
        }
    }
    sessions.sort_unstable();
    let limit = page.limit.min(Page::MAX_LIMIT);
    goes_on |= sessions.len() > limit;
    sessions.truncate(limit);
    let next = sessions.last().copied().filter(|_| goes_on);
    (count, sessions, next)
}

/// An id among names.
fn name_of(id: SessionId) -> Name {
    Name::new(id.as_str().as_bytes()).expect("16 characters of an alphabet are a name")
}
