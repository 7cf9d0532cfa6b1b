//! `bench echo`: each client sends messages and checks their replies.
//!
//! Without a rate, a client sends its next message as soon as a reply has come, and latency is response time. With a rate, message
//! number i is due at a fixed time, for client i modulo the number of clients. If that client has `--in-flight` messages without a
//! reply, the message is sent later, but its latency counts from when it was due. (Otherwise a server that stalls would delay the very
//! messages that would have shown the stall.)

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::BenchError;
use super::bench_run::BenchRun;
use super::endpoint::{Endpoint, Speech};
use super::process::Cpu;
use super::report;
use super::stamp::{Fit, MAX_CLIENTS, Message, Sequence};
use super::swarm::{After, ConnectionHandle, Load, Measured, Nanos, Swarm};
use super::times::Times;
use super::trouble::{Trouble, Troubles};
use crate::commands::cli::EchoArgs;

/// How often the run looks for overdue replies.
const SCAN: Nanos = 50_000_000;
/// A client that waits longer than this for a reply counts as silent.
const SILENCE: Nanos = 1_000_000_000;

pub(super) fn run(args: &EchoArgs) -> Result<(), BenchError> {
    let usage = BenchError::Usage;
    let message = Message::new(args.bytes, false).map_err(usage)?;
    if args.connections > MAX_CLIENTS {
        return Err(usage(format!("--connections must be at most {MAX_CLIENTS}")));
    }
    let endpoint = Rc::new(Endpoint::new(&args.url, &args.common.header, &args.common, true).map_err(usage)?);
    let is_http = matches!(endpoint.speech, Speech::Http { .. });
    if is_http && args.in_flight > 1 {
        return Err(usage("--in-flight must be 1 for http://: a connection carries one request at a time".into()));
    }
    let mut run = BenchRun::new(args.connections, &args.common)?;
    let mut echo = Echo::new(args, message, is_http, endpoint.is_raw() && !args.any_reply);
    for _ in 0..args.connections {
        run.swarm.add(&endpoint);
    }
    run.go(&mut echo, Nanos::MAX, |_, swarm| swarm.pending() == 0)?;
    let connected = echo.clients.iter().filter(|client| client.is_open).count();
    if connected == 0 {
        run.finish();
        return Err(echo.troubles.nothing_opened(args.connections, &args.url));
    }
    run.event("connected");
    let [before, after] = run.measure(&mut echo, &args.times)?;
    let interrupted = run.swarm.is_interrupted();
    let in_flight_at_end = echo.waiting();
    let drained = run.after(args.common.timeout + Duration::from_nanos(2 * SCAN));
    run.go(&mut echo, drained, |echo, _| echo.waiting() == 0)?;
    run.finish();

    let report = echo.report(args, connected, in_flight_at_end, interrupted, before.until(&after, echo.replies));
    report::print(&report, args.common.json);
    if echo.answered == 0 {
        let why = echo
            .troubles
            .worst()
            .unwrap_or("no reply was equal to its message (use --any-reply if the script does not echo)");
        return Err(BenchError::Nobody(format!("no valid reply came: {why}")));
    }
    Ok(())
}

struct SentMessage {
    number: u64,
    /// The time that its latency counts from.
    from: Nanos,
    sent: Nanos,
}

#[derive(Default)]
struct Client {
    is_open: bool,
    /// Its connection has ended and the next one is being opened.
    is_returning: bool,
    /// Messages sent; the number of the next one.
    next: u64,
    waiting: VecDeque<SentMessage>,
    sequence: Sequence,
    /// Messages that are due but not sent, because `in_flight` messages have no reply yet.
    backlog: u64,
    /// Since when this client has had no reply.
    since: Nanos,
    was_silent: bool,
    /// For raw framing: the part of the next reply that has come.
    partial: Vec<u8>,
}

