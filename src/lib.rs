//! Longwire: long TCP and WebSocket connections for plain PHP.
//!
//! A front end that keeps sockets open, cuts what arrives into frames, and hands each frame to php-fpm as one ordinary
//! FastCGI request; what the script echoes goes back down that socket. README.md is for those who run it or write PHP
//! behind it. docs/architecture.md is a map for those who are new to the code; this page says who owns what.
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
//!    session with [`session::spawn_stream`]. On an HTTP listener the connection goes to [`http`]: hyper reads the request, a
//!    route gives the app, `http/websocket.rs` judges handshake and Origin, and [`session::shake_hands`] asks PHP if the app
//!    wants `connect`; commands find the session from then on. Only then the 101 is sent, the socket is taken out of hyper, and nothing of hyper stays behind.
//! 2. **Bytes become frames.** The session's task (`session/mod.rs`) reads into a scratch buffer of its thread;
//!    [`proto::framing::Decoder`] cuts frames and keeps only what is incomplete, or a script does it ([`lua`]). While as
//!    many frames wait as may, the socket is not read, and TCP holds the client back.
//! 3. **A frame becomes an event.** In the order of arrival, the next when the last has ended. `session/cgi.rs` encodes the params in
//!    three blocks: the endpoint's once, the handshake's once a session, the event's each time. `session/endpoint.rs`
//!    submits them with the body.
//! 4. **The event gets a connection.** [`upstream::Upstream::submit`] queues it (`queue.rs`: who is next), finds the least busy
//!    backend with room (`backend.rs`: where to), reuses an idle connection or opens one (`scheduler.rs`, `lease.rs`), and
//!    `exchange.rs` writes the whole request, encoded by [`proto::fastcgi`], in one vectored write.
//! 5. **Records come back.** `exchange.rs` decodes them while it still writes, and gives stdout and stderr to the
//!    [`upstream::Responder`], which is a session's [`session::Answer`]: `session/answer/head.rs` reads the CGI head,
//!    `session/answer/` takes the slice of the body that is the reply.
//! 6. **The reply leaves.** The answer frames it, in pieces where the framing allows that, into the session's [`outbox`]. Bytes go to
//!    the socket at once, from the thread where they were born; what the socket does not take is queued, and the session's
//!    task is woken to write it. A full outbox stops the reading of that php-fpm connection.
//! 7. **The end.** Whatever ends a session gives one [`proto::close::CloseReason`], which the wire, the log, the metrics and
//!    PHP share. `session/farewell.rs` says goodbye on the wire; the `close` event goes the way of any event, except that its queue
//!    neither refuses nor forgets.
//!
//! [`node`] builds all of this from a [`config::model::Config`] and takes it apart again: it stops accepting, asks every
//! outbox for a close, and waits for the sessions' tasks, each of which ends when its close event is delivered.
//!
//! # Modules
//!
//! In this order; a module names only modules of its own line and of those above it. `tests/it/house/tidy.rs` checks that.
//!
//! | module | owns |
//! |---|---|
//! | [`proto`] | bytes only, sans IO: framings, FastCGI, heartbeats, session ids, the table of close reasons |
//! | [`locks`] | one rule for a lock whose holder panicked |
//! | [`metrics`] | what is counted |
//! | [`descriptors`], [`memory`], [`holders`], [`sockets`] | how many files may be open; what memory is given back; which process listens where; TCP sockets that send at once |
//! | [`certificates`] | what TLS listeners show to clients and ask of them |
//! | [`config`] | what an operator wrote, and what we run with |
//! | [`transport`] | a socket, TCP or Unix, plain or with TLS, and the sockets that connections come in through |
//! | [`lua`] | framings that are scripts: VMs, what they may use up, the two modules that scripts know |
//! | [`outbox`] | the bounded queue into one session, and its signals |
//! | [`engine`] | what joins nodes: Redis, NATS; bytes by subject, and what is promised of them |
//! | [`upstream`] | requests in, answers out: queues, backends, connections, an embedded php-fpm |
//! | [`router`] | commands to sessions: who is here, in which channel, under which uid, and what is done with them |
//! | [`cluster`] | the same commands, done on all nodes: who is there, what is asked of whom, what came back |
//! | [`session`] | the task of a session, its events, the contract with PHP |
//! | [`router_port`] | commands from programs that are no clients |
//! | [`api`] | the same commands over HTTP |
//! | [`http`], [`listener`] | where connections come in: sockets, HTTP, the accept loop |
//! | [`node`] | one process: start, readiness, drain |
//! | [`serve`] | runtimes, signals, exit status |
//! | [`logging`] | lines to standard error |
//! | [`commands`] | `longwire check`, `dev`, `connect` and `bench`, their arguments, and the client that they share |
//!
//! `main.rs` parses the command line and calls one of them.
//!
//! # What is plain data
//!
//! What decides is apart from what does, so that it can be tested without a socket and, one day, written down and taken up by
//! another process:
//!
//! - [`proto`] has no runtime, no clock, no locks, no logging. Its decoders take slices and limits, and answer *here it is*, *not
//!   yet* or *broken*.
//! - [`session::State`] is all that a session is apart from its socket, and can be serialized: id, ends, handshake params,
//!   the number of the next event, the decoder in mid-frame, frames that wait, what is owed to PHP.
//! - [`config::model`] is the checked configuration, without a trace of TOML.
//! - `outbox/stage.rs` says what may leave for a client at which point, and `outbox/backlog.rs` what waits.
//! - `upstream/queue.rs` and `upstream/backend.rs` decide who is next and where to, with the time as an argument.
//!
//! `session/simulation` drives sessions, outboxes and answers through random orders of all that can happen, without sockets: a seed replays
//! a run, and one that fails is cut down to a few steps.
//!
//! # Who owns what
//!
//! A session's task owns its state. Everybody else holds its [`outbox::Outbox`]: bytes, a request to close, and signals are all
//! that can be left there. A connection to php-fpm is a task that owns a lease; whatever becomes of the task, the lease
//! returns its place. One coarse wheel ([`session::wheel`]) wakes sessions that have to look at the clock, so none has a timer
//! of its own, but for one in the middle of a frame that silence ends, which is finer than the wheel. Locks guard maps and
//! queues, never an await, and nothing of a session is called while one is held. (The codec of a session with a framing in Lua
//! writes to its outbox while it is locked: bytes must leave in the order in which a script gave them.)

// Tests and simulations may block, panic on a lock, print and make sockets as they like.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros))]

pub mod api;
pub mod certificates;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod descriptors;
pub mod engine;
pub mod holders;
pub mod http;
pub mod listener;
pub mod locks;
pub mod logging;
pub mod lua;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod proto;
pub mod router;
pub mod router_port;
pub mod serve;
pub mod session;
pub mod sockets;
pub mod transport;
pub mod upstream;
