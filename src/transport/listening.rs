//! Listening sockets: bind and accept, TCP and Unix alike.
//!
//! Owns a Unix socket's file until it is dropped. `listener` and `http` handle the connections.

use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Peer, Transport, peer_of};
use crate::config::model::{Bind, SocketFile};
use crate::holders::{self, Holder};
use crate::sockets;

/// Pause after accept(2) failed for lack of descriptors or memory: long enough for some to be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket.
pub struct Listening {
    fd: AsyncFd<Socket>,
    local: Bind,
    /// The file of a Unix socket is removed with it.
    _file: Option<OwnFile>,
}

/// Owns the tasks of connections accepted from one socket. They end when this is dropped.
#[derive(Default)]
pub(crate) struct AcceptedTasks(CancellationToken);

impl AcceptedTasks {
    /// Serves a connection.
    pub(crate) fn spawn(&self, serve: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.0.clone().run_until_cancelled_owned(serve));
    }
}

impl Drop for AcceptedTasks {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A listener could not be opened.
#[derive(Debug)]
pub struct BindError {
    bind: Bind,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.bind, why_not(&self.bind, &self.error))
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The reason why an address cannot be listened on, in an operator's words. For an address in use it names the process that has it,
/// if this user may see it.
pub fn why_not(bind: &Bind, error: &io::Error) -> String {
    match (bind, error.kind()) {
        // The error has a text of its own, for example about the owner of a socket's file.
        _ if error.get_ref().is_some() => error.to_string(),
        (Bind::Unix(path), io::ErrorKind::AddrInUse) if !is_socket(path) => {
            "the path exists and is not a socket".to_owned()
        }
        (_, io::ErrorKind::AddrInUse) => match holders_of(bind).first() {
            Some(holder) => format!("address already in use by {holder}"),
            None => "address already in use by a process that this user cannot see".to_owned(),
        },
        (Bind::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "permission denied: ports below 1024 require CAP_NET_BIND_SERVICE".to_owned()
        }
        (Bind::Unix(_), io::ErrorKind::PermissionDenied) => {
            "permission denied: this user cannot create a file in that folder".to_owned()
        }
        (Bind::Unix(_), io::ErrorKind::NotFound) => "its folder does not exist".to_owned(),
        (Bind::Tcp(_), io::ErrorKind::AddrNotAvailable) => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// The processes that listen where `bind` would.
pub fn holders_of(bind: &Bind) -> Vec<Holder> {
    match bind {
        Bind::Tcp(address) => holders::of_tcp(*address),
        Bind::Unix(path) => holders::of_unix(path),
    }
}

impl Listening {
    /// Binds and listens. Must be called within a runtime. `file` is for Unix sockets: no client can connect before the file has
    /// that mode and owner.
    pub fn bind(bind: &Bind, file: &SocketFile, backlog: u32) -> Result<Self, BindError> {
        Self::try_bind(bind, file, backlog).map_err(|error| BindError { bind: bind.clone(), error })
    }

    fn try_bind(bind: &Bind, settings: &SocketFile, backlog: u32) -> io::Result<Self> {
        let (socket, address) = match bind {
            Bind::Tcp(address) => (sockets::listening_tcp(*address)?, SockAddr::from(*address)),
            Bind::Unix(path) => {
                remove_stale(path)?;
                (sockets::unix(Type::STREAM)?, SockAddr::unix(path)?)
            }
        };
        socket.bind(&address)?;
        // From here on we remove the file.
        let file = match bind {
            Bind::Unix(path) => Some(OwnFile::new(path)),
            Bind::Tcp(_) => None,
        };
        if let Bind::Unix(path) = bind {
            // The kernel refuses every connection until listen(2), so no client gets in by the mode that the umask gave the file.
            hand_over(path, settings)?;
        }
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        let local = match peer_of(socket.local_addr()) {
            Peer::Ip(address) => Bind::Tcp(address),
            Peer::Unix => bind.clone(),
        };
        // SAFETY: the socket owns its descriptor, gives the same one at every call, and closes it only when it is
        // dropped, which AsyncFd does after it has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { fd, local, _file: file })
    }

    /// The address that it listens on, with the port that the kernel chose for port 0.
    pub fn local(&self) -> &Bind {
        &self.local
    }

    /// The next connection.
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        let (socket, address) = self.fd.async_io(Interest::READABLE, Socket::accept).await?;
        Ok((socket, peer_of(Ok(address))))
    }

    /// Waits for the next connection. Errors of single connections are skipped or logged.
    pub(crate) async fn next(&self) -> (Transport, Peer) {
        loop {
            let accepted = self.accept().await.and_then(|(socket, peer)| Ok((Transport::new(socket)?, peer)));
            match accepted {
                Ok(accepted) => return accepted,
                // The client closed before we accepted (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(listener = %self.local, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Succeeds if a process listens on this socket file. `ConnectionRefused` if none does.
///
/// # Errors
///
/// The error of connect(2).
pub fn knock(path: &Path) -> io::Result<()> {
    // A blocking connect would wait for a process that listens but does not accept.
    let socket = sockets::unix(Type::STREAM.nonblocking())?;
    match socket.connect(&SockAddr::unix(path)?) {
        // Its backlog is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

/// Removes a socket file that no process listens on: it was left behind by a process that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    // connect(2) gives the same error for a regular file, and that file belongs to another program.
    if !is_socket(path) {
        return Ok(());
    }
    match knock(path) {
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // The file does not exist, or we cannot tell: bind(2) will say.
        Err(_) => Ok(()),
    }
}

/// The file of a socket. Dropping this removes the file, unless its name belongs to another file by then.
struct OwnFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl OwnFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity_of(path) }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity_of(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Sets owner, group and mode of a socket's file.
///
/// # Errors
///
/// Says which change the system did not permit.
pub(crate) fn hand_over(path: &Path, settings: &SocketFile) -> io::Result<()> {
    let SocketFile { mode, owner, group } = *settings;
    if *settings == SocketFile::default() {
        return Ok(());
    }
    // Opens the file itself, so that its name no longer matters: in a folder where others may write, they could put a link in its
    // place.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the socket file was replaced by another file"));
    }
    let named = format!("/proc/self/fd/{}", file.as_raw_fd());
    let put = |what: String, result: io::Result<()>| {
        result.map_err(|error| io::Error::new(error.kind(), format!("the socket cannot be given {what}: {error}")))
    };
    if let Some(owner) = owner {
        put(format!("to owner {owner}, which requires root"), chown(&named, Some(owner), None))?;
    }
    if let Some(group) = group {
        put(
            format!("to group {group}, which requires root or membership of that group"),
            chown(&named, None, Some(group)),
        )?;
    }
    if let Some(mode) = mode {
        put(format!("mode {mode:04o}"), std::fs::set_permissions(&named, Permissions::from_mode(mode)))?;
    }
    Ok(())
}

/// The address at which a local socket is reached from this machine.
pub fn dial_address(local: SocketAddr) -> SocketAddr {
    let mut address = local;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_any_other_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("left.sock"), dir.path().join("precious.txt"));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        std::fs::write(&file, "precious").unwrap();
        let bind = |path: &Path| Listening::bind(&Bind::Unix(path.to_owned()), &SocketFile::default(), 1);
        let listening = bind(&socket).unwrap();
        assert!(bind(&socket).is_err(), "a process listens there");
        let not_ours = bind(&file).err().expect("it is a file").to_string();
        assert!(not_ours.ends_with(": the path exists and is not a socket"), "{not_ours}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        drop(listening);
    }

    #[tokio::test]
    async fn a_socket_whose_backlog_is_full_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full.sock");
        let busy = sockets::unix(Type::STREAM).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let error = Listening::bind(&Bind::Unix(path), &SocketFile::default(), 1).err().unwrap();
        assert!(error.to_string().contains("address already in use by process"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_somebody_else_has_put_in_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let bind = || Listening::bind(&Bind::Unix(path.clone()), &SocketFile::default(), 1).unwrap();
        let first = bind();
        std::fs::remove_file(&path).unwrap();
        let second = bind();
        drop(first);
        assert!(path.exists(), "it is the second one's");
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_file_of_a_socket_goes_with_it_and_a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("a.sock"), dir.path().join("precious.txt"));
        let settings = SocketFile { mode: Some(0o600), owner: None, group: None };
        drop(Listening::bind(&Bind::Unix(socket.clone()), &settings, 1).unwrap());
        assert!(!socket.exists());
        // A link in the place of the socket is not followed.
        std::fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &socket).unwrap();
        let before = std::fs::metadata(&file).unwrap().permissions();
        hand_over(&socket, &SocketFile { mode: Some(0o666), ..SocketFile::default() }).unwrap_err();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions(), before);
    }

    #[test]
    fn each_reason_is_in_an_operators_words() {
        use io::ErrorKind::{AddrNotAvailable, NotFound, PermissionDenied};
        let (tcp, unix) = (Bind::Tcp("127.0.0.1:80".parse().unwrap()), Bind::Unix("/run/none/x.sock".into()));
        for (bind, kind, words) in [
            (&tcp, PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (&tcp, AddrNotAvailable, "this machine has no such address"),
            (&unix, PermissionDenied, "cannot create a file in that folder"),
            (&unix, NotFound, "its folder does not exist"),
        ] {
            let why = why_not(bind, &kind.into());
            assert!(why.contains(words), "{bind}: {why}");
        }
    }
}