struct Echo {
    clients: Vec<Client>,
    message: Message,
    any_reply: bool,
    is_http: bool,
    cuts: bool,
    in_flight: usize,
    timeout: Nanos,
    rate: Option<f64>,
    is_sending: bool,
    start: Nanos,
    /// Number of messages that were due so far.
    due: u64,
    begin: Nanos,
    end: Nanos,
    next_scan: Nanos,
    replies: u64,
    answered: u64,
    repeated: u64,
    out_of_order: u64,
    wrong: u64,
    timeouts: u64,
    unsent: u64,
    pings: u64,
    times: Times,
    troubles: Troubles,
}

impl Echo {
    fn new(args: &EchoArgs, message: Message, is_http: bool, cuts: bool) -> Self {
        let client = || Client { waiting: VecDeque::with_capacity(args.in_flight.min(1024)), ..Client::default() };
        Self {
            clients: (0..args.connections).map(|_| client()).collect(),
            message,
            any_reply: args.any_reply,
            is_http,
            cuts,
            in_flight: args.in_flight,
            timeout: args.common.timeout.as_nanos() as Nanos,
            rate: args.rate,
            is_sending: false,
            start: 0,
            due: 0,
            begin: Nanos::MAX,
            end: Nanos::MAX,
            next_scan: 0,
            replies: 0,
            answered: 0,
            repeated: 0,
            out_of_order: 0,
            wrong: 0,
            timeouts: 0,
            unsent: 0,
            pings: 0,
            times: Times::new(),
            troubles: Troubles::default(),
        }
    }

    /// The report on the whole run.
    fn report(
        &self,
        args: &EchoArgs,
        connected: usize,
        in_flight_at_end: usize,
        interrupted: bool,
        cpu: Cpu,
    ) -> report::Echo {
        let window = (self.end - self.begin) as f64 / 1e9;
        report::Echo {
            mode: "echo",
            url: args.url.clone(),
            connections: args.connections,
            connected,
            in_flight: args.in_flight,
            message_bytes: args.bytes,
            rate_per_s: args.rate,
            interrupted,
            window_s: window,
            replies: self.replies,
            replies_per_s: self.replies as f64 / window.max(1e-9),
            latency_from: if args.rate.is_some() { "intended" } else { "response" },
            latency: self.times.summary(),
            clients_silent_over_1s: self.clients.iter().filter(|client| client.was_silent).count(),
            sent: self.clients.iter().map(|client| client.next).sum(),
            lost: self.lost(),
            repeated: self.repeated,
            out_of_order: self.out_of_order,
            wrong: self.wrong,
            timeouts: self.timeouts,
            unsent: self.unsent,
            in_flight_at_end,
            pings: self.pings,
            cpu,
            errors: self.troubles.list(),
            notes: self.notes(),
        }
    }

    fn waiting(&self) -> usize {
        self.clients.iter().map(|client| client.waiting.len()).sum()
    }

    /// Number of messages that were sent, have no reply and are no longer waited for.
    fn lost(&self) -> u64 {
        let missing = |client: &Client| client.sequence.missing(client.next) - client.waiting.len() as u64;
        self.clients.iter().map(missing).sum()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.wrong > 0 && self.wrong >= self.answered {
            notes.push("replies differ from the messages; if the script does not echo, use --any-reply".to_owned());
        }
        notes
    }

    /// When message `k` of a client is due.
    fn due_at(&self, who: usize, k: u64) -> Nanos {
        let number = who as u64 + k * self.clients.len() as u64;
        self.nth_due(number)
    }

    fn nth_due(&self, number: u64) -> Nanos {
        self.start + (number as f64 * 1e9 / self.rate.expect("messages are due only with --rate")) as Nanos
    }

