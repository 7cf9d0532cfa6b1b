//! Which process listens on an address, as far as this user may see it in /proc (proc(5)).
//!
//! The kernel's tables name a listening socket by its inode; the process is the one that has a descriptor of that inode. A user sees
//! only the descriptors of own processes, root sees those of all.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The state LISTEN in /proc/net/tcp (include/net/tcp_states.h).
const TCP_LISTEN: &str = "0A";
/// The flag of listening sockets in /proc/net/unix (`__SO_ACCEPTCON`).
const UNIX_LISTENING: &str = "00010000";

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name as `ps` shows it.
    pub name: String,
    /// The configuration that it serves, if it is a longwire.
    pub config: Option<PathBuf>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)?;
        match &self.config {
            Some(config) => write!(f, ", which serves {}", config.display()),
            None => Ok(()),
        }
    }
}

/// Processes that listen where a bind to `address` would collide. Empty if there is none, or none that this user may see.
pub fn of_tcp(address: SocketAddr) -> Vec<Holder> {
    holders(&tcp_sockets(address))
}

/// Processes that listen on the Unix socket at `path`. Empty if there is none, or none that this user may see.
pub fn of_unix(path: &Path) -> Vec<Holder> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let wanted = path.canonicalize().ok();
    let is_there =
        |bound: &str| Path::new(bound) == path || wanted.is_some() && Path::new(bound).canonicalize().ok() == wanted;
    let inodes = table.lines().filter_map(unix_listener).filter(|(_, bound)| is_there(bound)).map(|(inode, _)| inode);
    holders(&inodes.collect::<Vec<_>>())
}

/// Whether a process was started as `longwire serve` with exactly this file `config`.
pub fn serves(holder: &Holder, config: &Path) -> bool {
    let Some(served) = &holder.config else { return false };
    // The path is looked up under the root of that process: a container may have another file under this name.
    let seen =
        Path::new("/proc").join(holder.pid.to_string()).join("root").join(served.strip_prefix("/").unwrap_or(served));
    match (fs::metadata(seen), fs::metadata(config)) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

/// Inodes of the listening sockets that `address` would collide with.
fn tcp_sockets(address: SocketAddr) -> Vec<u64> {
    let table = |name: &str| fs::read_to_string(name).unwrap_or_default();
    let (v4, v6) = (table("/proc/net/tcp"), table("/proc/net/tcp6"));
    let listeners: Vec<_> = v4.lines().chain(v6.lines()).filter_map(tcp_listener).collect();
    let of = |collides: &dyn Fn(SocketAddr) -> bool| {
        listeners.iter().filter(|(bound, _)| collides(*bound)).map(|(_, inode)| *inode).collect::<Vec<_>>()
    };
    let same_port = |bound: SocketAddr| bound.port() == address.port();
    let either_is_any = |bound: SocketAddr| bound.ip().is_unspecified() || address.ip().is_unspecified();
    let own_family = of(&|bound| {
        same_port(bound) && bound.is_ipv4() == address.is_ipv4() && (bound.ip() == address.ip() || either_is_any(bound))
    });
    // A socket on [::] may take IPv4 too; the table does not say whether it does.
    if own_family.is_empty() { of(&|bound| same_port(bound) && bound.ip().is_unspecified()) } else { own_family }
}

/// Address and inode, if a line of /proc/net/tcp or tcp6 is a socket that listens.
fn tcp_listener(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_whitespace();
    let (local, state, inode) = (fields.nth(1)?, fields.nth(1)?, fields.nth(5)?);
    if state != TCP_LISTEN {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    // The kernel prints each 32 bits of the address as a number of this machine.
    let words = (0..ip.len() / 8).map(|at| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some((SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?), inode.parse().ok()?))
}

/// Inode and path, if a line of /proc/net/unix is a socket that listens on a file.
fn unix_listener(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_whitespace();
    if fields.nth(3)? != UNIX_LISTENING {
        return None;
    }
    let inode = fields.nth(2)?.parse().ok()?;
    // The path may have spaces in it.
    Some((inode, &line[line.find('/')?..]))
}

/// The processes that have these sockets open, one for each socket, the lowest process id first.
fn holders(inodes: &[u64]) -> Vec<Holder> {
    let mut wanted: Vec<OsString> = inodes.iter().map(|inode| format!("socket:[{inode}]").into()).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let mut found = Vec::new();
    for pid in pids {
        if wanted.is_empty() {
            break;
        }
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let open: Vec<OsString> = descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok().map(PathBuf::into_os_string))
            .filter(|target| wanted.contains(target))
            .collect();
        if !open.is_empty() {
            wanted.retain(|socket| !open.contains(socket));
            found.push(process(pid));
        }
    }
    found
}

fn process(pid: u32) -> Holder {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<OsString> = words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    Holder { pid, name, config: served(&words).map(|config| folder.join(config)) }
}

/// The path given with `--config`, if a command line is `longwire serve`.
fn served(words: &[OsString]) -> Option<&Path> {
    words.get(1..)?.iter().find(|word| *word == "serve")?;
    let after = |at: usize| words.get(at + 1).map(OsString::as_os_str);
    words.iter().enumerate().find_map(|(at, word)| {
        let joined = word.to_str().and_then(|word| word.strip_prefix("--config=")).map(OsStr::new);
        joined.or_else(|| if word == "--config" { after(at) } else { None }).map(Path::new)
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn names_this_process(holders: &[Holder]) -> bool {
        // A child that another test starts has our sockets from its fork to its exec.
        holders.iter().any(|holder| holder.pid == std::process::id())
    }

    #[test]
    fn a_socket_of_this_process_is_found_by_every_address_that_collides_with_it() {
        for (bound, asked) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.0.0.1:0", "0.0.0.0"),
            ("0.0.0.0:0", "127.0.0.1"),
            ("[::1]:0", "[::1]"),
            ("[::1]:0", "[::]"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let port = listener.local_addr().unwrap().port();
            let asked: SocketAddr = format!("{asked}:{port}").parse().unwrap();
            assert!(names_this_process(&of_tcp(asked)), "{bound} asked as {asked}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(of_tcp(format!("127.0.0.2:{port}").parse().unwrap()), []);
    }

    #[test]
    fn a_unix_socket_is_found_by_its_path_with_spaces_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(names_this_process(&of_unix(&path)));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(names_this_process(&of_unix(&link)));
        assert_eq!(of_unix(&folder.path().join("another")), []);
        drop(listener);
    }

    #[test]
    fn a_command_line_tells_what_is_served() {
        for (line, config) in [
            ("longwire serve --config a.toml", Some("a.toml")),
            ("/usr/local/bin/longwire serve --config=/etc/a.toml", Some("/etc/a.toml")),
            ("longwire check --config a.toml", None),
            ("longwire dev serve", None),
            ("nginx", None),
            ("", None),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(served(&words), config.map(Path::new), "{line}");
        }
    }
}
