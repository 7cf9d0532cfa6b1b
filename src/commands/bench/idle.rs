//! `bench idle`: holds many silent connections and measures what they cost the server.

use std::rc::Rc;

use bytes::Bytes;

use super::BenchError;
use super::bench_run::BenchRun;
use super::endpoint::Endpoint;
use super::process::{Memory, memory};
use super::report;
use super::swarm::{After, ConnectionHandle, Load, Nanos, Swarm};
use super::trouble::{Trouble, Troubles};
use crate::commands::cli::IdleArgs;

const SECOND: Nanos = 1_000_000_000;

pub(super) fn run(args: &IdleArgs) -> Result<(), BenchError> {
    let usage = BenchError::Usage;
    let endpoint = Rc::new(Endpoint::new(&args.url, &args.common.header, &args.common, false).map_err(usage)?);
    let mut run = BenchRun::new(args.connections, &args.common)?;
    let base: Vec<Option<Memory>> = args.common.pid.iter().map(|pid| memory(*pid)).collect();
    let mut idle = Idle {
        phases: vec![ConnectionPhase::Closed; args.connections],
        say: args.say.as_ref().map(|text| text.as_bytes().to_vec()),
        is_holding: false,
        pings: 0,
        frames: 0,
        closed: 0,
        troubles: Troubles::default(),
    };
    let began = run.swarm.now();
    for _ in 0..args.connections {
        run.swarm.add(&endpoint);
    }
    run.go(&mut idle, Nanos::MAX, |_, swarm| swarm.pending() == 0)?;
    let answered = run.after(args.common.timeout);
    run.go(&mut idle, answered, |idle, _| idle.count(ConnectionPhase::Asked) == 0)?;
    let set_up = (run.swarm.now() - began) as f64 / 1e9;
    for _ in 0..idle.count(ConnectionPhase::Asked) {
        idle.troubles.count(&Trouble::Timeout("no answer to --say"));
    }
    let answered = idle.count(ConnectionPhase::Ready);
    let connected = answered + idle.count(ConnectionPhase::Asked);
    if connected == 0 {
        run.finish();
        return Err(idle.troubles.nothing_opened(args.connections, &args.url));
    }
    run.event("connected");
    idle.is_holding = true;
    let before = run.usage();
    let begin = run.swarm.now();
    run.event("begin");
    let end = run.after(args.hold);
    run.go(&mut idle, end, |idle, _| idle.open() == 0)?;
    let window = (run.swarm.now() - begin) as f64 / 1e9;
    let after = run.usage();
    let held: Vec<Option<Memory>> = args.common.pid.iter().map(|pid| memory(*pid)).collect();
    run.event("end");
    let still_open = idle.open();
    let interrupted = run.swarm.is_interrupted();
    run.finish();

    let cpu = before.until(&after, 0);
    let each = (still_open > 0).then_some(still_open as f64);
    let processes = args.common.pid.iter().zip(base.iter().zip(&held)).zip(&cpu.pid_cpu_us);
    let processes = processes.map(|((pid, (base, held)), cpu_us)| of_process(*pid, base, held, *cpu_us, each, window));
    let report = report::Idle {
        mode: "idle",
        url: args.url.clone(),
        connections: args.connections,
        connected,
        answered,
        interrupted,
        set_up_s: set_up,
        set_up_per_s: connected as f64 / set_up.max(1e-9),
        window_s: window,
        pings: idle.pings,
        frames: idle.frames,
        closed: idle.closed,
        still_open,
        processes: processes.collect(),
        cpu,
        errors: idle.troubles.list(),
        notes: Vec::new(),
    };
    report::print(&report, args.common.json);
    Ok(())
}

/// Memory of a process before (`base`) and while it held `connections`, and its CPU in the window of so many seconds.
fn of_process(
    pid: u32,
    base: &Option<Memory>,
    held: &Option<Memory>,
    cpu_us: Option<f64>,
    connections: Option<f64>,
    window_s: f64,
) -> report::Held {
    let each =
        |of: fn(&Memory) -> u64| Some((held.as_ref().map(of)? as f64 - base.as_ref().map(of)? as f64) / connections?);
    report::Held {
        pid,
        base_rss_bytes: base.as_ref().map(|memory| memory.rss),
        base_pss_bytes: base.as_ref().map(|memory| memory.pss),
        rss_bytes: held.as_ref().map(|memory| memory.rss),
        pss_bytes: held.as_ref().map(|memory| memory.pss),
        rss_bytes_per_connection: each(|memory| memory.rss),
        pss_bytes_per_connection: each(|memory| memory.pss),
        cpu_us_per_connection_and_s: cpu_us.zip(connections).map(|(micros, count)| micros / count / window_s),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ConnectionPhase {
    Closed,
    /// The answer to `--say` has not come yet.
    Asked,
    Ready,
}

struct Idle {
    phases: Vec<ConnectionPhase>,
    say: Option<Vec<u8>>,
    is_holding: bool,
    pings: u64,
    /// Frames that came after the answer.
    frames: u64,
    /// Connections that ended while they were held.
    closed: u64,
    troubles: Troubles,
}

impl Idle {
    fn count(&self, wanted: ConnectionPhase) -> usize {
        self.phases.iter().filter(|phase| **phase == wanted).count()
    }

    fn open(&self) -> usize {
        self.phases.len() - self.count(ConnectionPhase::Closed)
    }
}

impl Load for Idle {
    fn opened(&mut self, handle: &mut ConnectionHandle<'_>) {
        self.phases[handle.who] = match &self.say {
            Some(text) => {
                handle.say(text);
                ConnectionPhase::Asked
            }
            None => ConnectionPhase::Ready,
        };
    }

    fn heard(&mut self, handle: &mut ConnectionHandle<'_>, _body: &Bytes) {
        match self.phases[handle.who] {
            ConnectionPhase::Asked => self.phases[handle.who] = ConnectionPhase::Ready,
            ConnectionPhase::Ready | ConnectionPhase::Closed => self.frames += 1,
        }
    }

    fn failed(&mut self, _handle: &mut ConnectionHandle<'_>, trouble: Trouble) {
        self.troubles.count(&trouble);
    }

    fn pinged(&mut self) {
        self.pings += 1;
    }

    fn ended(&mut self, who: usize, _now: Nanos, trouble: Trouble) -> After {
        self.troubles.count(&trouble);
        self.closed += u64::from(self.is_holding && self.phases[who] != ConnectionPhase::Closed);
        self.phases[who] = ConnectionPhase::Closed;
        After::Gone
    }

    fn tick(&mut self, _swarm: &mut Swarm, now: Nanos) -> Nanos {
        now + SECOND
    }

    fn line(&self, now: Nanos) -> String {
        let (open, seconds) = (self.open(), now / SECOND);
        format!("{seconds}s: {open} open, {} pings, {} errors", self.pings, self.troubles.total())
    }
}
