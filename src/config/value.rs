//! Single values: their syntax and their meaning.
//!
//! The type of a key in `written` is its rule: `Whole<1, 100>` cannot hold 0. Values are written with their units
//! (`"30s"`, `"64 KiB"`), so that they need no guessing. Each [`Value`] describes in words what it accepts; errors are
//! made of those words.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

use super::aliases;
use super::item::Item;
use super::problem::{Report, did_you_mean};
use super::secret::SecretText;

/// A type that can be read from one TOML value.
pub(super) trait Value: Sized {
    /// Whether the written value may be a secret, or contain one. Then messages do not show it.
    const IS_SECRET: bool = false;

    /// Completes "must be".
    fn kind() -> String;

    /// The value, or `None` after an error was added to `report`.
    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self>;
}

impl Value for bool {
    fn kind() -> String {
        "true or false".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        match item.value {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                report.wrong_type(item, &Self::kind());
                None
            }
        }
    }
}

impl Value for String {
    fn kind() -> String {
        "a string".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let text = read_str(item, &Self::kind(), report)?;
        // php-fpm's params are C strings.
        if text.contains('\0') {
            report.refuse(item, "must not contain a NUL character");
            return None;
        }
        Some(text.to_owned())
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Whole<MIN, MAX> {
    fn kind() -> String {
        format!("an integer from {MIN} to {MAX}")
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let Some(number) = integer(item.value) else {
            report.wrong_type(item, &Self::kind());
            return None;
        };
        in_range(number, MIN, MAX).map(Self).or_else(|| {
            report.refuse(item, format!("must be {}", Self::kind()));
            None
        })
    }
}

/// A length of time above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub Duration);

/// A length of time; zero means "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeOrOff(pub Duration);

/// No timeout needs more than a year, and with this bound additions to the clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl Value for Time {
    fn kind() -> String {
        "a duration: \"500ms\", \"30s\", \"5m\" or \"1h\"".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let time = read_time(item, &Self::kind(), report)?;
        if time.is_zero() {
            report.refuse(item, "must be above zero");
            return None;
        }
        Some(Self(time))
    }
}

impl Value for TimeOrOff {
    fn kind() -> String {
        "a duration: \"500ms\", \"30s\", \"5m\" or \"1h\", or 0 to switch it off".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        if integer(item.value) == Some(0) {
            return Some(Self(Duration::ZERO));
        }
        read_time(item, &Self::kind(), report).map(Self)
    }
}

fn read_time(item: &Item<'_>, kind: &str, report: &mut Report<'_>) -> Option<Duration> {
    let text = read_str(item, kind, report)?;
    match parse_duration(text) {
        Some(time) if time <= LONGEST => Some(time),
        Some(_) => {
            report.refuse(item, "must be at most a year, \"8760h\"");
            None
        }
        None => {
            report.refuse(item, format!("must be {kind}"));
            None
        }
    }
}

/// Reads a number and a unit; `0` needs none.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 0,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// A duration as an operator would write it.
pub(crate) fn duration_text(time: Duration) -> String {
    let millis = time.as_millis();
    match () {
        () if millis == 0 => "0".into(),
        () if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        () if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        () if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        () => format!("{millis}ms"),
    }
}

/// A number of bytes from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Value for Size<MIN, MAX> {
    fn kind() -> String {
        format!("a size from {} to {}: 65536 or \"64 KiB\"", size_text(MIN), size_text(MAX))
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let bytes = match item.value {
            DeValue::String(text) => parse_size(text).map(i128::from),
            DeValue::Integer(_) => integer(item.value),
            _ => {
                report.wrong_type(item, &Self::kind());
                return None;
            }
        };
        bytes.and_then(|bytes| in_range(bytes, MIN, MAX)).map(Self).or_else(|| {
            report.refuse(item, format!("must be {}", Self::kind()));
            None
        })
    }
}

/// Longest first: "KiB" ends in "B".
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = if unit.is_empty() { 1 } else { SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1 };
    number.checked_mul(factor)
}

