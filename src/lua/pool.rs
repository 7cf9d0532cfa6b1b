//! The VMs of a listener's script: chooses the VM of a session, and replaces VMs whose memory is used up.
//!
//! ```text
//!            full: a fresh VM takes its place              full again, or too many are set aside
//!   in use ----------------------------------> set aside ---------------------------------------> ended
//!   gets new sessions                           its sessions stay, with a quarter                  its sessions end
//!                                               more memory                                        at their next call
//! ```
//!
//! A VM is full when the script holds nearly all of its memory. Then the next allocation fails, whichever session caused it. No more VMs
//! may be set aside than are in use, so the memory of all is bounded.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::source::Source;
use super::vm::{Failure, Vm};
use super::{Manner, ScriptError};
use crate::config::model::LuaFraming;
use crate::locks::lock;
use crate::metrics::ReasonLabels;
use crate::proto::id::SessionId;

/// The most failures that are logged in one [`LOG_WINDOW`]. The next line counts the others. (Each closed session also has a line at info.)
const LOG_LINES: u32 = 10;
const LOG_WINDOW: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    listener: String,
    source: Source,
    in_use: Vec<Mutex<Arc<Vm>>>,
    aside: Mutex<VecDeque<Arc<Vm>>>,
    sessions: AtomicU64,
    manner: Manner,
    log: Mutex<LogWindow>,
}

#[derive(Default)]
struct LogWindow {
    began: Option<Instant>,
    lines: u32,
    unlogged: u64,
}

impl Pool {
    /// Reads the script and runs it in each of `vms` VMs.
    pub(super) fn load(listener: &str, options: &LuaFraming, vms: usize, manner: Manner) -> Result<Self, ScriptError> {
        let path = &options.script;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let text = std::fs::read(path).map_err(|error| ScriptError(format!("{}: {error}", path.display())))?;
        let source = Source {
            name,
            folder: path.parent().map(PathBuf::from).unwrap_or_default(),
            text,
            max_instructions: options.max_instructions,
            max_memory_bytes: options.max_memory_bytes,
        };
        let in_use = (0..vms.max(1)).map(|_| Ok(Mutex::new(Arc::new(Vm::load(&source)?)))).collect::<Result<_, _>>()?;
        Ok(Self {
            listener: listener.to_owned(),
            source,
            in_use,
            aside: Mutex::default(),
            sessions: AtomicU64::new(0),
            manner,
            log: Mutex::default(),
        })
    }

    /// Replaces a full VM with a fresh one. The caller must not hold the VM's lock.
    pub(super) fn set_aside(&self, full: &Arc<Vm>) {
        let Some(place) = self.in_use.iter().find(|vm| Arc::ptr_eq(&lock(vm), full)) else { return };
        if !self.renew(&mut lock(place)) {
            // The full VM stays in use with its extra memory. When that is used up it ends, and `place` tries to replace it again.
            return;
        }
        warn!(
            listener = self.listener,
            script = self.source.name,
            "a VM is full: its script holds nearly all of max_memory_bytes, so new sessions get a fresh one"
        );
        let mut aside = lock(&self.aside);
        // A VM that only this list holds has no sessions left.
        aside.retain(|vm| Arc::strong_count(vm) > 1);
        aside.push_back(full.clone());
        let oldest = if aside.len() > self.in_use.len() { aside.pop_front() } else { None };
        drop(aside);
        if let Some(oldest) = oldest {
            self.end(&oldest, "too many VMs are full: closing the oldest one and its sessions");
        }
    }

    /// Ends a VM. Its sessions end at their next call.
    pub(super) fn end(&self, vm: &Vm, why: &str) {
        warn!(listener = self.listener, script = self.source.name, "{why}");
        vm.end();
    }

    /// See [`Manner::forgives`].
    pub(super) fn forgives(&self) -> bool {
        self.manner.forgives
    }

    /// Counts a failure, and logs it unless many were logged just before.
    pub(super) fn note(&self, id: SessionId, failure: &Failure) {
        let labels = ReasonLabels { listener: self.listener.clone(), reason: failure.reason.label() };
        self.manner.failures.get_or_create(&labels).inc();
        let mut window = lock(&self.log);
        if window.began.is_none_or(|began| began.elapsed() >= LOG_WINDOW) {
            window.began = Some(Instant::now());
            window.lines = 0;
        }
        if window.lines == LOG_LINES {
            window.unlogged += 1;
            return;
        }
        window.lines += 1;
        let unlogged = std::mem::take(&mut window.unlogged);
        drop(window);
        warn!(
            session = %id, listener = self.listener, script = self.source.name, reason = failure.reason.label(),
            unlogged, "script failed: {}", failure.text
        );
    }

    /// The VM of a new session, and the session's number.
    pub(super) fn place(&self) -> (Arc<Vm>, u64) {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let mut vm = lock(&self.in_use[number as usize % self.in_use.len()]);
        if vm.has_ended() {
            // It could not be replaced when it ended. If that fails again, the session ends with an error.
            self.renew(&mut vm);
        }
        (vm.clone(), number)
    }

    fn renew(&self, vm: &mut Arc<Vm>) -> bool {
        match Vm::load(&self.source) {
            Ok(fresh) => *vm = Arc::new(fresh),
            Err(problem) => {
                error!(listener = self.listener, "the script cannot be loaded into a fresh VM: {problem}");
                return false;
            }
        }
        true
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}, {} VMs)", self.source.name, self.in_use.len())
    }
}
