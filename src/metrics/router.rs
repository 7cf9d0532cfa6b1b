//! Counters of the router and of the doors through which commands come in.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::register;
use crate::proto::command::{Action, Dropped, Receipt};

/// The door through which a command came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// The router port, in the short protocol, which is fooking's.
    Short,
    /// The router port, in the long protocol, which is our own.
    Long,
    /// The HTTP API.
    Api,
    /// A handler's answer.
    Answer,
    /// Another node, or a program that publishes to the engine itself.
    Engine,
}

impl Door {
    /// The word in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Door::Short => "short",
            Door::Long => "long",
            Door::Api => "api",
            Door::Answer => "answer",
            Door::Engine => "engine",
        }
    }
}

/// By door and kind of command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CommandLabels {
    /// Where it came in.
    pub door: &'static str,
    /// [`Action::label`], or `query`.
    pub command: &'static str,
}

/// Labels: the fate of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FateLabels {
    /// A word of the receipt.
    pub fate: &'static str,
}

/// Labels: the door and its reason to refuse.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// Where.
    pub door: &'static str,
    /// An error of docs/router-protocol.md, or an HTTP status.
    pub cause: String,
}

#[derive(Debug)]
pub struct RouterMetrics {
    /// Channels that have members.
    pub channels: Gauge,
    /// Uids that have sessions.
    pub uids: Gauge,
    /// Connections to the router port.
    pub connections: Gauge,
    commands: Family<CommandLabels, Counter>,
    pushes: Family<FateLabels, Counter>,
    refused: Family<RefusalLabels, Counter>,
}

impl RouterMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            channels: register(r, "channels", "Channels that have members", Gauge::default()),
            uids: register(r, "uids", "Uids that have sessions", Gauge::default()),
            connections: register(r, "router_connections", "Connections to the router port", Gauge::default()),
            commands: register(r, "commands", "Commands and queries, by where they came in", Family::default()),
            pushes: register(r, "pushes", "Frames that commands sent to sessions, by fate", Family::default()),
            refused: register(
                r,
                "commands_refused",
                "Commands and queries that were refused, by cause",
                Family::default(),
            ),
        }
    }

    /// A command was done.
    pub fn count(&self, door: Door, action: &Action, receipt: &Receipt) {
        self.count_command(door, action.label());
        if matches!(action, Action::Send(_)) {
            self.count_push(receipt);
        }
    }

    /// A query was answered.
    pub fn count_query(&self, door: Door) {
        self.count_command(door, "query");
    }

    /// Counts the fates of the frames of a command.
    pub fn count_push(&self, receipt: &Receipt) {
        let Receipt { reached, queued, dropped, refused, gone } = *receipt;
        let Dropped { close, oldest, newest, latest } = dropped;
        for (fate, count) in [
            ("reached", reached),
            ("queued", queued),
            ("dropped_close", close),
            ("dropped_oldest", oldest),
            ("dropped_newest", newest),
            ("dropped_latest", latest),
            ("refused", refused),
            ("gone", gone),
        ] {
            self.count_fate(fate, count);
        }
    }

    /// Counts frames that were still queued when their session ended.
    pub fn count_lost(&self, count: u32) {
        self.count_fate("lost", count);
    }

    /// Counts a refusal; `cause` is a word of a closed table.
    pub fn count_refused(&self, door: Door, cause: &str) {
        let labels = RefusalLabels { door: door.label(), cause: cause.to_owned() };
        self.refused.get_or_create(&labels).inc();
    }

    fn count_command(&self, door: Door, command: &'static str) {
        self.commands.get_or_create(&CommandLabels { door: door.label(), command }).inc();
    }

    fn count_fate(&self, fate: &'static str, count: u32) {
        if count > 0 {
            self.pushes.get_or_create(&FateLabels { fate }).inc_by(u64::from(count));
        }
    }
}
