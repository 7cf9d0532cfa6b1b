//! The order in which requests get a connection. Plain data: no clock, no locks.
//!
//! First-in-first-out queues, one per [`Class`]. A session has at most its `concurrency` requests in here, so
//! first in, first out is fair between sessions. Between classes a fixed weighted round decides, so that no class
//! starves. Connect events take their turn only while they hold less than their share of the connections.
//!
//! Bounds: messages and connect events leave at their deadline. Their number is bounded by the `concurrency` of the sessions; an
//! operator may set a lower bound, beyond which they are refused. Close events are bounded by the number of sessions, each of which
//! ends once, and presence events by the number of partitions. Neither leaves the queue unserved.
//!
//! A [`Group`] has at most `limit` requests that run or stand in these queues. Its other requests are held back:
//!
//! ```text
//!          below the limit                  pop             ended
//!   push ────────────────────> in line ───────────> runs ───────────┐
//!     │                           ^                                 │
//!     │ at the limit              │ to the end of the line          │
//!     └──────────────> held ──────┴─── one for each that ended <────┘
//! ```
//!
//! So a group whose requests wait for each other, for example for the lock of one PHP session, fills neither the connections nor
//! the line ahead of other requests.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use super::request::{Class, Group};

/// Number of queues.
const CLASSES: usize = Class::ALL.len();

/// Turns in a round. Clients wait for messages, so those get the most. A login storm, a mass disconnect, or the channel events of
/// either, still moves at a sixth of the pace each.
const WEIGHTS: [i32; CLASSES] = [2, 6, 2, 2];

/// How many requests may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    /// Connect events.
    pub(super) connects: usize,
    /// Connections that connect events may hold while others wait.
    pub(super) connects_running: usize,
}

/// An item that waits, or that waited and may have to come back.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) item: T,
    /// Its queue, and its group.
    pub(super) ticket: Ticket,
    /// When it expires; `None` for never.
    pub(super) deadline: Option<Instant>,
    /// Its place among all that ever waited here.
    turn: u64,
}

/// The class and group that a request counts against while it waits and while it holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) class: Class,
    pub(super) group: Option<Group>,
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    bounds: Bounds,
    classes: [VecDeque<Waiting<T>>; CLASSES],
    /// Smooth weighted round robin: credit of each class.
    credit: [i32; CLASSES],
    next_turn: u64,
    /// Connect events that hold a connection.
    connects_running: usize,
    /// The groups that have requests here or on connections, by key.
    groups: HashMap<u64, Members>,
    /// Requests whose group is at its limit, by turn.
    held: [BTreeMap<u64, Waiting<T>>; CLASSES],
}

/// The requests of one group.
#[derive(Debug, Default)]
struct Members {
    /// In line or on a connection.
    admitted: u32,
    /// Requests held back, in the order of arrival.
    held: VecDeque<(Class, u64)>,
}

impl Members {
    /// A held request has expired. Turns are in order, so it is found by binary search even among many.
    fn forget(&mut self, turn: u64) {
        if let Ok(at) = self.held.binary_search_by_key(&turn, |(_, turn)| *turn) {
            // Nearly always at the front: the oldest expires first.
            self.held.remove(at);
        }
    }
}

