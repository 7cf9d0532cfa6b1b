//! The bytes that wait for one client, with the rules for dropping them.
//!
//! ```text
//!                      .--- held: whole frames, while a reply streams
//!   push, write --->   |                    | release
//!                      '--> ready <---------'
//!                             | slices, advance
//!                             v socket
//! ```
//!
//! Plain data: nothing here knows sockets, tasks or locks. Replies and control frames are never thrown away. A push
//! may be thrown away only if its rule allows it and none of it has been sent.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::proto::command::Name;

/// The memory of a piece besides its bytes: its place in the queue, and its allocation.
pub(super) const PIECE_COST: usize = 64;

/// Identifies pushes that replace each other under the rule `latest`: those of one channel with one key.
#[derive(Debug, PartialEq, Eq)]
pub struct Topic {
    /// The channel of the message. `None` if it was not sent to a channel.
    pub channel: Option<Name>,
    /// The publisher's key.
    pub key: Option<Name>,
}

/// The kind of a waiting piece, which decides whether it may be dropped.
#[derive(Clone, Debug)]
pub(super) enum PieceKind {
    /// A reply, a piece of one, or a control frame.
    Reply,
    /// A push that is never dropped.
    Push,
    /// A push that may be dropped to make room.
    Droppable(Arc<Topic>),
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    kind: PieceKind,
}

/// See the module. It takes one word while nothing waits, which is nearly always.
#[derive(Debug, Default)]
pub(super) struct Backlog(Option<Box<Pieces>>);

#[derive(Debug, Default)]
struct Pieces {
    ready: VecDeque<Piece>,
    ready_bytes: usize,
    /// The first of `ready` was sent in part.
    is_begun: bool,
    held: VecDeque<Piece>,
    held_bytes: usize,
}

impl Backlog {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.bytes())
    }

    /// Bytes that could be written now.
    pub(super) fn ready_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.ready_bytes)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.held_bytes)
    }

    /// The memory of the pieces that could be written now.
    pub(super) fn ready_cost(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.ready_bytes + pieces.ready.len() * PIECE_COST)
    }

    /// The memory of all pieces.
    pub(super) fn cost(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.cost())
    }

    /// Whether nothing can be written now.
    pub(super) fn has_nothing_ready(&self) -> bool {
        self.0.as_ref().is_none_or(|pieces| pieces.ready.is_empty())
    }

    /// Appends bytes after those that are ready.
    pub(super) fn enqueue(&mut self, bytes: Bytes, kind: PieceKind) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().enqueue(bytes, kind);
        }
    }

    /// Queues the rest of a frame whose beginning the socket took. Nothing else may be ready.
    pub(super) fn enqueue_rest(&mut self, bytes: Bytes, kind: PieceKind) {
        debug_assert!(self.has_nothing_ready(), "the socket takes nothing while something waits for it");
        let pieces = self.0.get_or_insert_default();
        pieces.is_begun = true;
        pieces.enqueue(bytes, kind);
    }

    /// Holds a frame until the reply that streams has ended.
    pub(super) fn hold(&mut self, frame: Bytes, kind: PieceKind) {
        if !frame.is_empty() {
            self.0.get_or_insert_default().hold(frame, kind);
        }
    }

    /// Makes the held frames ready. Returns true if there were any.
    pub(super) fn release(&mut self) -> bool {
        self.change(Pieces::release).unwrap_or(false)
    }

    /// Fills `slices` with ready pieces, as far as they fit. Returns how many slices were filled.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.slices(slices))
    }

    /// Removes bytes that were written.
    pub(super) fn advance(&mut self, written: usize) {
        self.change(|pieces| pieces.advance(written));
    }

    /// Drops everything. Returns how many pushes were dropped.
    pub(super) fn clear(&mut self) -> u32 {
        self.0.take().map_or(0, |pieces| pieces.pushes())
    }

    /// Drops the held frames. Returns how many pushes were dropped.
    pub(super) fn clear_held(&mut self) -> u32 {
        self.change(Pieces::clear_held).unwrap_or(0)
    }

    /// Drops the pushes of `topic` of which no byte was sent. Returns how many frames were dropped.
    pub(super) fn drop_topic(&mut self, topic: &Topic) -> u32 {
        self.change(|pieces| pieces.drop_topic(topic)).unwrap_or(0)
    }

    /// Drops the oldest droppable frames until the memory used is at most `room`. Returns how many were dropped.
    pub(super) fn drop_oldest(&mut self, room: usize) -> u32 {
        self.change(|pieces| pieces.drop_oldest(room)).unwrap_or(0)
    }

    /// Changes the pieces, and frees their memory if none is left.
    fn change<T>(&mut self, change: impl FnOnce(&mut Pieces) -> T) -> Option<T> {
        let result = change(self.0.as_mut()?);
        self.0.take_if(|pieces| pieces.bytes() == 0);
        Some(result)
    }
}

