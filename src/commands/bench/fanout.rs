//! `bench fanout`: one publisher, many subscribers. Each message must reach each subscriber of its channel once.
//!
//! With a window, at most that many messages are on their way, which means not delivered to every subscriber yet. With a rate, each
//! message is published when it is due, and its latency counts from then. Several channels are used in turn: subscriber n is in
//! channel n modulo their count, and message n is for channel n modulo their count.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::BenchError;
use super::bench_run::BenchRun;
use super::endpoint::Endpoint;
use super::process::Cpu;
use super::publisher::{CHANNEL, Publisher};
use super::report;
use super::stamp::{Fit, Message};
use super::subscriber::{Subscriber, Underway};
use super::swarm::{After, ConnectionHandle, Load, Measured, Nanos, Swarm};
use super::times::Times;
use super::trouble::{Trouble, Troubles};
use crate::commands::cli::FanoutArgs;

/// How often the run looks for overdue messages.
const SCAN: Nanos = 50_000_000;

pub(super) fn run(args: &FanoutArgs) -> Result<(), BenchError> {
    let usage = BenchError::Usage;
    let message = Message::new(args.bytes, true).map_err(usage)?;
    if args.channels > args.connections {
        return Err(usage(format!(
            "{} channels for {} subscribers: some channels would have no subscriber",
            args.channels, args.connections
        )));
    }
    let endpoint = Rc::new(Endpoint::new(&args.url, &args.common.header, &args.common, false).map_err(usage)?);
    if endpoint.is_raw() && !args.any_reply {
        return Err(usage(
            "raw framing has no message boundaries: use --any-reply, which counts each read as one delivery".into(),
        ));
    }
    let publisher = Publisher::new(args).map_err(usage)?;
    let mut run = BenchRun::new(args.connections + 1, &args.common)?;
    for _ in 0..args.connections {
        run.swarm.add(&endpoint);
    }
    let publishing_place = run.swarm.add(&publisher.endpoint);
    let mut fanout = Fanout::new(args, message, publisher, publishing_place);
    run.go(&mut fanout, Nanos::MAX, |_, swarm| swarm.pending() == 0)?;
    let answered = run.after(args.common.timeout);
    run.go(&mut fanout, answered, |fanout, _| fanout.is_prepared())?;
    fanout.give_up_mute(&mut run.swarm);
    let connected = fanout.subscribers.iter().filter(|subscriber| subscriber.is_live()).count();
    let why = |fanout: &Fanout| fanout.troubles.worst().unwrap_or("interrupted").to_owned();
    if connected == 0 {
        run.finish();
        return Err(BenchError::Nobody(format!(
            "none of {} subscribers could join at {}: {}",
            args.connections,
            args.url,
            why(&fanout)
        )));
    }
    if !fanout.publisher.is_ready() {
        run.finish();
        let why = fanout.publisher_trouble.take().unwrap_or_else(|| why(&fanout));
        return Err(BenchError::Nobody(format!("cannot publish at {}: {why}", args.publish)));
    }
    run.event("connected");
    let [before, after] = run.measure(&mut fanout, &args.times)?;
    let interrupted = run.swarm.is_interrupted();
    let drained = run.after(args.common.timeout + Duration::from_nanos(2 * SCAN));
    run.go(&mut fanout, drained, |fanout, _| fanout.underway.is_empty())?;
    run.finish();

    let report = fanout.report(args, connected, interrupted, before.until(&after, fanout.deliveries));
    report::print(&report, args.common.json);
    if fanout.delivered == 0 {
        let nothing = format!("{} messages were published, but none was delivered", fanout.published.len());
        return Err(BenchError::Nobody(
            fanout.troubles.worst().map_or(nothing.clone(), |why| format!("{nothing}: {why}")),
        ));
    }
    Ok(())
}

