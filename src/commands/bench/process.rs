//! CPU time and memory of processes, read from /proc.

use std::collections::HashMap;
use std::fs;

use serde::Serialize;

/// CPU time of some processes, of this one, and of the machine, at one moment.
#[derive(Debug)]
pub struct Usage {
    /// For each `--pid`: CPU nanoseconds of its threads and those of its descendants, by thread.
    processes: Vec<HashMap<u32, u64>>,
    own: u64,
    /// Busy nanoseconds of all CPUs, and total nanoseconds of all CPUs.
    busy: u64,
    all: u64,
}

/// CPU time used between two moments.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// For each `--pid`, in order: CPU of the process and its descendants; null if the process has ended.
    pub pid_cpu_us: Vec<Option<f64>>,
    /// The same for each message (or delivery, or connection) of the window.
    pub cpu_us_per_message: Vec<Option<f64>>,
    /// The same for the generator itself.
    pub generator_cpu_us_per_message: f64,
    /// The generator's share of the machine; 100 means all CPUs.
    pub generator_cpu_percent: f64,
    /// The share of all other processes, without those of `--pid`. On a quiet machine it is near 0.
    pub others_cpu_percent: f64,
}

impl Usage {
    /// Reads the CPU time of these processes and their descendants.
    #[must_use]
    pub fn now(pids: &[u32]) -> Self {
        let children = if pids.is_empty() { HashMap::new() } else { children() };
        let processes = pids.iter().map(|pid| threads_below(*pid, &children)).collect();
        let (busy, all) = machine();
        Self { processes, own: threads_of(std::process::id()).values().sum(), busy, all }
    }

    /// The CPU time used from this moment until `end`, in total and divided by the number of messages.
    #[must_use]
    pub fn until(&self, end: &Self, messages: u64) -> Cpu {
        let used: Vec<Option<u64>> =
            self.processes.iter().zip(&end.processes).map(|(then, now)| used(then, now)).collect();
        let own = end.own.saturating_sub(self.own);
        let all = end.all.saturating_sub(self.all).max(1) as f64;
        let known = own + used.iter().flatten().sum::<u64>();
        let others = end.busy.saturating_sub(self.busy).saturating_sub(known);
        let each = |nanos: u64| if messages == 0 { 0.0 } else { nanos as f64 / 1000.0 / messages as f64 };
        Cpu {
            pid_cpu_us: used.iter().map(|nanos| nanos.map(|nanos| nanos as f64 / 1000.0)).collect(),
            cpu_us_per_message: used.iter().map(|nanos| nanos.filter(|_| messages > 0).map(each)).collect(),
            generator_cpu_us_per_message: each(own),
            generator_cpu_percent: own as f64 * 100.0 / all,
            others_cpu_percent: others as f64 * 100.0 / all,
        }
    }
}

/// The CPU time between two readings. The time of a thread that has ended is missing; that of a new thread counts in full.
fn used(then: &HashMap<u32, u64>, now: &HashMap<u32, u64>) -> Option<u64> {
    if now.is_empty() {
        return None;
    }
    Some(now.iter().map(|(thread, nanos)| nanos.saturating_sub(then.get(thread).copied().unwrap_or(0))).sum())
}

/// The children of each process.
fn children() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in parentheses may contain any character (proc(5)).
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// The process and all its descendants.
fn family(pid: u32, children: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(pid) = family.get(at) {
        family.extend(children.get(pid).into_iter().flatten().copied());
        at += 1;
    }
    family
}

fn threads_below(pid: u32, children: &HashMap<u32, Vec<u32>>) -> HashMap<u32, u64> {
    family(pid, children).into_iter().flat_map(threads_of).collect()
}

fn threads_of(pid: u32) -> HashMap<u32, u64> {
    let mut threads = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let thread = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let nanos = fs::read_to_string(entry.path().join("schedstat"))
            .ok()
            .and_then(|text| text.split(' ').next()?.parse().ok());
        if let (Some(thread), Some(nanos)) = (thread, nanos) {
            threads.insert(thread, nanos);
        }
    }
    threads
}

/// Busy and total nanoseconds of all CPUs, from /proc/stat.
fn machine() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest time is part of user already.
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    // SAFETY: it takes a number and returns a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    let nanos = 1_000_000_000 / per_second;
    ((all - idle) * nanos, all * nanos)
}

/// Memory of a process and its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages, in bytes.
    pub rss: u64,
    /// The same, with each shared page divided by the number of processes that map it.
    pub pss: u64,
}

/// The memory of a process and its descendants; `None` if the process is gone or may not be inspected.
#[must_use]
pub fn memory(pid: u32) -> Option<Memory> {
    let mut total = None;
    for pid in family(pid, &children()) {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let kib = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let sum = total.get_or_insert(Memory::default());
        sum.rss += kib("Rss:") * 1024;
        sum.pss += kib("Pss:") * 1024;
    }
    total
}
