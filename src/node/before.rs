//! Tasks and descriptors that the process had before its node started, so that the last log line can say what the node left behind.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::descriptors;

/// How long a stop waits for tasks that were told to end. A framing script may hold the threads that they run on.
pub(super) const TASKS_GRACE: Duration = Duration::from_secs(1);

/// Tasks and descriptors of the process before the node started.
pub(super) struct Before {
    /// Where the node's tasks run.
    workers: Handle,
    tasks: usize,
    descriptors: usize,
}

impl Before {
    pub(super) fn now() -> Self {
        let workers = Handle::current();
        // The task that starts the node ends when it has started it.
        let own = usize::from(tokio::task::try_id().is_some());
        let tasks = workers.metrics().num_alive_tasks().saturating_sub(own);
        Self { workers, tasks, descriptors: descriptors::open() }
    }

    /// Tasks and descriptors that came with the node and are still there.
    pub(super) fn added(&self) -> (usize, usize) {
        let tasks = self.workers.metrics().num_alive_tasks();
        (tasks.saturating_sub(self.tasks), descriptors::open().saturating_sub(self.descriptors))
    }

    /// The same, once none is left or `TASKS_GRACE` has passed: a task that is told to end does so when it next runs.
    pub(super) async fn left(&self) -> (usize, usize) {
        let given_up_at = Instant::now() + TASKS_GRACE;
        loop {
            let added = self.added();
            if added == (0, 0) || Instant::now() >= given_up_at {
                return added;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