struct Fanout {
    subscribers: Vec<Subscriber>,
    live: usize,
    /// Live subscribers of each channel.
    live_in: Vec<usize>,
    publisher: Publisher,
    publishing_place: usize,
    publisher_trouble: Option<String>,
    message: Message,
    say: Option<String>,
    any_reply: bool,
    window: usize,
    rate: Option<f64>,
    timeout: Nanos,
    is_publishing: bool,
    start: Nanos,
    begin: Nanos,
    end: Nanos,
    next_scan: Nanos,
    /// For each published message, the time that its latency counts from.
    published: Vec<Nanos>,
    underway: VecDeque<Underway>,
    /// Number of messages in `underway` that at least one subscriber has not got.
    unfinished: usize,
    messages: u64,
    deliveries: u64,
    delivered: u64,
    /// Messages lost by subscribers that have disconnected.
    lost: u64,
    repeated: u64,
    out_of_order: u64,
    wrong: u64,
    unsent: u64,
    pings: u64,
    times: Times,
    last_times: Times,
    troubles: Troubles,
}

impl Fanout {
    fn new(args: &FanoutArgs, message: Message, publisher: Publisher, publishing_place: usize) -> Self {
        Self {
            subscribers: (0..args.connections).map(|_| Subscriber::default()).collect(),
            live: 0,
            live_in: vec![0; args.channels],
            publisher,
            publishing_place,
            publisher_trouble: None,
            message,
            say: args.say.clone(),
            any_reply: args.any_reply,
            window: args.window,
            rate: args.rate,
            timeout: args.common.timeout.as_nanos() as Nanos,
            is_publishing: false,
            start: 0,
            begin: Nanos::MAX,
            end: Nanos::MAX,
            next_scan: 0,
            published: Vec::new(),
            underway: VecDeque::new(),
            unfinished: 0,
            messages: 0,
            deliveries: 0,
            delivered: 0,
            lost: 0,
            repeated: 0,
            out_of_order: 0,
            wrong: 0,
            unsent: 0,
            pings: 0,
            times: Times::new(),
            last_times: Times::new(),
            troubles: Troubles::default(),
        }
    }

    /// The report on the whole run.
    fn report(&self, args: &FanoutArgs, connected: usize, interrupted: bool, cpu: Cpu) -> report::Fanout {
        let window = (self.end - self.begin) as f64 / 1e9;
        report::Fanout {
            mode: "fanout",
            url: args.url.clone(),
            publish: args.publish.clone(),
            connections: args.connections,
            connected,
            channels: args.channels,
            window: args.rate.is_none().then_some(args.window),
            message_bytes: args.bytes,
            rate_per_s: args.rate,
            interrupted,
            window_s: window,
            messages: self.messages,
            messages_per_s: self.messages as f64 / window.max(1e-9),
            deliveries: self.deliveries,
            deliveries_per_s: self.deliveries as f64 / window.max(1e-9),
            latency_from: if args.rate.is_some() { "intended" } else { "published" },
            latency: self.times.summary(),
            latency_of_last: self.last_times.summary(),
            published: self.published.len() as u64,
            delivered: self.delivered,
            lost: self.lost(),
            repeated: self.repeated,
            out_of_order: self.out_of_order,
            wrong: self.wrong,
            unsent: self.unsent,
            pings: self.pings,
            cpu,
            errors: self.troubles.list(),
            notes: self.notes(),
        }
    }

    fn is_prepared(&self) -> bool {
        let publisher = self.publisher.is_ready() || self.publisher_trouble.is_some();
        publisher && self.subscribers.iter().all(|subscriber| subscriber.has_joined || !subscriber.is_open)
    }

    /// Drops subscribers without an answer to `--say`: they have not joined, and every message would count as lost.
    fn give_up_mute(&mut self, swarm: &mut Swarm) {
        for who in 0..self.subscribers.len() {
            let subscriber = &mut self.subscribers[who];
            if subscriber.is_open && !subscriber.has_joined {
                subscriber.is_open = false;
                swarm.drop_connection(who);
                self.troubles.count(&Trouble::Timeout("no answer to --say"));
            }
        }
    }

    /// The channel of a subscriber or of a message with this number.
    fn channel(&self, number: u64) -> usize {
        (number % self.live_in.len() as u64) as usize
    }

    /// How many messages were for the channel of this subscriber.
    fn published_for(&self, who: usize) -> u64 {
        let (channels, channel) = (self.live_in.len() as u64, self.channel(who as u64) as u64);
        (self.published.len() as u64 + channels - 1 - channel) / channels
    }

