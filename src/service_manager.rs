//! Messages to the service manager (sd_notify(3)): the node is ready, loads certificates again, stops, is alive.
//!
//! Each does nothing if no manager asked for them: `NOTIFY_SOCKET` and `WATCHDOG_USEC` are what it sets. php-fpm gets neither
//! ([`VARIABLES`]), because only the main process of a service may speak for it.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// The variables of the environment that are meant for this process alone.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Everything listens.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
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
/// has run among the sessions: when their threads are stuck, the messages end, and the manager restarts the node.
pub async fn keep_alive(sessions: Handle) {
    let Some(allowed) = sd_notify::watchdog_enabled() else { return };
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
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager was not told: see NOTIFY_SOCKET");
    }
}
