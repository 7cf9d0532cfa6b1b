//! One request and its answer on a connected socket.
//!
//! It reads while it writes: a script may answer before it has taken its input, and a php-fpm that blocks in `write` while
//! we block in `write` would hang for ever. Everything is polled in one place, so that all events of an exchange can be
//! seen together: the responder cancels, the socket takes bytes, the responder has room and the socket gives bytes,
//! a deadline passes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tracing::field::display;
use tracing::warn;

use super::READ_BYTES;
use super::alarm::Alarm;
use super::request::{Request, Responder};
use super::stalls::{Stall, Stalls};
use super::stream::Stream;
use crate::metrics::upstream::UpstreamHandles;
use crate::proto::fastcgi::record::{self, Header, RecordKind};
use crate::proto::fastcgi::request::RequestEncoder;
use crate::proto::fastcgi::response::{EndRequest, Event, ResponseDecoder, ResponseError};
use crate::proto::fastcgi::values;
use crate::proto::id::SessionId;

/// Slices in one vectored write: enough for a megabyte of body (sixteen records of header and content).
const SLICES: usize = 34;

thread_local! {
    /// Bytes that were read are decoded and passed on at once, so one buffer per thread serves all connections.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Most bytes of stderr after the end of its request that one script may write to the log.
const MAX_LATE_STDERR_BYTES: usize = 8 * 1024;

/// How long a script may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// The longest silence.
    pub(super) response: Duration,
    /// The longest time in all.
    pub(super) request: Duration,
    /// Bounds how long the script may wait for its client.
    pub(super) stalls: &'a Stalls,
    /// Other requests wait for a connection.
    pub(super) has_line: &'a AtomicBool,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// END_REQUEST came. `clean`: the connection can take another request. `given`: the responder was given something.
    Complete { end: EndRequest, clean: bool, given: bool, first_byte: Instant, at: Instant },
    /// No byte of the request was sent: it may be sent elsewhere.
    NotSent(io::Error),
    /// The connection ended before END_REQUEST.
    Closed {
        answered: bool,
        /// It ended with end-of-file, not with an error.
        eof: bool,
        error: io::Error,
    },
    /// The backend sent something that is not FastCGI.
    Broken { error: ResponseError, answered: bool },
    /// The script was silent for too long.
    ResponseTimeout { answered: bool },
    /// The script took too long in all.
    RequestTimeout { answered: bool },
    /// The responder had no room for too long, and others wait for the connection.
    SlowReader { answered: bool },
    /// The answer is not wanted any more. `written` bytes were sent; `whole` if that is all of the request.
    Cancelled { written: usize, whole: bool },
}

/// The parts of a connection that an exchange works with.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) stream: Stream,
    pub(super) alarm: Alarm,
    encoder: RequestEncoder,
    decoder: ResponseDecoder,
    last_id: u16,
    worker: WorkerState,
    /// The worker was seen to come back after an answer on this connection, or did something else that only workers do which
    /// keep connections.
    pub(super) has_returned: bool,
    /// Sessions of the last request and of the one before.
    owners: [Option<SessionId>; 2],
    /// Bytes of late stderr that may still be logged.
    late_room: usize,
}

/// State of the worker between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkerState {
    /// It waits for the next request, as far as we can know.
    Back,
    /// It had not read the end of the last request when its answer came. php-fpm reads the empty STDIN record only when it
    /// looks for the next request, and the kernel counts unread bytes.
    Unread,
    /// It was asked to say when it is back.
    Asked,
}

/// How far the running request is.
struct RequestProgress<'a> {
    started: Instant,
    /// Time of the last byte in either direction, or of the moment when the responder had room again.
    active: Instant,
    first_byte: Option<Instant>,
    /// A first write was tried.
    has_tried: bool,
    /// The responder has no room. Meanwhile php-fpm is not read, and its silence does not count.
    stall: Option<Stall<'a>>,
    /// How long the responder had no room before this stall.
    stalled: Duration,
    /// The responder was given something.
    given: bool,
    /// The responder was given stdout since it was last told to send what it holds back.
    holding: bool,
    /// Writing failed. There may still be an answer to read.
    write_error: Option<io::Error>,
}

impl Exchange {
    pub(super) fn new(stream: Stream, alarm: Alarm) -> Self {
        Self {
            stream,
            alarm,
            encoder: RequestEncoder::new(),
            decoder: ResponseDecoder::new(0),
            last_id: 0,
            worker: WorkerState::Back,
            has_returned: false,
            owners: [None; 2],
            late_room: 0,
        }
    }

