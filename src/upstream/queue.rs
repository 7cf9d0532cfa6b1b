//! The order in which requests get a connection. Plain data: no clock, no locks.
//!
//! First-in-first-out queues, one per [`Class`]. A session has at most its `concurrency` requests in here, so
//! first in, first out is fair between sessions. Between classes a fixed weighted round decides, so that none
//! starves; connect events take their turn only while they hold less than their share of the connections.
//!
//! Bounds: messages and connect events are refused beyond their length and leave at their deadline. Close events are
//! bounded by the number of sessions, each of which ends once, and presence by the number of partitions; neither leaves unserved.

use std::collections::VecDeque;
use std::time::Instant;

use super::request::Class;

/// Queues.
const CLASSES: usize = Class::ALL.len();

/// Turns in a round. Messages are what clients wait for; a login storm, a mass disconnect or what either does to channels still
/// moves at a sixth of the pace each.
const WEIGHTS: [i32; CLASSES] = [2, 6, 2, 2];

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Messages.
    pub(super) messages: usize,
    /// Connect events.
    pub(super) connects: usize,
    /// Connections that connect events may hold while others wait.
    pub(super) connects_running: usize,
}

/// Something that waits, or that waited and may have to come back.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// What waits.
    pub(super) item: T,
    /// Its queue.
    pub(super) class: Class,
    /// When it gives up; `None` never.
    pub(super) deadline: Option<Instant>,
    /// Its place among all that ever waited here.
    turn: u64,
}

/// The queues.
#[derive(Debug)]
pub(super) struct Queue<T> {
    bounds: Bounds,
    classes: [VecDeque<Waiting<T>>; CLASSES],
    /// Smooth weighted round: who has waited for the longest in turns.
    credit: [i32; CLASSES],
    next_turn: u64,
    /// Connect events that hold a connection.
    connects_running: usize,
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
        }
    }

    /// From now on connect events may hold so many connections while others wait.
    pub(super) fn set_connects_running(&mut self, most: usize) {
        self.bounds.connects_running = most;
    }

    /// Puts `item` at the end of its queue, or gives it back when that is full.
    pub(super) fn push(&mut self, class: Class, item: T, deadline: Option<Instant>) -> Result<(), T> {
        let queue = &mut self.classes[class as usize];
        let bound = match class {
            Class::Connect => self.bounds.connects,
            Class::Message => self.bounds.messages,
            Class::Close | Class::Presence => usize::MAX,
        };
        if queue.len() >= bound {
            return Err(item);
        }
        queue.push_back(Waiting { item, class, deadline, turn: self.next_turn });
        self.next_turn += 1;
        Ok(())
    }

    /// Takes the next one for a connection that is free. Its connection counts as held until [`Queue::ended`].
    pub(super) fn pop(&mut self) -> Option<Waiting<T>> {
        let others_wait = Class::ALL.iter().any(|class| *class != Class::Connect && self.len_of(*class) > 0);
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
            // A class that has nothing to do saves nothing up.
            self.credit[best] = 0;
        }
        if taken.class == Class::Connect {
            self.connects_running += 1;
        }
        Some(taken)
    }

    /// A connection taken for this class is free again.
    pub(super) fn ended(&mut self, class: Class) {
        if class == Class::Connect {
            self.connects_running -= 1;
        }
    }

    /// Takes back what could not be sent, to the place that it had; the caller says [`Queue::ended`] beside it. What
    /// was let in once is not refused now, so a queue may exceed its bound by the number of connections.
    pub(super) fn restore(&mut self, waiting: Waiting<T>) {
        let queue = &mut self.classes[waiting.class as usize];
        let at = queue.iter().take_while(|other| other.turn < waiting.turn).count();
        queue.insert(at, waiting);
    }

    /// Takes one whose deadline has passed. Deadlines within a queue are in order, so only the fronts are looked at.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Waiting<T>> {
        self.classes.iter_mut().find_map(|queue| {
            let expired = queue.front()?.deadline? <= now;
            if expired { queue.pop_front() } else { None }
        })
    }

    /// When [`Queue::pop_expired`] will have something, if nothing happens before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.classes.iter().filter_map(|queue| queue.front()?.deadline).min()
    }

    /// Takes everything, in no particular order between the classes.
    pub(super) fn drain(&mut self) -> Vec<Waiting<T>> {
        self.classes.iter_mut().flat_map(|queue| queue.drain(..)).collect()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    /// How many of a class wait.
    pub(super) fn len_of(&self, class: Class) -> usize {
        self.classes[class as usize].len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn bounds(messages: usize, connects: usize, connects_running: usize) -> Bounds {
        Bounds { messages, connects, connects_running }
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
                        refused += u32::from(queue.push(class, pushed, None).is_err());
                        let is_bounded = matches!(class, Class::Connect | Class::Message);
                        prop_assert!(is_bounded || queue.len_of(class) > 0, "these are never refused");
                    }
                    Step::Pop => {
                        let others = queue.len() - queue.len_of(Class::Connect);
                        let connects = running.iter().filter(|w| w.class == Class::Connect).count();
                        match queue.pop() {
                            Some(taken) => {
                                prop_assert!(taken.class != Class::Connect || others == 0 || connects < 2);
                                prop_assert!(last_started[taken.class as usize] < Some(taken.item));
                                last_started[taken.class as usize] = Some(taken.item);
                                running.push(taken);
                            }
                            None => prop_assert!(queue.is_empty(), "a free connection stays free although work waits"),
                        }
                    }
                    Step::End => {
                        if let Some(taken) = running.pop() {
                            queue.ended(taken.class);
                            ended += 1;
                        }
                    }
                    Step::Restore => {
                        if let Some(taken) = running.pop() {
                            queue.ended(taken.class);
                            // It comes again, so it may start before those that started after it.
                            last_started[taken.class as usize] =
                                running.iter().filter(|w| w.class == taken.class).map(|w| w.item)
                                    .filter(|item| *item < taken.item).max();
                            queue.restore(taken);
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
                queue.push(class, item, None).expect("room");
            }
        }
        let mut turns = [0; CLASSES];
        for _ in 0..120 {
            turns[queue.pop().expect("waits").class as usize] += 1;
        }
        assert_eq!(turns, [20, 60, 20, 20]);
    }

    #[test]
    fn connects_hold_their_share_while_messages_wait_and_all_otherwise() {
        let mut queue = Queue::new(bounds(10, 10, 1));
        for item in 0..4 {
            queue.push(Class::Connect, item, None).expect("room");
        }
        let first: Vec<_> = (0..2).map(|_| queue.pop().expect("nobody else waits").class).collect();
        assert_eq!(first, [Class::Connect; 2]);
        queue.push(Class::Message, 9, None).expect("room");
        assert_eq!(queue.pop().expect("waits").class, Class::Message);
        assert_eq!(queue.pop().expect("nobody else waits").class, Class::Connect);
    }

    #[test]
    fn what_has_a_deadline_leaves_then_and_what_has_none_stays() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Queue::new(bounds(10, 10, 1));
        queue.push(Class::Close, 'c', None).expect("room");
        queue.push(Class::Message, 'm', Some(at(2))).expect("room");
        queue.push(Class::Connect, 'k', Some(at(1))).expect("room");
        assert_eq!(queue.next_deadline(), Some(at(1)));
        assert!(queue.pop_expired(start).is_none());
        let mut left: Vec<char> = std::iter::from_fn(|| queue.pop_expired(at(60))).map(|w| w.item).collect();
        left.sort_unstable();
        assert_eq!((left, queue.len()), (vec!['k', 'm'], 1));
    }
}
