//! `bench accept`: connections that come, shake hands, perhaps say something, and leave.

use std::rc::Rc;

use bytes::Bytes;

use super::BenchError;
use super::endpoint::Endpoint;
use super::report;
use super::stage::Stage;
use super::swarm::{After, Link, Load, Measured, Nanos, Swarm};
use super::times::Times;
use super::trouble::{Trouble, Troubles};
use crate::cli::AcceptArgs;

/// How often those are looked for that have no answer.
const SCAN: Nanos = 50_000_000;

pub(super) fn run(args: &AcceptArgs) -> Result<(), BenchError> {
    let usage = BenchError::Usage;
    let endpoint = Rc::new(Endpoint::new(&args.url, &args.common.header, &args.common, false).map_err(usage)?);
    let mut stage = Stage::new(args.parallel, &args.common)?;
    stage.swarm.max_opening = args.parallel;
    let mut accept = Accept {
        asked: vec![None; args.parallel],
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
        stage.swarm.add(&endpoint);
    }
    // Where everybody is refused, nobody will come in later.
    stage
        .go(&mut accept, Nanos::MAX, |accept, _| accept.total > 0 || accept.troubles.total() >= args.parallel as u64)?;
    if accept.total == 0 {
        stage.finish();
        let why = accept.troubles.worst().unwrap_or("interrupted");
        return Err(BenchError::Nobody(format!(
            "none of {} connections to {} could be made: {why}",
            args.parallel, args.url
        )));
    }
    stage.event("connected");
    let [before, after] = stage.measure(&mut accept, &args.times)?;
    let interrupted = stage.swarm.is_interrupted();
    stage.finish();

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
    /// When each has said what it had to say.
    asked: Vec<Option<Nanos>>,
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

    fn done(&mut self, link: &mut Link<'_>) {
        self.asked[link.who] = None;
        self.total += 1;
        if self.is_measured(link.now) {
            self.accepted += 1;
            self.times.record(link.now - link.begun);
        }
        link.leave(After::Again);
    }

    fn fail(&mut self, who: usize, now: Nanos, trouble: &Trouble) {
        self.asked[who] = None;
        self.troubles.count(trouble);
        self.failed += u64::from(self.is_measured(now));
    }
}

impl Measured for Accept {
    /// Whoever connects goes on as before.
    fn start(&mut self, _: &mut Swarm) {}

    fn begin(&mut self, now: Nanos) {
        self.begin = now;
    }

    fn stop(&mut self, now: Nanos) {
        self.end = now;
    }

    /// Whoever is refused comes again.
    fn is_deserted(&self) -> bool {
        false
    }
}

impl Load for Accept {
    fn opened(&mut self, link: &mut Link<'_>) {
        match &self.say {
            Some(text) => {
                link.say(text);
                self.asked[link.who] = Some(link.now);
            }
            None => self.done(link),
        }
    }

    fn heard(&mut self, link: &mut Link<'_>, _body: &Bytes) {
        self.done(link);
    }

    fn failed(&mut self, link: &mut Link<'_>, trouble: Trouble) {
        self.fail(link.who, link.now, &trouble);
        link.leave(After::Later);
    }

    fn ended(&mut self, who: usize, now: Nanos, trouble: Trouble) -> After {
        self.fail(who, now, &trouble);
        After::Later
    }

    fn tick(&mut self, swarm: &mut Swarm, now: Nanos) -> Nanos {
        if now >= self.next_scan {
            self.next_scan = now + SCAN;
            for who in 0..self.asked.len() {
                if self.asked[who].is_some_and(|since| since + self.timeout <= now) {
                    self.fail(who, now, &Trouble::Timeout("no answer to --say"));
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
