//! Wrappers for functions of the standard library that can take long. They charge the call's budget in advance, or count steps.
//!
//! Each function here replaces one of Lua's own. It reads the arguments, charges their cost, and usually calls the original with the same
//! stack, so results and errors are Lua's. Only costly searches return the result of a [`Matcher`] instead. If the arguments are invalid,
//! the original reports that itself.
//!
//! | function | charged |
//! |---|---|
//! | `find`, `match`, `gmatch`, `gsub` | the steps of a match that can take more than a few (`pattern`); a plain search by its length |
//! | `rep` | bytes and copies; nothing for an empty string, however often it is repeated |
//! | `table.insert`, `remove`, `move`, `concat` | elements that are moved or read |
//! | `table.sort` | comparisons, by the length of the longest string |
//! | `collectgarbage` | memory in use |
//!
//! To Lua these are C functions, but they are written in Rust. An error in Lua leaves them by longjmp, so nothing here may own memory. They
//! use only numbers, slices of Lua's own strings on the stack, and a [`Matcher`], which is plain data.

use std::ffi::{CStr, c_int};
use std::slice;

use mlua::ffi::{self, lua_Integer, lua_State};
use mlua::{Lua, Result};

use super::budget;
use super::pattern::{Captured, Matcher, Stop, is_plain, worst_case};

/// Calls with at most this many steps are free: a thousand of them, between two runs of the hook, take some milliseconds.
const FREE: u64 = 4_096;
/// Bytes that Lua copies or compares in the time of an instruction.
const BYTES_A_STEP: u64 = 16;
/// The cost of a table element that is read through the functions of the API.
const ELEMENT: u64 = 2;

#[cfg(not(test))]
fn free() -> u64 {
    FREE
}

#[cfg(test)]
thread_local! {
    /// Lower in tests, so that tests on a few bytes use both paths.
    static FREE_HERE: std::cell::Cell<u64> = const { std::cell::Cell::new(16) };
}

#[cfg(test)]
fn free() -> u64 {
    FREE_HERE.get()
}

type Function = unsafe extern "C-unwind" fn(*mut lua_State) -> c_int;

/// Replaces the originals in `lua`.
pub(super) fn install(lua: &Lua) -> Result<()> {
    // `gmatch` needs Lua's own `match`, so it is replaced before `match`.
    let strings: [(&CStr, Function); 5] =
        [(c"gmatch", gmatch), (c"find", find), (c"match", match_), (c"gsub", gsub), (c"rep", rep)];
    let tables: [(&CStr, Function); 5] =
        [(c"insert", insert), (c"remove", remove), (c"move", move_), (c"concat", concat), (c"sort", sort)];
    let globals: [(&CStr, Function); 1] = [(c"collectgarbage", collectgarbage)];
    let libraries: [(&CStr, &[(&CStr, Function)]); 3] = [(c"string", &strings), (c"table", &tables), (c"_G", &globals)];
    // SAFETY: mlua runs this protected and passes errors on. Each pushed value is popped when it is set as a field. At most four values are
    // added to the stack, and Lua guarantees room for twenty.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            for (library, functions) in libraries {
                ffi::lua_getglobal(state, library.as_ptr());
                for (name, function) in functions {
                    ffi::lua_getfield(state, -1, name.as_ptr());
                    ffi::lua_getfield(state, -2, c"match".as_ptr());
                    ffi::lua_pushcclosure(state, *function, 2);
                    ffi::lua_setfield(state, -2, name.as_ptr());
                }
                ffi::lua_pop(state, 1);
            }
        })
    }
}

unsafe extern "C-unwind" fn find(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua, as a closure that `install` made.
    unsafe { search(state, true) }
}

unsafe extern "C-unwind" fn match_(state: *mut lua_State) -> c_int {
    // SAFETY: as above.
    unsafe { search(state, false) }
}

