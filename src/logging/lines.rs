//! Lines on their way to a descriptor: a bounded queue, and a thread that empties it.
//!
//! ```text
//!   put ----> queue ----> batch ----> write(2)
//!    |                                  |
//!    | MAX_WAITING_BYTES wait           | ENOSPC, EPIPE
//!    v                                  v
//!   lost: counted at once, and reported in a line as soon as one can be written
//! ```
//!
//! [`Lines::put`] takes a lock for as long as it takes to copy the line, and never fails, panics or waits for a reader. The
//! thread waits in write(2) instead; so standard error stays a blocking descriptor, as the processes that share it expect.
//!
//! We use own code, because `tracing-appender` (0.2) bounds lines rather than bytes, loses a line that cannot be written without
//! counting it, and leaves half a line where a disk was full without reporting it.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::locks::lock;

/// Bytes that may wait; as many again may be on their way to the descriptor. About 5 000 lines: enough for a hiccup of the reader,
/// not for an outage.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Time between two attempts to report lost lines while no further line comes.
const RETRY: Duration = Duration::from_secs(1);
/// A queue that has grown beyond this gives its memory back.
const KEPT_BYTES: usize = 64 << 10;

thread_local! {
    /// While a thread makes a line for itself, its lines go here instead of to the queue.
    pub(super) static CAPTURED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// See the module. Clones are the same queue.
#[derive(Clone)]
pub(crate) struct Lines(Arc<SharedLines>);

struct SharedLines {
    queue: Mutex<LineQueue>,
    /// A line came.
    more: Condvar,
    /// All waiting lines are written, or lost.
    settled: Condvar,
    /// Called with the number of lost lines, as soon as they are lost.
    count: Box<dyn Fn(u64) + Send + Sync>,
}

#[derive(Default)]
struct LineQueue {
    bytes: Vec<u8>,
    /// Where each line ends in `bytes`.
    ends: Vec<usize>,
    /// Lines that found no room since the last batch was taken.
    lost: u64,
    is_writing: bool,
}

impl Lines {
    /// Starts the thread. `notice` makes the line that says how many were lost (an empty one means that none is written). `count` is
    /// called at once for lost lines.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        notice: impl Fn(u64) -> Vec<u8> + Send + 'static,
        count: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(SharedLines {
            queue: Mutex::default(),
            more: Condvar::new(),
            settled: Condvar::new(),
            count: Box::new(count),
        });
        let lines = shared.clone();
        let writer = Writer { sink, notice, untold: 0, is_torn: false };
        let thread = std::thread::Builder::new().name("longwire-log".to_owned()).spawn(move || lines.empty(writer));
        // Without the thread the queue fills, and every line is counted as lost. The node serves nevertheless.
        drop(thread);
        Self(shared)
    }

    /// Queues a line, including its newline. If there is no room, the line is lost and counted.
    pub(crate) fn put(&self, line: &[u8]) {
        let mut queue = lock(&self.0.queue);
        if queue.bytes.len() + line.len() > MAX_WAITING_BYTES {
            queue.lost += 1;
            drop(queue);
            (self.0.count)(1);
            return;
        }
        queue.bytes.extend_from_slice(line);
        let end = queue.bytes.len();
        queue.ends.push(end);
        drop(queue);
        self.0.more.notify_one();
    }

    /// Waits until all queued lines are written or lost, but not longer than `within`.
    pub(crate) fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut queue = lock(&self.0.queue);
        while !queue.ends.is_empty() || queue.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = wait(&self.0.settled, queue, left);
        }
    }
}

/// Each write is one line: `tracing_subscriber` writes that way.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        CAPTURED.with_borrow_mut(|captured| match captured {
            Some(captured) => captured.extend_from_slice(line),
            None => self.put(line),
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SharedLines {
    fn empty<S: Write, N: Fn(u64) -> Vec<u8>>(&self, mut writer: Writer<S, N>) {
        let mut batch = LineQueue::default();
        loop {
            self.take(&mut batch, writer.untold > 0);
            let lost = writer.write(&batch);
            if lost > 0 {
                (self.count)(lost);
            }
        }
    }

    /// Waits for lines, and takes all of them. If `retries`, it returns after a while even without any.
    fn take(&self, batch: &mut LineQueue, retries: bool) {
        batch.bytes.clear();
        batch.bytes.shrink_to(KEPT_BYTES);
        batch.ends.clear();
        batch.ends.shrink_to(KEPT_BYTES / 64);
        batch.lost = 0;
        let mut queue = lock(&self.queue);
        queue.is_writing = false;
        if queue.ends.is_empty() {
            self.settled.notify_all();
        }
        while queue.ends.is_empty() && queue.lost == 0 {
            let begun = Instant::now();
            queue = wait(&self.more, queue, if retries { RETRY } else { Duration::MAX });
            if retries && begun.elapsed() >= RETRY {
                break;
            }
        }
        std::mem::swap(&mut *queue, batch);
        queue.is_writing = true;
    }
}

struct Writer<S, N> {
    sink: S,
    notice: N,
    /// Lost lines that no notice has reported yet.
    untold: u64,
    /// The last write left half a line.
    is_torn: bool,
}

impl<S: Write, N: Fn(u64) -> Vec<u8>> Writer<S, N> {
    /// Writes as much as it can, with a notice of lost lines. Returns how many lines of the batch are lost now.
    fn write(&mut self, batch: &LineQueue) -> u64 {
        // Lines that were lost before this batch are reported before it.
        let written = if self.tell() { self.write_lines(&batch.bytes, &batch.ends) } else { 0 };
        let lost = (batch.ends.len() - written) as u64;
        self.untold += lost + batch.lost;
        if lost == 0 {
            self.tell();
        }
        lost
    }

