//! The engine joins nodes: an existing system that carries bytes from one node to others by subject.
//!
//! ```text
//!   node 1 ── publish(subject, payload) ──> Redis, NATS ──> Inbox of every node that has subscribed to it
//! ```
//!
//! [`Engine`] makes a [`Link`]: one working connection, or several that live and die together. A link publishes and subscribes, and
//! puts what it receives into an [`Inbox`]. [`redis`] is Redis and Valkey (alone, behind Sentinel, as a Cluster), [`nats`] is NATS.
//! Both also work over TLS (`tls`).
//!
//! # What an engine promises
//!
//! - *At most once.* A payload reaches a node once or not at all. Payloads published while a node was not connected, or while the
//!   engine was away, do not reach it. No engine sends anything again.
//! - *Order.* Payloads that one link publishes on one subject arrive in that order, possibly with gaps. Between subjects there is
//!   no order.
//! - *Subscribed means subscribed.* Once [`Link::subscribe`] has returned, everything that any node begins to publish on these
//!   subjects arrives, until the link is lost.
//! - *Own payloads come back* to a node that has subscribed to their subject.
//! - *A lost link says so*, once, by [`Incoming::Lost`] or by an error, and is useless afterwards: no link reconnects by itself. A
//!   half-open link says so when what it sends has no answer within [`ANSWER_TIMEOUT`].
//! - *Bounded.* A full inbox drops further payloads and counts them.
//!
//! Left to the caller: what payloads mean, when to connect again, and which payloads were lost (payloads carry numbers for that).
//! When history is added, it will be more methods of [`Link`] and an offset beside [`Incoming::Message`].

pub mod nats;
pub mod redis;
mod tls;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::proto::partition::Partition;

/// How long an engine may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an engine may take to answer; after that the link counts as lost.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes links. See the module for its promises.
pub trait Engine: Send + Sync + 'static {
    /// One working connection.
    type Link: Link;

    /// Connects within [`CONNECT_TIMEOUT`]. The link puts what it receives into `inbox`.
    ///
    /// # Errors
    ///
    /// The server is unreachable, or refused the connection; the text says why.
    fn connect(&self, inbox: Inbox) -> impl Future<Output = Result<Self::Link, EngineError>> + Send;
}

/// One working connection. Dropping it closes it. An error of any of its methods means that it is lost.
pub trait Link: Send + 'static {
    /// Subscribes to subjects, in few round trips however many there are. None of them may be subscribed to already.
    fn subscribe(&mut self, subjects: &[Subject]) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Unsubscribes from subjects.
    fn unsubscribe(&mut self, subjects: &[Subject]) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Publishes messages, in this order on each subject. Returns what is known of each message's receivers, this node among them.
    fn publish(&mut self, messages: &[Outgoing]) -> impl Future<Output = Result<Vec<Reach>, EngineError>> + Send;
}

/// Returns the result of `connect` for the first server, in this order, that it succeeds with. Each server has an equal share of
/// [`CONNECT_TIMEOUT`], so that one that does not answer does not use up the time of the others.
async fn first_that<S: Clone, T, F>(servers: &[S], engine: &str, connect: impl Fn(S) -> F) -> Result<T, EngineError>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let share = CONNECT_TIMEOUT / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX);
    let mut wrong = EngineError(format!("{engine} needs an address"));
    for (at, server) in servers.iter().enumerate() {
        wrong = match timeout(share, connect(server.clone())).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => error,
            Err(_) => EngineError(format!("{engine}: no answer from address {}", at + 1)),
        };
    }
    Err(wrong)
}

/// A subject to publish on and subscribe to. There are few, whatever the number of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// All nodes listen to it.
    All,
    /// One node listens to it; its number.
    Node(u16),
    /// Nodes that have members of some of these channels and uids listen to it.
    Partition(Partition),
}

/// As the log names it.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::All => f.write_str("all"),
            Subject::Node(number) => write!(f, "node {number}"),
            Subject::Partition(partition) => write!(f, "partition {}", partition.number()),
        }
    }
}

impl Subject {
    /// The name that the engine uses, with the engine's separator.
    fn name(self, prefix: &str, separator: char) -> String {
        match self {
            Subject::All => format!("{prefix}{separator}all"),
            Subject::Node(number) => format!("{prefix}{separator}node{separator}{number}"),
            Subject::Partition(partition) => format!("{prefix}{separator}part{separator}{}", partition.number()),
        }
    }

    /// The reverse of [`Self::name`]. `None` if it is not one of our subjects.
    fn parse(name: &[u8], prefix: &str, separator: char) -> Option<Self> {
        let rest = str::from_utf8(name).ok()?.strip_prefix(prefix)?.strip_prefix(separator)?;
        match rest.split_once(separator) {
            None => (rest == "all").then_some(Subject::All),
            Some(("node", number)) => number.parse().ok().map(Subject::Node),
            Some(("part", number)) => number.parse().ok().and_then(Partition::new).map(Subject::Partition),
            Some(_) => None,
        }
    }
}