/// `string.find` and `string.match`.
///
/// # Safety
///
/// As for all functions here: `state` belongs to a running closure whose first upvalue is the original, or is the stack with its arguments.
unsafe fn search(state: *mut lua_State, is_find: bool) -> c_int {
    // SAFETY: the strings are arguments, and stay on the stack as long as they are used. Pushes stay within LUA_MINSTACK, or within the
    // room that luaL_checkstack made.
    unsafe {
        let (Some(subject), Some(pattern)) = (text(state, 1), text(state, 2)) else { return original(state) };
        let Some(from) = start(state, 3, subject.len()) else { return original(state) };
        let rest = subject.len() - from;
        if is_find && (ffi::lua_toboolean(state, 4) != 0 || is_plain(pattern)) {
            // For each byte Lua's search may compare the whole pattern. This search reads each byte only a few times.
            if rest as u64 / BYTES_A_STEP * pattern.len() as u64 <= free() {
                return original(state);
            }
            charge(state, (rest + pattern.len()) as u64 / BYTES_A_STEP);
            return match memchr::memmem::find(&subject[from..], pattern) {
                Some(at) => {
                    ffi::lua_pushinteger(state, (from + at + 1) as lua_Integer);
                    ffi::lua_pushinteger(state, (from + at + pattern.len()) as lua_Integer);
                    2
                }
                None => nothing(state),
            };
        }
        if worst_case(pattern, rest, true) <= free() {
            return original(state);
        }
        let mut matcher = Matcher::new(subject, pattern, true, budget::left());
        let found = matcher.first(from);
        match settle(state, &matcher, found) {
            Err(_) => original(state),
            Ok(None) => nothing(state),
            Ok(Some(_)) if matcher.has_unfinished() => original(state),
            Ok(Some((begin, end))) if is_find => {
                ffi::lua_pushinteger(state, (begin + 1) as lua_Integer);
                ffi::lua_pushinteger(state, end as lua_Integer);
                2 + push_captures(state, &matcher, None)
            }
            Ok(Some(whole)) => push_captures(state, &matcher, Some(whole)),
        }
    }
}

unsafe extern "C-unwind" fn gmatch(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`; the strings become upvalues of the iterator.
    unsafe {
        let (Some(subject), Some(pattern)) = (text(state, 1), text(state, 2)) else { return original(state) };
        let from = match start(state, 3, subject.len()) {
            // Twice the worst case: one pass over the subject, and one more try after each empty match.
            Some(from) if worst_case(pattern, subject.len() - from, false).saturating_mul(2) > free() => from,
            _ => return original(state),
        };
        ffi::lua_settop(state, 2);
        ffi::lua_pushinteger(state, from as lua_Integer);
        ffi::lua_pushinteger(state, -1);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
        ffi::lua_pushcclosure(state, gmatch_next, 5);
        1
    }
}

/// The iterator. Its upvalues are the subject, the pattern, the current position, the end of the last match, and Lua's own `match`.
unsafe extern "C-unwind" fn gmatch_next(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`; the strings are upvalues, so they stay alive.
    unsafe {
        ffi::lua_settop(state, 0);
        let (subject, pattern) = (ffi::lua_upvalueindex(1), ffi::lua_upvalueindex(2));
        let (Some(subject), Some(pattern)) = (text(state, subject), text(state, pattern)) else { return 0 };
        let number = |index| ffi::lua_tointegerx(state, ffi::lua_upvalueindex(index), std::ptr::null_mut());
        let (from, last) = (usize::try_from(number(3)).unwrap_or(0), usize::try_from(number(4)).ok());
        let mut matcher = Matcher::new(subject, pattern, false, budget::left());
        let found = matcher.next(from, last);
        match settle(state, &matcher, found) {
            Ok(None) => 0,
            Ok(Some(whole)) if !matcher.has_unfinished() => {
                for upvalue in [3, 4] {
                    ffi::lua_pushinteger(state, whole.1 as lua_Integer);
                    ffi::lua_replace(state, ffi::lua_upvalueindex(upvalue));
                }
                push_captures(state, &matcher, Some(whole))
            }
            // Lua's own `match` finds the same error and reports it. A leading `^` would be an anchor to it, so it is escaped with `%`.
            _ => {
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
                ffi::lua_pushlstring(state, c"%".as_ptr(), usize::from(pattern.first() == Some(&b'^')));
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
                ffi::lua_concat(state, 2);
                ffi::lua_pushinteger(state, (from + 1) as lua_Integer);
                ffi::lua_tocfunction(state, ffi::lua_upvalueindex(5)).map_or(0, |match_| match_(state))
            }
        }
    }
}

