//! Memory for commands that have not arrived completely: one bound for all connections of the router port and the API.
//!
//! Each connection may send a message of [`max_message_bytes`](crate::config::model::Router::max_message_bytes), and
//! there may be thousands of connections. So a message that announces more than [`SMALL_BYTES`] waits until memory for
//! all of it is set aside. Messages get memory in the order in which they came. Meanwhile their connections are not
//! read, so TCP slows the clients down.
//!
//! There is no deadlock, because no message holds a part of its memory while it waits for the rest. Every message that
//! has its memory ends, because it has a deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The memory that every connection may hold anyway, so that no message of usual length waits for a large one.
const SMALL_BYTES: usize = 16 * 1024;
/// The least time that a message has to arrive, once memory is set aside for it.
const LEAST_TIME: Duration = Duration::from_secs(30);
/// A message gets one more second for each block of this size.
const SLOWEST_BYTES_PER_SECOND: usize = 1 << 20;
/// A permit stands for this many bytes, because a semaphore counts permits in 32 bits and a message may be longer.
const BYTES_PER_PERMIT: usize = 1024;

/// The memory that may be set aside. See the module.
#[derive(Debug)]
pub struct Memory {
    permits: Arc<Semaphore>,
    all: u32,
}

/// Memory for one message. Dropping it gives the memory back.
#[derive(Debug)]
pub struct SetAside {
    /// The deadline for the message to arrive completely.
    pub deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Memory {
    /// Makes a bound of `bytes`, which must be at least the size of the largest message.
    pub fn new(bytes: usize) -> Self {
        let all = permits(bytes);
        Self { permits: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// The bytes that are set aside now, rounded up to whole permits.
    pub fn held_bytes(&self) -> usize {
        (self.all as usize).saturating_sub(self.permits.available_permits()) * BYTES_PER_PERMIT
    }

    /// Waits until `bytes` can be set aside. `None` means that nothing has to be set aside. The future is safe to drop.
    pub async fn set_aside(&self, bytes: usize) -> Option<SetAside> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        let wanted = permits(bytes).min(self.all);
        let permit = self.permits.clone().acquire_many_owned(wanted).await.expect("the semaphore is never closed");
        let time = LEAST_TIME + Duration::from_secs((bytes / SLOWEST_BYTES_PER_SECOND) as u64);
        Some(SetAside { deadline: Instant::now() + time, _permit: permit })
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_large_message_waits_for_room_and_a_small_one_does_not() {
        let memory = Memory::new(100 * 1024);
        let first = memory.set_aside(60 * 1024).await.expect("it is large");
        assert_eq!(memory.held_bytes(), 60 * 1024);
        let mut second = Box::pin(memory.set_aside(50 * 1024));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(memory.set_aside(SMALL_BYTES).await.is_none());
        assert!(memory.set_aside(20 * 1024).now_or_never().is_none(), "nobody overtakes");
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(memory.held_bytes(), 0);
        assert!(memory.set_aside(usize::MAX).await.is_some(), "a message of any size gets all memory if it is alone");
    }
}
