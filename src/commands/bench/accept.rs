//! `bench accept`: clients connect, make the handshake, send a message if `--say` is given, and disconnect.
//!
//! The kernel completes a TCP connection before the server has accepted it. If clients disconnected at once, connections would pile
//! up in the backlog whenever the server is slower than the clients. So a client that has received nothing closes its own direction
//! and waits until the server closes too. All other clients disconnect with a reset, which leaves no port in TIME_WAIT.

use std::rc::Rc;

use bytes::Bytes;

use super::BenchError;
use super::bench_run::BenchRun;
use super::endpoint::Endpoint;
use super::report;
use super::swarm::{After, ConnectionHandle, Load, Measured, Nanos, Swarm};
use super::times::Times;
use super::trouble::{Trouble, Troubles};
use crate::commands::cli::AcceptArgs;

/// How often the run looks for clients whose answer is overdue.
const SCAN: Nanos = 50_000_000;

pub(super) fn run(args: &AcceptArgs) -> Result<(), BenchError> {
    let usage = BenchError::Usage;
    let endpoint = Rc::new(Endpoint::new(&args.url, &args.common.header, &args.common, false).map_err(usage)?);
    let mut run = BenchRun::new(args.parallel, &args.common)?;
    run.swarm.max_opening = args.parallel;
    let mut accept = Accept {
        asked: vec![None; args.parallel],
        begun: vec![0; args.parallel],
        waits_for_end: endpoint.is_silent() && args.say.is_none(),
        say: args.say.as_ref().map(|text| text.as_bytes().to_vec()),
        timeout: args.common.timeout.as_nanos() as Nanos,
        begin: Nanos::MAX,
        end: Nanos::MAX,
        next_scan: 0,
        total: 0,
        accepted: 0,
        failed: 0,
        times: Times::new(),
        troubles: Troubles::default(),
    };
    for _ in 0..args.parallel {
        run.swarm.add(&endpoint);
    }
    // Give up if nothing was accepted after as many errors as there are clients.
    run.go(&mut accept, Nanos::MAX, |accept, _| accept.total > 0 || accept.troubles.total() >= args.parallel as u64)?;
    if accept.total == 0 {
        run.finish();
        return Err(accept.troubles.nothing_opened(args.parallel, &args.url));
    }
    run.event("connected");
    let [before, after] = run.measure(&mut accept, &args.times)?;
    let interrupted = run.swarm.is_interrupted();
    run.finish();

    let window = (accept.end - accept.begin) as f64 / 1e9;
    let report = report::Accept {
        mode: "accept",
        url: args.url.clone(),
        parallel: args.parallel,
        interrupted,
        window_s: window,
        accepted: accept.accepted,
        accepted_per_s: accept.accepted as f64 / window.max(1e-9),
        latency: accept.times.summary(),
        failed: accept.failed,
        cpu: before.until(&after, accept.accepted),
        errors: accept.troubles.list(),
        notes: Vec::new(),
    };
    report::print(&report, args.common.json);
    Ok(())
}

struct Accept {
    /// When each client sent its message or closed its direction; `None` if it does not wait for an answer.
    asked: Vec<Option<Nanos>>,
    waits_for_end: bool,
    /// When each client began to connect.
    begun: Vec<Nanos>,
    say: Option<Vec<u8>>,
    timeout: Nanos,
    begin: Nanos,
    end: Nanos,
    next_scan: Nanos,
    total: u64,
    accepted: u64,
    failed: u64,
    times: Times,
    troubles: Troubles,
}

impl Accept {
    fn is_measured(&self, now: Nanos) -> bool {
        (self.begin..self.end).contains(&now)
    }

    fn done(&mut self, who: usize, now: Nanos, took: Nanos) {
        self.asked[who] = None;
        self.total += 1;
        if self.is_measured(now) {
            self.accepted += 1;
            self.times.record(took);
        }
    }

    fn fail(&mut self, who: usize, now: Nanos, trouble: &Trouble) {
        self.asked[who] = None;
        self.troubles.count(trouble);
        self.failed += u64::from(self.is_measured(now));
    }
}

impl Measured for Accept {
    /// Nothing to do: the clients connect already.
    fn start(&mut self, _: &mut Swarm) {}

    fn begin(&mut self, now: Nanos) {
        self.begin = now;
    }

    fn stop(&mut self, now: Nanos) {
        self.end = now;
    }

    /// Never: a refused client connects again.
    fn is_deserted(&self) -> bool {
        false
    }
}

impl Load for Accept {
    fn opened(&mut self, handle: &mut ConnectionHandle<'_>) {
        match &self.say {
            Some(text) => handle.say(text),
            None if self.waits_for_end => handle.finish(),
            None => return self.heard(handle, &Bytes::new()),
        }
        self.asked[handle.who] = Some(handle.now);
        self.begun[handle.who] = handle.begun;
    }

    fn heard(&mut self, handle: &mut ConnectionHandle<'_>, _body: &Bytes) {
        self.done(handle.who, handle.now, handle.now - handle.begun);
        handle.leave(After::Again);
    }

    fn failed(&mut self, handle: &mut ConnectionHandle<'_>, trouble: Trouble) {
        self.fail(handle.who, handle.now, &trouble);
        handle.leave(After::Later);
    }

    fn ended(&mut self, who: usize, now: Nanos, trouble: Trouble) -> After {
        if self.waits_for_end && self.asked[who].is_some() && matches!(trouble, Trouble::Closed { .. }) {
            self.done(who, now, now - self.begun[who]);
            return After::Again;
        }
        self.fail(who, now, &trouble);
        After::Later
    }

    fn tick(&mut self, swarm: &mut Swarm, now: Nanos) -> Nanos {
        if now >= self.next_scan {
            self.next_scan = now + SCAN;
            let missing = if self.waits_for_end { "no close from the server" } else { "no answer to --say" };
            for who in 0..self.asked.len() {
                if self.asked[who].is_some_and(|since| since + self.timeout <= now) {
                    self.fail(who, now, &Trouble::Timeout(missing));
                    swarm.drop_connection(who);
                    swarm.reopen(who);
                }
            }
        }
        self.next_scan
    }

    fn line(&self, now: Nanos) -> String {
        let seconds = now / 1_000_000_000;
        format!("{seconds}s: {} accepted, {} errors", self.total, self.troubles.total())
    }
}
