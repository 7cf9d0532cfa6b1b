//! The codec of one session: calls the script, and turns its results into frames.
//!
//! ```text
//!            open: onConnect         fc.close               close: onClose
//!   New --------------------> Live ------------> Closing ------------------> Closed
//!                              |  a call fails      |                          ^
//!                              `--------------------'------> Failed -----------'
//! ```
//!
//! `Live` reads and writes. `Closing` reads nothing more, but still writes answers to earlier frames. `Failed` does neither. `onClose` is
//! called even then, so that the script can forget the session.
//!
//! A failure of `onWrite` concerns a body that did not come from this client, so only that body is lost. A failure of `onRead` ends the
//! session, because the bytes that caused it stay at the front of the buffer. With `compat = "fooking"` an error in `onRead` means "not
//! enough yet", as it did in fooking. The limits on a frame's size and time then end a session that makes no progress.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::call::{Buffer, Call};
use super::pool::Pool;
use super::vm::{Failure, Function, HookResult, Memory, Ran, Vm};
use crate::locks::lock;
use crate::proto::close::CloseReason;
use crate::proto::framing::custom::{Decoded, Outgoing, SessionCodec};
use crate::proto::framing::{Decoder, Frame, FrameError, FrameKind, Framing, Item, LengthFraming};
use crate::proto::id::SessionId;

/// Bytes that a frame may have beside its body, for example the head of an HTTP request that opens a WebSocket, with its cookies.
const HEADER_ROOM: usize = 16 * 1024;
/// The bytes that a script sees first. Each time it needs more, the amount doubles. Otherwise `fb.data`, which copies all of them, would
/// copy a large frame once for each read.
const FIRST_LOOK: usize = 16 * 1024;