impl<T> Queue<T> {
    /// Nothing waits.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            classes: [const { VecDeque::new() }; CLASSES],
            credit: [0; CLASSES],
            next_turn: 0,
            connects_running: 0,
            groups: HashMap::new(),
            held: [const { BTreeMap::new() }; CLASSES],
        }
    }

    /// Sets how many connections the connect events may hold from now on while other requests wait.
    pub(super) fn set_connects_running(&mut self, most: usize) {
        self.bounds.connects_running = most;
    }

    /// Puts `item` at the end of its queue, or gives it back if the queue of its class is full.
    pub(super) fn push(&mut self, ticket: Ticket, item: T, deadline: Option<Instant>) -> Result<QueuedAs, T> {
        let Ticket { class, group } = ticket;
        let bound = match class {
            Class::Connect => self.bounds.connects,
            Class::Message => self.bounds.messages,
            Class::Close | Class::Presence => usize::MAX,
        };
        if self.len_of(class) >= bound {
            return Err(item);
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        let waiting = Waiting { item, ticket, deadline, turn };
        if let Some(group) = group {
            let members = self.groups.entry(group.key).or_default();
            if members.admitted >= group.limit {
                members.held.push_back((class, turn));
                self.held[class as usize].insert(turn, waiting);
                return Ok(QueuedAs::Held);
            }
            members.admitted += 1;
        }
        self.classes[class as usize].push_back(waiting);
        Ok(QueuedAs::InLine)
    }

    /// Takes the next request for a free connection. The connection counts as held until [`Queue::ended`].
    pub(super) fn pop(&mut self) -> Option<Waiting<T>> {
        let others_wait =
            Class::ALL.iter().any(|class| *class != Class::Connect && !self.classes[*class as usize].is_empty());
        let may_connect = !others_wait || self.connects_running < self.bounds.connects_running;
        let mut best: Option<usize> = None;
        let mut round = 0;
        for class in Class::ALL {
            let class_at = class as usize;
            if self.classes[class_at].is_empty() || (class == Class::Connect && !may_connect) {
                continue;
            }
            round += WEIGHTS[class_at];
            self.credit[class_at] += WEIGHTS[class_at];
            if best.is_none_or(|best| self.credit[class_at] > self.credit[best]) {
                best = Some(class_at);
            }
        }
        let best = best?;
        self.credit[best] -= round;
        let taken = self.classes[best].pop_front()?;
        if self.classes[best].is_empty() {
            // A class without requests keeps no credit.
            self.credit[best] = 0;
        }
        if taken.ticket.class == Class::Connect {
            self.connects_running += 1;
        }
        Some(taken)
    }

    /// A connection that was taken for this ticket is free again. True if this let a request into line that its group had held back:
    /// a place may be free for it.
    pub(super) fn ended(&mut self, ticket: Ticket) -> bool {
        if ticket.class == Class::Connect {
            self.connects_running -= 1;
        }
        ticket.group.is_some_and(|group| self.leave(group))
    }

    /// A group has one request fewer in line or on a connection, and its first held request takes that place. True if there was one.
    fn leave(&mut self, group: Group) -> bool {
        let Some(members) = self.groups.get_mut(&group.key) else { return false };
        members.admitted -= 1;
        if members.admitted < group.limit
            && let Some((class, turn)) = members.held.pop_front()
        {
            members.admitted += 1;
            let mut waiting = self.held[class as usize].remove(&turn).expect("each held turn is in its class");
            let queue = &mut self.classes[class as usize];
            // The requests behind it in line came later, and deadlines in a queue are in order.
            waiting.deadline = waiting.deadline.max(queue.back().and_then(|last| last.deadline));
            waiting.turn = self.next_turn;
            self.next_turn += 1;
            queue.push_back(waiting);
            return true;
        }
        if members.admitted == 0 {
            self.groups.remove(&group.key);
        }
        false
    }

    /// Puts a request that could not be sent back to its old place; the caller then calls [`Queue::ended`]. A request that
    /// was accepted once is not refused now, so a queue may exceed its bound by the number of connections.
    pub(super) fn restore(&mut self, waiting: Waiting<T>) {
        if let Some(group) = waiting.ticket.group {
            self.groups.entry(group.key).or_default().admitted += 1;
        }
        let queue = &mut self.classes[waiting.ticket.class as usize];
        let at = queue.iter().take_while(|other| other.turn < waiting.turn).count();
        queue.insert(at, waiting);
    }

    /// Takes a request whose deadline has passed. Deadlines within a queue are in order, so only the fronts are checked.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Waiting<T>> {
        let is_over = |waiting: &Waiting<T>| waiting.deadline.is_some_and(|deadline| deadline <= now);
        for class in Class::ALL {
            if self.classes[class as usize].front().is_some_and(is_over) {
                let expired = self.classes[class as usize].pop_front();
                if let Some(group) = expired.as_ref().and_then(|expired| expired.ticket.group) {
                    self.leave(group);
                }
                return expired;
            }
            if let Some(first) = self.held[class as usize].first_entry().filter(|first| is_over(first.get())) {
                let expired = first.remove();
                let group = expired.ticket.group.expect("only members of groups are held");
                if let Some(members) = self.groups.get_mut(&group.key) {
                    members.forget(expired.turn);
                }
                return Some(expired);
            }
        }
        None
    }

    /// When [`Queue::pop_expired`] will have something, if nothing happens before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let in_line = self.classes.iter().filter_map(|queue| queue.front()?.deadline).min();
        if self.groups.is_empty() {
            return in_line;
        }
        let held = self.held.iter().filter_map(|held| held.first_key_value()?.1.deadline);
        held.chain(in_line).min()
    }

    /// Takes all requests, in no particular order between the classes.
    pub(super) fn drain(&mut self) -> Vec<Waiting<T>> {
        let held: Vec<_> = self.held.iter_mut().flat_map(std::mem::take).map(|(_, held)| held).collect();
        self.groups.values_mut().for_each(|members| members.held.clear());
        let mut waiting: Vec<_> = self.classes.iter_mut().flat_map(|queue| queue.drain(..)).collect();
        for group in waiting.iter().filter_map(|waiting| waiting.ticket.group) {
            self.leave(group);
        }
        waiting.extend(held);
        waiting
    }

    /// How many requests wait, in line or held.
    pub(super) fn len(&self) -> usize {
        Class::ALL.into_iter().map(|class| self.len_of(class)).sum()
    }

    /// How many requests of a class wait, in line or held.
    pub(super) fn len_of(&self, class: Class) -> usize {
        self.classes[class as usize].len() + self.held[class as usize].len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.has_nobody_in_line() && self.held.iter().all(BTreeMap::is_empty)
    }

    /// Whether [`Queue::pop`] has nothing to give: nothing waits, or every waiting request is held back by its group.
    pub(super) fn has_nobody_in_line(&self) -> bool {
        self.classes.iter().all(VecDeque::is_empty)
    }
}