    /// The id of the running request.
    pub(super) fn id(&self) -> u16 {
        self.last_id
    }

    /// Before a kept connection is used again: checks whether php-fpm has closed it (pm.max_requests, reload) or sent something that
    /// belongs to no request. `look` asks the kernel. Without it only epoll's reports are used, which spares a system call for each
    /// request; if the connection ended in the very last moment, the request itself finds out.
    pub(super) fn check_quiet(&mut self, look: bool, metrics: &UpstreamHandles) -> io::Result<()> {
        if look && self.stream.has_ended() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while self.stream.poll_read_ready(&mut Context::from_waker(Waker::noop()))?.is_ready() {
            self.take_late(metrics)?;
        }
        if self.decoder.is_between_records() { Ok(()) } else { Err(after_end()) }
    }

    /// After an answer: whether the worker waits for the next request, as far as we can know.
    pub(super) fn is_back(&mut self) -> bool {
        if self.worker == WorkerState::Unread && self.stream.unread_by_peer() == 0 {
            self.worker = WorkerState::Back;
        }
        self.worker == WorkerState::Back
    }

    /// Asks the worker to say when it is back.
    pub(super) fn ask(&mut self) {
        let question = values::question();
        // If the socket has no room for these few bytes, the worker is not asked: a part of the question must not stay unsent.
        if self.stream.try_write_vectored(&[IoSlice::new(&question)]).ok() == Some(question.len()) {
            self.stream.acknowledge_at_once();
            self.decoder.expect_values();
            self.worker = WorkerState::Asked;
        }
    }

