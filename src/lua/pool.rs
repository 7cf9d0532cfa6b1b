//! The VMs of a listener's script: which one a session gets, and what becomes of one whose memory is used up.
//!
//! ```text
//!            full: a fresh one takes its place             full again, or too many are set aside
//!   in use ----------------------------------> set aside ---------------------------------------> ended
//!   new sessions come to it                     its sessions stay, with a quarter                  its sessions end
//!                                               of its memory more                                 at their next call
//! ```
//!
//! A VM is full when the script holds on to nearly all of the memory that it may: whoever asks next is refused, whoever is to
//! blame. As many VMs may be set aside as are in use, so the memory of all is bounded.

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

/// Failures that are logged in [`LOG_WINDOW`]; what is beyond is counted in the next line. (Each closed session has its own
/// line at info.)
const LOG_LINES: u32 = 10;
const LOG_WINDOW: Duration = Duration::from_secs(1);

/// See the module.
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
    /// Reads the script and runs it in each of so many VMs.
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

    /// A VM is full: a fresh one takes its place. To be called without holding on to it.
    pub(super) fn set_aside(&self, full: &Arc<Vm>) {
        let Some(place) = self.in_use.iter().find(|vm| Arc::ptr_eq(&lock(vm), full)) else { return };
        if !self.renew(&mut lock(place)) {
            // It goes on with what it was given. When that is used up it ends, and `begin` tries again.
            return;
        }
        warn!(
            listener = self.listener,
            script = self.source.name,
            "a VM is full: its script holds nearly all of max_memory_bytes, so new sessions get a fresh one"
        );
        let mut aside = lock(&self.aside);
        // Those that nobody else holds have lost their last session.
        aside.retain(|vm| Arc::strong_count(vm) > 1);
        aside.push_back(full.clone());
        let oldest = if aside.len() > self.in_use.len() { aside.pop_front() } else { None };
        drop(aside);
        if let Some(oldest) = oldest {
            self.end(&oldest, "too many VMs are full: closing the oldest one and its sessions");
        }
    }

    /// A VM ends, and its sessions at their next call.
    pub(super) fn end(&self, vm: &Vm, why: &str) {
        warn!(listener = self.listener, script = self.source.name, "{why}");
        vm.end();
    }

    /// See [`Manner::forgives`].
    pub(super) fn forgives(&self) -> bool {
        self.manner.forgives
    }

    /// Counts a failure, with a line for it unless there were many just now.
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
            // It could not be replaced when it ended. If it still cannot, the session ends with that.
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
