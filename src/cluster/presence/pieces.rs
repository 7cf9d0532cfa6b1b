//! Puts reports into envelopes that any engine carries. Long reports are cut into pieces, and joined again where they arrive. Plain
//! data.
//!
//! ```text
//!   report ──cut──> whole │ whole │ whole, changes │ changes     envelopes of at most max_bytes
//!                     0       1          2              3, last
//! ```
//!
//! The pieces of a report are sent in order. If one is lost the others are useless, and the report is sent again. If two reports of
//! a node begin at the same change of the same partition, the shorter one is a prefix of the longer one. So pieces of an earlier
//! and of a later report make the later one.

use std::collections::BTreeMap;

use crate::proto::envelope::Sender;
use crate::proto::partition::Partition;
use crate::proto::presence::{Piece, Report, Standing};

/// Packs reports for one node into envelopes of at most `max_bytes`, or of one standing if that is longer.
pub(super) fn envelopes(reports: Vec<Report>, max_bytes: usize) -> Vec<Vec<Report>> {
    let mut envelopes: Vec<Vec<Report>> = Vec::new();
    let mut room = 0;
    for piece in reports.into_iter().flat_map(|report| cut(report, max_bytes)) {
        let len = piece.encoded_len();
        match envelopes.last_mut() {
            Some(envelope) if len <= room => envelope.push(piece),
            _ => {
                envelopes.push(vec![piece]);
                room = max_bytes;
            }
        }
        room = room.saturating_sub(len);
    }
    envelopes
}

fn cut(report: Report, max_bytes: usize) -> Vec<Report> {
    if report.encoded_len() <= max_bytes {
        return vec![report];
    }
    let Report { whole, changes, .. } = report;
    let has_whole = whole.is_some();
    let head = Report { whole: has_whole.then(Vec::new), changes: Vec::new(), ..report };
    // At least one standing goes into each piece.
    let all_room = max_bytes.saturating_sub(head.encoded_len()).max(1);
    let (mut pieces, mut room) = (vec![head.clone()], all_room);
    let standings = whole.into_iter().flatten().map(|standing| (true, standing));
    for (is_of_whole, standing) in standings.chain(changes.into_iter().map(|standing| (false, standing))) {
        let len = standing.encoded_len();
        if len > room && room < all_room {
            pieces.push(head.clone());
            room = all_room;
        }
        room = room.saturating_sub(len);
        let piece = pieces.last_mut().expect("there is one from the beginning");
        let standings: &mut Vec<Standing> = match &mut piece.whole {
            Some(whole) if is_of_whole => whole,
            _ => &mut piece.changes,
        };
        standings.push(standing);
    }
    let last = pieces.len() - 1;
    for (number, piece) in pieces.iter_mut().enumerate() {
        piece.piece = Piece { number: number as u32, is_last: number == last };
    }
    pieces
}

/// Reports of which some pieces have come.
#[derive(Debug, Default)]
pub(super) struct Pieces(BTreeMap<(Sender, Partition), Report>);

impl Pieces {
    /// Takes a piece. Returns the report when this is its last piece and none is missing.
    pub(super) fn take(&mut self, from: Sender, piece: Report) -> Option<Report> {
        let of = (from, piece.partition);
        let before = self.0.remove(&of);
        if piece.piece == Piece::WHOLE {
            return Some(piece);
        }
        let Piece { number, is_last } = piece.piece;
        let report = match before {
            Some(before) if before.is_followed_by(&piece) => before.with(piece),
            _ if number == 0 => piece,
            _ => return None,
        };
        if is_last {
            return Some(Report { piece: Piece::WHOLE, ..report });
        }
        self.0.insert(of, report);
        None
    }

    /// Forgets the pieces of nodes that are not here.
    pub(super) fn keep(&mut self, is_here: impl Fn(&Sender) -> bool) {
        self.0.retain(|(from, _), _| is_here(from));
    }
}

impl Report {
    fn is_followed_by(&self, next: &Self) -> bool {
        let head = |report: &Self| (report.is_lead, report.is_new, report.settled, report.from, report.whole.is_some());
        self.piece.number + 1 == next.piece.number && head(self) == head(next)
    }