    fn lost(&self) -> u64 {
        // Messages that are still on their way when a run is interrupted are not lost.
        let underway: u64 = self.underway.iter().map(|message| message.missing as u64).sum();
        let live = self.subscribers.iter().enumerate().filter(|(_, subscriber)| subscriber.is_live());
        let missing: u64 = live.map(|(who, subscriber)| subscriber.sequence.missing(self.published_for(who))).sum();
        self.lost + missing.saturating_sub(underway)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.wrong > 0 && self.wrong >= self.delivered {
            notes.push(
                "deliveries differ from the messages; if a script wraps or changes the messages, use --any-reply"
                    .to_owned(),
            );
        }
        notes
    }

    fn nth_due(&self, number: u64) -> Nanos {
        self.start + (number as f64 * 1e9 / self.rate.expect("messages are due only with --rate")) as Nanos
    }

    fn publish(&mut self, swarm: &mut Swarm) {
        swarm.with(self.publishing_place, self, |fanout: &mut Self, handle| {
            let from = match fanout.rate {
                Some(_) => fanout.nth_due(fanout.published.len() as u64),
                None => handle.now,
            };
            let number = fanout.published.len() as u64;
            let channel = fanout.channel(number);
            let body = fanout.message.stamped(0, number, from / 1000);
            fanout.publisher.publish(handle, channel, body);
            fanout.published.push(from);
            let missing = fanout.live_in[channel];
            fanout.underway.push_back(Underway { number, missing });
            fanout.unfinished += usize::from(missing > 0);
            fanout.forget_finished();
            if (fanout.begin..fanout.end).contains(&handle.now) {
                fanout.messages += 1;
            }
        });
    }

    fn deliver(&mut self, who: usize, now: Nanos, body: &[u8]) {
        let sent = self.published.len() as u64;
        let (channels, channel) = (self.live_in.len() as u64, self.channel(who as u64));
        let number = if self.any_reply {
            let next = self.subscribers[who].sequence.next() * channels + channel as u64;
            if next >= sent {
                self.repeated += 1;
                return;
            }
            next
        } else {
            let stamp = self.message.read(body).map(|stamp| stamp.number);
            let Some(number) = stamp.filter(|number| *number < sent && self.channel(*number) == channel) else {
                self.wrong += 1;
                return;
            };
            number
        };
        match self.subscribers[who].sequence.take(number / channels) {
            Fit::Again => {
                self.repeated += 1;
                return;
            }
            Fit::Late => self.out_of_order += 1,
            Fit::Ahead => {}
        }
        self.delivered += 1;
        let from = self.published[number as usize];
        if (self.begin..self.end).contains(&now) {
            self.deliveries += 1;
        }
        let is_measured = (self.begin..self.end).contains(&from);
        if is_measured {
            self.times.record(now.saturating_sub(from));
        }
        self.has_got(number, is_measured.then(|| now.saturating_sub(from)));
    }

    /// One more subscriber has this message or will never get it. `took` is the delivery time, if it is to be measured.
    fn has_got(&mut self, number: u64, took: Option<Nanos>) {
        let Some(first) = self.underway.front().map(|message| message.number) else { return };
        // A message that has timed out may still come.
        let Some(at) = number.checked_sub(first) else { return };
        let message = &mut self.underway[at as usize];
        message.missing = message.missing.saturating_sub(1);
        if message.missing == 0 {
            self.unfinished -= 1;
            if let Some(took) = took {
                self.last_times.record(took);
            }
            self.forget_finished();
        }
    }

    fn forget_finished(&mut self) {
        while self.underway.front().is_some_and(|message| message.missing == 0) {
            self.underway.pop_front();
        }
    }

    /// Gives up messages that have been on their way for longer than the timeout.
    fn expire(&mut self, now: Nanos) {
        while let Some(message) = self.underway.front()
            && self.published[message.number as usize] + self.timeout <= now
        {
            for _ in 0..message.missing {
                self.troubles.count(&Trouble::Timeout("no delivery"));
            }
            self.unfinished -= usize::from(message.missing > 0);
            self.underway.pop_front();
        }
    }

    fn join(&mut self, who: usize) {
        self.subscribers[who].has_joined = true;
        self.live += 1;
        let channel = self.channel(who as u64);
        self.live_in[channel] += 1;
    }
}

/// The text with `{channel}` replaced by the number of a channel.
fn in_channel(text: &str, channel: usize) -> String {
    text.replace(CHANNEL, &channel.to_string())
}