/// A number of bytes as an operator would write it.
pub(crate) fn size_text(bytes: u64) -> String {
    let binary = SIZE_UNITS[..3].iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    match binary {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

/// `"64 KiB"` as 64 and `KiB`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    Some((text[..digits].parse().ok()?, text[digits..].trim_start_matches(' ')))
}

/// One of a few words. The list is the declaration: reading, refusing and the documentation use it.
pub(super) trait Choice: Copy + fmt::Debug + 'static {
    const WORDS: &'static [(&'static str, Self)];
    /// For each of our words, the words of other systems. They are refused, and ours is suggested.
    const ALIASES: &'static [(&'static str, &'static [&'static str])] = &[];
}

impl<T: Choice> Value for T {
    fn kind() -> String {
        alternatives(Self::WORDS.iter().map(|(word, _)| *word))
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let text = read_str(item, &Self::kind(), report)?;
        let found = Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let hint = match aliases::word(text, Self::ALIASES) {
                Some(word) => format!(", did you mean \"{word}\"?"),
                None => did_you_mean(text, Self::WORDS.iter().map(|(word, _)| *word)),
            };
            report.refuse(item, format!("must be {}{hint}", Self::kind()));
        }
        found
    }
}

fn alternatives<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
        None => String::new(),
    }
}

/// A list of words, each at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set<T>(pub Vec<T>);

impl<T: Choice + PartialEq> Value for Set<T> {
    fn kind() -> String {
        format!("a list of {}", T::kind())
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut set = Vec::new();
        for element in elements(item, &Self::kind(), report)? {
            let value = T::read(&element, report)?;
            if set.contains(&value) {
                report.refuse(&element, "is in the list twice");
                return None;
            }
            set.push(value);
        }
        Some(Self(set))
    }
}

impl Value for SecretText {
    const IS_SECRET: bool = true;

    fn kind() -> String {
        String::kind()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        String::read(item, report).map(Self::from)
    }
}

/// Texts that may be secrets, in the order written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretTexts(pub Vec<SecretText>);

impl Value for SecretTexts {
    const IS_SECRET: bool = true;

    fn kind() -> String {
        "a list of texts".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let texts = elements(item, &Self::kind(), report)?;
        let text = |text: &Item<'_>| read_str(text, "a text", report).map(|text| SecretText::from(text.to_owned()));
        texts.iter().map(text).collect::<Option<_>>().map(Self)
    }
}

/// The elements of an array, under the array's key.
pub(super) fn elements<'a>(item: &Item<'a>, kind: &str, report: &mut Report<'_>) -> Option<Vec<Item<'a>>> {
    match item.value {
        DeValue::Array(array) => Some(array.iter().map(|value| item.within(item.key.clone(), value)).collect()),
        _ => {
            report.wrong_type(item, kind);
            None
        }
    }
}

/// The text of a string value.
pub(super) fn read_str<'a>(item: &Item<'a>, kind: &str, report: &mut Report<'_>) -> Option<&'a str> {
    match item.value {
        DeValue::String(text) => Some(text),
        _ => {
            report.wrong_type(item, kind);
            None
        }
    }
}

/// An integer, in whichever radix it was written. `None` for other types; numbers too large for any key saturate.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i128> {
    let number = value.as_integer()?;
    Some(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX))
}

fn in_range(number: i128, min: u64, max: u64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| (min..=max).contains(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, expected) in [
            ("30s", Some(30_000)),
            ("500ms", Some(500)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("2 h", Some(7_200_000)),
            ("0", Some(0)),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("30sec", None),
            ("", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_carry_their_unit() {
        for (text, expected) in [
            ("64 KiB", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("16 MiB", Some(16 << 20)),
            ("1 MB", Some(1_000_000)),
            ("12 B", Some(12)),
            ("12", Some(12)),
            ("1 mb", None),
            ("KiB", None),
            ("18446744073709551615 GiB", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_written(number in any::<u64>(), shift in 0_u32..64) {
            let bytes = number >> shift;
            prop_assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
            let time = Duration::from_millis(bytes);
            prop_assert_eq!(parse_duration(&duration_text(time)), Some(time));
        }

        #[test]
        fn random_text_is_never_a_panic(text in "\\PC{0,12}") {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
