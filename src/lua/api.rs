//! The API for scripts: the modules `fooking.buffer` and `fooking.connection`, and a changed standard library.
//!
//! Handles of connections and buffers are light userdata, as in fooking, but they are not pointers. Each function looks up the handle in
//! the current call. A handle of another call is an error in the script.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use mlua::{Error, Function, LightUserData, Lua, MultiValue, Result, Table, Value};
use tracing::info;

use super::call::{Call, Handle};
use super::{budget, library};

/// The most bytes of one `print` that are logged.
const MAX_PRINT_BYTES: usize = 8 * 1024;

/// The data that these functions share with their VM.
#[derive(Clone)]
pub(super) struct ScriptContext {
    /// The current call.
    pub(super) call: Arc<Mutex<Call>>,
    /// The folder of the script.
    pub(super) folder: PathBuf,
    /// The name of the script for messages.
    pub(super) script: String,
}

/// Installs the modules in a fresh VM, and changes its standard library.
pub(super) fn install(lua: &Lua, shared: &ScriptContext) -> Result<()> {
    let package: Table = lua.globals().get("package")?;
    let preload: Table = package.get("preload")?;
    let modules = [("buffer", buffer_module(lua, shared)?), ("connection", connection_module(lua, shared)?)];
    for (name, module) in modules {
        let loader = lua.create_function(move |_, _: MultiValue| Ok(module.clone()))?;
        preload.set(format!("fooking.{name}"), loader.clone())?;
        preload.set(format!("longwire.{name}"), loader)?;
    }
    let beside = shared.folder.display();
    let path: String = package.get("path")?;
    package.set("path", format!("{beside}/?.lua;{beside}/?/init.lua;{path}"))?;
    // A C module could do anything to the process.
    package.set("cpath", "")?;
    lua.globals().set("print", print(lua, shared)?)?;
    let prelude: Function = lua.load(PRELUDE).set_name("=longwire").into_function()?;
    prelude.call::<()>((read_file(lua, &shared.folder)?, check_budget(lua)?, traceback(lua)?))?;
    library::install(lua)
}

/// `pcall` and similar functions must not catch the error of a used-up budget, so here they raise it again. Files are looked up beside the
/// script first. They must be text, because a precompiled chunk can crash the VM.
const PRELUDE: &str = r#"
local read, check, traceback = ...
local error, load_, pcall_, xpcall_, resume_ = error, load, pcall, xpcall, coroutine.resume
local function on(...)
    check()
    return ...
end
function pcall(...) return on(pcall_(...)) end
function xpcall(protected, handler, ...)
    -- After an error of the hook, the handler would run with hooks off and could run forever.
    local function checked(...)
        check()
        return handler(...)
    end
    return on(xpcall_(protected, checked, ...))
end
function coroutine.resume(...) return on(resume_(...)) end
function load(chunk, name, mode, ...) return on(load_(chunk, name, "t", ...)) end
function loadfile(name, mode, ...)
    local text, chunk = read(name)
    if not text then return nil, chunk end
    return on(load_(text, chunk, "t", ...))
end
function dofile(name)
    local chunk, problem = loadfile(name)
    if not chunk then error(problem, 2) end
    return chunk()
end
function os.exit() error("os.exit: a script cannot end the process", 2) end
debug = { traceback = traceback }
"#;