unsafe extern "C-unwind" fn gsub(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`.
    unsafe {
        if let (Some(subject), Some(pattern)) = (text(state, 1), text(state, 2))
            && let Some(max) = integer(state, 4, subject.len() as lua_Integer + 1)
            && worst_case(pattern, subject.len(), true).saturating_mul(2) > free()
        {
            let mut matcher = Matcher::new(subject, pattern, true, budget::left());
            let found = matcher.all(max);
            // Lua itself reports a malformed pattern.
            let _ = settle(state, &matcher, found);
        }
        original(state)
    }
}

unsafe extern "C-unwind" fn rep(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`.
    unsafe {
        let length = |index| match ffi::lua_type(state, index) {
            ffi::LUA_TNONE | ffi::LUA_TNIL if index == 3 => Some(0),
            _ => text(state, index).map(|text| text.len() as u64),
        };
        let (Some(bytes), Some(separator)) = (length(1), length(3)) else { return original(state) };
        let Some(times) = integer(state, 2, 0) else { return original(state) };
        let times = u64::try_from(times).unwrap_or(0);
        if bytes + separator == 0 && times > free() {
            // Lua would loop that many times to copy nothing.
            ffi::lua_pushlstring(state, c"".as_ptr(), 0);
            return 1;
        }
        let results = original(state);
        charge(state, times / 4 + (bytes + separator).saturating_mul(times) / BYTES_A_STEP);
        results
    }
}

unsafe extern "C-unwind" fn insert(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`.
    unsafe {
        if ffi::lua_gettop(state) == 3 {
            charge_behind(state);
        }
        original(state)
    }
}

unsafe extern "C-unwind" fn remove(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`.
    unsafe {
        if ffi::lua_gettop(state) >= 2 {
            charge_behind(state);
        }
        original(state)
    }
}

/// Charges the elements of the table (first argument) that come after the position (second argument).
///
/// # Safety
///
/// See [`search`].
unsafe fn charge_behind(state: *mut lua_State) {
    // SAFETY: as in `search`.
    unsafe {
        if let (Some(len), Some(at)) = (len(state), integer(state, 2, 0)) {
            charge(state, ELEMENT.saturating_mul(between(at, len)));
        }
    }
}

unsafe extern "C-unwind" fn move_(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`.
    unsafe {
        // If the arguments are not numbers, the original fails.
        let (first, last) = (integer(state, 2, 1), integer(state, 3, 0));
        if let (Some(first), Some(last)) = (first, last) {
            charge(state, ELEMENT.saturating_mul(between(first, last)));
        }
        original(state)
    }
}

unsafe extern "C-unwind" fn concat(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`.
    unsafe {
        let last = match ffi::lua_type(state, 4) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => len(state),
            _ => integer(state, 4, 0),
        };
        if let (Some(first), Some(last)) = (integer(state, 3, 1), last) {
            charge(state, ELEMENT.saturating_mul(between(first, last)));
        }
        original(state)
    }
}

