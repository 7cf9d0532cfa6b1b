//! Longwire: long TCP and WebSocket connections for plain PHP.
//!
//! Longwire is a front end that keeps sockets open, cuts the incoming bytes into frames, and hands each frame to php-fpm as one
//! ordinary FastCGI request. The script's output goes back down that socket. README.md is for people who run Longwire or write PHP
//! behind it. docs/architecture.md is a map for people who are new to the code. This page says which module owns what.
//!
//! # One frame, there and back
//!
//! ```text
//!           accept            frames             events             requests
//!   client ───────> listener ───────> session ──────────> upstream ──────────> php-fpm
//!      ^             http               │  ^                  │
//!      │                                v  │ signals          │ stdout, stderr, end
//!      └──── socket <──── outbox <──── answer <───────────────┘
//! ```
//!
//! 1. **A connection comes in.** [`listener`] accepts, asks [`session::Admission`] for a place, and starts a
//!    session with [`session::spawn_stream`]. On an HTTP listener the connection goes to [`http`]: hyper reads the request, the
//!    route gives the app, `http/websocket.rs` checks handshake and Origin, and [`session::shake_hands`] asks PHP if the app
//!    wants `connect`. Commands find the session from then on. After that, the 101 is sent and the socket is taken out of hyper;
//!    nothing of hyper stays behind.
//! 2. **Bytes become frames.** The session's task (`session/mod.rs`) reads into a scratch buffer of its thread;
//!    [`proto::framing::Decoder`] cuts frames and keeps only the incomplete rest, or a script does it ([`lua`]). While the limit
//!    of waiting frames is reached, the socket is not read, and TCP holds the client back.
//! 3. **A frame becomes an event.** Events run in the order of arrival, and each starts when the previous one has ended.
//!    `session/cgi.rs` encodes the params in three blocks: the endpoint's once, the handshake's once per session, the event's each
//!    time. `session/endpoint.rs` submits them with the body.
//! 4. **The event gets a connection.** [`upstream::Upstream::submit`] queues it (`queue.rs` decides which request is next), finds
//!    the least busy backend with room (`backend.rs`), and reuses an idle connection or opens one (`scheduler.rs`, `lease.rs`).
//!    `exchange.rs` writes the whole request, encoded by [`proto::fastcgi`], in one vectored write.
//! 5. **Records come back.** `exchange.rs` decodes them while it still writes. It gives stdout and stderr to the
//!    [`upstream::Responder`], which is a session's [`session::Answer`]: `session/answer/head.rs` reads the CGI head,
//!    `session/answer/` takes the slice of the body that is the reply.
//! 6. **The reply leaves.** The answer frames it, in pieces if the framing allows that, into the session's [`outbox`]. Bytes go to
//!    the socket at once, from the thread that produced them. Bytes that the socket does not take are queued, and the session's
//!    task is woken to write them. While an outbox is full, that php-fpm connection is not read.
//! 7. **The end.** Every end of a session has one [`proto::close::CloseReason`], which the wire, the log, the metrics and
//!    PHP share. `session/farewell.rs` says goodbye on the wire. The `close` event takes the same path as any event, except that
//!    its queue never refuses and never drops it.
//!
//! [`node`] builds all of this from a [`config::model::Config`] and takes it apart again. To stop, it closes the listeners, asks
//! every outbox for a close, and waits for the sessions' tasks. Each task ends when its close event is delivered.
//!
//! # Modules
//!
//! In this order; a module names only modules of its own line and of those above it. `tests/it/house/tidy.rs` checks that.
//!
//! | module | owns |
//! |---|---|
//! | [`proto`] | bytes only, sans IO: framings, FastCGI, heartbeats, session ids, the table of close reasons |
//! | [`locks`] | one rule for a lock whose holder panicked |
//! | [`metrics`] | counters and gauges |
//! | [`descriptors`], [`memory`], [`holders`], [`sockets`] | the limit on open files; memory given back to the system; the process that listens on an address; TCP sockets that send at once |
//! | [`service_manager`], [`static_glibc`] | what systemd is told; how a static binary looks up names |
//! | [`certificates`] | certificates that TLS listeners show, and those that they ask clients for |
//! | [`config`] | the configuration as the operator wrote it, and as the server uses it |
//! | [`transport`] | a socket, TCP or Unix, plain or with TLS, and the sockets that accept connections |
//! | [`lua`] | framings that are scripts: VMs, their limits, the two modules that scripts know |
//! | [`outbox`] | the bounded queue into one session, and its signals |
//! | [`engine`] | the connection between nodes: Redis, NATS; bytes by subject, and its delivery guarantees |
//! | [`upstream`] | requests in, answers out: queues, backends, connections, an embedded php-fpm |
//! | [`router`] | commands to sessions: the sessions here, their channels and uids, and the effect of each command |
//! | [`cluster`] | the same commands, done on all nodes: membership, requests to other nodes and their receipts |
//! | [`session`] | the task of a session, its events, the contract with PHP |
//! | [`router_port`] | commands from programs that are not clients |
//! | [`api`] | the same commands over HTTP |
//! | [`http`], [`listener`] | entry of connections: sockets, HTTP, the accept loop |
//! | [`node`] | one process: start, readiness, drain |
//! | [`serve`] | runtimes, signals, exit status |
//! | [`logging`] | lines to standard error |
//! | [`commands`] | `longwire check`, `dev`, `connect` and `bench`, their arguments, and the client that they share |
//!
//! `main.rs` parses the command line and calls one of them.
//!
//! # What is plain data
//!
//! Decisions are kept apart from their effects. So they can be tested without a socket and, one day, be written down and taken
//! up by another process:
//!
//! - [`proto`] has no runtime, no clock, no locks, no logging. Its decoders take slices and limits, and answer *here it is*, *not
//!   yet* or *broken*.
//! - [`session::SessionState`] is everything about a session except its socket, and can be serialized: id, ends, handshake params,
//!   the number of the next event, the decoder in mid-frame, waiting frames, events that PHP is still to get.
//! - [`config::model`] is the checked configuration, without a trace of TOML.
//! - `outbox/stage.rs` says which bytes may leave for a client at which point, and `outbox/backlog.rs` holds the waiting ones.
//! - `upstream/queue.rs` decides which request is next, and `upstream/backend.rs` where it goes. Both take the time as an argument.
//!
//! `session/simulation` drives sessions, outboxes and answers through random orders of all possible events, without sockets. A seed
//! replays a run, and a failing run is cut down to a few steps.
//!
//! # Who owns what
//!
//! A session's task owns its state. Everything else holds its [`outbox::Outbox`], which accepts three things: bytes, a request to
//! close, and signals. A connection to php-fpm is a task that owns a lease; however the task ends, the lease returns its place. One
//! coarse wheel ([`session::wheel`]) wakes sessions that have to look at the clock, so sessions have no timers of their own. The
//! exception is a session in the middle of a frame that silence ends: it needs a finer timer than the wheel. Locks guard maps and
//! queues, never an await, and no code of a session is called while one is held. (The codec of a session with a framing in Lua
//! writes to its outbox while it is locked: bytes must leave in the order in which a script gave them.)

// The table above names modules that only this crate sees.
#![allow(rustdoc::private_intra_doc_links)]
// Tests and simulations may block, panic on a lock, print and make sockets as they like.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros))]

mod api;
mod certificates;
mod cluster;
pub mod commands;
pub mod config;
pub mod descriptors;
mod engine;
mod holders;
pub mod http;
pub mod listener;
mod locks;
pub mod logging;
pub mod lua;
mod memory;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod proto;
pub mod router;
mod router_port;
pub mod serve;
mod service_manager;
pub mod session;
mod sockets;
pub mod static_glibc;
pub mod transport;
pub mod upstream;
