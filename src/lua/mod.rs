//! Framings that are Lua scripts, as users of fooking write them.
//!
//! Owns the VMs, the limits of scripts in them, and the modules that scripts can use.
//!
//! Promises that a session has the same VM for all its life. An error in a script costs only the session whose call failed, or only the
//! frame that was being written (`pool` describes the exception, a script that hoards memory). Bytes are sent in the order in which the
//! script gave them.
//!
//! Leaves the sending to the outbox. docs/lua.md has the manual for authors of scripts.
//!
//! ```text
//!                     number of the session           one call at a time
//!   Pool (listener) ----------------------> Session ----------------------> Vm
//!    |  a VM for each worker thread            |  bytes received, requestid,    |  Lua, and its limits
//!    |  a fresh VM for a full one              |  bytes waiting to be sent      |
//! ```
//!
//! - `source`: a script as it was read. `pool`: chooses the VM of a session, and replaces VMs whose memory is used up.
//! - `codecs`: makes a codec for each session. `session`: that codec, which turns the script's results into frames.
//! - `vm`: loads a script and calls it, within its limits. `budget`: the instructions and time of a call.
//! - `library`: charges the slow functions of Lua's standard library. `pattern`: counts the steps of a pattern match.
//! - `call`: the data of one call. `api`: the functions with which the script uses it.
//!
//! Locks are taken in one order: the session's, then its VM's. An outbox's lock may be taken while a session's is held, so that no other
//! thread's bytes get in between. It is never taken while a VM's lock is held, because other sessions wait for the VM.

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

/// Why a script cannot be used: file, line and error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError(String);

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScriptError {}

/// How failures of a script are handled.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// An error in `onConnect` or `onRead` does not end the session: it means "not enough yet", as in fooking.
    pub forgives: bool,
    /// The metric that counts them.
    pub failures: Family<ReasonLabels, Counter>,
}

/// Loads the script into `vms` VMs, one for each thread that calls it, and returns the framing of its listener.
#[cfg(feature = "lua")]
pub fn framing(listener: &str, options: &LuaFraming, vms: usize, manner: Manner) -> Result<Framing, ScriptError> {
    let pool = pool::Pool::load(listener, options, vms, manner)?;
    let codec = std::sync::Arc::new(codecs::Codecs(std::sync::Arc::new(pool)));
    Ok(Framing::Custom(crate::proto::framing::custom::Custom::Listener(codec)))
}

/// Loads the script once, to check that it can be loaded.
#[cfg(feature = "lua")]
pub fn try_out(options: &LuaFraming) -> Result<(), ScriptError> {
    pool::Pool::load("", options, 1, Manner::default()).map(drop)
}

/// This build has no Lua. The configuration refuses Lua framings earlier.
#[cfg(not(feature = "lua"))]
pub fn framing(_: &str, _: &LuaFraming, _: usize, _: Manner) -> Result<Framing, ScriptError> {
    Err(ScriptError("built without Lua".to_owned()))
}

/// This build has no Lua.
#[cfg(not(feature = "lua"))]
pub fn try_out(options: &LuaFraming) -> Result<(), ScriptError> {
    framing("", options, 0, Manner::default()).map(drop)
}
