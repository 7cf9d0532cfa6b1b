//! Frames that clients send as HTTP requests, to sessions that have no socket for them.
//!
//! A request puts a [`Post`] into the queue of its session and waits for the answer to the event. The queue has the
//! same bounds as the frames of any session of the app, in number and in bytes. If it is full, the post is refused and
//! the client is told to retry. When the session ends, its posts are dropped, and dropping the sender wakes the waiting
//! request.

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
    /// The body that PHP reads.
    pub body: Bytes,
    /// The HTTP request waits for the answer here.
    pub reply: oneshot::Sender<HttpReply>,
}

/// The reason why a post was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The queue is full.
    Full,
    /// The session is ending.
    Ending,
}

/// The posts of one session.
pub struct Posts {
    outbox: Arc<Outbox>,
    max_posts: usize,
    max_bytes: usize,
    queue: Mutex<PostQueue>,
    /// Ends the HTTP connection of a client that does not read.
    cut: CancellationToken,
}

#[derive(Default)]
struct PostQueue {
    posts: VecDeque<Post>,
    bytes: usize,
    is_closed: bool,
}

impl Posts {
    pub(super) fn new(outbox: Arc<Outbox>, app: &App, cut: CancellationToken) -> Self {
        let (max_posts, max_bytes) = (app.max_queued_frames, app.max_queued_bytes);
        Self { outbox, max_posts, max_bytes, queue: Mutex::default(), cut }
    }

    /// The outbox of the session, from which the client reads.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Queues a post for the session's task.
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

    /// Refuses further posts. Those already queued may still be handled.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Drops the queued posts. Returns how many there were.
    pub(super) fn clear(&self) -> usize {
        let mut queue = self.lock();
        queue.bytes = 0;
        let posts = std::mem::take(&mut queue.posts);
        drop(queue);
        posts.len()
    }

    /// Ends the client's HTTP connection because the client does not read, even if other requests use it too.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, PostQueue> {
        lock(&self.queue)
    }
}

/// The sessions of a node that take posts.
#[derive(Default)]
pub struct PostBoxes(Mutex<HashMap<SessionId, Arc<Posts>>>);

impl PostBoxes {
    /// The posts of a session, if it is on this node and takes posts.
    pub fn find(&self, id: SessionId) -> Option<Arc<Posts>> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn insert(&self, posts: Arc<Posts>) {
        self.lock().insert(posts.outbox.id(), posts);
    }

    pub(super) fn remove(&self, id: SessionId) {
        let mut boxes = self.lock();
        boxes.remove(&id);
        // A map never shrinks by itself, so a burst of sessions would keep its memory.
        if boxes.capacity() > 1024 && boxes.len() * 4 < boxes.capacity() {
            boxes.shrink_to_fit();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Posts>>> {
        lock(&self.0)
    }
}
