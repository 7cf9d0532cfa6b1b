//! A private network: a hub and several spokes. Each spoke is linked to the hub by a cable that a test can cut.
//!
//! Hub and spokes are network namespaces, and each cable is a pair of virtual interfaces. They exist as long as the processes that hold
//! them, and have no names outside. Unix sockets work across them, because they are files.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::end_with_the_run;

pub struct Network {
    hub: Namespace,
    spokes: Vec<Namespace>,
}

/// A network namespace in which a process may run.
pub struct Namespace {
    holder: Child,
}

impl Network {
    /// A hub with this number of spokes; or the reason why this machine does not allow network namespaces.
    pub fn star(spokes: usize) -> Result<Self, String> {
        let hub = Namespace::new()?;
        let spokes = (0..spokes).map(|_| Namespace::new()).collect::<Result<Vec<_>, _>>()?;
        let network = Self { hub, spokes };
        for (spoke, namespace) in network.spokes.iter().enumerate() {
            let holder = namespace.holder.id().to_string();
            let cable = cable(spoke);
            network.hub.ip(&["link", "add", &cable, "type", "veth", "peer", "name", "cable", "netns", &holder])?;
            network.hub.ip(&["address", "add", &format!("{}/30", network.hub_address(spoke)), "dev", &cable])?;
            network.hub.ip(&["link", "set", &cable, "up"])?;
            namespace.ip(&["address", "add", &format!("10.99.{spoke}.2/30"), "dev", "cable"])?;
            namespace.ip(&["link", "set", "cable", "up"])?;
        }
        Ok(network)
    }

    pub fn hub(&self) -> &Namespace {
        &self.hub
    }

    pub fn spoke(&self, spoke: usize) -> &Namespace {
        &self.spokes[spoke]
    }

    /// The address at which a spoke reaches the hub.
    pub fn hub_address(&self, spoke: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, u8::try_from(spoke).expect("few spokes"), 1)
    }

    /// Drops all packets in both directions from now on; no side gets an error.
    pub fn cut(&self, spoke: usize) {
        self.hub.ip(&["link", "set", &cable(spoke), "down"]).expect("the cable is there");
    }

    pub fn heal(&self, spoke: usize) {
        self.hub.ip(&["link", "set", &cable(spoke), "up"]).expect("the cable is there");
    }
}

/// The name of the hub's end of a spoke's cable.
fn cable(spoke: usize) -> String {
    format!("cable{spoke}")
}

impl Namespace {
    fn new() -> Result<Self, String> {
        let mut command = Command::new("sleep");
        command.arg("infinity").stdin(Stdio::null());
        // SAFETY: unshare is a plain system call, and nothing else happens between fork and exec.
        unsafe { command.pre_exec(|| checked(libc::unshare(libc::CLONE_NEWNET))) };
        end_with_the_run(&mut command, libc::SIGKILL);
        match command.spawn() {
            Ok(holder) => {
                let namespace = Self { holder };
                namespace.ip(&["link", "set", "lo", "up"])?;
                Ok(namespace)
            }
            Err(error) => Err(format!("no network namespace: {error}")),
        }
    }

    /// Makes a command run in this namespace.
    pub fn has(&self, command: &mut Command) {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let namespace = OwnedFd::from(std::fs::File::open(path).expect("its holder lives"));
        // SAFETY: setns is a plain system call, and nothing else happens between fork and exec.
        unsafe { command.pre_exec(move || checked(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET))) };
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new("/sbin/ip");
        command.args(arguments);
        self.has(&mut command);
        let output = command.output().expect("iproute2 is installed (tests/install-deps.sh test)");
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", arguments.join(" "), said.trim())) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