/// A payload on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The subject to publish on.
    pub subject: Subject,
    pub payload: Bytes,
}

/// The receivers of a message, as far as the engine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Unknown, or only partly known.
    Unknown,
    /// The message had no receivers.
    Nobody,
    /// The engine does not carry messages of this length, so it was not published.
    TooLarge,
}

/// An item received from an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A node or a program published this, perhaps this node itself.
    Message { subject: Subject, payload: Bytes },
    /// The link is lost; nothing follows.
    Lost(EngineError),
}

/// The reason why there is no link, or why it was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError(String);

impl EngineError {
    /// The link is gone for an unknown reason.
    pub fn closed() -> Self {
        Self("the connection to the engine has ended".to_owned())
    }

    /// Nothing that this node sent has come back to it for this long.
    pub fn half_open(silence: Duration) -> Self {
        Self(format!(
            "nothing has come through the engine for {:.1} s, not even what this node sent",
            silence.as_secs_f64()
        ))
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

/// Takes what a link receives. Never waits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    incoming_tx: mpsc::UnboundedSender<Incoming>,
    fill: Arc<Fill>,
}

/// The other end of an [`Inbox`].
#[derive(Debug)]
pub struct InboxReader {
    incoming_rx: mpsc::UnboundedReceiver<Incoming>,
    fill: Arc<Fill>,
}

#[derive(Debug)]
struct Fill {
    bytes: AtomicUsize,
    max_bytes: usize,
    dropped: AtomicU64,
}

/// Memory that a message takes in addition to its payload.
const MESSAGE_BYTES: usize = 64;

/// Makes an inbox for at most `max_bytes`.
#[expect(clippy::disallowed_methods, reason = "`Fill` counts its bytes, and refuses above `max_bytes`")]
pub fn inbox(max_bytes: usize) -> (Inbox, InboxReader) {
    let (incoming_tx, incoming_rx) = mpsc::unbounded_channel();
    let fill = Arc::new(Fill { bytes: AtomicUsize::new(0), max_bytes, dropped: AtomicU64::new(0) });
    (Inbox { incoming_tx, fill: fill.clone() }, InboxReader { incoming_rx, fill })
}

impl Inbox {
    fn put(&self, subject: Subject, payload: Bytes) {
        let bytes = MESSAGE_BYTES + payload.len();
        let before = self.fill.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A message larger than the whole inbox must still pass through an empty one.
        if before > 0 && before + bytes > self.fill.max_bytes {
            self.fill.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.fill.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // If the reader is gone, the message is not needed.
        let _ = self.incoming_tx.send(Incoming::Message { subject, payload });
    }

    fn lose(&self, error: EngineError) {
        let _ = self.incoming_tx.send(Incoming::Lost(error));
    }
}

impl InboxReader {
    /// The next item. `None` when the link is gone and nothing is left.
    pub async fn next(&mut self) -> Option<Incoming> {
        let incoming = self.incoming_rx.recv().await?;
        if let Incoming::Message { payload, .. } = &incoming {
            self.fill.bytes.fetch_sub(MESSAGE_BYTES + payload.len(), Ordering::Relaxed);
        }
        Some(incoming)
    }

    /// Messages dropped so far because the inbox was full.
    pub fn dropped(&self) -> u64 {
        self.fill.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_as_they_are_written_and_nothing_else_is_one() {
        let partition = Partition::of_channel(&crate::proto::command::Name::new(b"news").unwrap());
        for subject in [Subject::All, Subject::Node(0), Subject::Node(4095), Subject::Partition(partition)] {
            for separator in [':', '.'] {
                let name = subject.name("shop", separator);
                assert_eq!(Subject::parse(name.as_bytes(), "shop", separator), Some(subject), "{name}");
            }
        }
        for other in
            ["shop", "shop:", "shop:every", "shopall", "other:all", "shop:node:", "shop:node:x", "shop:part:9999"]
        {
            assert_eq!(Subject::parse(other.as_bytes(), "shop", ':'), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_full_inbox_counts_what_it_loses_and_takes_again_when_it_is_read() {
        let (inbox, mut reader) = inbox(200);
        let payload = |byte: u8| Bytes::from(vec![byte; 100]);
        for byte in 0..3 {
            inbox.put(Subject::All, payload(byte));
        }
        assert_eq!(reader.dropped(), 2, "a second one is beyond 200 bytes");
        assert_eq!(reader.next().await, Some(Incoming::Message { subject: Subject::All, payload: payload(0) }));
        inbox.put(Subject::All, payload(3));
        assert_eq!(reader.next().await, Some(Incoming::Message { subject: Subject::All, payload: payload(3) }));
        inbox.put(Subject::Node(1), Bytes::from(vec![9; 1000]));
        assert!(matches!(reader.next().await, Some(Incoming::Message { .. })), "larger than the inbox, and alone");
        assert_eq!(reader.dropped(), 2);
        drop(inbox);
        assert_eq!(reader.next().await, None);
    }
}
