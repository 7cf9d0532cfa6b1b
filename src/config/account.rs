//! Who the file of a Unix socket belongs to and who may write to it: permissions, users and groups as they are written, and what the
//! machine calls them.

use std::ffi::CString;
use std::io;
use std::ptr;

use toml::de::DeValue;

use super::address::Address;
use super::model::SocketFile;
use super::problem::{Place, Report};
use super::schema::{Entry, Item};
use super::value::{Value, integer, read_str};
use super::written;

/// Memory for one entry of the user database; groups with many members are long.
const LONGEST_ENTRY: usize = 1 << 20;

/// Permissions of a socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode(pub u32);

impl Value for Mode {
    fn kind() -> String {
        "permissions in octal: \"0660\"".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mode = match item.value {
            // 660 is another number than 0660, so a number says that it is octal.
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
            Some(mode) if mode > 0o777 => report.refuse(item, "has read, write and execute bits only, up to \"0777\""),
            Some(mode) if mode & 0o222 == 0 => {
                report.refuse(item, "lets nobody connect: that takes a write bit, as in \"0660\"")
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
        // u32::MAX means "leave it" to chown(2).
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

/// Which of the two an account is.
#[derive(Clone, Copy)]
enum What {
    User,
    Group,
}

/// What is done with the file of a socket. `address` is what the socket is bound to, and `None` where that is switched off.
pub(super) fn resolve(socket: &written::Socket, address: Option<&Address>, report: &mut Report<'_>) -> SocketFile {
    let places: [&Option<Place>; 3] = [place(&socket.mode), place(&socket.owner), place(&socket.group)];
    if !matches!(address, Some(Address::Unix(_))) {
        for place in places.into_iter().flatten() {
            report.error(place, "only for a Unix socket: bind = \"unix:/path\"");
        }
        return SocketFile::default();
    }
    SocketFile {
        mode: socket.mode.as_ref().map(|entry| entry.value.0),
        owner: socket.owner.as_ref().and_then(|entry| number_of(entry, What::User, report)),
        group: socket.group.as_ref().and_then(|entry| number_of(entry, What::Group, report)),
    }
}

fn place<T>(entry: &Option<Entry<T>>) -> &Option<Place> {
    entry.as_ref().map_or(&None, |entry| &entry.place)
}

fn number_of(entry: &Entry<Account>, what: What, report: &mut Report<'_>) -> Option<u32> {
    let name = match &entry.value {
        Account::Number(number) => return Some(*number),
        Account::Name(name) => name,
    };
    let word = match what {
        What::User => "user",
        What::Group => "group",
    };
    let problem = match look_up(name, what) {
        Ok(Some(number)) => return Some(number),
        Ok(None) => format!("there is no {word} of this name"),
        Err(error) => format!("the {word} cannot be looked up: {error}"),
    };
    report.error(entry.place.as_ref()?, problem);
    None
}

/// The number of a user or group, if there is one of this name.
fn look_up(name: &str, what: What) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    let mut buffer = vec![0; 4096];
    loop {
        let (status, number) = match what {
            What::User => {
                // SAFETY: a passwd consists of numbers and pointers, for which zeros are values.
                let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
                let mut found = ptr::null_mut();
                // SAFETY: all of these live through the call, and the buffer is as long as it says.
                let status = unsafe {
                    libc::getpwnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found)
                };
                (status, (!found.is_null()).then_some(entry.pw_uid))
            }
            What::Group => {
                // SAFETY: as above.
                let mut entry: libc::group = unsafe { std::mem::zeroed() };
                let mut found = ptr::null_mut();
                // SAFETY: as above.
                let status = unsafe {
                    libc::getgrnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found)
                };
                (status, (!found.is_null()).then_some(entry.gr_gid))
            }
        };
        match status {
            0 => return Ok(number),
            libc::ERANGE if buffer.len() < LONGEST_ENTRY => buffer.resize(buffer.len() * 4, 0),
            // What the C library may say of a name that is not there (getpwnam(3)).
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name() {
        assert_eq!(look_up("root", What::User).unwrap(), Some(0));
        assert_eq!(look_up("root", What::Group).unwrap(), Some(0));
        assert_eq!(look_up("nobody-has-this-name", What::User).unwrap(), None);
        assert_eq!(look_up("nobody-has-this-name", What::Group).unwrap(), None);
    }
}
