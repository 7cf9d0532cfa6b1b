//! Values for the file of a Unix socket: its permissions, its user and its group.

use toml::de::DeValue;

use super::item::Item;
use super::problem::Report;
use super::value::{Value, integer, read_str};

/// Permissions of a socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode(pub u32);

impl Value for Mode {
    fn kind() -> String {
        "permissions in octal: \"0660\"".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mode = match item.value {
            // 660 and 0660 are different numbers, so a number must be written in octal.
            DeValue::Integer(number) if number.radix() == 8 => {
                integer(item.value).and_then(|mode| u32::try_from(mode).ok())
            }
            DeValue::Integer(_) => None,
            _ => {
                let text = read_str(item, &Self::kind(), report)?;
                let digits = text.strip_prefix("0o").unwrap_or(text);
                let is_octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
                is_octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten()
            }
        };
        match mode {
            Some(mode) if mode > 0o777 => {
                report.refuse(item, "must be at most \"0777\": only read, write and execute bits are allowed")
            }
            Some(mode) if mode & 0o222 == 0 => {
                report.refuse(item, "no client could connect: that needs a write bit, as in \"0660\"")
            }
            Some(mode) => return Some(Self(mode)),
            None => report.refuse(item, format!("must be {}", Self::kind())),
        }
        None
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Account {
    Number(u32),
    Name(String),
}

impl Value for Account {
    fn kind() -> String {
        "a name or a number".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        // u32::MAX means "do not change" to chown(2).
        let number = |number: Option<u32>| number.filter(|number| *number != u32::MAX).map(Self::Number);
        let account = match item.value {
            DeValue::Integer(_) => number(integer(item.value).and_then(|id| u32::try_from(id).ok())),
            _ => match read_str(item, &Self::kind(), report)? {
                "" => None,
                text if text.bytes().all(|c| c.is_ascii_digit()) => number(text.parse().ok()),
                text if text.contains('\0') => None,
                text => Some(Self::Name(text.to_owned())),
            },
        };
        if account.is_none() {
            report.refuse(item, format!("must be {}", Self::kind()));
        }
        account
    }
}