impl Measured for Fanout {
    fn start(&mut self, swarm: &mut Swarm) {
        self.is_publishing = true;
        self.start = swarm.now();
    }

    fn begin(&mut self, now: Nanos) {
        self.begin = now;
    }

    fn stop(&mut self, now: Nanos) {
        self.is_publishing = false;
        self.end = now;
        if self.rate.is_some() {
            let mut number = self.published.len() as u64;
            while self.nth_due(number) < now {
                self.unsent += 1;
                number += 1;
            }
        }
    }

    fn is_deserted(&self) -> bool {
        self.live == 0 || self.publisher_trouble.is_some()
    }
}

impl Load for Fanout {
    fn opened(&mut self, handle: &mut ConnectionHandle<'_>) {
        if handle.who == self.publishing_place {
            return self.publisher.opened(handle);
        }
        self.subscribers[handle.who].is_open = true;
        match &self.say {
            Some(text) => handle.say(in_channel(text, self.channel(handle.who as u64)).as_bytes()),
            None => self.join(handle.who),
        }
    }

    fn heard(&mut self, handle: &mut ConnectionHandle<'_>, body: &Bytes) {
        if handle.who == self.publishing_place {
            if let Err(trouble) = self.publisher.heard(handle, body) {
                self.troubles.count(&trouble);
            }
            if handle.closes() {
                self.publisher.ended();
                handle.leave(After::Again);
            }
            return;
        }
        if !self.subscribers[handle.who].has_joined {
            self.join(handle.who);
        } else if !self.published.is_empty() {
            self.deliver(handle.who, handle.now, body);
        }
    }

    fn failed(&mut self, handle: &mut ConnectionHandle<'_>, trouble: Trouble) {
        self.troubles.count(&trouble);
        self.publisher.failed();
        if handle.closes() {
            self.publisher.ended();
            handle.leave(After::Again);
        }
    }

    fn pinged(&mut self) {
        self.pings += 1;
    }

    fn ended(&mut self, who: usize, _now: Nanos, trouble: Trouble) -> After {
        if who == self.publishing_place {
            let was_ready = self.publisher.is_ready();
            self.publisher.ended();
            // A server may close an HTTP keep-alive connection between two requests.
            if self.publisher.is_http() && was_ready && matches!(trouble, Trouble::Closed { .. } | Trouble::Lost(_)) {
                return After::Again;
            }
            self.troubles.count(&trouble);
            self.publisher_trouble = Some(trouble.to_string());
            return After::Gone;
        }
        self.troubles.count(&trouble);
        let subscriber = &mut self.subscribers[who];
        let was_live = subscriber.is_live();
        subscriber.is_open = false;
        if was_live {
            let (channel, channels) = (self.channel(who as u64), self.live_in.len() as u64);
            self.live -= 1;
            self.live_in[channel] -= 1;
            self.lost += self.subscribers[who].sequence.missing(self.published_for(who));
            let numbers = self.underway.iter().map(|message| message.number);
            let numbers: Vec<u64> = numbers.filter(|number| self.channel(*number) == channel).collect();
            for number in numbers {
                if !self.subscribers[who].sequence.has(number / channels) {
                    self.has_got(number, None);
                }
            }
        }
        After::Gone
    }

    fn tick(&mut self, swarm: &mut Swarm, now: Nanos) -> Nanos {
        if now >= self.next_scan {
            self.next_scan = now + SCAN;
            self.expire(now);
        }
        if !self.is_publishing || self.live == 0 {
            return self.next_scan;
        }
        if self.rate.is_none() {
            while self.unfinished < self.window && self.publisher.is_ready() {
                self.publish(swarm);
            }
            return self.next_scan;
        }
        while self.nth_due(self.published.len() as u64) <= now && self.publisher.is_ready() {
            self.publish(swarm);
        }
        match self.nth_due(self.published.len() as u64) {
            due if due > now => due.min(self.next_scan),
            // The publisher still waits for its answer to the previous message.
            _ => self.next_scan,
        }
    }

    fn line(&self, now: Nanos) -> String {
        let seconds = now / 1_000_000_000;
        let faults = self.wrong + self.repeated + self.out_of_order;
        format!(
            "{seconds}s: {} subscribers, {} messages, {} deliveries, {faults} faults, {} errors",
            self.live,
            self.published.len(),
            self.delivered,
            self.troubles.total()
        )
    }
}