unsafe extern "C-unwind" fn sort(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`; each element that is pushed is popped.
    unsafe {
        if let Some(len) = len(state)
            && let Ok(count @ 2..) = u64::try_from(len)
        {
            charge(state, ELEMENT.saturating_mul(count));
            let mut longest = 0;
            for at in 1..=len {
                if ffi::lua_rawgeti(state, 1, at) == ffi::LUA_TSTRING {
                    longest = longest.max(ffi::lua_rawlen(state, -1) as u64);
                }
                ffi::lua_pop(state, 1);
            }
            let comparisons = count.saturating_mul(u64::from(count.ilog2() + 1));
            charge(state, comparisons.saturating_mul(ELEMENT + longest / BYTES_A_STEP));
        }
        original(state)
    }
}

unsafe extern "C-unwind" fn collectgarbage(state: *mut lua_State) -> c_int {
    // SAFETY: as in `search`.
    unsafe {
        let only_asks = text(state, 1).is_some_and(|what| what != b"collect" && what != b"step");
        if !only_asks {
            let kilobytes = u64::try_from(ffi::lua_gc(state, ffi::LUA_GCCOUNT)).unwrap_or(0);
            charge(state, kilobytes * 1024 / BYTES_A_STEP);
        }
        original(state)
    }
}

/// Calls the original function with the same arguments. It gets the upvalues of this closure too, but ignores them.
///
/// # Safety
///
/// See [`search`].
unsafe fn original(state: *mut lua_State) -> c_int {
    // SAFETY: `install` took the function from Lua's own library. Its errors unwind only the Rust frames in this file.
    unsafe {
        match ffi::lua_tocfunction(state, ffi::lua_upvalueindex(1)) {
            Some(original) => original(state),
            None => 0,
        }
    }
}

/// Charges the budget. Does not return if the budget is used up: it raises a Lua error.
///
/// # Safety
///
/// See [`search`].
unsafe fn charge(state: *mut lua_State, steps: u64) {
    if steps == 0 {
        return;
    }
    budget::charge(steps);
    // SAFETY: as in `search`.
    unsafe { check(state) }
}

/// # Safety
///
/// See [`search`].
unsafe fn check(state: *mut lua_State) {
    if let Some(problem) = budget::problem() {
        // SAFETY: the message is pushed before the error leaves this frame, which owns nothing.
        unsafe {
            ffi::luaL_where(state, 1);
            ffi::lua_pushlstring(state, problem.as_ptr().cast(), problem.len());
            ffi::lua_concat(state, 2);
            ffi::lua_error(state);
        }
    }
}

/// Charges the steps of a match. Does not return if the budget is used up: it raises a Lua error.
///
/// # Safety
///
/// See [`search`].
unsafe fn settle<T>(
    state: *mut lua_State,
    matcher: &Matcher<'_>,
    found: std::result::Result<T, Stop>,
) -> std::result::Result<T, Stop> {
    let taken = match found {
        // The step that exceeded the budget may have been expensive, so charge more than is left.
        Err(Stop::TooMany) => budget::left() + 1,
        _ => budget::left().saturating_sub(matcher.left()),
    };
    budget::charge(taken);
    // SAFETY: as in `search`.
    unsafe { check(state) }
    found
}

/// Pushes the captures, or the `whole` match if there are none.
///
/// # Safety
///
/// See [`search`].
unsafe fn push_captures(state: *mut lua_State, matcher: &Matcher<'_>, whole: Option<(usize, usize)>) -> c_int {
    // SAFETY: luaL_checkstack makes room for the pushed values. The bytes belong to Lua strings that are on the stack or are upvalues.
    unsafe {
        let count = matcher.captured() as c_int;
        ffi::luaL_checkstack(state, count + 1, c"too many captures".as_ptr());
        let push = |bytes: &[u8]| ffi::lua_pushlstring(state, bytes.as_ptr().cast(), bytes.len());
        match whole {
            Some((begin, end)) if count == 0 => {
                push(&matcher.subject()[begin..end]);
                return 1;
            }
            _ => {}
        }
        for index in 0..matcher.captured() {
            match matcher.capture(index) {
                Captured::Position(at) => ffi::lua_pushinteger(state, (at + 1) as lua_Integer),
                Captured::Bytes(begin, end) => {
                    push(&matcher.subject()[begin..end]);
                }
            }
        }
        count
    }
}

/// # Safety
///
/// See [`search`].
unsafe fn nothing(state: *mut lua_State) -> c_int {
    // SAFETY: there is always room for one value.
    unsafe { ffi::lua_pushnil(state) };
    1
}

/// A string argument, or a number that is converted to a string, as in Lua's own functions.
///
/// # Safety
///
/// See [`search`]. The slice is valid only as long as the argument is on the stack.
unsafe fn text<'s>(state: *mut lua_State, index: c_int) -> Option<&'s [u8]> {
    // SAFETY: Lua returns null, or a pointer to `len` bytes.
    unsafe {
        if !matches!(ffi::lua_type(state, index), ffi::LUA_TSTRING | ffi::LUA_TNUMBER) {
            return None;
        }
        let mut len = 0;
        let bytes = ffi::lua_tolstring(state, index, &raw mut len);
        (!bytes.is_null()).then(|| slice::from_raw_parts(bytes.cast(), len))
    }
}

/// An integer argument, or one that can be converted to an integer; `absent` if the argument is missing.
///
/// # Safety
///
/// See [`search`].
unsafe fn integer(state: *mut lua_State, index: c_int, absent: lua_Integer) -> Option<lua_Integer> {
    // SAFETY: as in `search`.
    unsafe {
        if matches!(ffi::lua_type(state, index), ffi::LUA_TNONE | ffi::LUA_TNIL) {
            return Some(absent);
        }
        let mut is_integer = 0;
        let value = ffi::lua_tointegerx(state, index, &raw mut is_integer);
        (is_integer != 0).then_some(value)
    }
}

/// Where a search begins (`posrelatI`), counted from 0; `None` if it would begin after the end.
///
/// # Safety
///
/// See [`search`].
unsafe fn start(state: *mut lua_State, index: c_int, len: usize) -> Option<usize> {
    // SAFETY: as in `search`.
    let position = unsafe { integer(state, index, 1) }?;
    let from = match position {
        1.. => usize::try_from(position - 1).ok()?,
        0 => 0,
        _ => len.saturating_sub(usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    (from <= len).then_some(from)
}

/// The length of the first argument, as `#` returns it, if it is a table.
///
/// # Safety
///
/// See [`search`].
unsafe fn len(state: *mut lua_State) -> Option<lua_Integer> {
    // SAFETY: as in `search`.
    unsafe { (ffi::lua_type(state, 1) == ffi::LUA_TTABLE).then(|| ffi::luaL_len(state, 1)) }
}

/// How many numbers there are from `first` to `last`.
fn between(first: lua_Integer, last: lua_Integer) -> u64 {
    if first > last { 0 } else { last.abs_diff(first).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Steps of a call in these tests.
    const BUDGET: u64 = 1_000_000;

    fn counting() -> Lua {
        budget::renew(u64::MAX);
        let lua = Lua::new();
        install(&lua).unwrap();
        lua
    }

    /// Runs a function of the library and shows all its results, or its error.
    const SHOW: &str = r#"
local what, s, p, extra, init, plain, max = ...
local function show(...)
    local out = {}
    for i = 1, select('#', ...) do
        local value = select(i, ...)
        out[i] = type(value) == 'string' and string.format('%q', value) or tostring(value)
    end
    return table.concat(out, ',')
end
return show(pcall(function()
    if what == 'find' then return s:find(p, init, plain) end
    if what == 'match' then return s:match(p, init) end
    if what == 'gsub' then
        if extra == 'table' then extra = { a = 'A', b = false, [1] = 'one' } end
        if extra == 'function' then extra = function(...) return select('#', ...) > 1 and show(...) or nil end end
        return s:gsub(p, extra, max)
    end
    local all = {}
    for first, second in s:gmatch(p, init) do
        all[#all + 1] = show(first, second)
        if #all > 100 then break end
    end
    return table.concat(all, ';')
end))
"#;

    fn show(lua: &Lua, arguments: impl mlua::IntoLuaMulti) -> String {
        let shown: mlua::String = lua.load(SHOW).set_name("=show").call(arguments).unwrap();
        shown.to_string_lossy()
    }

    const ITEMS: [&str; 38] = [
        "a", "b", "c", ".", "%a", "%d", "%s", "%W", "[ab]", "[^a]", "[a-c]", "[%a_-]", "[]]", "[^]a]", "[a-]", "(",
        ")", "()", "*", "+", "-", "?", "%1", "%2", "%b()", "%bab", "%f[a]", "%f[^%w]", "^", "$", "%%", "%", "[", "\0",
        "x", "%z", "(a*", ".-)",
    ];
    const PIECES: [&str; 13] = ["a", "b", "c", "(", ")", " ", "1", "_", "-", "]", "\0", "x", "ab"];
    const WAYS: [&str; 7] = ["find", "match", "gmatch", "gsub", "gsub", "gsub", "gmatch"];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn results_and_errors_are_luas_own(
            ways in vec(select(&WAYS[..]), 6..7), pattern in vec(select(&ITEMS[..]), 0..9), subject in vec(select(&PIECES[..]), 0..24),
            extra in select(&["<%0%1>", "table", "function", "%2", "%"][..]), init in -6_i64..12, plain in any::<bool>(),
            max in 0_i64..6
        ) {
            let (counted, plainly) = (counting(), Lua::new());
            let (pattern, subject) = (pattern.concat(), subject.concat());
            for way in ways {
                let max = if max == 0 { i64::MAX } else { max };
                let arguments = (way, &subject[..], &pattern[..], extra, init, plain && way == "find", max);
                budget::renew(BUDGET);
                let shown = show(&counted, arguments);
                if budget::problem().is_some() {
                    // Lua's own function would take too long as well.
                    prop_assert!(shown.contains("too m"), "{}", shown);
                    continue;
                }
                prop_assert_eq!(shown, show(&plainly, arguments), "{} {:?} in {:?}", way, pattern, subject);
            }
        }

        #[test]
        fn the_worst_case_is_not_passed(
            pattern in vec(select(&ITEMS[..]), 0..9), subject in vec(select(&PIECES[..]), 0..24)
        ) {
            let (pattern, subject) = (pattern.concat(), subject.concat());
            let worst = worst_case(pattern.as_bytes(), subject.len(), true);
            let mut matcher = Matcher::new(subject.as_bytes(), pattern.as_bytes(), true, BUDGET);
            if matcher.first(0) != Err(Stop::TooMany) {
                let steps = BUDGET - matcher.left();
                // At the end of the subject, a repeated item is checked twice.
                let most = worst.saturating_add(2 * pattern.len() as u64 * (subject.len() as u64 + 1));
                prop_assert!(steps <= most, "{} steps, not {}: {:?} in {:?}", steps, worst, pattern, subject);
            }
        }
    }

    /// Without a budget each of these would block its thread for minutes at least.
    #[test]
    fn what_takes_long_ends_with_the_budget() {
        let lua = counting();
        let ends = [
            "return (('a'):rep(30)):find(('a?'):rep(30) .. ('a'):rep(30))",
            "return (('a'):rep(30)):match(('a?'):rep(30) .. ('a'):rep(30))",
            "return (('a'):rep(30)):gsub(('a?'):rep(30) .. ('a'):rep(30), '')",
            "return (('a'):rep(30)):gmatch(('a?'):rep(30) .. ('a'):rep(30))()",
            "return (('a'):rep(20000)):find(('.-'):rep(8) .. 'b')",
            "return (('a'):rep(20000)):find(('a*'):rep(8) .. 'b')",
            "return (('a'):rep(200000)):find('.-b')",
            "return (('('):rep(200000)):gsub('%b()', '')",
            "return (('a'):rep(200000)):gsub('(a*)%1b', '')",
            "table.move({}, 1, 1 << 50, 2)",
            "table.insert(setmetatable({}, { __len = function() return 1 << 50 end }), 1, 1)",
            "table.remove(setmetatable({}, { __len = function() return 1 << 50 end }), 1)",
            "table.concat(setmetatable({}, { __index = table.concat }), '', 1, 1 << 50)",
            "local t, s = {}, ('a'):rep(1 << 16) for i = 1, 1 << 12 do t[i] = s end table.sort(t)",
            "for i = 1, 1 << 30 do local x = ('x'):rep(1 << 20) end",
            "local t = {} for i = 1, 1 << 16 do t[i] = i end for i = 1, 1 << 20 do table.insert(t, 1, i) end",
            "for i = 1, 1 << 30 do collectgarbage() end",
        ];
        for text in ends {
            let begun = Instant::now();
            budget::renew(BUDGET);
            let ended = lua.load(text).exec().expect_err(text).to_string();
            assert!(ended.contains("too m"), "{text}: {ended}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{text}: {:?}", begun.elapsed());
        }
    }

    /// Calls that would be slow too, but have a shortcut.
    #[test]
    fn what_has_a_shorter_way_goes_it() {
        let lua = counting();
        for (text, expected) in [
            ("return (('a'):rep(1 << 19)):find(('a'):rep(1 << 18) .. 'b', 1, true)", "nil"),
            ("return (('a'):rep(1 << 19) .. 'b'):find(('a'):rep(1 << 18) .. 'b')", "262145,524289"),
            ("return #(('')):rep(1 << 60)", "0"),
            ("return ('x'):rep(3, ', ')", "x, x, x"),
        ] {
            budget::renew(BUDGET);
            let values: mlua::MultiValue = lua.load(text).call(()).unwrap();
            let shown: Vec<_> = values.iter().map(|value| value.to_string().unwrap()).collect();
            assert_eq!(shown.join(","), expected, "{text}");
        }
    }

    /// `cargo test --release -- --ignored --nocapture ordinary`: nanoseconds of a call, for Lua's own functions and for these.
    #[test]
    #[ignore = "measures, and asserts nothing"]
    fn ordinary_calls_cost_what_they_did() {
        let head = "('GET /chat/room?id=17 HTTP/1.1\\r\\nHost: example.org\\r\\nUpgrade: websocket\\r\\n' .. \
                    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n')";
        let calls = [
            ("plain find", "s:find('\\r\\n\\r\\n', 1, true)"),
            ("find without magic", "s:find('\\r\\n\\r\\n')"),
            ("find in a short line", "line:find('^%w+')"),
            ("match of a request line", "s:match('^(%u+) (%S+) HTTP/(%d%.%d)\\r\\n')"),
            ("match of a header", "s:match('[Kk]ey: ([^\\r\\n]+)')"),
            ("gsub of a short line", "line:gsub('%s+', ' ')"),
            ("gsub of a head", "s:gsub('\\r\\n', '\\n')"),
            ("all headers by gmatch", "(function() for k, v in s:gmatch('([^:\\r\\n]+): *([^\\r\\n]+)') do end end)()"),
        ];
        FREE_HERE.set(FREE);
        let (ours, luas) = (counting(), Lua::new());
        for (name, call) in calls {
            let text = format!("local s, line = {head}, 'join  room 17' for i = 1, 20000 do local _ = {call} end");
            let nanos = |lua: &Lua| {
                let function = lua.load(&text).into_function().unwrap();
                let rounds = (0..7).map(|_| {
                    budget::renew(u64::MAX);
                    let begun = Instant::now();
                    function.call::<()>(()).unwrap();
                    begun.elapsed().as_nanos() / 20_000
                });
                rounds.min().unwrap()
            };
            println!("{name:<26} {:>6} ns -> {:>6} ns", nanos(&luas), nanos(&ours));
        }
    }
}
