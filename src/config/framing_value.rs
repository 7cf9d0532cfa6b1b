//! Values of framings and heartbeats: widths, bytes, places in a frame.

use std::ops::Range;

use toml::de::DeValue;

use super::compound::members;
use super::item::Item;
use super::model::Escape;
use super::problem::Report;
use super::value::{Value, Whole, elements, integer};
use crate::proto::heartbeat;

/// An offset in a frame. Heartbeats are found in headers and short bodies.
type FrameOffset = Whole<0, 65_535>;

/// The width of a number in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width(pub u8);

impl Value for Width {
    fn kind() -> String {
        "1, 2, 4 or 8".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        read_width(item, &[1, 2, 4, 8], &Self::kind(), report).map(Self)
    }
}

/// The width of a length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LengthWidth(pub u8);

impl Value for LengthWidth {
    fn kind() -> String {
        "1, 2, 3, 4 or 8".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        read_width(item, &[1, 2, 3, 4, 8], &Self::kind(), report).map(Self)
    }
}

fn read_width(item: &Item<'_>, widths: &[u8], kind: &str, report: &mut Report<'_>) -> Option<u8> {
    let Some(number) = integer(item.value) else {
        report.wrong_type(item, kind);
        return None;
    };
    let width = widths.iter().copied().find(|width| i128::from(*width) == number);
    if width.is_none() {
        report.refuse(item, format!("must be {kind}"));
    }
    width
}

/// A number added to a length. No header or trailer comes near this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Adjustment(pub i64);

const LARGEST_ADJUSTMENT: i64 = 65_535;

impl Value for Adjustment {
    fn kind() -> String {
        format!("an integer from -{LARGEST_ADJUSTMENT} to {LARGEST_ADJUSTMENT}")
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let Some(number) = integer(item.value) else {
            report.wrong_type(item, &Self::kind());
            return None;
        };
        let number = i64::try_from(number).ok().filter(|number| number.abs() <= LARGEST_ADJUSTMENT);
        if number.is_none() {
            report.refuse(item, format!("must be {}", Self::kind()));
        }
        number.map(Self)
    }
}

/// Bytes of a protocol, `MIN` to `MAX` of them. TOML strings are UTF-8, so bytes that are not can be written as a list of
/// numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Octets<const MIN: usize, const MAX: usize>(pub Vec<u8>);

/// The bytes that end a frame. The decoder searches for the beginning of a delimiter at the end of its buffer; no protocol needs a
/// long one.
pub(super) type Delimiter = Octets<1, 64>;

/// The bytes before or behind each frame; empty for none.
pub(super) type Marker = Octets<0, 16>;

/// One frame of a heartbeat, or a part of one: room for the widest header that a length framing can have, and some body.
pub(super) type HeartbeatBytes = Octets<1, 1024>;

impl<const MIN: usize, const MAX: usize> Value for Octets<MIN, MAX> {
    fn kind() -> String {
        let range = if MIN == MAX { format!("{MAX}") } else { format!("{MIN} to {MAX}") };
        format!("a string or a list of bytes, {range} bytes long")
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let bytes = match item.value {
            DeValue::String(text) => Some(text.as_bytes().to_vec()),
            DeValue::Array(array) => array
                .iter()
                .map(|byte| integer(byte.get_ref()).and_then(|byte| u8::try_from(byte).ok()))
                .collect::<Option<Vec<u8>>>(),
            _ => {
                report.wrong_type(item, &Self::kind());
                return None;
            }
        };
        let bytes = bytes.filter(|bytes| (MIN..=MAX).contains(&bytes.len()));
        if bytes.is_none() {
            report.refuse(item, format!("must be {}", Self::kind()));
        }
        bytes.map(Self)
    }
}

/// The bytes that are escaped, and their escape codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Escapes(pub Vec<Escape>);

impl Value for Escapes {
    fn kind() -> String {
        "a list such as [{ byte = 0x7E, code = [0x7D, 2] }, { byte = 0x7D, code = [0x7D, 1] }]".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let escapes = elements(item, &Self::kind(), report)?.into_iter().map(|element| {
            let kind = "{ byte = 0x7E, code = [0x7D, 2] }";
            let [byte, code] = members(&element, kind, ["byte", "code"], report)?;
            let byte = Whole::<0, 255>::read(&byte, report);
            let code = Octets::<2, 2>::read(&code, report);
            let code = <[u8; 2]>::try_from(code?.0).expect("its type has two bytes");
            Some(Escape { byte: byte?.0 as u8, code })
        });
        escapes.collect::<Option<Vec<_>>>().map(Self)
    }
}

/// The bytes that a heartbeat looks for in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(pub heartbeat::Pattern);

impl Value for Pattern {
    fn kind() -> String {
        "{ offset = 4, bytes = [0, 0, 0, 8] }, bytes a string or a list".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let [offset, bytes] = members(item, &Self::kind(), ["offset", "bytes"], report)?;
        let offset = FrameOffset::read(&offset, report);
        let bytes = HeartbeatBytes::read(&bytes, report);
        Some(Self(heartbeat::Pattern { offset: offset?.0 as usize, bytes: bytes?.0 }))
    }
}

/// The range of the sequence number in the bytes of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SequencePlace(pub Range<usize>);

impl Value for SequencePlace {
    fn kind() -> String {
        "{ offset = 8, width = 4 }, 1, 2, 4 or 8 bytes wide".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let [offset, width] = members(item, &Self::kind(), ["offset", "width"], report)?;
        let offset = FrameOffset::read(&offset, report);
        let width = Width::read(&width, report);
        let offset = offset?.0 as usize;
        Some(Self(offset..offset + usize::from(width?.0)))
    }
}

/// The bytes of a probe that its reply repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopiedBytes(pub heartbeat::Copied);

impl Value for CopiedBytes {
    fn kind() -> String {
        "{ from = 8, to = 8, bytes = 4 }".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let [from, to, bytes] = members(item, &Self::kind(), ["from", "to", "bytes"], report)?;
        let from = FrameOffset::read(&from, report);
        let to = FrameOffset::read(&to, report);
        let len = Whole::<1, 1024>::read(&bytes, report);
        Some(Self(heartbeat::Copied { from: from?.0 as usize, to: to?.0 as usize, len: len?.0 as usize }))
    }
}
