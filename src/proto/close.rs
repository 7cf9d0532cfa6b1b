//! The one table of reasons why a session ends or a connection is refused.
//!
//! One row has the WebSocket close code on the wire, the `reason` in the log line, the label of the metric and `LONGWIRE_CLOSE_REASON` for
//! PHP, so these four always agree.

use serde::{Deserialize, Serialize};

macro_rules! close_reasons {
    ($( $(#[$doc:meta])* $variant:ident = $label:literal, $code:literal, $text:literal; )+) => {
        /// Why a session ended. The doc line of each variant tells operators what it means.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum CloseReason { $( $(#[$doc])* $variant, )+ }

        impl CloseReason {
            /// Every row of the table, in its order.
            pub const ALL: &'static [CloseReason] = &[ $( CloseReason::$variant, )+ ];

            /// The word in logs, metrics and `LONGWIRE_CLOSE_REASON`.
            pub const fn label(self) -> &'static str {
                match self { $( CloseReason::$variant => $label, )+ }
            }

            /// The WebSocket close code (RFC 6455 section 7.4); 1006 is never sent, it means "no close frame".
            pub const fn code(self) -> u16 {
                match self { $( CloseReason::$variant => $code, )+ }
            }

            /// The text that goes into a close frame beside the code.
            pub const fn text(self) -> &'static str {
                match self { $( CloseReason::$variant => $text, )+ }
            }
        }
    };
}

close_reasons! {
    /// The client ended the session properly: with a WebSocket close frame, with DELETE over HTTP, or FIN if the framing has no goodbye.
    ClientClosed = "client_closed", 1000, "";
    /// The client's connection ended after a whole frame but without the goodbye that the framing has: a WebSocket without a close frame,
    /// or an event stream without DELETE.
    NoGoodbye = "no_goodbye", 1006, "";
    /// The connection was reset, or a write failed because it was dead.
    ClientGone = "client_gone", 1006, "";
    /// The client's connection ended in the middle of a frame.
    FrameTruncated = "frame_truncated", 1006, "";
    /// The client did not answer a ping or the probes of a heartbeat, or TCP gave up on unacknowledged bytes.
    PeerTimeout = "peer_timeout", 1006, "";
    /// Nothing was received for `idle_timeout`.
    IdleTimeout = "idle_timeout", 3008, "idle for too long";
    /// The bytes do not follow the framing.
    BadFrame = "bad_frame", 1002, "protocol error";
    /// A text frame that is not UTF-8.
    BadText = "bad_text", 1007, "text is not UTF-8";
    /// A frame above `max_frame_bytes` (for compressed frames: once inflated).
    FrameTooLarge = "frame_too_large", 1009, "frame too large";
    /// The listener's Lua script failed: it raised an error, or it said that it handled input without taking any of it.
    CodecFailed = "codec_failed", 1011, "codec failed";
    /// A call of the Lua script took more than `max_instructions`.
    CodecTooLong = "codec_too_long", 1011, "codec took too long";
    /// The Lua script asked for more than `max_memory_bytes`.
    CodecOutOfMemory = "codec_out_of_memory", 1011, "codec out of memory";
    /// The Lua script closed the session.
    CodecClosed = "codec_closed", 1000, "";
    /// The handler answered the connect event with 3xx, 4xx or 5xx.
    Refused = "refused", 1008, "refused";
    /// The connect event was not answered: queue full, backend unreachable, timeout, no script, or the script died.
    ConnectFailed = "connect_failed", 1013, "try again later";
    /// The handler asked for it with `Longwire-Close`; its code and text are sent.
    HandlerClosed = "handler_closed", 1000, "";
    /// A command asked for it, over the router port or the HTTP API; its code and text are sent.
    RouterClosed = "router_closed", 1000, "";
    /// The handler failed on a message, and the app has `on_error = "close"`.
    HandlerFailed = "handler_failed", 1011, "handler failed";
    /// A reply was partly sent and could not be finished.
    ReplyBroken = "reply_broken", 1011, "reply could not be finished";
    /// The client reads too slowly for its outbox.
    SlowReader = "slow_reader", 1008, "reading too slowly";
    /// The node, or this client's address, has reached its limit of sessions.
    TooManySessions = "too_many_sessions", 1013, "too many sessions";
    /// The node, or this client's address, had more new connections in a short time than allowed.
    AcceptRate = "accept_rate", 1013, "too many connections";
    /// More clients connected in a short time than the app allows connect events for.
    ConnectRate = "connect_rate", 1013, "try again later";
    /// The client sends faster than allowed, and the app has `rate_rule = "close"`.
    RateLimit = "rate_limit", 1008, "sending too fast";
    /// An unfinished frame got no further bytes for `frame_idle_timeout`, or was not complete within `frame_timeout`.
    FrameTimeout = "frame_timeout", 1008, "frame not finished in time";
    /// The handshake was not finished within `handshake_timeout`.
    HandshakeTimeout = "handshake_timeout", 1006, "";
    /// The handshake was not valid: bad HTTP, unknown path, forbidden Origin, missing upgrade.
    HandshakeRefused = "handshake_refused", 1006, "";
    /// A proxy that must send a PROXY header (`proxy_protocol`) sent none, or a broken one.
    ProxyHeaderBad = "proxy_header_bad", 1006, "";
    /// The TLS handshake failed: the bytes were not TLS, no version or cipher in common, or a required certificate was missing.
    TlsFailed = "tls_failed", 1006, "";
    /// An internal error: a task that worked for this session panicked. An error in the log says where.
    NodeFailed = "node_failed", 1011, "internal error";
    /// The node is stopping.
    Draining = "draining", 1001, "going away";
}

#[cfg(test)]
mod tests {
    use super::CloseReason;

    #[test]
    fn labels_are_unique_and_texts_fit_a_close_frame() {
        let mut labels: Vec<_> = CloseReason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::ALL.len());
        for reason in CloseReason::ALL {
            // RFC 6455 section 5.5: a control frame carries at most 125 bytes, and two of them are the code.
            assert!(reason.text().len() <= 123, "{}", reason.label());
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{}\"", reason.label()));
        }
    }
}