fn buffer_module(lua: &Lua, shared: &ScriptContext) -> Result<Table> {
    let module = lua.create_table()?;
    let call = shared.call.clone();
    module.set(
        "size",
        lua.create_function(move |lua, buffer: Value| {
            let call = at_hand(lua, &call)?;
            Ok(bytes_of(lua, &call, "size", &buffer)?.len())
        })?,
    )?;
    let call = shared.call.clone();
    module.set(
        "data",
        lua.create_function(move |lua, buffer: Value| {
            let call = at_hand(lua, &call)?;
            lua.create_string(bytes_of(lua, &call, "data", &buffer)?)
        })?,
    )?;
    let call = shared.call.clone();
    module.set(
        "append",
        lua.create_function(move |lua, (buffer, text): (Value, Value)| {
            let text = string_of(lua, 2, "append", &text)?;
            let mut call = at_hand(lua, &call)?;
            let handle = handle_of(lua, &call, "append", &buffer, "buffer")?;
            let text = text.as_bytes();
            check_room(&call, text.len())?;
            let bound = call.max_bytes;
            match handle {
                Handle::Output => call.output.extend_from_slice(&text),
                Handle::Input if call.received.is_some() => call.input.append(&text, bound),
                _ => return Err(fail(lua, "append: cannot append to the bytes that the client has sent")),
            }
            Ok(())
        })?,
    )?;
    let call = shared.call.clone();
    module.set(
        "seek",
        lua.create_function(move |lua, (buffer, count): (Value, Value)| {
            let count = match lua.coerce_integer(count.clone())? {
                Some(count) => usize::try_from(count).ok().filter(|count| *count > 0),
                None => return Err(bad_argument(lua, 2, "seek", "integer", &count)),
            };
            let Some(count) = count else { return Err(fail(lua, "seek: the number of bytes must be above 0")) };
            let mut call = at_hand(lua, &call)?;
            match handle_of(lua, &call, "seek", &buffer, "buffer")? {
                Handle::Input => call.input.seek(count),
                Handle::Received => call.received.iter_mut().for_each(|received| received.seek(count)),
                Handle::Output => {
                    let count = count.min(call.output.len());
                    call.output.drain(..count);
                }
                Handle::Connection => return Err(bad_argument(lua, 1, "seek", "buffer", &buffer)),
            }
            Ok(())
        })?,
    )?;
    Ok(module)
}

fn connection_module(lua: &Lua, shared: &ScriptContext) -> Result<Table> {
    let module = lua.create_table()?;
    let call = shared.call.clone();
    module.set(
        "buffer",
        lua.create_function(move |lua, connection: Value| {
            let call = at_hand(lua, &call)?;
            connection_of(lua, &call, "buffer", &connection)?;
            let handle = if call.received.is_some() { Handle::Received } else { Handle::Input };
            Ok(userdata(call.address(handle)))
        })?,
    )?;
    let call = shared.call.clone();
    module.set(
        "send",
        lua.create_function(move |lua, (connection, text): (Value, Value)| {
            let text = string_of(lua, 2, "send", &text)?;
            let mut call = at_hand(lua, &call)?;
            connection_of(lua, &call, "send", &connection)?;
            let text = text.as_bytes();
            check_room(&call, text.len())?;
            call.sent.extend_from_slice(&text);
            Ok(())
        })?,
    )?;
    let call = shared.call.clone();
    module.set(
        "id",
        lua.create_function(move |lua, connection: Value| {
            let id = {
                let call = at_hand(lua, &call)?;
                connection_of(lua, &call, "id", &connection)?;
                call.id
            };
            lua.create_string(id.map(|id| id.to_string()).unwrap_or_default())
        })?,
    )?;
    let call = shared.call.clone();
    module.set(
        "close",
        lua.create_function(move |lua, connection: Value| {
            let mut call = at_hand(lua, &call)?;
            connection_of(lua, &call, "close", &connection)?;
            call.closes = true;
            Ok(())
        })?,
    )?;
    Ok(module)
}

fn print(lua: &Lua, shared: &ScriptContext) -> Result<Function> {
    let shared = shared.clone();
    lua.create_function(move |_, values: MultiValue| {
        let words = values.iter().map(Value::to_string).collect::<Result<Vec<_>>>()?;
        let line = words.join("\t");
        let line = cut(&line, MAX_PRINT_BYTES);
        // Outside of a call there is no session, because the script is being loaded.
        let session = shared.call.try_lock().ok().and_then(|call| call.id).map(tracing::field::display);
        info!(target: "longwire::lua", script = shared.script, session, "{line}");
        Ok(())
    })
}

/// Makes the function that returns the text of a file and the name of its chunk, or nil and an error.
fn read_file(lua: &Lua, folder: &Path) -> Result<Function> {
    let folder = folder.to_owned();
    lua.create_function(move |lua, name: Value| {
        let name = string_of(lua, 1, "dofile", &name)?.to_string_lossy();
        let beside = folder.join(&name);
        let text = std::fs::read(&beside).or_else(|_| std::fs::read(&name));
        match text {
            Ok(text) => Ok((Value::String(lua.create_string(without_shebang(&text))?), format!("@{name}"))),
            Err(error) => Ok((Value::Nil, format!("cannot open {name}: {error}"))),
        }
    })
}

