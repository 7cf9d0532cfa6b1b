//! The limits that can be tried out with `dry_run`, and how often each was exceeded.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::register;

macro_rules! limits {
    ($( $(#[$doc:meta])* $variant:ident = $label:literal; )+) => {
        /// A limit that can be counted without being enforced. Its label is its configuration key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Limit { $( $(#[$doc])* $variant, )+ }

        impl Limit {
            /// Each with the word for it in the configuration, the log and the metrics.
            pub const WORDS: &'static [(&'static str, Limit)] = &[ $( ($label, Limit::$variant), )+ ];

            /// The word.
            pub const fn label(self) -> &'static str {
                match self { $( Limit::$variant => $label, )+ }
            }
        }
    };
}

limits! {
    /// Connections a second, of the node.
    AcceptRate = "accept_rate";
    /// Connections a second, from one address.
    AcceptRatePerAddress = "accept_rate_per_address";
    /// Sessions at once, from one address.
    MaxSessionsPerAddress = "max_sessions_per_address";
    /// Connect events a second, of an app.
    ConnectRate = "connect_rate";
    /// Frames a second, of a session.
    MaxFramesPerSecond = "max_frames_per_second";
    /// Bytes a second, of a session.
    MaxBytesPerSecond = "max_bytes_per_second";
    /// Silence within a frame.
    FrameIdleTimeout = "frame_idle_timeout";
    /// The time of a whole frame.
    FrameTimeout = "frame_timeout";
}

/// Labels: the limit, and whether it was enforced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: &'static str,
    acted: bool,
}

/// How often limits were exceeded.
#[derive(Debug)]
pub struct LimitMetrics(Family<Labels, Counter<u64, AtomicU64>>);

impl LimitMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let help = "Times that a limit was exceeded, and whether it was enforced";
        Self(register(registry, "limits_exceeded", help, Family::default()))
    }

    /// Once more.
    pub fn count(&self, limit: Limit, acted: bool) {
        self.0.get_or_create(&Labels { limit: limit.label(), acted }).inc();
    }
}
