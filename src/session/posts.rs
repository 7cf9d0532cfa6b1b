//! Frames that clients send as HTTP requests, to sessions that have no socket for them.
//!
//! A request leaves a [`Post`] with its session and waits for the answer to the event. The bound is that of frames in any session
//! of the app, in number and in bytes. A post beyond it is refused, and its client is told to try again. Posts of a session that has ended
//! are dropped; dropping the sender wakes the request that waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::answer::HttpReply;
use crate::config::model::App;
use crate::locks::lock;
use crate::outbox::Outbox;
use crate::proto::framing::FrameKind;
use crate::proto::id::SessionId;

/// A frame that came as a request of its own.
pub struct Post {
    /// Text or binary.
    pub kind: FrameKind,
    /// What PHP reads.
    pub body: Bytes,
    /// Where the answer is waited for.
    pub reply: oneshot::Sender<HttpReply>,
}

/// Why a post was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// As many wait as may.
    Full,
    /// The session ends.
    Ending,
}

/// The posts of one session.
pub struct Posts {
    outbox: Arc<Outbox>,
    max_posts: usize,
    max_bytes: usize,
    queue: Mutex<Queue>,
    /// Ends the HTTP connection of a client that does not read.
    cut: CancellationToken,
}

#[derive(Default)]
struct Queue {
    posts: VecDeque<Post>,
    bytes: usize,
    is_closed: bool,
}

impl Posts {
    pub(super) fn new(outbox: Arc<Outbox>, app: &App, cut: CancellationToken) -> Self {
        let (max_posts, max_bytes) = (app.max_queued_frames, app.max_queued_bytes);
        Self { outbox, max_posts, max_bytes, queue: Mutex::default(), cut }
    }

    /// What the session's client reads.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Leaves a post for the session's task.
    pub fn push(&self, post: Post) -> Result<(), NotTaken> {
        let mut queue = self.lock();
        if queue.is_closed {
            return Err(NotTaken::Ending);
        }
        if queue.posts.len() >= self.max_posts || queue.bytes >= self.max_bytes {
            return Err(NotTaken::Full);
        }
        queue.bytes += post.body.len();
        queue.posts.push_back(post);
        drop(queue);
        self.outbox.nudge();
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<Post> {
        let mut queue = self.lock();
        let post = queue.posts.pop_front()?;
        queue.bytes -= post.body.len();
        Some(post)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().posts.is_empty()
    }

    /// No further post is taken; those that are there may still be handled.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Drops what waits; says how many that were.
    pub(super) fn clear(&self) -> usize {
        let mut queue = self.lock();
        queue.bytes = 0;
        let posts = std::mem::take(&mut queue.posts);
        drop(queue);
        posts.len()
    }

    /// The client takes nothing: its HTTP connection goes, whatever else it carries.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

/// The sessions of a node that take posts.
#[derive(Default)]
pub struct PostBoxes(Mutex<HashMap<SessionId, Arc<Posts>>>);

impl PostBoxes {
    /// The posts of a session that is here and takes some.
    pub fn find(&self, id: SessionId) -> Option<Arc<Posts>> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn insert(&self, posts: Arc<Posts>) {
        self.lock().insert(posts.outbox.id(), posts);
    }

    pub(super) fn remove(&self, id: SessionId) {
        let mut boxes = self.lock();
        boxes.remove(&id);
        // A map never shrinks by itself, and a burst of sessions must not stay in memory.
        if boxes.capacity() > 1024 && boxes.len() * 4 < boxes.capacity() {
            boxes.shrink_to_fit();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Posts>>> {
        lock(&self.0)
    }
}
