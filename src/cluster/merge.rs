//! Makes one answer to a query out of several nodes' answers, and turns a node's answer into the form that it sends.

use std::collections::BTreeMap;

use crate::proto::command::{Name, Page, Query};
use crate::proto::envelope::PartialAnswer;
use crate::proto::id::SessionId;
use crate::router::{ChannelCount, NodeAnswer, QueryAnswer};

/// The form in which a node sends its answer to another node.
pub(super) fn found_by(answer: QueryAnswer) -> PartialAnswer {
    let page = |count: usize, ids: Vec<SessionId>, goes_on| PartialAnswer::List {
        count: count as u64,
        items: ids.iter().map(|id| (name_of(*id), 0)).collect(),
        goes_on,
    };
    match answer {
        QueryAnswer::Absent => PartialAnswer::Absent,
        QueryAnswer::Value(value) => PartialAnswer::Whole(value),
        QueryAnswer::Channel { count, sessions, next, .. }
        | QueryAnswer::Uid { count, sessions, next, .. }
        | QueryAnswer::Sessions { count, sessions, next } => page(count, sessions, next.is_some()),
        QueryAnswer::Channels { count, channels, next } => PartialAnswer::List {
            count: count as u64,
            items: channels.into_iter().map(|one| (one.channel, one.count as u32)).collect(),
            goes_on: next.is_some(),
        },
        other => PartialAnswer::Whole(other.json().into()),
    }
}

/// Merges the other nodes' results into this node's own answer.
///
/// A page of the whole is made of the same pages of the parts: an item among the first entries overall is among the first of its
/// own node. Counts of sessions add up, because a session is on one node. A channel may be on several nodes, so the count of
/// channels is the sum over nodes, unless the whole list fits into the page.
pub(super) fn merge(query: &Query, own: QueryAnswer, found: Vec<PartialAnswer>) -> QueryAnswer {
    match (query, own) {
        (Query::Channel(_, page), QueryAnswer::Channel { channel, count, sessions, next }) => {
            let (count, sessions, next) = of_sessions(page, count, sessions, next.is_some(), found);
            QueryAnswer::Channel { channel, count, sessions, next }
        }
        (Query::Uid(_, page), QueryAnswer::Uid { uid, count, sessions, next }) => {
            let (count, sessions, next) = of_sessions(page, count, sessions, next.is_some(), found);
            QueryAnswer::Uid { uid, count, sessions, next }
        }
        (Query::Sessions(page), QueryAnswer::Sessions { count, sessions, next }) => {
            let (count, sessions, next) = of_sessions(page, count, sessions, next.is_some(), found);
            QueryAnswer::Sessions { count, sessions, next }
        }
        (Query::Channels(page), QueryAnswer::Channels { count, channels, next }) => {
            let mut by_name: BTreeMap<Name, usize> = channels.into_iter().map(|one| (one.channel, one.count)).collect();
            let (mut count, mut goes_on) = (count, next.is_some());
            for found in found {
                if let PartialAnswer::List { count: more, items, goes_on: on } = found {
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
            QueryAnswer::Channels { count, channels, next }
        }
        (Query::Nodes, QueryAnswer::Nodes { mut nodes }) => {
            nodes.extend(found.iter().filter_map(node_in));
            nodes.sort_unstable_by_key(|node| node.number);
            QueryAnswer::Nodes { nodes }
        }
        (_, own) => own,
    }
}

/// The answer about a session from the one node that has it.
pub(super) fn of_one(query: &Query, found: Option<PartialAnswer>) -> Option<QueryAnswer> {
    match (query, found?) {
        (_, PartialAnswer::Absent) => Some(QueryAnswer::Absent),
        (Query::Attribute(..), PartialAnswer::Whole(value)) => Some(QueryAnswer::Value(value)),
        (_, PartialAnswer::Whole(json)) => Some(QueryAnswer::Json(json)),
        (_, PartialAnswer::List { .. }) => None,
    }
}

/// Another node's entry in the list of nodes.
fn node_in(found: &PartialAnswer) -> Option<NodeAnswer> {
    match found {
        PartialAnswer::Whole(json) => serde_json::from_slice(json).ok(),
        PartialAnswer::Absent | PartialAnswer::List { .. } => None,
    }
}

fn of_sessions(
    page: &Page,
    count: usize,
    sessions: Vec<SessionId>,
    goes_on: bool,
    found: Vec<PartialAnswer>,
) -> (usize, Vec<SessionId>, Option<SessionId>) {
    let (mut count, mut sessions, mut goes_on) = (count, sessions, goes_on);
    for found in found {
        if let PartialAnswer::List { count: more, items, goes_on: on } = found {
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

/// A session id as a name.
fn name_of(id: SessionId) -> Name {
    Name::new(id.as_str().as_bytes()).expect("16 characters of an alphabet are a name")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u16) -> SessionId {
        let text = format!("AAAAAAAAAAA{number:05}");
        SessionId::from_bytes(text.as_bytes()).unwrap()
    }

    fn news() -> Name {
        Name::new(b"news").unwrap()
    }

    /// A node's own answer.
    fn answer_of(members: &BTreeSet<u16>, page: &Page) -> QueryAnswer {
        let behind = |id: &SessionId| page.after.as_ref().is_none_or(|after| id.as_str().as_bytes() > &after[..]);
        let all: Vec<SessionId> = members.iter().map(|number| id(*number)).filter(behind).collect();
        let sessions: Vec<SessionId> = all.iter().take(page.limit).copied().collect();
        let next = sessions.last().copied().filter(|_| all.len() > page.limit);
        QueryAnswer::Channel { channel: news(), count: all.len(), sessions, next }
    }

    proptest! {
        #[test]
        fn a_page_of_the_whole_is_made_of_the_same_pages_of_the_parts(
            members in prop::collection::btree_set(0_u16..400, 0..120),
            nodes in 1_u16..5,
            limit in 1_usize..40,
            after in prop::option::of(0_u16..400),
        ) {
            let page = Page { after: after.map(|after| id(after).as_str().as_bytes().into()), limit };
            let query = Query::Channel(news(), page.clone());
            let part = |node: u16| members.iter().copied().filter(|number| number % nodes == node).collect();
            let own = answer_of(&part(0), &page);
            let found = (1..nodes).map(|node| found_by(answer_of(&part(node), &page))).collect();
            prop_assert_eq!(merge(&query, own, found), answer_of(&members, &page));
        }
    }

    #[test]
    fn a_channel_on_several_nodes_is_one_where_the_whole_list_is_there() {
        let on = |counts: &[(&str, usize)]| QueryAnswer::Channels {
            count: counts.len(),
            channels: counts
                .iter()
                .map(|(name, count)| ChannelCount { channel: Name::new(name.as_bytes()).unwrap(), count: *count })
                .collect(),
            next: None,
        };
        let others =
            vec![found_by(on(&[("lobby", 3), ("news", 4)])), found_by(on(&[("news", 1)])), PartialAnswer::Absent];
        let merged = merge(&Query::Channels(Page::default()), on(&[("news", 2)]), others);
        assert_eq!(merged, on(&[("lobby", 3), ("news", 7)]));
    }
}
