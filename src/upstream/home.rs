//! The private directory of a php-fpm that we start, in the system's directory for temporary files.
//!
//! No other user may look into it (mode 0700). It is locked (flock(2)) for as long as its owner lives. The lock keeps
//! systemd-tmpfiles from cleaning it away, and tells the next node that starts that the directory is in use. An unlocked directory
//! belonged to a process that was killed, and the next node removes it.

use std::cell::RefCell;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use tracing::info;

/// The name of every such directory begins with this. Six random letters follow.
const PREFIX: &str = "longwire-fpm-";
const RANDOM_LETTERS: usize = 6;
/// The pool's configuration.
pub(super) const CONFIG_FILE: &str = "php-fpm.conf";
/// Where php-fpm listens.
pub(super) const SOCKET_FILE: &str = "php.sock";
/// Bytes of the longest path of a Unix socket (unix(7): 108 with its end). php-fpm cuts off a longer path, and listens elsewhere.
const LONGEST_SOCKET: usize = 107;
/// Another node may remove a directory as left over after it is made and before it is locked. Then another one is made.
const ATTEMPTS: usize = 10;

/// The directory. It is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    lock: RefCell<File>,
}

impl Home {
    /// Makes a new one below `folder`, after removing directories of dead processes there.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let folder = std::path::absolute(folder)?;
        let longest = folder.as_os_str().as_bytes().len() + 1 + PREFIX.len() + RANDOM_LETTERS + 1 + SOCKET_FILE.len();
        if longest > LONGEST_SOCKET {
            let beyond = longest - LONGEST_SOCKET;
            let text = format!(
                "a Unix socket below {} would have a path that is {beyond} bytes too long: set TMPDIR to a shorter one",
                folder.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        remove_left_over(&folder);
        let mut builder = tempfile::Builder::new();
        builder
            .prefix(PREFIX)
            .rand_bytes(RANDOM_LETTERS)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        for _ in 0..ATTEMPTS {
            let made = builder.tempdir_in(&folder)?;
            if let Some(lock) = lock(made.path())? {
                return Ok(Self { path: made.keep(), lock: RefCell::new(lock) });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Prepares each start of php-fpm: the directory exists and is ours, `config` is in it, and no socket is. Returns the socket's path.
    pub(super) fn prepare(&self, config: &str) -> io::Result<PathBuf> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => {
                if let Some(lock) = lock(&self.path)? {
                    self.lock.replace(lock);
                }
            }
        }
        if !is_ours(&self.path) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another directory took the place of the private one",
            ));
        }
        std::fs::write(self.path.join(CONFIG_FILE), config)?;
        let socket = self.path.join(SOCKET_FILE);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(socket),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if is_ours(&self.path) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Whether this is a directory, not a link to one, which belongs to this user and which no other user may write to.
fn is_ours(path: &Path) -> bool {
    // SAFETY: geteuid has no conditions and cannot fail.
    let user = unsafe { libc::geteuid() };
    std::fs::symlink_metadata(path).is_ok_and(|it| it.is_dir() && it.uid() == user && it.mode() & 0o022 == 0)
}

/// Locks a directory until the file is closed. `None` if another process has locked or removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // SAFETY: the descriptor is open for as long as `directory`.
    if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    // It may have been removed after it was opened.
    let is_still_there = std::fs::symlink_metadata(path)
        .is_ok_and(|now| directory.metadata().is_ok_and(|then| (now.dev(), now.ino()) == (then.dev(), then.ino())));
    Ok(is_still_there.then_some(directory))
}

/// Removes directories that killed processes of this user left behind. Directories that cannot be removed are left to the operator.
fn remove_left_over(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let is_home = name.starts_with(PREFIX.as_bytes()) && name.len() == PREFIX.len() + RANDOM_LETTERS;
        if !is_home || !is_ours(&path) {
            continue;
        }
        // Locked until it is removed.
        let Ok(Some(_lock)) = lock(&path) else { continue };
        if std::fs::remove_dir_all(&path).is_ok() {
            info!(target: "longwire::php", directory = %path.display(), "removed a directory that a killed process left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_private_and_goes_with_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(home.path()).unwrap().mode() & 0o777, 0o700);
        let socket = home.prepare("first").unwrap();
        std::fs::write(&socket, "").unwrap();
        drop(home);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_left_over_goes_and_what_is_in_use_or_of_others_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, other) = (Home::new(folder.path()).unwrap(), Home::new(folder.path()).unwrap());
        let names =
            ["longwire-fpm-abcdef", "longwire-fpm-much_longer", "somebody-elses"].map(|name| folder.path().join(name));
        names.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        std::fs::write(names[0].join(CONFIG_FILE), "").unwrap();
        std::os::unix::fs::symlink(&names[2], folder.path().join("longwire-fpm-linked")).unwrap();
        let next = Home::new(folder.path()).unwrap();
        assert_eq!(names.map(|path| path.exists()), [false, true, true]);
        assert!([&mine, &other, &next].iter().all(|home| home.path().exists()));
    }

    #[test]
    fn what_is_cleaned_away_is_there_again_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path()).unwrap();
        home.prepare("first").unwrap();
        std::fs::remove_file(home.path().join(CONFIG_FILE)).unwrap();
        home.prepare("second").unwrap();
        std::fs::remove_dir_all(home.path()).unwrap();
        home.prepare("third").unwrap();
        assert_eq!(std::fs::read_to_string(home.path().join(CONFIG_FILE)).unwrap(), "third");
        let next = Home::new(folder.path()).unwrap();
        assert!(home.path().exists() && next.path().exists(), "it is locked again");

        std::fs::remove_dir_all(home.path()).unwrap();
        let victim = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(victim.path(), home.path()).unwrap();
        home.prepare("fourth").unwrap_err();
        drop(home);
        assert!(
            victim.path().exists() && std::fs::read_dir(victim.path()).unwrap().count() == 0,
            "a link is not followed"
        );
    }

    #[test]
    fn a_folder_whose_sockets_would_have_too_long_a_path_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let beyond = LONGEST_SOCKET - PREFIX.len() - RANDOM_LETTERS - SOCKET_FILE.len() - 2;
        let deep = |len: usize| {
            let path = folder.path().join("x".repeat(len - folder.path().as_os_str().len() - 1));
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let error = Home::new(&deep(beyond + 1)).unwrap_err().to_string();
        assert!(error.contains("1 bytes too long: set TMPDIR"), "{error}");
        let home = Home::new(&deep(beyond)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(home.path().join(SOCKET_FILE)).unwrap());
    }
}