/// Skips a first line that begins with `#`: it is for the shell.
pub(super) fn without_shebang(text: &[u8]) -> &[u8] {
    if text.starts_with(b"#") { &text[memchr::memchr(b'\n', text).unwrap_or(text.len())..] } else { text }
}

fn check_budget(lua: &Lua) -> Result<Function> {
    lua.create_function(|lua, ()| match budget::problem() {
        None => Ok(()),
        Some(problem) => Err(fail(lua, problem)),
    })
}

fn traceback(lua: &Lua) -> Result<Function> {
    lua.create_function(|lua, (message, level): (Option<Value>, Option<usize>)| match message {
        // Like the original: a message that is neither a string nor a number is returned unchanged.
        Some(message) if !matches!(message, Value::Nil | Value::String(_) | Value::Integer(_) | Value::Number(_)) => {
            Ok(message)
        }
        message => {
            let message = match message {
                None | Some(Value::Nil) => None,
                Some(message) => Some(message.to_string()?),
            };
            lua.traceback(message.as_deref(), level.unwrap_or(1)).map(Value::String)
        }
    })
}

/// The current call. It can be locked already only if one of these functions allocates memory and that runs a finalizer.
fn at_hand<'c>(lua: &Lua, call: &'c Mutex<Call>) -> Result<MutexGuard<'c, Call>> {
    call.try_lock().map_err(|_| fail(lua, "a finalizer cannot use buffers and connections"))
}

fn handle_of(lua: &Lua, call: &Call, function: &str, value: &Value, wanted: &str) -> Result<Handle> {
    let Value::LightUserData(LightUserData(pointer)) = value else {
        return Err(bad_argument(lua, 1, function, wanted, value));
    };
    let handle = call.find(pointer.addr());
    handle
        .ok_or_else(|| fail(lua, &format!("{function}: this handle is of another call or session, and not valid here")))
}

fn bytes_of<'c>(lua: &Lua, call: &'c Call, function: &str, value: &Value) -> Result<&'c [u8]> {
    let handle = handle_of(lua, call, function, value, "buffer")?;
    call.bytes(handle).ok_or_else(|| bad_argument(lua, 1, function, "buffer", value))
}

fn connection_of(lua: &Lua, call: &Call, function: &str, value: &Value) -> Result<()> {
    match handle_of(lua, call, function, value, "connection")? {
        Handle::Connection => Ok(()),
        _ => Err(bad_argument(lua, 1, function, "connection", value)),
    }
}

/// A string argument, or a number that is converted to one as Lua does it.
fn string_of(lua: &Lua, position: usize, function: &str, value: &Value) -> Result<mlua::String> {
    let text = lua.coerce_string(value.clone())?;
    text.ok_or_else(|| bad_argument(lua, position, function, "string", value))
}

fn check_room(call: &Call, more: usize) -> Result<()> {
    match call.has_room(more) {
        true => Ok(()),
        false => Err(Error::MemoryError("not enough memory for the bytes to send".to_owned())),
    }
}

/// The beginning of a text, cut between characters.
pub(super) fn cut(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The light userdata of a handle.
pub(super) fn userdata(address: usize) -> Value {
    Value::LightUserData(LightUserData(std::ptr::without_provenance_mut::<c_void>(address)))
}

fn bad_argument(lua: &Lua, position: usize, function: &str, wanted: &str, value: &Value) -> Error {
    let got = value.type_name();
    fail(lua, &format!("bad argument #{position} to '{function}' ({wanted} expected, got {got})"))
}

/// An error with its place in the script, like Lua's own errors.
fn fail(lua: &Lua, text: &str) -> Error {
    let place = (1..4).find_map(|level| {
        let place = lua.inspect_stack(level, |debug| {
            let line = debug.current_line()?;
            Some(format!("{}:{line}: ", debug.source().short_src.as_deref().unwrap_or("?")))
        });
        place.flatten().filter(|place| !place.starts_with("longwire:"))
    });
    Error::RuntimeError(place.unwrap_or_default() + text)
}
