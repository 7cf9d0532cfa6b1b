//! A FastCGI client that repeats one request over kept connections, at fixed times or as fast as answers come. It measures the latency of
//! a request without any program between.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use longwire::commands::bench::process::Usage;
use longwire::commands::bench::timer::Timer;
use longwire::commands::bench::times::Times;
use mio::{Events, Poll, Token};
use serde_json::json;

use super::{INPUT_BYTES, read_all, surprise, watch, whole_answer};

const TIMER: Token = Token(usize::MAX - 1);
const WARM_UP: Duration = Duration::from_secs(1);

struct Connection {
    stream: UnixStream,
    /// When its current request was due.
    due: Option<Instant>,
    pending: Vec<u8>,
}

/// The rate of requests.
pub(super) struct Pace {
    /// Requests a second. Without a rate, a connection sends its next request as soon as it has an answer.
    pub(super) rate: Option<f64>,
    pub(super) connections: usize,
    pub(super) measured: Duration,
}

/// Repeats `request` at this pace and prints a report, with the CPU time of the process `server`. A request that is due while every
/// connection is busy waits for the first free one, and its latency counts from when it was due.
pub(super) fn run(socket: &Path, request: &[u8], server: u32, pace: &Pace) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let timer = Timer::new()?;
    watch(&poll, &timer, TIMER)?;
    let mut connections = Vec::new();
    for at in 0..pace.connections {
        let stream = UnixStream::connect(socket)?;
        stream.set_nonblocking(true)?;
        watch(&poll, &stream, Token(at))?;
        connections.push(Connection { stream, due: None, pending: Vec::new() });
    }
    // Use the connections in turn, because php-fpm closes a connection without a request in its first five seconds.
    let mut idle: VecDeque<usize> = (0..pace.connections).collect();
    let mut waiting = VecDeque::new();
    let (mut events, mut input, mut times) = (Events::with_capacity(64), vec![0; INPUT_BYTES], Times::new());
    let start = Instant::now();
    let (begin, end) = (start + WARM_UP, start + WARM_UP + pace.measured);
    let nth_due = |number: u64| pace.rate.map(|rate| start + Duration::from_secs_f64(number as f64 / rate));
    let (mut sent, mut before) = (0, None);
    loop {
        let now = Instant::now();
        if before.is_none() && now >= begin {
            before = Some(Usage::now(&[server]));
        }
        if now >= end {
            break;
        }
        while let Some(due) = nth_due(sent).filter(|due| *due <= now) {
            waiting.push_back(due);
            sent += 1;
        }
        if pace.rate.is_none() {
            waiting.extend(idle.iter().map(|_| now));
        }
        while !waiting.is_empty()
            && let Some(at) = idle.pop_front()
        {
            connections[at].due = waiting.pop_front();
            connections[at].stream.write_all(request)?;
        }
        timer.set(nth_due(sent).unwrap_or(end).saturating_duration_since(Instant::now()))?;
        poll.poll(&mut events, None)?;
        for event in &events {
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            if !read_all(&mut connection.stream, &mut input, &mut connection.pending) {
                return Err(surprise("a kept connection was closed"));
            }
            if whole_answer(&connection.pending).is_none() {
                continue;
            }
            connection.pending.clear();
            let due = connection.due.take().ok_or_else(|| surprise("an answer to nothing"))?;
            idle.push_back(event.token().0);
            if due >= begin {
                times.record(due.elapsed().as_nanos() as u64);
            }
        }
    }
    let before = before.ok_or_else(|| surprise("it has ended before it began"))?;
    let replies = times.summary().count;
    let mut cpu = json!(before.until(&Usage::now(&[server]), replies));
    // In the same order as in other reports: the client's CPU time first.
    cpu["cpu_us_per_message"] = json!([cpu["generator_cpu_us_per_message"], cpu["cpu_us_per_message"][0]]);
    let report = json!({
        "connections": pace.connections,
        "connected": pace.connections,
        "replies": replies,
        "replies_per_s": replies as f64 / pace.measured.as_secs_f64(),
        "latency": times.summary(),
        "cpu": cpu,
    });
    println!("{report}");
    Ok(())
}
