//! The heartbeat of a listener: from the written values to the model.
//!
//! `send` and `reply` go to the wire as they are written, so each must be one frame of the listener's framing, with any number or
//! copied bytes put into it. A pattern must fit into a frame that can arrive.

use std::ops::Range;

use crate::config::framing_value::{self, HeartbeatBytes};
use crate::config::model::{Heartbeat, StreamFraming};
use crate::config::problem::{Place, Report};
use crate::config::schema::{Entry, IfWritten};
use crate::config::written;
use crate::proto::framing::{Decoder, Item};
use crate::proto::heartbeat::{Ask, Pattern, ProbeReply};

/// The heartbeat; `Some(None)` if none is written. `None` only if `report` has errors. `framing` and `max_frame` are
/// `None` if they have errors of their own.
pub(super) fn resolve(
    written: &IfWritten<written::Heartbeat>,
    framing: Option<&StreamFraming>,
    max_frame: Option<usize>,
    report: &mut Report<'_>,
) -> Option<Option<Heartbeat>> {
    let Some(written) = &written.0 else { return Some(None) };
    // A key with an error is absent here, and must not be reported again.
    if !report.has_error_at(&written.place.key) {
        check_companions(written, report);
        check_frames(written, framing, report);
        check_patterns(written, framing, max_frame, report);
    }
    let pattern = |entry: &Option<Entry<framing_value::Pattern>>| entry.as_ref().map(|entry| entry.value.0.clone());
    let ask = written.send.as_ref().map(|send| Ask {
        after: written.after.value.0,
        every: written.every.value.0,
        max_unanswered: written.max_unanswered.value.0 as u8,
        send: send.value.0.clone(),
        sequence: written.sequence.as_ref().map(|entry| entry.value.0.clone()),
        answer: pattern(&written.answer),
    });
    let reply = pattern(&written.probe).zip(written.reply.as_ref()).map(|(probe, reply)| ProbeReply {
        probe,
        send: reply.value.0.clone(),
        copy: written.copy.as_ref().map(|entry| entry.value.0),
    });
    (!report.has_error_at(&written.place.key)).then_some(Some(Heartbeat { ask, reply }))
}

/// Refuses keys that have no effect without another.
fn check_companions(written: &written::Heartbeat, report: &mut Report<'_>) {
    if written.send.is_none() && written.probe.is_none() && written.reply.is_none() {
        report.error(&written.place, "needs send, or probe and reply, or both");
    }
    let of_send = [
        written.after.place.as_ref(),
        written.every.place.as_ref(),
        written.max_unanswered.place.as_ref(),
        place(&written.sequence),
        place(&written.answer),
    ];
    for place in of_send.into_iter().flatten().filter(|_| written.send.is_none()) {
        report.error(place, "needs send, the probe that it applies to");
    }
    let (reply, copy) = (place(&written.reply), place(&written.copy));
    match (place(&written.probe), reply) {
        (Some(place), None) => report.error(place, "needs reply, the answer to the probe"),
        (None, Some(place)) => report.error(place, "needs probe, which it answers"),
        _ => {}
    }
    if let (Some(place), None) = (copy, reply) {
        report.error(place, "needs reply, into which it is copied");
    }
}

/// The place of a key, if it was written.
fn place<T>(entry: &Option<Entry<T>>) -> Option<&Place> {
    entry.as_ref()?.place.as_ref()
}

