//! The one table of reasons for which a session ends or a connection is turned away.
//!
//! The same row is the WebSocket close code on the wire, the `reason` in the log line, the label of the metric and
//! `LONGWIRE_CLOSE_REASON` for PHP, so that the four always agree.

use serde::{Deserialize, Serialize};

macro_rules! close_reasons {
    ($( $(#[$doc:meta])* $variant:ident = $label:literal, $code:literal, $text:literal; )+) => {
        /// Why a session ended. Each variant's doc line is what an operator should know about it.
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
    /// The client ended the session and said so: a close frame of a WebSocket, DELETE over HTTP, FIN on a framing that knows no goodbye.
    ClientClosed = "client_closed", 1000, "";
    /// The client's connection ended after its last whole frame without a goodbye, where there is one to be said: a WebSocket that ends without a
    /// close frame, an event stream without DELETE.
    NoGoodbye = "no_goodbye", 1006, "";
    /// The connection was reset, or a write found it dead.
    ClientGone = "client_gone", 1006, "";
    /// The client ended in the middle of a frame.
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
    /// The Lua script of the listener failed: an error in it, or a call that took nothing of what it said it had handled.
    CodecFailed = "codec_failed", 1011, "codec failed";
    /// A call of the Lua script took more than `max_instructions`.
    CodecTooLong = "codec_too_long", 1011, "codec took too long";
    /// The Lua script asked for more than `max_memory_bytes`.
    CodecOutOfMemory = "codec_out_of_memory", 1011, "codec out of memory";
    /// The Lua script closed the session.
    CodecClosed = "codec_closed", 1000, "";
    /// The handler answered the connect event with 3xx, 4xx or 5xx.
    Refused = "refused", 1008, "refused";
    /// The connect event could not be answered: queue full, backend away, timeout, no script, a script that died.
    ConnectFailed = "connect_failed", 1013, "try again later";
    /// The handler asked for it with `Longwire-Close`; its code and text are sent.
    HandlerClosed = "handler_closed", 1000, "";
    /// A command asked for it, over the router port or the HTTP API; its code and text are sent.
    RouterClosed = "router_closed", 1000, "";
    /// The handler failed on a message and the app says `on_error = "close"`.
    HandlerFailed = "handler_failed", 1011, "handler failed";
    /// A reply that had begun to leave could not be finished.
    ReplyBroken = "reply_broken", 1011, "reply could not be finished";
    /// The client reads more slowly than its outbox can bear.
    SlowReader = "slow_reader", 1008, "reading too slowly";
    /// The node, or this client's address, has as many sessions as it may.
    TooManySessions = "too_many_sessions", 1013, "too many sessions";
    /// More connections came within a short time than the node, or this client's address, may bring.
    AcceptRate = "accept_rate", 1013, "too many connections";
    /// More clients came within a short time than the app lets PHP be told of.
    ConnectRate = "connect_rate", 1013, "try again later";
    /// The client sends faster than it may, and the app says `rate_rule = "close"`.
    RateLimit = "rate_limit", 1008, "sending too fast";
    /// A frame that had begun did not go on for `frame_idle_timeout`, or did not end within `frame_timeout`.
    FrameTimeout = "frame_timeout", 1008, "frame not finished in time";
    /// The handshake was not finished within `handshake_timeout`.
    HandshakeTimeout = "handshake_timeout", 1006, "";
    /// The handshake was not one: bad HTTP, unknown path, forbidden Origin, missing upgrade.
    HandshakeRefused = "handshake_refused", 1006, "";
    /// A proxy that has to begin with a PROXY header (`proxy_protocol`) did not, or sent a broken one.
    ProxyHeaderBad = "proxy_header_bad", 1006, "";
    /// The TLS handshake came to nothing: other bytes, nothing in common, no certificate where one is required.
    TlsFailed = "tls_failed", 1006, "";
    /// A fault of Longwire's own: what worked for this session panicked. An error in the log says where.
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
            // RFC 6455 section 5.5: a control frame carries at most 125 bytes, two of them are the code.
            assert!(reason.text().len() <= 123, "{}", reason.label());
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{}\"", reason.label()));
        }
    }
}