    /// Ready when the worker is back. Takes the bytes that come meanwhile. After an error the connection cannot be used any more.
    pub(super) fn poll_back(&mut self, cx: &mut Context<'_>, metrics: &UpstreamHandles) -> Poll<io::Result<()>> {
        while self.stream.poll_read_ready(cx)?.is_ready() {
            self.take_late(metrics)?;
        }
        if self.worker == WorkerState::Unread && self.stream.poll_all_read(cx).is_ready() {
            // A peer that is gone counts as having read everything too.
            if self.stream.has_ended() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            (self.worker, self.has_returned) = (WorkerState::Back, true);
        }
        if self.worker == WorkerState::Back { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Takes bytes that come after the end of a request. After an error the connection cannot be used any more.
    pub(super) fn take_late(&mut self, metrics: &UpstreamHandles) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.decode_late(&scratch[..read], metrics),
            Err(error) if is_retry(&error) => Ok(()),
            Err(error) => Err(error),
        })
    }

    fn decode_late(&mut self, mut input: &[u8], metrics: &UpstreamHandles) -> io::Result<()> {
        loop {
            match self.decoder.decode(&mut input) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::LateStdout(_))) => {}
                Ok(Some(Event::LateStderr(piece))) => log_late(self.owners[0], &mut self.late_room, piece, metrics),
                Ok(Some(Event::Heard)) => (self.worker, self.has_returned) = (WorkerState::Back, true),
                Ok(Some(_)) | Err(_) => return Err(after_end()),
            }
        }
    }

    /// Sends a request and gives its answer to the responder, all but the end.
    pub(super) async fn run<R: Responder>(
        &mut self,
        request: &mut Request<R>,
        started: Instant,
        limits: Limits<'_>,
        metrics: &UpstreamHandles,
    ) -> Ended {
        // 1 to 65 535 in turn: so a late answer to an earlier request cannot be taken for this one's.
        self.last_id = self.last_id % u16::MAX + 1;
        self.encoder.start(self.last_id, &request.params, &request.body);
        self.decoder.start(self.last_id);
        self.owners = [request.responder.label(), self.owners[0]];
        self.late_room = MAX_LATE_STDERR_BYTES;
        let mut progress = RequestProgress {
            started,
            active: started,
            first_byte: None,
            has_tried: false,
            stall: None,
            stalled: Duration::ZERO,
            given: false,
            holding: false,
            write_error: None,
        };
        let ended = poll_fn(|cx| self.poll(cx, request, &mut progress, limits, metrics)).await;
        self.encoder.clear();
        if let Ended::Cancelled { written: 0, .. } = ended {
            self.owners[0] = self.owners[1];
        }
        ended
    }

    fn poll<'a, R: Responder>(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<R>,
        progress: &mut RequestProgress<'a>,
        limits: Limits<'a>,
        metrics: &UpstreamHandles,
    ) -> Poll<Ended> {
        let responder = &mut request.responder;
        let may_cancel = self.encoder.written() == 0 || !responder.is_waited_for();
        if may_cancel && responder.poll_cancelled(cx).is_ready() {
            return Poll::Ready(Ended::Cancelled { written: self.encoder.written(), whole: self.encoder.is_done() });
        }
        if progress.write_error.is_none()
            && !self.encoder.is_done()
            && let Err(error) = self.poll_write(cx, progress)
        {
            if self.encoder.written() == 0 {
                return Poll::Ready(Ended::NotSent(error));
            }
            progress.write_error = Some(error);
        }
        loop {
            if responder.poll_room(cx).is_pending() {
                let before = progress.stalled;
                progress.stall.get_or_insert_with(|| Stall::new(limits.stalls, Instant::now(), before));
                break;
            }
            if let Some(stall) = progress.stall.take() {
                progress.active = Instant::now();
                progress.stalled += progress.active - stall.since();
            }
            match self.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(self.closed(progress, error)),
                Poll::Pending => break,
            }
            if let Some(ended) = self.read(responder, progress, metrics) {
                return Poll::Ready(ended);
            }
        }
        if std::mem::take(&mut progress.holding) {
            responder.pause();
        }
        self.poll_time(cx, progress, limits)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, progress: &mut RequestProgress<'_>) -> io::Result<()> {
        // The first attempt is made when the exchange begins, and that time is known.
        let mut is_first = !std::mem::replace(&mut progress.has_tried, true);
        while !self.encoder.is_done() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.encoder.slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..filled]) {
                Ok(written) => {
                    self.encoder.advance(written);
                    self.stream.acknowledge_at_once();
                    if !std::mem::take(&mut is_first) {
                        progress.active = Instant::now();
                    }
                }
                Err(error) if is_retry(&error) => match self.stream.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => return Ok(()),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once, and gives the pieces to the responder. `None`: go on.
    fn read<R: Responder>(
        &mut self,
        responder: &mut R,
        progress: &mut RequestProgress<'_>,
        metrics: &UpstreamHandles,
    ) -> Option<Ended> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut input = match self.stream.try_read(scratch) {
                Ok(0) => return Some(self.closed(progress, io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => &scratch[..read],
                Err(error) if is_retry(&error) => return None,
                Err(error) => return Some(self.closed(progress, error)),
            };
            let now = Instant::now();
            progress.active = now;
            let mut is_late = false;
            loop {
                let decoded = self.decoder.decode(&mut input);
                // Late output of an earlier script is no answer to this request.
                is_late = match decoded {
                    Ok(Some(Event::LateStdout(_) | Event::LateStderr(_) | Event::Heard)) => true,
                    Ok(None) => is_late && self.decoder.is_between_records(),
                    _ => false,
                };
                if !is_late {
                    progress.first_byte.get_or_insert(now);
                }
                match decoded {
                    Ok(None) => break,
                    Ok(Some(Event::LateStdout(_) | Event::Heard)) => {}
                    Ok(Some(Event::LateStderr(piece))) => {
                        log_late(self.owners[1], &mut self.late_room, piece, metrics);
                    }
                    Ok(Some(Event::Stdout(piece))) => {
                        responder.stdout(piece);
                        (progress.given, progress.holding) = (true, true);
                    }
                    Ok(Some(Event::Stderr(piece))) => {
                        metrics.stderr_bytes.inc_by(piece.len() as u64);
                        responder.stderr(piece);
                        progress.given = true;
                    }
                    Ok(Some(Event::End(end))) => {
                        self.worker =
                            if self.stream.tells_what_is_read() { WorkerState::Unread } else { WorkerState::Back };
                        // If the answer ended before the whole request was taken, the rest of it is still on the wire.
                        let clean = self.encoder.is_done() && self.decode_late(input, metrics).is_ok();
                        let first_byte = progress.first_byte.unwrap_or(now);
                        return Some(Ended::Complete { end, clean, given: progress.given, first_byte, at: now });
                    }
                    Err(error) => return Some(Ended::Broken { error, answered: progress.given }),
                }
            }
            self.stream.acknowledge_at_once();
            None
        })
    }

    fn closed(&self, progress: &mut RequestProgress<'_>, error: io::Error) -> Ended {
        // A failed write tells more than the end-of-file or reset that follows it.
        let error = progress.write_error.take().unwrap_or(error);
        let eof = error.kind() == io::ErrorKind::UnexpectedEof;
        Ended::Closed { answered: progress.first_byte.is_some(), eof, error }
    }

    /// After end-of-file before any byte of an answer: whether that proves that php-fpm did not take the request.
    ///
    /// A worker that reaches pm.max_requests ends its last answer with END_REQUEST. Some microseconds later it calls
    /// `shutdown(SHUT_WR)` and reads until we close. A request that we write in between is read and thrown away, never
    /// run. This is the only place where php-fpm half-closes (`fcgi_close` without force, which comes after
    /// END_REQUEST was written), so a request that ran has always been answered before. A worker that dies, for any
    /// reason, closes both directions. So end-of-file before any byte of the answer, on a socket whose other end is
    /// still open, proves that the request was not taken.
    ///
    /// In a graceful reload (SIGQUIT to the workers) a worker checks whether it should end before it reads the next request, and
    /// then exits, which closes both directions. Over a Unix socket we write no request before the worker has read the end of
    /// the last one. By then it has made that check, so it reads the next request in any case. Over TCP a request may already be on its
    /// way. The reset that follows looks the same as that of a worker killed in mid-script, which also leaves bytes unread (the end of
    /// stdin), and a relay may turn it into anything. FCGI_GET_VALUES only makes that window smaller: the worker answers, and then
    /// makes the check again.
    pub(super) async fn is_not_taken(&self) -> bool {
        self.stream.is_half_closed(&Header::encode(RecordKind::Stdin, self.last_id, 0)).await
    }

    fn poll_time(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut RequestProgress<'_>,
        limits: Limits<'_>,
    ) -> Poll<Ended> {
        let request_deadline = progress.started + limits.request;
        let response_deadline = progress.active + limits.response;
        let answered = progress.first_byte.is_some();
        while let Some(stall) = &mut progress.stall
            && let Some(look_at) = stall.look_at().filter(|look_at| *look_at < request_deadline)
        {
            ready!(self.alarm.poll_at(cx, look_at));
            if stall.is_over(Instant::now(), limits.has_line.load(Ordering::Relaxed)) {
                return Poll::Ready(Ended::SlowReader { answered });
            }
        }
        if progress.stall.is_some() || request_deadline <= response_deadline {
            self.alarm.poll_at(cx, request_deadline).map(|()| Ended::RequestTimeout { answered })
        } else {
            self.alarm.poll_at(cx, response_deadline).map(|()| Ended::ResponseTimeout { answered })
        }
    }

    /// Tells php-fpm that the answer to its running request is not wanted, and reads on until it ends. Ready when it has ended; the
    /// caller bounds the wait.
    pub(super) async fn abort(&mut self) {
        let record = record::abort(self.last_id);
        // If these eight bytes do not fit the socket, they are not waited for: closing it says the same.
        let _ = self.stream.try_write_vectored(&[IoSlice::new(&record)]);
        poll_fn(|cx| {
            loop {
                if self.stream.poll_read_ready(cx)?.is_pending() {
                    return Poll::Pending;
                }
                let over = SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
                    Ok(0) => true,
                    Ok(read) => self.skim(&scratch[..read]),
                    Err(error) => !is_retry(&error),
                });
                if over {
                    return Poll::Ready(io::Result::Ok(()));
                }
            }
        })
        .await
        .unwrap_or_default();
    }

    /// Reads and discards an answer. True when it is over.
    fn skim(&mut self, mut input: &[u8]) -> bool {
        loop {
            match self.decoder.decode(&mut input) {
                Ok(None) => return false,
                Ok(Some(Event::End(_))) | Err(_) => return true,
                Ok(Some(_)) => {}
            }
        }
    }
}

fn after_end() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, ResponseError::AfterEnd)
}

/// Output of a script after the end of its request has no event any more that it could be logged with.
fn log_late(owner: Option<SessionId>, room: &mut usize, piece: &[u8], metrics: &UpstreamHandles) {
    metrics.stderr_bytes.inc_by(piece.len() as u64);
    let shown = &piece[..piece.len().min(*room)];
    *room -= shown.len();
    let session = owner.map(display);
    for line in String::from_utf8_lossy(shown).lines() {
        warn!(target: "longwire::php", session, "stderr after the answer: {line}");
    }
}

/// Whether the error only means that there is nothing to do at the moment.
fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