/// Checks that `send` and `reply` are one frame each, and stay one with any sequence number or copied bytes.
fn check_frames(written: &written::Heartbeat, framing: Option<&StreamFraming>, report: &mut Report<'_>) {
    let filled = written.sequence.as_ref().map(|entry| (&entry.place, entry.value.0.clone()));
    check_sent(&written.send, filled, framing, report);
    if let (Some(place), Some(StreamFraming::Delimiter(_) | StreamFraming::Flagged(_))) =
        (place(&written.sequence), framing)
    {
        report.error(place, "cannot be used with type = \"delimiter\": the number could contain the delimiter");
    }
    // Copied bytes come from a frame as PHP would see it. Without escapes it contains no delimiter.
    if let (Some(place), Some(StreamFraming::Flagged(flagged))) = (place(&written.copy), framing)
        && !flagged.escapes.is_empty()
    {
        report.error(place, "cannot be used with escape: the copied bytes could need escaping");
    }
    let filled =
        written.copy.as_ref().map(|entry| (&entry.place, entry.value.0.to..entry.value.0.to + entry.value.0.len));
    check_sent(&written.reply, filled, framing, report);
}

fn check_sent(
    sent: &Option<Entry<HeartbeatBytes>>,
    filled: Option<(&Option<Place>, Range<usize>)>,
    framing: Option<&StreamFraming>,
    report: &mut Report<'_>,
) {
    let Some(Entry { value: bytes, place: Some(place) }) = sent else { return };
    if let Some(what) = framing.and_then(|framing| not_a_frame(framing, &bytes.0)) {
        report.error(place, format!("must be one whole frame of this listener's framing: {what}"));
    }
    let Some((Some(place), range)) = filled else { return };
    if range.end > bytes.0.len() {
        report.error(place, format!("ends at byte {}, but only {} are sent", range.end, bytes.0.len()));
    } else if let Some(length) = framing.and_then(StreamFraming::length)
        && range.start < length.offset + usize::from(length.width)
        && length.offset < range.end
    {
        report.error(place, "overlaps the length field");
    }
}

/// The reason why these bytes are not one frame; `None` if they are one.
fn not_a_frame(framing: &StreamFraming, bytes: &[u8]) -> Option<String> {
    let framing = match framing {
        StreamFraming::Raw | StreamFraming::Gap(_) => return None,
        framing => framing.framing()?,
    };
    let mut decoder = Decoder::new_client(&framing);
    match decoder.decode(&framing, usize::MAX, bytes) {
        Ok((used, Some(Item::Frame(_)))) if used == bytes.len() => None,
        Ok((used, Some(_))) => Some(format!("the frame ends after {used} of these {} bytes", bytes.len())),
        Ok((_, None)) => Some(format!("the frame is not complete after these {} bytes", bytes.len())),
        Err(error) => Some(error.to_string()),
    }
}

/// Checks that the patterns can match a frame, and cannot both match the same one.
fn check_patterns(
    written: &written::Heartbeat,
    framing: Option<&StreamFraming>,
    max_frame: Option<usize>,
    report: &mut Report<'_>,
) {
    let patterns = [&written.answer, &written.probe];
    let ends = patterns.into_iter().flatten().map(|entry| (entry.place.as_ref(), entry.value.0.end()));
    let copied = written.copy.iter().map(|entry| (entry.place.as_ref(), entry.value.0.from + entry.value.0.len));
    for (place, end) in ends.chain(copied) {
        if let (Some(place), Some(max)) = (place, max_frame.filter(|max| end > *max)) {
            report.error(place, format!("looks at {end} bytes, but frames have at most {max} (max_frame_bytes)"));
        }
    }
    for place in patterns.into_iter().filter_map(place) {
        if let Some(StreamFraming::Raw) = framing {
            report
                .warn(place, "type = \"raw\" has no frames: a match is missed if it arrives together with other bytes");
        }
    }
    if let (Some(Entry { value: answer, .. }), Some(Entry { value: probe, place: Some(place) })) =
        (&written.answer, &written.probe)
        && (implies(&answer.0, &probe.0) || implies(&probe.0, &answer.0))
    {
        report.error(place, "cannot be told apart from answer: every frame that matches one of them matches the other");
    }
}

/// Whether every frame that matches `a` also matches `b`.
fn implies(a: &Pattern, b: &Pattern) -> bool {
    b.offset >= a.offset && a.bytes[(b.offset - a.offset).min(a.bytes.len())..].starts_with(&b.bytes)
}