    /// Sends messages until this client has `in_flight` without a reply or, with a rate, no more is due.
    fn fill(&mut self, handle: &mut ConnectionHandle<'_>) {
        let who = handle.who;
        while self.is_sending && self.clients[who].waiting.len() < self.in_flight {
            let number = self.clients[who].next;
            let from = if self.rate.is_some() {
                if self.clients[who].backlog == 0 {
                    return;
                }
                self.clients[who].backlog -= 1;
                self.due_at(who, number)
            } else {
                handle.now
            };
            let client = &mut self.clients[who];
            handle.say(self.message.stamped(who, number, 0));
            client.next += 1;
            if client.waiting.is_empty() {
                client.since = handle.now;
            }
            client.waiting.push_back(SentMessage { number, from, sent: handle.now });
        }
    }

    /// Handles one whole reply.
    fn reply(&mut self, who: usize, now: Nanos, body: &[u8]) {
        let client = &mut self.clients[who];
        let number = if self.any_reply {
            client.waiting.front().map(|waiting| waiting.number)
        } else {
            let stamp = self.message.read(body).filter(|stamp| stamp.client == who && stamp.number < client.next);
            if stamp.is_none() {
                self.wrong += 1;
                // It is still a reply, most likely to the oldest message.
                if let Some(waiting) = client.waiting.pop_front() {
                    client.sequence.take(waiting.number);
                    client.answered_at(now, self.begin, self.end);
                }
                return;
            }
            stamp.map(|stamp| stamp.number)
        };
        let Some(number) = number else {
            self.repeated += 1;
            return;
        };
        match client.sequence.take(number) {
            Fit::Again => {
                self.repeated += 1;
                return;
            }
            Fit::Late => self.out_of_order += 1,
            Fit::Ahead => {}
        }
        self.answered += 1;
        let found = match client.waiting.front() {
            Some(front) if front.number == number => client.waiting.pop_front(),
            _ => client
                .waiting
                .iter()
                .position(|waiting| waiting.number == number)
                .and_then(|at| client.waiting.remove(at)),
        };
        client.answered_at(now, self.begin, self.end);
        if (self.begin..self.end).contains(&now) {
            self.replies += 1;
        }
        if let Some(waiting) = found
            && (self.begin..self.end).contains(&waiting.from)
        {
            self.times.record(now.saturating_sub(waiting.from));
        }
    }

    fn expire(&mut self, swarm: &mut Swarm, now: Nanos) {
        for who in 0..self.clients.len() {
            let mut expired = false;
            while let Some(SentMessage { sent, from, .. }) = self.clients[who].waiting.front()
                && sent + self.timeout <= now
            {
                let from = *from;
                self.timeouts += 1;
                self.troubles.count(&Trouble::Timeout("no reply"));
                let client = &mut self.clients[who];
                if (self.begin..self.end).contains(&from) {
                    // The reply would have taken at least this long.
                    self.times.record(now - from);
                }
                client.waiting.pop_front();
                client.answered_at(now, self.begin, self.end);
                expired = true;
            }
            if expired && (self.is_http || self.any_reply) {
                // The late reply could still come and would be taken for the reply to the next message. A new connection avoids that.
                let client = &mut self.clients[who];
                client.waiting.clear();
                (client.is_open, client.is_returning) = (false, true);
                swarm.drop_connection(who);
                swarm.reopen(who);
            } else if expired {
                swarm.with(who, self, Self::fill);
            }
        }
    }
}

impl Client {
    fn answered_at(&mut self, now: Nanos, begin: Nanos, end: Nanos) {
        self.was_silent |= now - self.since > SILENCE && (begin..end).contains(&now);
        self.since = now;
    }
}

impl Measured for Echo {
    fn start(&mut self, swarm: &mut Swarm) {
        self.is_sending = true;
        self.start = swarm.now();
        if self.rate.is_some() {
            return;
        }
        for who in 0..self.clients.len() {
            swarm.with(who, self, Self::fill);
        }
    }

    fn begin(&mut self, now: Nanos) {
        self.begin = now;
    }