/// Where [`Queue::push`] put a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuedAs {
    /// In the line for a connection.
    InLine,
    /// Its group is at its limit: it is held back.
    Held,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn bounds(messages: usize, connects: usize, connects_running: usize) -> Bounds {
        Bounds { messages, connects, connects_running }
    }

    fn alone(class: Class) -> Ticket {
        Ticket { class, group: None }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(Class),
        Pop,
        End,
        Restore,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Push(Class::Connect)),
            Just(Step::Push(Class::Message)),
            Just(Step::Push(Class::Close)),
            Just(Step::Push(Class::Presence)),
            Just(Step::Pop),
            Just(Step::Pop),
            Just(Step::End),
            Just(Step::Restore),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_each_class_keeps_its_order(steps in prop::collection::vec(step(), 0..300)) {
            let mut queue = Queue::new(bounds(20, 10, 2));
            let mut running: Vec<Waiting<u32>> = Vec::new();
            let mut last_started = [None; CLASSES];
            let (mut pushed, mut refused, mut ended) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Push(class) => {
                        pushed += 1;
                        refused += u32::from(queue.push(alone(class), pushed, None).is_err());
                        let is_bounded = matches!(class, Class::Connect | Class::Message);
                        prop_assert!(is_bounded || queue.len_of(class) > 0, "these are never refused");
                    }
                    Step::Pop => {
                        let others = queue.len() - queue.len_of(Class::Connect);
                        let connects = running.iter().filter(|w| w.ticket.class == Class::Connect).count();
                        match queue.pop() {
                            Some(taken) => {
                                prop_assert!(taken.ticket.class != Class::Connect || others == 0 || connects < 2);
                                prop_assert!(last_started[taken.ticket.class as usize] < Some(taken.item));
                                last_started[taken.ticket.class as usize] = Some(taken.item);
                                running.push(taken);
                            }
                            None => prop_assert!(queue.is_empty(), "a free connection stays free although work waits"),
                        }
                    }
                    Step::End => {
                        if let Some(taken) = running.pop() {
                            queue.ended(taken.ticket);
                            ended += 1;
                        }
                    }
                    Step::Restore => {
                        if let Some(taken) = running.pop() {
                            let ticket = taken.ticket;
                            // It is pushed back, so it may start before requests that started after it.
                            last_started[taken.ticket.class as usize] =
                                running.iter().filter(|w| w.ticket.class == taken.ticket.class).map(|w| w.item)
                                    .filter(|item| *item < taken.item).max();
                            queue.restore(taken);
                            queue.ended(ticket);
                        }
                    }
                }
                prop_assert_eq!(pushed, refused + ended + running.len() as u32 + queue.len() as u32);
            }
        }
    }

    #[test]
    fn no_class_starves_and_turns_follow_the_weights() {
        let mut queue = Queue::new(bounds(1000, 1000, 1000));
        for item in 0..500 {
            for class in Class::ALL {
                queue.push(alone(class), item, None).expect("room");
            }
        }
        let mut turns = [0; CLASSES];
        for _ in 0..120 {
            turns[queue.pop().expect("waits").ticket.class as usize] += 1;
        }
        assert_eq!(turns, [20, 60, 20, 20]);
    }

    #[test]
    fn connects_hold_their_share_while_messages_wait_and_all_otherwise() {
        let mut queue = Queue::new(bounds(10, 10, 1));
        for item in 0..4 {
            queue.push(alone(Class::Connect), item, None).expect("room");
        }
        let first: Vec<_> = (0..2).map(|_| queue.pop().expect("nobody else waits").ticket.class).collect();
        assert_eq!(first, [Class::Connect; 2]);
        queue.push(alone(Class::Message), 9, None).expect("room");
        assert_eq!(queue.pop().expect("waits").ticket.class, Class::Message);
        assert_eq!(queue.pop().expect("nobody else waits").ticket.class, Class::Connect);
    }

    #[test]
    fn what_has_a_deadline_leaves_then_and_what_has_none_stays() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Queue::new(bounds(10, 10, 1));
        queue.push(alone(Class::Close), 'c', None).expect("room");
        queue.push(alone(Class::Message), 'm', Some(at(2))).expect("room");
        queue.push(alone(Class::Connect), 'k', Some(at(1))).expect("room");
        assert_eq!(queue.next_deadline(), Some(at(1)));
        assert!(queue.pop_expired(start).is_none());
        let mut left: Vec<char> = std::iter::from_fn(|| queue.pop_expired(at(60))).map(|w| w.item).collect();
        left.sort_unstable();
        assert_eq!((left, queue.len()), (vec!['k', 'm'], 1));
    }

    const GROUP: Group = Group { key: 7, limit: 2 };

    fn grouped(class: Class) -> Ticket {
        Ticket { class, group: Some(GROUP) }
    }

    #[test]
    fn a_group_holds_its_limit_and_the_rest_go_before_its_others() {
        let mut queue = Queue::new(bounds(10, 10, 1));
        let places: Vec<_> =
            (0..4).map(|item| queue.push(grouped(Class::Message), item, None).expect("room")).collect();
        assert_eq!(places, [QueuedAs::InLine, QueuedAs::InLine, QueuedAs::Held, QueuedAs::Held]);
        let running: Vec<_> = (0..2).map(|_| queue.pop().expect("in line")).collect();
        assert!(queue.pop().is_none() && queue.has_nobody_in_line() && !queue.is_empty());
        queue.push(alone(Class::Message), 9, None).expect("room");
        queue.ended(running[0].ticket);
        let next: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|taken| taken.item).collect();
        assert_eq!(next, [9, 2], "a stranger first, then the one that was held for the longest");
    }

    #[test]
    fn what_is_held_leaves_at_its_deadline_and_one_in_line_makes_room_at_its_own() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Queue::new(bounds(10, 10, 1));
        for item in 0..3 {
            queue.push(grouped(Class::Message), item, Some(at(item))).expect("room");
        }
        queue.push(grouped(Class::Close), 3, None).expect("room");
        assert_eq!(queue.next_deadline(), Some(at(0)));
        assert_eq!(queue.pop_expired(at(0)).expect("its time is over").item, 0);
        assert_eq!(queue.classes[Class::Message as usize].len(), 2, "the held message took its place");
        let expired: Vec<_> = std::iter::from_fn(|| queue.pop_expired(at(9))).map(|waiting| waiting.item).collect();
        assert_eq!(expired, [1, 2]);
        let close = queue.pop().expect("a close event waits for as long as it takes");
        assert_eq!(close.item, 3);
        queue.ended(close.ticket);
        assert!(queue.is_empty() && queue.groups.is_empty());
    }

    proptest! {
        #[test]
        fn no_group_exceeds_its_limit_and_none_of_it_is_forgotten(
            steps in prop::collection::vec((0u8..7, 0u64..3, 0usize..CLASSES), 0..300)
        ) {
            let mut queue = Queue::new(bounds(1000, 1000, 1000));
            let mut now = Instant::now();
            let mut running: Vec<Waiting<u32>> = Vec::new();
            let mut count = 0u32;
            for (step, key, class) in steps {
                // Key 0: of no group.
                let group = (key > 0).then_some(Group { key, limit: key as u32 });
                match step {
                    0..=2 => {
                        let class = Class::ALL[class];
                        let deadline = match class {
                            Class::Connect | Class::Message => Some(now + Duration::from_secs(10)),
                            Class::Close | Class::Presence => None,
                        };
                        queue.push(Ticket { class, group }, count, deadline).expect("room");
                        count += 1;
                    }
                    3 => running.extend(queue.pop()),
                    4 => if let Some(taken) = running.pop() {
                        queue.ended(taken.ticket);
                    },
                    5 => if let Some(taken) = running.pop() {
                        let ticket = taken.ticket;
                        queue.restore(taken);
                        queue.ended(ticket);
                    },
                    _ => {
                        now += Duration::from_secs(4);
                        while queue.pop_expired(now).is_some() {}
                        prop_assert!(queue.next_deadline().is_none_or(|deadline| deadline > now));
                    }
                }
                for key in 1..3 {
                    let of_group = |w: &&Waiting<u32>| w.ticket.group.is_some_and(|group| group.key == key);
                    let busy = running.iter().filter(of_group).count();
                    let in_line = queue.classes.iter().flatten().filter(of_group).count();
                    let held = queue.held.iter().flat_map(BTreeMap::values).filter(of_group).count();
                    prop_assert!(busy + in_line <= key as usize);
                    prop_assert!(held == 0 || busy + in_line == key as usize, "held although there is room");
                }
            }
            for taken in running.drain(..) {
                queue.ended(taken.ticket);
            }
            queue.drain();
            prop_assert!(queue.is_empty() && queue.groups.is_empty());
        }
    }
}
