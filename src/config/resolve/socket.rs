//! The file of a Unix socket: looks up the numbers of its user and group.

use std::ffi::CString;
use std::io;
use std::ptr;

use crate::config::account::Account;
use crate::config::address::Address;
use crate::config::model::SocketFile;
use crate::config::problem::{Place, Report};
use crate::config::schema::Entry;
use crate::config::written;

/// Memory for one entry of the user database; groups with many members are long.
const LONGEST_ENTRY: usize = 1 << 20;

/// Whether an account is a user or a group.
#[derive(Clone, Copy)]
enum AccountKind {
    User,
    Group,
}

/// Owner and permissions of a socket's file. `address` is the address of the socket, or `None` if it is switched off.
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
        owner: socket.owner.as_ref().and_then(|entry| number_of(entry, AccountKind::User, report)),
        group: socket.group.as_ref().and_then(|entry| number_of(entry, AccountKind::Group, report)),
    }
}

fn place<T>(entry: &Option<Entry<T>>) -> &Option<Place> {
    entry.as_ref().map_or(&None, |entry| &entry.place)
}

fn number_of(entry: &Entry<Account>, kind: AccountKind, report: &mut Report<'_>) -> Option<u32> {
    let name = match &entry.value {
        Account::Number(number) => return Some(*number),
        Account::Name(name) => name,
    };
    let word = match kind {
        AccountKind::User => "user",
        AccountKind::Group => "group",
    };
    let problem = match look_up(name, kind) {
        Ok(Some(number)) => return Some(number),
        Ok(None) => format!("there is no {word} of this name"),
        Err(error) => format!("the {word} cannot be looked up: {error}"),
    };
    report.error(entry.place.as_ref()?, problem);
    None
}

/// The number of a user or group, if there is one of this name.
fn look_up(name: &str, kind: AccountKind) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    let mut buffer = vec![0; 4096];
    loop {
        let (status, number) = match kind {
            AccountKind::User => {
                // SAFETY: a passwd consists of numbers and pointers, for which zeros are values.
                let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
                let mut found = ptr::null_mut();
                // SAFETY: all of these live through the call, and the buffer is as long as it says.
                let status = unsafe {
                    libc::getpwnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found)
                };
                (status, (!found.is_null()).then_some(entry.pw_uid))
            }
            AccountKind::Group => {
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
            // The C library may return these errors for a name that does not exist (getpwnam(3)).
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
        assert_eq!(look_up("root", AccountKind::User).unwrap(), Some(0));
        assert_eq!(look_up("root", AccountKind::Group).unwrap(), Some(0));
        assert_eq!(look_up("nobody-has-this-name", AccountKind::User).unwrap(), None);
        assert_eq!(look_up("nobody-has-this-name", AccountKind::Group).unwrap(), None);
    }
}