    /// Stops sending. Messages that are due but not sent count as having waited until now.
    fn stop(&mut self, now: Nanos) {
        self.is_sending = false;
        self.end = now;
        for who in 0..self.clients.len() {
            if self.clients[who].is_open {
                for k in 0..self.clients[who].backlog {
                    let from = self.due_at(who, self.clients[who].next + k);
                    if from >= self.begin {
                        self.times.record(now - from);
                    }
                }
            }
            let client = &mut self.clients[who];
            self.unsent += std::mem::take(&mut client.backlog);
            client.was_silent |= !client.waiting.is_empty() && now - client.since > SILENCE;
        }
    }

    fn is_deserted(&self) -> bool {
        self.clients.iter().all(|client| !client.is_open && !client.is_returning)
    }
}

impl Load for Echo {
    fn opened(&mut self, handle: &mut ConnectionHandle<'_>) {
        let client = &mut self.clients[handle.who];
        (client.is_open, client.is_returning) = (true, false);
        self.fill(handle);
    }

    fn heard(&mut self, handle: &mut ConnectionHandle<'_>, body: &Bytes) {
        if self.cuts {
            let mut partial = std::mem::take(&mut self.clients[handle.who].partial);
            partial.extend_from_slice(body);
            let whole = partial.len() - partial.len() % self.message.len();
            for reply in partial[..whole].chunks(self.message.len()) {
                self.reply(handle.who, handle.now, reply);
            }
            partial.drain(..whole);
            self.clients[handle.who].partial = partial;
        } else {
            self.reply(handle.who, handle.now, body);
        }
        if self.is_http && handle.closes() {
            handle.leave(After::Again);
        } else {
            self.fill(handle);
        }
    }

    fn failed(&mut self, handle: &mut ConnectionHandle<'_>, trouble: Trouble) {
        self.troubles.count(&trouble);
        let client = &mut self.clients[handle.who];
        if let Some(waiting) = client.waiting.pop_front() {
            client.sequence.take(waiting.number);
            client.answered_at(handle.now, self.begin, self.end);
        }
        if handle.closes() {
            handle.leave(After::Again);
        } else {
            self.fill(handle);
        }
    }

    fn pinged(&mut self) {
        self.pings += 1;
    }

    fn ended(&mut self, who: usize, now: Nanos, trouble: Trouble) -> After {
        let client = &mut self.clients[who];
        // A server may close an HTTP keep-alive connection between two requests.
        let is_usual = self.is_http
            && client.is_open
            && client.waiting.is_empty()
            && matches!(trouble, Trouble::Closed { .. } | Trouble::Lost(_));
        if !is_usual {
            self.troubles.count(&trouble);
            client.answered_at(now, self.begin, self.end);
            client.waiting.clear();
        }
        client.is_returning = false;
        let comes_back = self.is_http && client.is_open && self.end == Nanos::MAX;
        client.is_open &= comes_back && matches!(trouble, Trouble::Closed { .. } | Trouble::Lost(_));
        if client.is_open { After::Again } else { After::Gone }
    }

    fn tick(&mut self, swarm: &mut Swarm, now: Nanos) -> Nanos {
        if now >= self.next_scan {
            self.next_scan = now + SCAN;
            self.expire(swarm, now);
        }
        if self.rate.is_none() || !self.is_sending {
            return self.next_scan;
        }
        while self.nth_due(self.due) <= now {
            let who = (self.due % self.clients.len() as u64) as usize;
            self.due += 1;
            let client = &mut self.clients[who];
            if client.is_returning {
                client.backlog += 1;
            } else if client.is_open {
                client.backlog += 1;
                swarm.with(who, self, Self::fill);
            } else {
                self.unsent += 1;
            }
        }
        self.nth_due(self.due).min(self.next_scan)
    }

    fn line(&self, now: Nanos) -> String {
        let open = self.clients.iter().filter(|client| client.is_open).count();
        let faults = self.wrong + self.repeated + self.out_of_order + self.timeouts;
        let seconds = now / 1_000_000_000;
        format!("{seconds}s: {open} open, {} replies, {faults} faults, {} errors", self.answered, self.troubles.total())
    }
}