impl Pieces {
    fn bytes(&self) -> usize {
        self.ready_bytes + self.held_bytes
    }

    fn cost(&self) -> usize {
        self.bytes() + (self.ready.len() + self.held.len()) * PIECE_COST
    }

    fn enqueue(&mut self, bytes: Bytes, kind: PieceKind) {
        self.ready_bytes += bytes.len();
        self.ready.push_back(Piece { bytes, kind });
    }

    fn hold(&mut self, frame: Bytes, kind: PieceKind) {
        self.held_bytes += frame.len();
        self.held.push_back(Piece { bytes: frame, kind });
    }

    fn release(&mut self) -> bool {
        let any = !self.held.is_empty();
        for piece in std::mem::take(&mut self.held) {
            self.enqueue(piece.bytes, piece.kind);
        }
        self.held_bytes = 0;
        any
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.ready) {
            *slice = IoSlice::new(&piece.bytes);
            count += 1;
        }
        count
    }

    fn advance(&mut self, written: usize) {
        self.ready_bytes -= written;
        let mut left = written;
        while let Some(front) = self.ready.front_mut() {
            if left < front.bytes.len() {
                self.is_begun |= left > 0;
                front.bytes.advance(left);
                return;
            }
            left -= front.bytes.len();
            self.is_begun = false;
            self.ready.pop_front();
        }
        // Frees the memory of a queue that was long once.
        self.ready = VecDeque::new();
    }

    fn pushes(&self) -> u32 {
        let pieces = self.ready.iter().chain(&self.held);
        pieces.filter(|piece| !matches!(piece.kind, PieceKind::Reply)).count() as u32
    }

    fn clear_held(&mut self) -> u32 {
        self.held_bytes = 0;
        let held = std::mem::take(&mut self.held);
        held.iter().filter(|piece| !matches!(piece.kind, PieceKind::Reply)).count() as u32
    }

    fn drop_topic(&mut self, topic: &Topic) -> u32 {
        let before = self.ready.len() + self.held.len();
        let mut keep_first = self.is_begun;
        let is_kept = |piece: &Piece| !matches!(&piece.kind, PieceKind::Droppable(other) if **other == *topic);
        self.ready.retain(|piece| std::mem::take(&mut keep_first) || is_kept(piece));
        self.held.retain(is_kept);
        let dropped = before - self.ready.len() - self.held.len();
        if dropped > 0 {
            self.ready_bytes = self.ready.iter().map(|piece| piece.bytes.len()).sum();
            self.held_bytes = self.held.iter().map(|piece| piece.bytes.len()).sum();
        }
        dropped as u32
    }

    fn drop_oldest(&mut self, room: usize) -> u32 {
        let mut dropped = 0;
        let mut next = usize::from(self.is_begun);
        while self.cost() > room && next < self.ready.len() {
            if matches!(self.ready[next].kind, PieceKind::Droppable(_)) {
                let piece = self.ready.remove(next).expect("just looked at");
                self.ready_bytes -= piece.bytes.len();
                dropped += 1;
            } else {
                next += 1;
            }
        }
        next = 0;
        while self.cost() > room && next < self.held.len() {
            if matches!(self.held[next].kind, PieceKind::Droppable(_)) {
                let piece = self.held.remove(next).expect("just looked at");
                self.held_bytes -= piece.bytes.len();
                dropped += 1;
            } else {
                next += 1;
            }
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(channel: u8) -> Arc<Topic> {
        Arc::new(Topic { channel: Name::new(&[b'a' + channel]).ok(), key: None })
    }

    fn text(backlog: &Backlog) -> String {
        let pieces = backlog.0.iter().flat_map(|pieces| pieces.ready.iter().chain(&pieces.held));
        pieces.map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect::<Vec<_>>().join(" ")
    }

    fn filled() -> Backlog {
        let mut backlog = Backlog::default();
        backlog.enqueue_rest(Bytes::from_static(b"rest-a"), PieceKind::Droppable(topic(0)));
        backlog.enqueue(Bytes::from_static(b"reply"), PieceKind::Reply);
        backlog.enqueue(Bytes::from_static(b"a1"), PieceKind::Droppable(topic(0)));
        backlog.enqueue(Bytes::from_static(b"b1"), PieceKind::Droppable(topic(1)));
        backlog.enqueue(Bytes::from_static(b"stays"), PieceKind::Push);
        backlog.hold(Bytes::from_static(b"a2"), PieceKind::Droppable(topic(0)));
        backlog
    }

    #[test]
    fn only_what_may_go_and_has_not_begun_to_leave_is_dropped() {
        let mut backlog = filled();
        assert_eq!(backlog.drop_topic(&topic(0)), 2);
        assert_eq!(text(&backlog), "rest-a reply b1 stays");
        let mut backlog = filled();
        assert_eq!(backlog.drop_oldest(0), 3);
        assert_eq!(text(&backlog), "rest-a reply stays");
        let mut backlog = filled();
        assert_eq!(backlog.drop_oldest(backlog.cost() - 1), 1);
        assert_eq!(text(&backlog), "rest-a reply b1 stays a2", "the oldest goes first");
        assert_eq!(backlog.clear(), 4, "pushes that are lost");
        assert_eq!((backlog.bytes(), backlog.cost()), (0, 0));
    }

    #[test]
    fn a_frame_that_has_left_whole_protects_nobody() {
        let mut backlog = filled();
        backlog.advance(6);
        assert_eq!(backlog.drop_topic(&topic(0)), 2);
        backlog.advance(3);
        assert_eq!(backlog.drop_oldest(0), 1);
        assert_eq!(text(&backlog), "ly stays");
    }

    proptest! {
        #[test]
        fn the_sums_are_right_whatever_happens(steps in proptest::collection::vec((0_u8..7, 0_usize..40), 0..60)) {
            let mut backlog = Backlog::default();
            for (step, number) in steps {
                let bytes = Bytes::from(vec![b'x'; number]);
                match step {
                    0 => backlog.enqueue(bytes, PieceKind::Reply),
                    1 => backlog.enqueue(bytes, PieceKind::Droppable(topic(number as u8 % 3))),
                    2 => backlog.hold(bytes, PieceKind::Droppable(topic(number as u8 % 3))),
                    3 => { backlog.release(); }
                    4 => backlog.advance(number.min(backlog.ready_bytes())),
                    5 => { backlog.drop_topic(&topic(number as u8 % 3)); }
                    _ => { backlog.drop_oldest(number * 20); }
                }
                let Some(pieces) = &backlog.0 else {
                    prop_assert_eq!((backlog.ready_bytes(), backlog.bytes(), backlog.cost()), (0, 0, 0));
                    continue;
                };
                let ready: usize = pieces.ready.iter().map(|piece| piece.bytes.len()).sum();
                let held: usize = pieces.held.iter().map(|piece| piece.bytes.len()).sum();
                prop_assert!(ready + held > 0, "nothing is kept for nothing");
                prop_assert_eq!((backlog.ready_bytes(), backlog.bytes()), (ready, ready + held));
                prop_assert!(!pieces.is_begun || !pieces.ready.is_empty());
            }
        }
    }
}