    /// Writes the notice. False if there is one to write and it cannot be written.
    fn tell(&mut self) -> bool {
        if self.untold == 0 {
            return true;
        }
        let line = (self.notice)(self.untold);
        if !line.is_empty() && self.write_lines(&line, &[line.len()]) == 0 {
            return false;
        }
        self.untold = 0;
        true
    }

    /// Returns how many lines were written whole.
    fn write_lines(&mut self, bytes: &[u8], ends: &[usize]) -> usize {
        if ends.is_empty() {
            return 0;
        }
        if self.is_torn && !matches!(self.sink.write(b"\n"), Ok(1)) {
            return 0;
        }
        self.is_torn = false;
        let mut at = 0;
        while at < bytes.len() {
            match self.sink.write(&bytes[at..]) {
                Ok(0) => break,
                Ok(more) => at += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let whole = ends.partition_point(|end| *end <= at);
        self.is_torn = at > 0 && whole.checked_sub(1).is_none_or(|last| ends[last] != at);
        whole
    }
}

/// A descriptor that is neither closed nor locked: a thread that waits here must not block others that write to it.
pub(super) struct Descriptor(pub(super) RawFd);

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the bytes are readable for all of their length, and an invalid descriptor only makes the call fail.
            let written = unsafe { libc::write(self.0, bytes.as_ptr().cast(), bytes.len()) };
            let Ok(written) = usize::try_from(written) else {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Err(error);
                }
                // Another process that shares the descriptor has made it non-blocking.
                let mut poll = libc::pollfd { fd: self.0, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one valid pollfd.
                unsafe { libc::poll(&raw mut poll, 1, -1) };
                continue;
            };
            return Ok(written);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait<'q>(condition: &Condvar, queue: MutexGuard<'q, LineQueue>, within: Duration) -> MutexGuard<'q, LineQueue> {
    // A panic leaves nothing half done here.
    condition.wait_timeout(queue, within).unwrap_or_else(std::sync::PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A disk with limited room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn give(&self, room: usize) {
            lock(&self.0).1 = room;
        }

        fn text(&self) -> String {
            String::from_utf8(lock(&self.0).0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (file, room) = &mut *lock(&self.0);
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let fits = bytes.len().min(*room);
            file.extend_from_slice(&bytes[..fits]);
            *room -= fits;
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(sink: impl Write + Send + 'static) -> (Lines, Arc<AtomicU64>) {
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        let notice = |lines| format!("lost {lines}\n").into_bytes();
        let count = move |lines| {
            counted.fetch_add(lines, Ordering::Relaxed);
        };
        (Lines::start(sink, notice, count), lost)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn lines_come_out_in_their_order() {
        let disk = Disk::default();
        disk.give(usize::MAX);
        let (lines, lost) = lines(disk.clone());
        let all: Vec<String> = (0..5_000).map(|line| format!("line {line}\n")).collect();
        for line in &all {
            lines.put(line.as_bytes());
        }
        lines.flush(LONG);
        assert_eq!(disk.text(), all.concat());
        assert_eq!(lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_disk_is_tried_again_and_half_a_line_is_ended() {
        let disk = Disk::default();
        disk.give(11);
        let (lines, lost) = lines(disk.clone());
        for line in ["first\n", "second\n", "third\n"] {
            lines.put(line.as_bytes());
            lines.flush(LONG);
        }
        assert_eq!((disk.text().as_str(), lost.load(Ordering::Relaxed)), ("first\nsecon", 2));
        disk.give(1000);
        lines.put(b"fourth\n");
        lines.flush(LONG);
        assert_eq!((disk.text().as_str(), lost.load(Ordering::Relaxed)), ("first\nsecon\nlost 2\nfourth\n", 2));
    }

    #[test]
    fn what_was_lost_is_told_though_no_further_line_comes() {
        let disk = Disk::default();
        let (lines, lost) = lines(disk.clone());
        lines.put(b"gone\n");
        lines.flush(LONG);
        assert_eq!(lost.load(Ordering::Relaxed), 1);
        disk.give(1000);
        let deadline = Instant::now() + LONG;
        while disk.text() != "lost 1\n" {
            assert!(Instant::now() < deadline, "{}", disk.text());
            std::thread::yield_now();
        }
    }

    /// Takes nothing until the gate is unlocked.
    struct Stuck(Arc<Mutex<()>>, Disk);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(lock(&self.0));
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_stuck_costs_what_does_not_fit() {
        let (gate, disk) = (Arc::new(Mutex::default()), Disk::default());
        disk.give(usize::MAX);
        let stuck = lock(&gate);
        let (lines, lost) = lines(Stuck(gate.clone(), disk.clone()));
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        let begun = Instant::now();
        for _ in 0..4 * MAX_WAITING_BYTES / line.len() {
            lines.put(&line);
        }
        lines.flush(Duration::from_millis(10));
        assert!(begun.elapsed() < LONG, "nobody waits for the reader");
        let gone = lost.load(Ordering::Relaxed);
        // One batch is on its way, one waits.
        assert!(gone >= 2 * (MAX_WAITING_BYTES / line.len()) as u64, "{gone}");
        drop(stuck);
        lines.put(b"last\n");
        lines.flush(LONG);
        let text = disk.text();
        let told: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("lost ")?.parse().ok()).collect();
        let lost = lost.load(Ordering::Relaxed);
        let whole = text.lines().filter(|line| line.len() == 1023).count();
        assert_eq!(
            whole as u64 + lost,
            4 * (MAX_WAITING_BYTES / line.len()) as u64 + u64::from(!text.contains("last"))
        );
        // The last lost lines may not be reported yet.
        assert!(told.iter().sum::<u64>() <= lost && text.len() < 3 * MAX_WAITING_BYTES, "{told:?} of {lost}");
    }
}
