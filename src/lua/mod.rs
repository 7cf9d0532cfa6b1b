//! Framings that are Lua scripts, as fooking's users write them.
//!
//! Owns the VMs, what a script may use up in them, and the modules that scripts know. Promises that a session meets the
//! same VM for all its life, that a script's fault costs the session whose call it was in, or the frame that was to be written, and no other (`pool` says what a
//! hoard of memory does), and that bytes leave in the order in which the script gave them. Leaves to the outbox how they
//! leave, and to docs/lua.md what authors of scripts have to know.
//!
//! ```text
//!                     number of the session           one call at a time
//!   Pool (listener) ----------------------> Session ----------------------> Vm
//!    |  a VM for each worker thread            |  bytes received, requestid,    |  Lua, and its limits
//!    |  a fresh one for one that is full       |  what waits to be sent         |
//! ```
//!
//! - `source`: a script as it was read; `pool`: which VM a session gets, and what becomes of one whose memory is used up.
//! - `codecs`: a codec for each session; `session`: what it does, from the script's answers to frames.
//! - `vm`: loads a script and calls it, within its limits; `budget`: what a call may use up.
//! - `library`: the functions of Lua's own that can take long, with what they cost; `pattern`: what a match costs.
//! - `call`: what one call is about; `api`: how the script gets at it.
//!
//! Locks are taken in one order: a session's, then its VM's. An outbox's may be taken while a session's is held, so that no
//! other thread's bytes come in between, and never while a VM's is: other sessions wait for that.

#[cfg(feature = "lua")]
mod api;
#[cfg(feature = "lua")]
mod budget;
#[cfg(feature = "lua")]
mod call;
#[cfg(feature = "lua")]
mod codecs;
#[cfg(feature = "lua")]
mod library;
#[cfg(feature = "lua")]
mod pattern;
#[cfg(feature = "lua")]
mod pool;
#[cfg(feature = "lua")]
mod session;
#[cfg(feature = "lua")]
mod source;
#[cfg(all(test, feature = "lua"))]
mod tests;
#[cfg(feature = "lua")]
mod vm;

use std::fmt;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::config::model::LuaFraming;
use crate::metrics::ReasonLabels;
use crate::proto::framing::Framing;

/// Why a script cannot be used: its file, line and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError(String);

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScriptError {}

/// What becomes of a script's failures.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// An error in `onConnect` or `onRead` ends no session: it means "not enough yet", as in fooking.
    pub forgives: bool,
    /// Where they are counted.
    pub failures: Family<ReasonLabels, Counter>,
}

/// Loads the script into as many VMs as threads will call it, and gives the framing of its listener.
#[cfg(feature = "lua")]
pub fn framing(listener: &str, options: &LuaFraming, vms: usize, manner: Manner) -> Result<Framing, ScriptError> {
    let pool = pool::Pool::load(listener, options, vms, manner)?;
    let codec = std::sync::Arc::new(codecs::Codecs(std::sync::Arc::new(pool)));
    Ok(Framing::Custom(crate::proto::framing::custom::Custom::Listener(codec)))
}

/// Loads the script once, to see whether it can be.
#[cfg(feature = "lua")]
pub fn try_out(options: &LuaFraming) -> Result<(), ScriptError> {
    pool::Pool::load("", options, 1, Manner::default()).map(drop)
}

/// There is none in this build; the configuration refuses it before.
#[cfg(not(feature = "lua"))]
pub fn framing(_: &str, _: &LuaFraming, _: usize, _: Manner) -> Result<Framing, ScriptError> {
    Err(ScriptError("built without Lua".to_owned()))
}

/// There is none in this build.
#[cfg(not(feature = "lua"))]
pub fn try_out(options: &LuaFraming) -> Result<(), ScriptError> {
    framing("", options, 0, Manner::default()).map(drop)
}
