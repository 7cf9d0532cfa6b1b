//! Messages to the service manager (sd_notify(3)): the node is ready, loads certificates again, stops, is alive.
//!
//! Each does nothing if no manager asked for them: `NOTIFY_SOCKET` and `WATCHDOG_USEC` are what it sets. php-fpm gets neither
//! ([`VARIABLES`]), because only the main process of a service may speak for it.
//!
//! No message waits for the manager: the thread that sends it also takes the signals and answers health checks. A manager that reads
//! nothing, with a full queue, would otherwise stop both. It loses the message. Only "ready" is repeated, because without it systemd
//! ends the start, or takes the reload for unfinished.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

/// The variables of the environment that are meant for this process alone.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Pause before "ready" is sent again to a manager whose queue is full.
const READY_AGAIN: Duration = Duration::from_millis(200);

/// Everything listens. Call it within a runtime: if the manager's queue is full, a task there repeats the message.
pub fn ready() {
    let states = [NotifyState::Ready, NotifyState::Status("serving")];
    match send(&states) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            warn!("the service manager's queue is full; it is told again that the node is ready");
            // It ends with the message, or with the runtime.
            tokio::spawn(async move {
                loop {
                    sleep(READY_AGAIN).await;
                    match send(&states) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        result => return log(result),
                    }
                }
            });
        }
        result => log(result),
    }
}

/// Certificates are being loaded again; [`ready`] follows. systemd wants to know when this began (sd_notify(3), `MONOTONIC_USEC`).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "the service manager was not told of the reload: no monotonic clock"),
    }
}

/// The drain begins.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining: sessions get their close events")]);
}

/// Says that the node is alive, three times within the time that the manager allows between two such messages. Each is sent after a task
/// has run among the sessions: when all their threads are stuck, the messages end, and the manager restarts the node.
pub async fn keep_alive(sessions: Handle) {
    // Zero asks for nothing (sd_watchdog_enabled(3)).
    let Some(allowed) = sd_notify::watchdog_enabled().filter(|allowed| !allowed.is_zero()) else { return };
    let mut ticks = interval((allowed / 3).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if sessions.spawn(async {}).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    log(send(states));
}

/// Logs the first failure. A socket that is away fails every message after it too.
fn log(result: io::Result<()>) {
    static LOGGED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = result
        && !LOGGED.swap(true, Ordering::Relaxed)
    {
        warn!(%error, "the service manager was not told: see NOTIFY_SOCKET");
    }
}

/// Sends one message without waiting. A full queue is the error `WouldBlock`.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let message: Vec<String> = states.iter().map(ToString::to_string).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    // A datagram is sent whole, or not at all.
    socket.send_to_addr(message.join("\n").as_bytes(), &address(&name)?)?;
    Ok(())
}

/// The address that the name stands for: a path, or after an "@" a name that is no file (unix(7), abstract).
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