    fn with(mut self, next: Self) -> Self {
        if let (Some(whole), Some(more)) = (&mut self.whole, next.whole) {
            whole.extend(more);
        }
        self.changes.extend(next.changes);
        Self { piece: next.piece, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::proto::command::Name;
    use crate::proto::id::SessionId;
    use crate::proto::presence::Membership;
    use crate::proto::run::Run;

    const FROM: Sender = Sender { node: 1, run: Run::of(7) };

    /// Standings of different lengths.
    fn standings(count: usize) -> Vec<Standing> {
        let name = |text: String| Name::new(text.as_bytes()).unwrap();
        let standing = |number: usize| Standing {
            of: Membership {
                app: name("app".to_owned()),
                channel: name(format!("news {}", "x".repeat(number % 90))),
                session: SessionId::from_bytes(format!("AAAAAAAAAAAA{number:04}").as_bytes()).unwrap(),
            },
            is_in: true,
            again: false,
            uid: None,
        };
        (0..count).map(standing).collect()
    }

    fn report(whole: Option<usize>, changes: usize) -> Report {
        let partition = Partition::new(204).unwrap();
        let (whole, changes) = (whole.map(standings), standings(changes));
        Report { partition, piece: Piece::WHOLE, is_lead: true, is_new: false, settled: 7, whole, from: 7, changes }
    }

    fn reports() -> Vec<Report> {
        [(None, 0), (None, 1), (None, 100), (Some(0), 0), (Some(1), 0), (Some(100), 0), (Some(0), 100), (Some(50), 50)]
            .into_iter()
            .map(|(whole, changes)| report(whole, changes))
            .collect()
    }

    #[test]
    fn reports_come_together_as_they_were_from_envelopes_that_are_short_enough() {
        let longest = standings(90).iter().map(Standing::encoded_len).max().unwrap();
        for max_bytes in [1, 100, 200, 1000, 10_000, 1 << 20] {
            let envelopes = envelopes(reports(), max_bytes);
            for envelope in &envelopes {
                let bytes: usize = envelope.iter().map(Report::encoded_len).sum();
                assert!(bytes <= max_bytes.max(report(None, 0).encoded_len() + longest), "{bytes} for {max_bytes}");
            }
            let mut pieces = Pieces::default();
            let come: Vec<Report> =
                envelopes.into_iter().flatten().filter_map(|piece| pieces.take(FROM, piece)).collect();
            assert_eq!(come, reports(), "{max_bytes}");
            assert!(pieces.0.is_empty());
        }
    }

    #[test]
    fn a_report_without_one_of_its_pieces_is_none_and_the_next_one_is() {
        let (whole, another) = (report(Some(50), 50), report(Some(40), 60));
        let count = cut(whole.clone(), 300).len();
        assert!(count > 5);
        for lost in 0..count {
            let mut pieces = Pieces::default();
            for (number, piece) in cut(whole.clone(), 300).into_iter().enumerate().filter(|(number, _)| *number != lost)
            {
                assert_eq!(pieces.take(FROM, piece), None, "{number} without {lost}");
            }
            // Pieces of another run, or of another report, are not mixed with it.
            let other = Sender { run: Run::of(8), ..FROM };
            let come = cut(another.clone(), 300).into_iter().filter_map(|piece| pieces.take(other, piece)).last();
            assert_eq!(come, Some(another.clone()));
            let come = cut(whole.clone(), 300).into_iter().filter_map(|piece| pieces.take(FROM, piece)).last();
            assert_eq!(come, Some(whole.clone()));
        }
    }

    #[test]
    fn pieces_of_a_report_and_of_a_longer_one_that_begins_with_it_make_the_longer_one() {
        let (short, long) = (report(Some(50), 30), report(Some(50), 60));
        for from_short in 1..cut(short.clone(), 300).len() {
            let mut pieces = Pieces::default();
            let mixed = cut(short.clone(), 300).into_iter().take(from_short);
            let mixed = mixed.chain(cut(long.clone(), 300).into_iter().skip(from_short));
            let come: Vec<Report> = mixed.filter_map(|piece| pieces.take(FROM, piece)).collect();
            assert_eq!(come, slice::from_ref(&long), "{from_short}");
        }
    }
}
