//! `longwire connect`: talks to a server, frame by frame.
//!
//! Owns the three ways to talk (typed lines, `--send`, a script) and their exit status. `client` reads the URL, `dial`
//! makes the connection and the WebSocket handshake, `wire` moves frames, `script` reads the steps, `show` prints.
//! Frames go to standard output, everything about the connection to standard error.

mod dial;
mod script;
mod show;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use self::script::{Script, ScriptStep};
use self::show::Show;
use self::wire::{Arrival, Wire};
use crate::commands::cli::{ConnectArgs, parse_hex, unescape};
use crate::commands::client::server_address::ServerAddress;
use crate::proto::framing::{BodyDoesNotFit, Frame, FrameError, FrameKind};

/// Received frames that a script has not looked at yet. While this many wait, the socket is not read.
const MAX_WAITING_FRAMES: usize = 1024;

/// Why `longwire connect` failed.
#[derive(Debug)]
pub enum ConnectError {
    /// The command line or the script is not valid.
    Usage(String),
    /// The connection could not be made.
    Dial {
        /// The URL of the command line.
        url: String,
        /// The system's error.
        error: io::Error,
    },
    /// The server did not upgrade to WebSocket.
    Handshake(String),
    /// Standard input cannot be read.
    Input(io::Error),
    /// The connection broke.
    Io(io::Error),
    /// The server's bytes do not follow the framing.
    Frame(FrameError),
    /// The server closed in the middle of a frame.
    Truncated,
    /// Our frame does not fit the length field.
    TooLong(BodyDoesNotFit),
    /// The server closed before all frames were sent or all replies had come, or it did not close in time.
    Closed(String),
    /// No frame came in time.
    NoReply(Duration),
    /// An expectation of a script failed; the text has file and line.
    Unexpected(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Handshake(text) | Self::Unexpected(text) => f.write_str(text),
            Self::Dial { url, error } => write!(f, "cannot connect to {url}: {error}"),
            Self::Input(error) => write!(f, "cannot read standard input: {error}"),
            Self::Io(error) => write!(f, "connection lost: {error}"),
            Self::Frame(error) => write!(f, "the server broke the framing: {error}"),
            Self::Truncated => f.write_str("the server closed in the middle of a frame"),
            Self::TooLong(error) => error.fmt(f),
            Self::Closed(how) => f.write_str(how),
            Self::NoReply(after) => write!(f, "no frame within {}", crate::config::value::duration_text(*after)),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<FrameError> for ConnectError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<BodyDoesNotFit> for ConnectError {
    fn from(error: BodyDoesNotFit) -> Self {
        Self::TooLong(error)
    }
}

/// Runs the command. The status is success if everything that the command line asks for has happened.
///
/// # Errors
///
/// Says in one line what went wrong.
pub async fn run(args: &ConnectArgs) -> Result<ExitCode, ConnectError> {
    let server = ServerAddress::parse(&args.url).map_err(ConnectError::Usage)?;
    let plan = Plan::new(args)?;
    let started = Instant::now();
    let dialled = timeout(args.timeout, dial::dial(&server, args)).await;
    let wire =
        dialled.map_err(|_| ConnectError::Dial { url: args.url.clone(), error: io::ErrorKind::TimedOut.into() })??;
    let show = Show::new(args.quiet);
    show.connected(&args.url, started.elapsed());
    let mut talk =
        Talk { wire, show, timeout: args.timeout, asked: VecDeque::new(), waiting: VecDeque::new(), closed: None };
    match plan {
        Plan::Type { escape } => talk.type_lines(escape, args.wait).await?,
        Plan::Send(frames) => talk.send_all(&frames, args.wait).await?,
        Plan::Follow(script) => talk.follow(&script).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What to send. It is read whole before the connection is opened.
enum Plan {
    Type { escape: bool },
    Send(Vec<(FrameKind, Vec<u8>)>),
    Follow(Script),
}

impl Plan {
    fn new(args: &ConnectArgs) -> Result<Self, ConnectError> {
        if let Some(file) = &args.exec {
            return Script::load(file).map(Self::Follow).map_err(ConnectError::Usage);
        }
        let mut frames = Vec::new();
        for text in &args.send {
            frames.push(typed(text.as_bytes(), args.escape).map_err(ConnectError::Usage)?);
        }
        for hex in &args.send_hex {
            frames.push((FrameKind::Binary, parse_hex(hex).map_err(ConnectError::Usage)?));
        }
        Ok(if frames.is_empty() { Self::Type { escape: args.escape } } else { Self::Send(frames) })
    }
}

/// A typed line as a frame: a text frame if it is UTF-8 after replacing escapes, else a binary frame.
fn typed(line: &[u8], escape: bool) -> Result<(FrameKind, Vec<u8>), String> {
    let body = if escape {
        unescape(str::from_utf8(line).map_err(|_| "a line with escapes must be UTF-8".to_owned())?)?
    } else {
        line.to_vec()
    };
    let kind = if str::from_utf8(&body).is_ok() { FrameKind::Text } else { FrameKind::Binary };
    Ok((kind, body))
}

/// A connection and the state of the conversation on it.
struct Talk {
    wire: Wire,
    show: Show,
    timeout: Duration,
    /// The sending times of frames without a reply yet. A reply counts for the oldest, because the server keeps the order.
    asked: VecDeque<Instant>,
    /// Frames that came during a script's `wait`; at most [`MAX_WAITING_FRAMES`].
    waiting: VecDeque<Frame>,
    /// How the server closed, if it has.
    closed: Option<Arrival>,
}

impl Talk {
    /// Sends each line of standard input until it ends or the server closes.
    async fn type_lines(&mut self, escape: bool, wait: Option<Duration>) -> Result<(), ConnectError> {
        let is_terminal = io::stdin().is_terminal();
        let mut lines = stdin_lines();
        loop {
            tokio::select! {
                line = lines.recv() => {
                    let Some(line) = line else { break };
                    match typed(&line.map_err(ConnectError::Input)?, escape) {
                        // A terminal has already shown the typed line.
                        Ok((kind, body)) => self.send(kind, &body, !is_terminal)?,
                        Err(rule) => self.show.note(&rule),
                    }
                }
                arrival = self.wire.next() => match arrival? {
                    Arrival::Frame(frame) => self.heard(&frame),
                    closed @ Arrival::Closed { .. } => {
                        self.show.closed(&closed);
                        return Ok(());
                    }
                }
            }
        }
        // At a terminal, end of input means that the user is done. With a pipe the remaining replies are still wanted.
        if !is_terminal {
            self.collect(wait).await?;
        }
        self.close().await
    }

    /// Sends each frame and waits for its reply, or sends all and collects replies for `wait`.
    async fn send_all(&mut self, frames: &[(FrameKind, Vec<u8>)], wait: Option<Duration>) -> Result<(), ConnectError> {
        for (kind, body) in frames {
            self.send(*kind, body, true)?;
            if wait.is_none() {
                self.collect(None).await?;
            }
        }
        if wait.is_some() {
            self.collect(wait).await?;
        }
        self.close().await
    }

    /// Runs the script; the first failed expectation ends it.
    async fn follow(&mut self, script: &Script) -> Result<(), ConnectError> {
        for (line, step) in &script.steps {
            let unexpected = |got: String| ConnectError::Unexpected(format!("{}:{line}: {got}", script.name));
            match step {
                ScriptStep::Send(body) => self.send(FrameKind::Text, body, true)?,
                ScriptStep::SendHex(body) => self.send(FrameKind::Binary, body, true)?,
                ScriptStep::Wait(time) => self.wait(*time).await?,
                ScriptStep::Close => self.close().await?,
                ScriptStep::Expect(wanted) => match self.expect_arrival().await {
                    Ok(Arrival::Frame(frame)) if frame.body == wanted[..] => {}
                    Ok(Arrival::Frame(frame)) => {
                        return Err(unexpected(format!(
                            "expected {}, got {}",
                            show::quoted(wanted),
                            show::quoted(&frame.body)
                        )));
                    }
                    Ok(closed) => return Err(unexpected(format!("expected {}, but {closed}", show::quoted(wanted)))),
                    Err(error) => return Err(unexpected(format!("expected {}: {error}", show::quoted(wanted)))),
                },
                ScriptStep::ExpectClose(wanted) => match self.expect_arrival().await {
                    Ok(Arrival::Closed { code, .. }) if wanted.is_none() || *wanted == code => {}
                    Ok(Arrival::Frame(frame)) => {
                        return Err(unexpected(format!("expected a close, got {}", show::quoted(&frame.body))));
                    }
                    Ok(closed) => return Err(unexpected(format!("expected another close code, but {closed}"))),
                    Err(error) => return Err(unexpected(format!("expected a close: {error}"))),
                },
            }
        }
        self.close().await
    }

    fn send(&mut self, kind: FrameKind, body: &[u8], show: bool) -> Result<(), ConnectError> {
        if let Some(closed) = &self.closed {
            return Err(ConnectError::Closed(format!("{closed} before all frames were sent")));
        }
        self.wire.queue(kind, body)?;
        self.asked.push_back(Instant::now());
        if show {
            self.show.sent(body);
        }
        Ok(())
    }

    fn heard(&mut self, frame: &Frame) {
        let took = self.asked.pop_front().map(|since| since.elapsed());
        self.show.received(&frame.body, took);
    }

    /// Prints replies: one for each frame without a reply yet or, with `wait`, all that come within that time.
    async fn collect(&mut self, wait: Option<Duration>) -> Result<(), ConnectError> {
        let until = tokio::time::Instant::now() + wait.unwrap_or(self.timeout);
        while wait.is_some() || !self.asked.is_empty() {
            match tokio::time::timeout_at(until, self.wire.next()).await {
                Ok(arrival) => match arrival? {
                    Arrival::Frame(frame) => self.heard(&frame),
                    closed @ Arrival::Closed { .. } => {
                        self.show.closed(&closed);
                        let how = format!("{closed} before all replies had come");
                        self.closed = Some(closed);
                        return if self.asked.is_empty() { Ok(()) } else { Err(ConnectError::Closed(how)) };
                    }
                },
                Err(_) if wait.is_some() => return Ok(()),
                Err(_) => return Err(ConnectError::NoReply(self.timeout)),
            }
        }
        Ok(())
    }

    /// The next frame, or how the server closed.
    async fn expect_arrival(&mut self) -> Result<Arrival, ConnectError> {
        if let Some(frame) = self.waiting.pop_front() {
            return Ok(Arrival::Frame(frame));
        }
        if let Some(closed) = &self.closed {
            return Ok(closed.clone());
        }
        let arrival =
            timeout(self.timeout, self.wire.next()).await.map_err(|_| ConnectError::NoReply(self.timeout))??;
        self.note_arrival(&arrival);
        Ok(arrival)
    }

    fn note_arrival(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Frame(frame) => self.heard(frame),
            Arrival::Closed { .. } => {
                self.show.closed(arrival);
                self.closed = Some(arrival.clone());
            }
        }
    }

    /// Waits for `time`. Meanwhile pings are answered and frames are kept for later expectations.
    async fn wait(&mut self, time: Duration) -> Result<(), ConnectError> {
        let until = tokio::time::Instant::now() + time;
        while self.closed.is_none() && self.waiting.len() < MAX_WAITING_FRAMES {
            let Ok(arrival) = tokio::time::timeout_at(until, self.wire.next()).await else { return Ok(()) };
            let arrival = arrival?;
            self.note_arrival(&arrival);
            if let Arrival::Frame(frame) = arrival {
                self.waiting.push_back(frame);
            }
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }

    /// Closes and waits until the server has closed too. Frames that were still on their way are printed.
    async fn close(&mut self) -> Result<(), ConnectError> {
        if self.closed.is_some() {
            return Ok(());
        }
        let until = tokio::time::Instant::now() + self.timeout;
        self.wire.close();
        let closing = async {
            loop {
                match self.wire.next().await? {
                    Arrival::Frame(frame) => {
                        let took = self.asked.pop_front().map(|since| since.elapsed());
                        self.show.received(&frame.body, took);
                    }
                    closed @ Arrival::Closed { .. } => return Ok::<_, ConnectError>(closed),
                }
            }
        };
        match tokio::time::timeout_at(until, closing).await {
            Ok(closed) => {
                let closed = closed?;
                self.show.closed(&closed);
                self.closed = Some(closed);
                Ok(())
            }
            Err(_) => Err(ConnectError::Closed(format!(
                "the server did not close within {}",
                crate::config::value::duration_text(self.timeout)
            ))),
        }
    }
}

/// The lines of standard input, read by a thread of its own, because a read from a terminal cannot be cancelled. When the server
/// closes, the thread stays blocked and ends with the process. At most one line waits in the channel.
fn stdin_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (lines_tx, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            if lines_tx.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}
