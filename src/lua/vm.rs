//! A VM with a script in it, called by one session at a time, within limits.
//!
//! A hook counts instructions, a thousand at a time. A script that catches the error with `pcall` gets it again after the `pcall`.
//! `library` charges calls of the standard library that can run long. The allocator counts memory. Bytes that a script keeps outside of its
//! VM, in buffers to send, have the same limit.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use mlua::{ChunkMode, Error, HookTriggers, Lua, MultiValue, Table, Value, VmState};

use super::ScriptError;
use super::api::{self, ScriptContext, userdata};
use super::budget;
use super::call::{Call, Handle};
use super::source::Source;
use crate::config::value::size_text;
use crate::locks::lock;
use crate::proto::close::CloseReason;

/// Instructions between two calls of the hook.
const HOOK_EVERY: u32 = budget::LOOK_EVERY as u32;
/// The most bytes of an error message that are kept.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The functions that a script may define.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Connect,
    Close,
    Read,
    Write,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Function::Connect => "onConnect",
            Function::Close => "onClose",
            Function::Read => "onRead",
            Function::Write => "onWrite",
        }
    }
}

/// The result of `onRead` or `onWrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookResult {
    /// The function returned a number above 0.
    Handled,
    /// It returned 0 or nothing, or does not exist.
    Native,
    /// It returned a number below 0.
    NotYet,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: CloseReason,
    /// The place in the script, and the error there.
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(reason: CloseReason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// The outcome of a call.
pub(super) struct Ran {
    pub(super) call: Call,
    pub(super) result: Result<HookResult, Failure>,
    pub(super) memory: Memory,
}

/// The state of a VM's memory after a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// There is memory left.
    Enough,
    /// The script holds nearly all of its memory, and a collection did not free enough. The VM got a quarter more for its present sessions.
    Full,
    /// The extra quarter is used up too.
    FullAgain,
}

pub(super) struct Vm {
    /// `None` after the VM has ended.
    script: Mutex<Option<Script>>,
    has_ended: AtomicBool,
    max_memory_bytes: usize,
    serial: AtomicU64,
}

struct Script {
    lua: Lua,
    globals: Table,
    shared: ScriptContext,
    /// The limit for one call.
    max_instructions: u64,
    /// The most bytes that the allocator gives it.
    memory_limit: usize,
    /// If more than this is in use before a call, garbage is collected.
    collect_above: usize,
}

impl Vm {
    /// Runs the text of the script, which defines its functions.
    pub(super) fn load(source: &Source) -> Result<Self, ScriptError> {
        let script = Script::load(source).map_err(|error| ScriptError(describe(&error)))?;
        Ok(Self {
            script: Mutex::new(Some(script)),
            has_ended: AtomicBool::new(false),
            max_memory_bytes: source.max_memory_bytes,
            serial: AtomicU64::new(0),
        })
    }

    /// Calls a function of the script. If the script does not define it, nothing happens.
    pub(super) fn run(&self, function: Function, requestid: u64, mut call: Call) -> Ran {
        call.serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        call.max_bytes = self.max_memory_bytes;
        let mut guard = self.script();
        let Some(script) = guard.as_mut() else {
            let text = "the script's VM has ended: its memory was used up";
            let failure = Failure::new(CloseReason::CodecOutOfMemory, text);
            return Ran { call, result: Err(failure), memory: Memory::Enough };
        };
        script.make_room();
        budget::renew(script.max_instructions);
        let (result, call) = script.run(function, requestid, call);
        let too_long = budget::problem();
        let result = match (result, too_long) {
            (Ok(_), Some(problem)) => Err(Failure::new(CloseReason::CodecTooLong, problem)),
            (Ok(result), None) => Ok(result),
            (Err(error), _) => Err(self.failure(function, &error, too_long.is_some())),
        };
        let memory = if result.is_ok() { Memory::Enough } else { self.look_after_memory(script) };
        Ran { call, result, memory }
    }

    /// Frees the VM. Later calls return an error.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        let script = self.script().take();
        drop(script);
    }

    /// Whether the VM was freed.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Collects garbage if less than a quarter of the memory is free, and checks whether that helped.
    fn look_after_memory(&self, script: &mut Script) -> Memory {
        let is_full = |script: &Script| script.lua.used_memory() + self.max_memory_bytes / 4 > script.memory_limit;
        if !is_full(script) {
            return Memory::Enough;
        }
        // Errors in the script's finalizers are ignored.
        let _ = script.lua.gc_collect();
        if !is_full(script) {
            return Memory::Enough;
        }
        if script.memory_limit > self.max_memory_bytes {
            return Memory::FullAgain;
        }
        script.memory_limit = self.max_memory_bytes + self.max_memory_bytes / 4;
        // This fails only for a Lua with a foreign allocator.
        let _ = script.lua.set_memory_limit(script.memory_limit);
        Memory::Full
    }

    fn failure(&self, function: Function, error: &Error, is_too_long: bool) -> Failure {
        let text = describe(error);
        if is_too_long {
            return Failure::new(CloseReason::CodecTooLong, text);
        }
        match root(error) {
            Error::MemoryError(_) => {
                let limit = size_text(self.max_memory_bytes as u64);
                let text = format!("{}: {text}: max_memory_bytes is {limit}", function.name());
                Failure::new(CloseReason::CodecOutOfMemory, text)
            }
            _ => Failure::new(CloseReason::CodecFailed, text),
        }
    }

    fn script(&self) -> MutexGuard<'_, Option<Script>> {
        lock(&self.script)
    }
}

