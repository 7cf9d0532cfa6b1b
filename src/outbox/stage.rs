//! The stage of an outbox, in its life and in a reply. It decides what may leave at that point.
//!
//! ```text
//!            admit         last word                      reply       begin         end
//!   Guest ----------> Open ---------> Said                  Whole ---------> Streams ---> Whole
//!     |                |               |                                       |
//!     '----------------+---------------'                                       | break off
//!        the client is gone |    | end                                         v
//!                           v    v                                           Broken
//!                         Deaf --> Ended
//! ```
//!
//! Plain data: it decides, and [`super::Outbox`] acts, both under one lock. Everything that leaves goes through
//! [`OutboxStage::departure_of`].

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutboxStage {
    life: Life,
    reply: ReplyState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    /// PHP still runs the connect event: pushes wait.
    Guest,
    #[default]
    Open,
    /// The last frame was queued.
    Said,
    /// A write has failed because the client is gone.
    Deaf,
    /// The session's task has ended the outbox.
    Ended,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ReplyState {
    /// Frames leave whole.
    #[default]
    Whole,
    /// A reply leaves in pieces and has not ended.
    Streams(Unit),
    /// A reply was broken off and will never end.
    Broken(Unit),
}

/// The form of a reply's pieces on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Fragments, or pieces in the framing's own form. A control frame may come between two of them.
    Pieces,
    /// One frame whose length was sent already. Nothing else may come inside it.
    Frame,
}

/// The kinds of output that may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputKind {
    /// A frame of a command.
    Push,
    /// A whole frame of this session: a reply, a probe.
    Frame,
    /// A piece of the reply that streams.
    Piece,
    /// Ping, pong, comment.
    Control,
    /// The last frame of the session.
    Goodbye,
}

/// When it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// To the socket, or to the end of the ready queue.
    Now,
    /// It is held until the streaming reply is complete, or the guest is admitted.
    Later,
    /// It is dropped: it would be misread after a broken frame, or the client is gone.
    Never,
}

impl OutboxStage {
    /// The stage of a guest.
    pub(super) const GUEST: Self = Self { life: Life::Guest, reply: ReplyState::Whole };

    /// The complete rule.
    pub(super) fn departure_of(self, kind: OutputKind) -> Departure {
        match (self.life, self.reply, kind) {
            (Life::Said | Life::Deaf | Life::Ended, ..) => Departure::Never,
            // A close frame may follow an unfinished sequence of fragments.
            (_, ReplyState::Broken(Unit::Pieces) | ReplyState::Streams(Unit::Pieces), OutputKind::Goodbye) => {
                Departure::Now
            }
            (_, ReplyState::Broken(_), _) | (_, ReplyState::Streams(Unit::Frame), OutputKind::Goodbye) => {
                Departure::Never
            }
            (_, ReplyState::Streams(_), OutputKind::Piece)
            | (_, ReplyState::Streams(Unit::Pieces), OutputKind::Control) => Departure::Now,
            (_, ReplyState::Streams(_), _) | (Life::Guest, ReplyState::Whole, OutputKind::Push) => Departure::Later,
            (_, ReplyState::Whole, OutputKind::Piece) => Departure::Never,
            (_, ReplyState::Whole, _) => Departure::Now,
        }
    }

    /// Whether held frames may leave.
    pub(super) fn lets_held_go(self) -> bool {
        self.departure_of(OutputKind::Push) == Departure::Now
    }

    /// Whether pushes can leave, now or later.
    pub(super) fn takes_pushes(self) -> bool {
        self.departure_of(OutputKind::Push) != Departure::Never
    }

    /// Whether replies can leave, now or later.
    pub(super) fn takes_replies(self) -> bool {
        self.departure_of(OutputKind::Frame) != Departure::Never
    }

    pub(super) fn streams(self) -> bool {
        matches!(self.reply, ReplyState::Streams(_))
    }

    /// Whether not even a control frame may leave.
    pub(super) fn is_inside_frame(self) -> bool {
        matches!(self.reply, ReplyState::Streams(Unit::Frame) | ReplyState::Broken(Unit::Frame))
    }

    pub(super) fn is_guest(self) -> bool {
        self.life == Life::Guest
    }

    pub(super) fn is_deaf(self) -> bool {
        self.life == Life::Deaf
    }

    pub(super) fn is_ended(self) -> bool {
        self.life == Life::Ended
    }

    /// A reply begins to stream. Returns false while another one streams. After a broken-off reply it returns true, but
    /// nothing leaves.
    pub(super) fn begin(&mut self, unit: Unit) -> bool {
        if self.reply == ReplyState::Whole {
            self.reply = ReplyState::Streams(unit);
            return true;
        }
        !self.streams()
    }

    /// The streaming reply has ended.
    pub(super) fn end(&mut self) {
        if self.streams() {
            self.reply = ReplyState::Whole;
        }
    }

    /// The streaming reply is broken off.
    pub(super) fn break_off(&mut self) {
        if let ReplyState::Streams(unit) = self.reply {
            self.reply = ReplyState::Broken(unit);
        }
    }

    /// PHP has admitted the session. Returns false if that changes nothing.
    pub(super) fn admit(&mut self) -> bool {
        let is_guest = self.is_guest();
        if is_guest {
            self.life = Life::Open;
        }
        is_guest
    }

    /// The last frame is queued.
    pub(super) fn say(&mut self) {
        self.life = self.life.max(Life::Said);
    }

    /// The client is gone.
    pub(super) fn deafen(&mut self) {
        self.life = self.life.max(Life::Deaf);
    }

    /// The outbox ends.
    pub(super) fn finish(&mut self) {
        self.life = Life::Ended;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [OutputKind; 5] =
        [OutputKind::Push, OutputKind::Frame, OutputKind::Piece, OutputKind::Control, OutputKind::Goodbye];

    fn departures(stage: OutboxStage) -> [Departure; 5] {
        KINDS.map(|kind| stage.departure_of(kind))
    }

    #[test]
    fn what_may_leave_is_known_at_each_stage() {
        use Departure::{Later, Never, Now};
        let mut stage = OutboxStage::default();
        assert_eq!(departures(stage), [Now, Now, Never, Now, Now]);
        assert!(stage.begin(Unit::Pieces) && !stage.begin(Unit::Frame));
        assert_eq!(departures(stage), [Later, Later, Now, Now, Now]);
        stage.end();
        assert!(stage.begin(Unit::Frame));
        assert_eq!(departures(stage), [Later, Later, Now, Later, Never]);
        stage.break_off();
        assert_eq!(departures(stage), [Never; 5]);
        assert!(stage.begin(Unit::Pieces));
        assert_eq!(departures(stage), [Never; 5], "nothing follows what is broken");
        let mut guest = OutboxStage::GUEST;
        assert_eq!(departures(guest), [Later, Now, Never, Now, Now]);
        assert!(guest.begin(Unit::Pieces));
        guest.end();
        assert!(!guest.lets_held_go() && guest.admit() && guest.lets_held_go() && !guest.admit());
        for (mut stage, change) in [
            (OutboxStage::default(), OutboxStage::say as fn(&mut OutboxStage)),
            (OutboxStage::GUEST, OutboxStage::deafen),
            (guest, OutboxStage::finish),
        ] {
            change(&mut stage);
            assert!(!stage.admit());
            assert_eq!(departures(stage), [Never; 5], "{stage:?}");
            stage.deafen();
            stage.say();
            assert_eq!(stage.is_ended(), matches!(stage.life, Life::Ended), "no step leads back: {stage:?}");
        }
    }
}
