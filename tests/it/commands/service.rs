//! The node and a service manager: systemd's messages (sd_notify(3)), read from a socket of this test.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use longwire::proto::framing::{Framing, LengthFraming};

use crate::support::client::Client;
use crate::support::longwire::{LISTENERS, Longwire};

/// The other end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message that is not a sign of life.
    fn hears(&self) -> Vec<String> {
        loop {
            let message = self.any();
            if message != ["WATCHDOG=1"] {
                return message;
            }
        }
    }

    fn any(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message comes in time");
        std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn systemd_hears_of_start_reload_stop_and_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    manager.0.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // What a script finds in its environment: the messages of php-fpm would pass for those of the node.
    std::fs::write(
        folder.path().join("handler.php"),
        "<?php echo var_export([getenv('NOTIFY_SOCKET'), getenv('WATCHDOG_USEC')]);",
    )
    .unwrap();
    let config = format!(
        "{LISTENERS}[apps.app]\nupstream = \"php\"\nscript = {:?}\n[upstreams.php.spawn]\nworkers = 1\n",
        folder.path().join("handler.php")
    );
    let mut node = Longwire::serve_prepared(&config, |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    assert_eq!(manager.hears()[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.any(), ["WATCHDOG=1"]);
    }

    let mut client = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
    let found = client.ask("who speaks?").await;
    assert_eq!(found.matches("false").count(), 2, "{found}");

    node.signal(libc::SIGHUP);
    let reloading = manager.hears();
    assert_eq!(reloading[0], "RELOADING=1");
    let since = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("when it began");
    assert!(since.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.hears()[0], "READY=1");

    node.terminate();
    assert_eq!(manager.hears()[0], "STOPPING=1");
    drop(client);
    assert!(node.wait().success());
}

/// The queue of a manager that hangs is full. The node starts, answers and ends all the same, and says "ready" when the manager reads again.
#[test]
fn a_manager_that_reads_nothing_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify").display().to_string();
    // A name in the file system, and one that is no file.
    let hidden = format!("@{path}");
    for (name, address) in
        [(&path, SocketAddr::from_pathname(&path).unwrap()), (&hidden, SocketAddr::from_abstract_name(&path).unwrap())]
    {
        let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
        manager.0.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let queued = fill(&address);
        assert!(queued > 0);

        let config = format!(
            "{LISTENERS}[apps.app]\nupstream = \"php\"\nscript = \"/srv/handler.php\"\ncheck_script = false\n\
             [upstreams.php]\nbackends = [\"unix:{path}.php\"]\n"
        );
        let mut node = Longwire::serve_prepared(&config, |command| {
            command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "300000");
        });
        node.wait_for_log("the queue is full", |line| {
            line["message"].as_str().is_some_and(|message| message.contains("queue is full"))
        });
        assert_eq!(node.admin("/live").0, 200);
        for _ in 0..queued {
            assert_eq!(manager.any(), ["STATUS=waits"]);
        }
        assert_eq!(manager.hears()[0], "READY=1");

        fill(&address);
        node.signal(libc::SIGHUP);
        node.terminate();
        assert!(node.wait().success());
    }
}

/// Fills a queue, and returns how many messages it took.
fn fill(address: &SocketAddr) -> usize {
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    (0..).take_while(|_| other.send_to_addr(b"STATUS=waits", address).is_ok()).count()
}