impl Script {
    fn load(source: &Source) -> mlua::Result<Self> {
        let lua = Lua::new();
        let shared = ScriptContext { call: Arc::default(), folder: source.folder.clone(), script: source.name.clone() };
        budget::renew(source.max_instructions);
        api::install(&lua, &shared)?;
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(HOOK_EVERY), move |_, debug| {
            budget::charge(u64::from(HOOK_EVERY));
            let Some(problem) = budget::problem() else { return Ok(VmState::Continue) };
            let line = debug.current_line().unwrap_or(0);
            let source = debug.source();
            let place = source.short_src.as_deref().unwrap_or("?");
            Err(Error::RuntimeError(format!("{place}:{line}: {problem}")))
        })?;
        lua.set_memory_limit(source.max_memory_bytes)?;
        let text = api::without_shebang(&source.text);
        lua.load(text).set_name(format!("@{}", source.name)).set_mode(ChunkMode::Text).exec()?;
        if let Some(problem) = budget::problem() {
            return Err(Error::RuntimeError(problem.to_owned()));
        }
        Ok(Self {
            globals: lua.globals(),
            lua,
            shared,
            max_instructions: source.max_instructions,
            memory_limit: source.max_memory_bytes,
            collect_above: source.max_memory_bytes / 2,
        })
    }

    /// Collects garbage before a call if half of the memory that was free after the last collection is used. Lua itself collects when
    /// memory has doubled, which may be past the limit. When its library needs memory for a long string, it fails without a last
    /// collection.
    fn make_room(&mut self) {
        if self.lua.used_memory() > self.collect_above {
            // Errors in the script's finalizers are ignored.
            let _ = self.lua.gc_collect();
            let used = self.lua.used_memory();
            self.collect_above = used + self.memory_limit.saturating_sub(used) / 2;
        }
    }

    fn run(&self, function: Function, requestid: u64, call: Call) -> (mlua::Result<HookResult>, Call) {
        let connection = userdata(call.address(Handle::Connection));
        let (input, output) = (userdata(call.address(Handle::Input)), userdata(call.address(Handle::Output)));
        *self.call() = call;
        let result = self.globals.raw_get(function.name()).and_then(|script: Value| match (script, function) {
            (Value::Nil, _) => Ok(HookResult::Native),
            (Value::Function(script), Function::Connect | Function::Close) => {
                script.call::<()>(connection).map(|()| HookResult::Native)
            }
            (Value::Function(script), Function::Read | Function::Write) => {
                let values: MultiValue = script.call((connection, requestid, input, output))?;
                self.hook_result(function, values.front())
            }
            (other, _) => {
                let (name, kind) = (function.name(), other.type_name());
                Err(Error::RuntimeError(format!("{name} is a {kind}, not a function")))
            }
        });
        (result, std::mem::take(&mut *self.call()))
    }

    fn hook_result(&self, function: Function, value: Option<&Value>) -> mlua::Result<HookResult> {
        let number = match value {
            None | Some(Value::Nil) => Some(0.0),
            Some(value) => self.lua.coerce_number(value.clone())?,
        };
        match number {
            Some(number) if number > 0.0 => Ok(HookResult::Handled),
            Some(number) if number < 0.0 => Ok(HookResult::NotYet),
            Some(_) => Ok(HookResult::Native),
            None => {
                let (name, kind) = (function.name(), value.map_or("nil", Value::type_name));
                Err(Error::RuntimeError(format!("{name} returned a {kind}, not a number")))
            }
        }
    }

    fn call(&self) -> MutexGuard<'_, Call> {
        lock(&self.shared.call)
    }
}

/// The original error, without the layers around it.
fn root(error: &Error) -> &Error {
    match error {
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } | Error::BadArgument { cause, .. } => {
            root(cause)
        }
        error => error,
    }
}

/// The message without the stack below it.
fn describe(error: &Error) -> String {
    let text = match root(error) {
        Error::RuntimeError(text) | Error::MemoryError(text) => text.clone(),
        Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    let text = text.split("\nstack traceback:").next().unwrap_or_default();
    api::cut(text, MAX_MESSAGE_BYTES).trim_end().to_owned()
}