pub(super) struct Session {
    pool: Arc<Pool>,
    vm: Arc<Vm>,
    id: SessionId,
    number: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stage: CodecStage,
    /// How often `onRead` has handled something so far; the script gets it as `requestid`.
    requests: u64,
    /// Received bytes that the script has not taken yet.
    received: Buffer,
    /// Bytes to send before anything else.
    unsent: Vec<u8>,
    end: Option<(CloseReason, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CodecStage {
    #[default]
    New,
    Live,
    Closing,
    Failed,
    Closed,
}

impl Session {
    pub(super) fn new(pool: Arc<Pool>, vm: Arc<Vm>, id: SessionId, number: u64) -> Self {
        Self { pool, vm, id, number, inner: Mutex::default() }
    }

    fn begin(&self, inner: &mut Inner) {
        if inner.stage == CodecStage::New {
            inner.stage = CodecStage::Live;
            match self.run(inner, Function::Connect, None) {
                Ok((_, call)) => inner.unsent.extend_from_slice(&call.sent),
                Err(failure) => self.forgive(inner, failure),
            }
        }
    }

    /// Calls the script. Its `input` is `body`, a body to send, or without one the bytes received. If the call fails, the bytes that it
    /// sent are dropped.
    fn run(&self, inner: &mut Inner, function: Function, body: Option<&[u8]>) -> Result<(HookResult, Call), Failure> {
        let received = std::mem::take(&mut inner.received);
        let (input, received) = match body {
            Some(body) => (Buffer::from(body.to_vec()), Some(received)),
            None => (received, None),
        };
        let call = Call { session: self.number, id: Some(self.id), input, received, ..Call::default() };
        let Ran { mut call, result, memory } = self.vm.run(function, inner.requests, call);
        match memory {
            Memory::Enough => {}
            Memory::Full => self.pool.set_aside(&self.vm),
            Memory::FullAgain => {
                self.pool.end(&self.vm, "a VM that was set aside is full again: it ends, and its sessions with it")
            }
        }
        inner.received = match &mut call.received {
            Some(received) => std::mem::take(received),
            None => std::mem::take(&mut call.input),
        };
        let counts = result.is_ok() || function == Function::Write;
        if call.closes && counts && inner.stage == CodecStage::Live {
            inner.stage = CodecStage::Closing;
            inner.end = Some((CloseReason::CodecClosed, String::new()));
        }
        result.map(|hook_result| (hook_result, call))
    }

    /// Handles a failure. An error of the script ends the session, except with `compat = "fooking"`. Exceeding a limit always ends it.
    fn forgive(&self, inner: &mut Inner, failure: Failure) {
        match failure.reason {
            CloseReason::CodecFailed if self.pool.forgives() => self.pool.note(self.id, &failure),
            _ => self.fail(inner, failure),
        }
    }

    fn fail(&self, inner: &mut Inner, failure: Failure) {
        self.pool.note(self.id, &failure);
        inner.stage = CodecStage::Failed;
        inner.received = Buffer::default();
        // If there are several reasons, the first one counts.
        inner.end.get_or_insert((failure.reason, failure.text));
    }

    /// Calls `onRead` to find the next frame in `received`.
    fn read(&self, inner: &mut Inner, max_frame: usize) -> Result<ReadOutcome, FrameError> {
        let before = inner.received.len();
        let (hook_result, call) = match self.run(inner, Function::Read, None) {
            Ok(ran) => ran,
            Err(failure) => {
                self.forgive(inner, failure);
                return Ok(ReadOutcome::Nothing);
            }
        };
        inner.unsent.extend_from_slice(&call.sent);
        if inner.unsent.len() > call.max_bytes {
            let text = "onRead: the bytes that wait to be sent exceed max_memory_bytes";
            self.fail(inner, Failure::new(CloseReason::CodecOutOfMemory, text));
            return Ok(ReadOutcome::Nothing);
        }
        let frame = match hook_result {
            HookResult::NotYet => return Ok(ReadOutcome::Nothing),
            HookResult::Native => match native_frame(&mut inner.received, max_frame)? {
                Some(frame) => Some(frame),
                None => return Ok(ReadOutcome::Nothing),
            },
            HookResult::Handled if call.output.len() > max_frame => {
                return Err(FrameError::TooLarge { size: call.output.len() as u64, max: max_frame as u64 });
            }
            HookResult::Handled => (!call.output.is_empty()).then(|| frame(call.output.into())),
        };
        inner.requests += 1;
        if inner.received.len() == before && inner.stage == CodecStage::Live {
            let text = "onRead returned a number above 0 but took nothing from its input: it would be called for ever";
            self.fail(inner, Failure::new(CloseReason::CodecFailed, text));
            return Ok(ReadOutcome::Nothing);
        }
        Ok(ReadOutcome::Handled(frame))
    }

    /// The bytes to send for a body, after the bytes that the script sent with `fc.send`. `None` if the script sends nothing.
    fn write(&self, inner: &mut Inner, body: &[u8]) -> Result<Option<Bytes>, Failure> {
        let (hook_result, call) = self.run(inner, Function::Write, Some(body))?;
        let mut frame = call.sent;
        match hook_result {
            HookResult::Handled => frame.extend_from_slice(&call.output),
            HookResult::NotYet if frame.is_empty() => return Ok(None),
            HookResult::NotYet => {}
            HookResult::Native => {
                let native = Framing::Length(LengthFraming::NATIVE)
                    .encode(FrameKind::Binary, call.input.as_slice())
                    .map_err(|error| Failure::new(CloseReason::CodecFailed, error.to_string()))?;
                frame.extend_from_slice(&native);
            }
        }
        Ok(Some(frame.into()))
    }
}

/// The result of one call of `onRead`.
enum ReadOutcome {
    /// No frame: more bytes are needed, or the session has failed.
    Nothing,
    /// Bytes were taken, with or without a frame.
    Handled(Option<Frame>),
}

impl SessionCodec for Session {
    fn open(&self) -> bool {
        let mut inner = lock(&self.inner);
        self.begin(&mut inner);
        inner.stage == CodecStage::Live
    }

    fn decode(&self, max_frame: usize, input: &[u8]) -> Result<Decoded, FrameError> {
        let inner = &mut *lock(&self.inner);
        self.begin(inner);
        // One byte more than `most` may be kept: it shows that the limit is exceeded.
        let most = max_frame.saturating_add(HEADER_ROOM).min(usize::MAX - 1);
        let mut taken = 0;
        while taken < input.len() && inner.stage == CodecStage::Live {
            let kept = inner.received.len();
            // How many bytes of `input`, from `taken` on, the script has seen.
            let mut seen = 0;
            let found = loop {
                let held = inner.received.len();
                let rest = &input[taken + seen..];
                let more = rest.len().min(held.max(FIRST_LOOK)).min(most.saturating_sub(held) + 1);
                inner.received.append(&rest[..more], most + 1);
                seen += more;
                let found = self.read(inner, max_frame);
                let is_over =
                    inner.stage != CodecStage::Live || taken + seen == input.len() || inner.received.len() > most;
                if is_over || !matches!(found, Ok(ReadOutcome::Nothing)) {
                    break found;
                }
            };
            match found {
                Ok(ReadOutcome::Handled(frame)) => {
                    // Bytes of `input` that the script did not take stay in `input`.
                    let consumed = kept + seen - inner.received.len();
                    taken += consumed.saturating_sub(kept);
                    inner.received.keep_first(kept.saturating_sub(consumed));
                    if frame.is_some() {
                        return Ok(Decoded { taken, frame, buffered: inner.received.held() });
                    }
                }
                Ok(ReadOutcome::Nothing) if inner.received.len() > most => {
                    let size = inner.received.len() as u64;
                    inner.received = Buffer::default();
                    return Err(FrameError::TooLarge { size, max: most as u64 });
                }
                Ok(ReadOutcome::Nothing) => {
                    let len = inner.received.len();
                    inner.received.keep_first(len);
                    taken += seen;
                }
                Err(error) => {
                    inner.received = Buffer::default();
                    return Err(error);
                }
            }
        }
        if inner.stage != CodecStage::Live {
            inner.received = Buffer::default();
        }
        Ok(Decoded { taken: input.len(), frame: None, buffered: inner.received.held() })
    }

    fn settle(&self, deliver: &mut dyn FnMut(Outgoing)) {
        settle(&mut lock(&self.inner), deliver);
    }

    fn encode(&self, body: &[u8], deliver: &mut dyn FnMut(Outgoing)) -> Result<(), Box<str>> {
        let inner = &mut *lock(&self.inner);
        self.begin(inner);
        settle(inner, deliver);
        if !matches!(inner.stage, CodecStage::Live | CodecStage::Closing) {
            return Ok(());
        }
        let written = match self.write(inner, body) {
            Ok(frame) => {
                frame.into_iter().for_each(|frame| deliver(Outgoing::Frame(frame)));
                Ok(())
            }
            Err(failure) if self.vm.has_ended() => {
                // No later call can succeed.
                self.fail(inner, failure);
                Ok(())
            }
            Err(failure) => {
                self.pool.note(self.id, &failure);
                Err(failure.text.into())
            }
        };
        settle(inner, deliver);
        written
    }

    fn close(&self) {
        let inner = &mut *lock(&self.inner);
        let was = std::mem::replace(&mut inner.stage, CodecStage::Closed);
        if matches!(was, CodecStage::New | CodecStage::Closed) {
            return;
        }
        match self.run(inner, Function::Close, None) {
            Ok((_, call)) if was != CodecStage::Failed => inner.unsent.extend_from_slice(&call.sent),
            Ok(_) => {}
            Err(failure) => self.fail(inner, failure),
        }
        inner.stage = CodecStage::Closed;
        inner.received = Buffer::default();
        // The session is ending already, so no reason is needed.
        inner.end = None;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {:?})", self.id, self.pool)
    }
}

fn settle(inner: &mut Inner, deliver: &mut dyn FnMut(Outgoing)) {
    if !inner.unsent.is_empty() {
        deliver(Outgoing::Bytes(std::mem::take(&mut inner.unsent).into()));
    }
    if let Some((reason, detail)) = inner.end.take() {
        deliver(Outgoing::End(reason, detail.into()));
    }
}

fn frame(body: Bytes) -> Frame {
    Frame { kind: FrameKind::Binary, body }
}

/// The next frame in the native framing: fooking uses it without a script.
fn native_frame(received: &mut Buffer, max_frame: usize) -> Result<Option<Frame>, FrameError> {
    let framing = Framing::Length(LengthFraming::NATIVE);
    let (taken, item) = Decoder::new(&framing).decode(&framing, max_frame, received.as_slice())?;
    let Some(Item::Frame(frame)) = item else { return Ok(None) };
    received.seek(taken);
    Ok(Some(frame))
}
