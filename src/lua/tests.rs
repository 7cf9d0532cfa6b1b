//! Tests of scripts without a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::Manner;
use super::codecs::Codecs;
use super::pool::Pool;
use crate::config::model::LuaFraming;
use crate::metrics::ReasonLabels;
use crate::proto::close::CloseReason;
use crate::proto::framing::custom::{Codec, Custom, Outgoing, SessionCodec};
use crate::proto::framing::{Decoder, FrameError, Framing, Item};
use crate::proto::id::SessionIds;

const MAX_FRAME: usize = 1_000;

fn options(script: PathBuf) -> LuaFraming {
    LuaFraming { script, max_instructions: 10_000_000, max_memory_bytes: 4 << 20 }
}

/// A pool of one VM for a script of `tests/lua`.
fn pool_of(name: &str) -> Arc<Pool> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lua").join(name);
    Arc::new(Pool::load("test", &options(script), 1, Manner::default()).unwrap())
}

/// A pool of one VM for a script with this text, in a folder of its own.
fn pool(text: &str) -> Result<Arc<Pool>, String> {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("codec.lua");
    std::fs::write(&script, text).unwrap();
    std::fs::write(folder.path().join("beside.lua"), "#!/usr/bin/lua\nbeside = 'found' return { found = true }")
        .unwrap();
    std::fs::write(folder.path().join("broken.lua"), "\n\nthis is not Lua").unwrap();
    Pool::load("test", &options(script), 1, Manner::default()).map(Arc::new).map_err(|error| error.to_string())
}

fn session(pool: &Arc<Pool>) -> Arc<dyn SessionCodec> {
    let ids = SessionIds::new(1, 1, [7; 16]);
    Codecs(pool.clone()).of_session(ids.next_id())
}

/// All queued output.
fn settled(session: &dyn SessionCodec) -> Vec<Outgoing> {
    let mut all = Vec::new();
    session.settle(&mut |outgoing| all.push(outgoing));
    all
}

fn encoded(session: &dyn SessionCodec, body: &[u8]) -> Vec<Outgoing> {
    let mut all = Vec::new();
    session.encode(body, &mut |outgoing| all.push(outgoing)).expect("the script writes it");
    all
}

/// The error for a body that gets no frame. The session stays.
fn unwritten(session: &dyn SessionCodec, body: &[u8]) -> String {
    let why = session.encode(body, &mut |outgoing| panic!("nothing is sent: {outgoing:?}"));
    why.expect_err("the script fails").into()
}

fn bytes(text: &'static [u8]) -> Outgoing {
    Outgoing::Bytes(text.into())
}

fn framed(text: &'static [u8]) -> Outgoing {
    Outgoing::Frame(text.into())
}

/// The bodies of the frames in `input`, given in pieces of these sizes in turn.
fn frames(pool: &Arc<Pool>, input: &[u8], sizes: &[usize]) -> Result<Vec<Vec<u8>>, FrameError> {
    let framing = Framing::Custom(Custom::Session(session(pool)));
    let mut decoder = Decoder::new(&framing);
    let (mut rest, mut sizes, mut found) = (input, sizes.iter().cycle(), Vec::new());
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = later;
        loop {
            let (taken, item) = decoder.decode(&framing, MAX_FRAME, piece)?;
            assert!(decoder.buffered() <= MAX_FRAME + 16 * 1024 + 1);
            piece = &piece[taken..];
            match item {
                Some(Item::Frame(frame)) => found.push(frame.body.to_vec()),
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        assert!(piece.is_empty(), "it wants more but left some");
    }
    Ok(found)
}

fn summed(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
    [&(body.len() as u16).to_be_bytes()[..], body, &sum.to_be_bytes()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_frames(
        bodies in vec(vec(any::<u8>(), 1..MAX_FRAME), 1..30), sizes in vec(1_usize..3_000, 1..8)
    ) {
        let pool = pool_of("checksum.lua");
        let input: Vec<u8> = bodies.iter().flat_map(|body| summed(body)).collect();
        for sizes in [&[input.len()][..], &[1], &sizes] {
            prop_assert_eq!(&frames(&pool, &input, sizes).unwrap(), &bodies);
        }
    }

    #[test]
    fn random_bytes_never_panic(input in vec(any::<u8>(), 0..5_000), sizes in vec(1_usize..500, 1..4)) {
        for name in ["checksum.lua", "websocket.lua"] {
            let _ = frames(&pool_of(name), &input, &sizes);
        }
        let upgrade = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let _ = frames(&pool_of("websocket.lua"), &[&upgrade[..], &input].concat(), &[upgrade.len(), sizes[0]]);
    }
}

#[test]
fn nothing_is_kept_past_the_limit() {
    let waits = pool("function onRead() return -1 end").unwrap();
    let most = MAX_FRAME + 16 * 1024;
    assert_eq!(frames(&waits, &vec![0; most], &[1_000]), Ok(Vec::new()));
    let error = FrameError::TooLarge { size: most as u64 + 1, max: most as u64 };
    assert_eq!(frames(&waits, &vec![0; 10 * most], &[70_000]), Err(error));
    let large = "function onRead(c, n, i, o) fb.seek(i, 1) fb.append(o, ('x'):rep(1001)) return 1 end";
    let large = pool(&format!("fb = require('fooking.buffer') {large}")).unwrap();
    assert_eq!(frames(&large, b"x", &[1]), Err(FrameError::TooLarge { size: 1_001, max: 1_000 }));
    let native = pool("").unwrap();
    assert_eq!(frames(&native, b"\0\0\x03\xe9", &[1]), Err(FrameError::TooLarge { size: 1_001, max: 1_000 }));
}

#[test]
fn what_a_script_gives_leaves_in_its_order() {
    let text = "
        fb, fc = require('longwire.buffer'), require('longwire.connection')
        function onConnect(c) fc.send(c, 'hi ') fc.send(c, 1) end
        function onRead(c, n, i) fc.send(c, 'read') fb.seek(i, 9) return 1 end
        function onWrite(c, n, i, o)
            local body = fb.data(i)
            fb.append(o, ' ' .. n .. body)
            fc.send(c, 'sent')
            if body == 'no' then return -1 elseif body == 'end' then fc.close(c) end
            return body == 'native' and 0 or 1
        end
        function onClose(c) fc.send(c, 'bye') end
    ";
    let session = session(&pool(text).unwrap());
    assert!(session.open() && session.open());
    assert_eq!(settled(&*session), [bytes(b"hi 1")]);
    assert_eq!(session.decode(9, b"x").unwrap().taken, 1);
    // The answer to a frame is sent before a later push.
    assert_eq!(encoded(&*session, b"a"), [bytes(b"read"), framed(b"sent 1a")]);
    assert_eq!(encoded(&*session, b"native"), [framed(b"sent\0\0\0\x06native")]);
    assert_eq!(encoded(&*session, b"no"), [framed(b"sent")]);
    let end = || Outgoing::End(CloseReason::CodecClosed, "".into());
    assert_eq!(encoded(&*session, b"end"), [framed(b"sent 1end"), end()]);
    assert_eq!(session.decode(9, b"more").unwrap().frame, None, "nothing is read any more");
    assert_eq!(encoded(&*session, b"b"), [framed(b"sent 1b")], "what was read before is answered");
    session.close();
    session.close();
    assert_eq!(settled(&*session), [bytes(b"bye")]);
    assert_eq!(encoded(&*session, b"c"), []);
}

#[test]
fn a_push_before_the_first_byte_finds_the_session_open() {
    let text = "local fc = require('fooking.connection') function onConnect(c) fc.send(c, 'hi') end";
    let session = session(&pool(text).unwrap());
    assert_eq!(encoded(&*session, b"a"), [bytes(b"hi"), framed(b"\0\0\0\x01a")]);
    assert!(session.open());
    assert_eq!(settled(&*session), []);
}

#[test]
fn a_session_that_the_script_closes_or_fails_at_once_never_opens() {
    let head = "local fc = require('fooking.connection') function onConnect(c)";
    for (body, reason) in [("fc.close(c)", CloseReason::CodecClosed), ("error('no')", CloseReason::CodecFailed)] {
        let session = session(&pool(&format!("{head} {body} end")).unwrap());
        assert!(!session.open() && !session.open(), "{body}");
        assert_eq!(session.decode(9, b"\0\0\0\x01a").unwrap().frame, None, "{body}");
        let [Outgoing::End(why, _)] = &settled(&*session)[..] else { panic!("{body}: it ends") };
        assert_eq!(*why, reason, "{body}");
    }
}

#[test]
fn what_cannot_be_written_costs_nothing_else() {
    let text = "
        fb, fc = require('fooking.buffer'), require('fooking.connection')
        function onRead(c, n, i, o) fb.append(o, fb.data(i)) fb.seek(i, fb.size(i)) return 1 end
        function onWrite(c, n, i, o)
            local body, size = fb.data(i), fb.size(i)
            fc.send(c, 'half')
            if body == 'close' then fc.close(c) error('closed') end
            if body == 'loop' then while true do end end
            if body == 'eat' then local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end end
            if body == 'large' then fc.send(c, ('x'):rep(5000000)) end
            if body == 'wrong' then return {} end
            fb.seek(i, size)
            fb.append(o, body)
            return 1
        end
    ";
    let session = session(&pool(text).unwrap());
    for (body, why) in [
        ("", "codec.lua:12: seek: the number of bytes must be above 0"),
        ("loop", "codec.lua:8: too many instructions"),
        ("eat", "onWrite: not enough memory: max_memory_bytes is 4 MiB"),
        ("large", "not enough memory"),
        ("wrong", "onWrite returned a table, not a number"),
    ] {
        let said = unwritten(&*session, body.as_bytes());
        assert!(said.contains(why), "{body}: {said}");
        assert_eq!(encoded(&*session, b"a"), [framed(b"halfa")], "what is whole is sent, after {body}");
        assert_eq!(session.decode(MAX_FRAME, b"b").unwrap().frame.unwrap().body, "b", "and read, after {body}");
    }
    // The script closed the session before it failed, and that still counts.
    let mut all = Vec::new();
    session.encode(b"close", &mut |outgoing| all.push(outgoing)).unwrap_err();
    assert_eq!(all, [Outgoing::End(CloseReason::CodecClosed, "".into())]);
}

#[test]
fn in_fookings_manner_an_error_in_reading_waits_for_more() {
    let text = "
        fb = require('fooking.buffer')
        function onConnect(c) error('nobody minds') end
        function onRead(c, n, i, o)
            local a, b = string.byte(fb.data(i), 1, 2)
            local size = b - 48
            if a == 76 then while true do end end
            if fb.size(i) < 2 + size then return -1 end
            fb.append(o, fb.data(i):sub(3, 2 + size))
            fb.seek(i, 2 + size)
            return 1
        end
    ";
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("codec.lua");
    std::fs::write(&script, text).unwrap();
    let manner = Manner { forgives: true, ..Manner::default() };
    let pool = Arc::new(Pool::load("test", &options(script), 1, manner.clone()).unwrap());
    assert_eq!(frames(&pool, b"x3abcx1dx2ef", &[1]).unwrap(), [&b"abc"[..], b"d", b"ef"]);
    // Exceeding a limit ends the session even in this mode.
    let codec = session(&pool);
    assert!(codec.open());
    assert_eq!(codec.decode(MAX_FRAME, b"L9").unwrap().frame, None);
    assert!(matches!(settled(&*codec)[..], [Outgoing::End(CloseReason::CodecTooLong, _)]));
    let count = |reason: CloseReason| {
        let labels = ReasonLabels { listener: "test".to_owned(), reason: reason.label() };
        manner.failures.get_or_create(&labels).get()
    };
    // Two sessions that failed to connect, and three frames whose second byte had not arrived.
    assert_eq!((count(CloseReason::CodecFailed), count(CloseReason::CodecTooLong)), (5, 1));
}

/// The reason and detail with which a session ends if its `onRead` has this body.
fn fault(body: &str) -> (CloseReason, String) {
    let head = "fb, fc = require('fooking.buffer'), require('fooking.connection')";
    let pool = pool(&format!("{head}\nfunction onRead(c, n, i, o)\n{body}\nend")).unwrap();
    let codec = session(&pool);
    let decoded = codec.decode(MAX_FRAME, b"12345678").unwrap();
    assert_eq!((decoded.taken, decoded.frame), (8, None), "{body}");
    // The VM works as before.
    let other = session(&pool);
    assert!(other.open());
    assert_eq!(encoded(&*other, b"a"), [framed(b"\0\0\0\x01a")], "{body}");
    match &settled(&*codec)[..] {
        [Outgoing::End(reason, detail)] => (*reason, detail.to_string()),
        others => panic!("{body}: {others:?}"),
    }
}

#[test]
fn a_fault_says_where_it_is() {
    let failed = [
        ("return nil + 1", "codec.lua:3: attempt to perform arithmetic on a nil value"),
        ("error('no')", "codec.lua:3: no"),
        ("error({})", "table"),
        ("fb.size(nil)", "codec.lua:3: bad argument #1 to 'size' (buffer expected, got nil)"),
        ("fb.size(c)", "codec.lua:3: bad argument #1 to 'size' (buffer expected, got lightuserdata)"),
        ("fc.send(i, 'x')", "codec.lua:3: bad argument #1 to 'send' (connection expected, got lightuserdata)"),
        ("fc.send(c, {})", "codec.lua:3: bad argument #2 to 'send' (string expected, got table)"),
        ("fb.seek(i, 'x')", "codec.lua:3: bad argument #2 to 'seek' (integer expected, got string)"),
        ("\nfb.seek(i, 0)", "codec.lua:4: seek: the number of bytes must be above 0"),
        ("fb.append(i, 'x')", "codec.lua:3: append: cannot append to the bytes that the client has sent"),
        ("return {}", "onRead returned a table, not a number"),
        ("return 1", "took nothing"),
        ("os.exit()", "codec.lua:3: os.exit"),
        ("require('nowhere')", "module 'nowhere' not found"),
        ("dofile('nowhere.lua')", "codec.lua:3: cannot open nowhere.lua"),
        ("assert(load(string.dump(function() end)))", "attempt to load a binary chunk"),
        ("require('socket.core')", "module 'socket.core' not found"),
    ];
    for (body, text) in failed {
        let (reason, detail) = fault(body);
        assert!(reason == CloseReason::CodecFailed && detail.contains(text), "{body}: {reason:?} {detail}");
    }
}

#[test]
fn no_protection_protects_a_call_that_runs_too_long() {
    for body in [
        "while true do end",
        "pcall(function() while true do end end) return 1",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "while true do coroutine.wrap(function() while true do end end)() end",
        "while true do load(function() while true do end end) end",
        "while true do local x <close> = setmetatable({}, { __close = function() while true do end end }) end",
        "while true do ('x'):gsub('x', function() while true do end end) end",
        "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) while true do pcall(function() return t[1] end) end",
        "goto again ::again:: goto again",
        "while true do string.rep('x', 1000000) end",
    ] {
        let (reason, detail) = fault(body);
        assert_eq!(reason, CloseReason::CodecTooLong, "{body}: {detail}");
    }
}

#[test]
fn no_depth_overflows_the_stack() {
    for body in [
        "local function f() return 1 + f() end f()",
        "local function f() return pcall(f) end f() error('deep')",
        "local function f() return xpcall(f, f) end f() error('deep')",
        "local function f() return (('x'):gsub('x', f)) end f()",
        "local function f() return coroutine.wrap(f)() end f()",
        "local function f() return coroutine.resume(coroutine.create(f)) end f() error('deep')",
        "local function f() return load(f) end f() error('deep')",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k] end return t.x",
        "local t = setmetatable({}, {}) getmetatable(t).__tostring = function(t) return tostring(t) end print(t)",
        "assert(load('return ' .. ('('):rep(100000)))",
        "local function f() table.sort({ 1, 2 }, f) end f()",
    ] {
        // A stack overflow would end the process. It does not matter which limit Lua reaches first.
        fault(body);
    }
}

#[test]
fn no_way_to_ask_for_memory_passes_the_limit() {
    for body in [
        "local t = {} while true do t[#t + 1] = {} end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end",
        "string.rep('x', 1 << 30)",
        "while true do fc.send(c, ('x'):rep(100000)) end",
        "while true do fb.append(o, ('x'):rep(100000)) end",
        "table.concat({ ('x'):rep(2000000), ('y'):rep(2000000), ('z'):rep(2000000) })",
        "string.pack('!16 c3000000 c3000000', 'x', 'y')",
    ] {
        let (reason, detail) = fault(body);
        assert_eq!(reason, CloseReason::CodecOutOfMemory, "{body}: {detail}");
    }
}

#[test]
fn a_hoard_sets_the_vm_aside_and_the_oldest_of_too_many_ends() {
    let text = "
        all = {}
        local fb = require('fooking.buffer')
        function onRead(c, n, i)
            local piece = ('x'):rep(10000)
            while true do all[#all + 1] = piece .. #all end
        end
        function onWrite(c, n, i) mine = (mine or 0) + 1 fb.append(i, mine) end
    ";
    let pool = pool(text).unwrap();
    let (first, hoarder) = (session(&pool), session(&pool));
    assert_eq!(encoded(&*first, b"a"), [framed(b"\0\0\0\x02a1")]);
    hoarder.decode(9, b"x").unwrap();
    assert!(matches!(settled(&*hoarder)[..], [Outgoing::End(CloseReason::CodecOutOfMemory, _)]));
    // Its VM is set aside with its data, and a new session is in another VM.
    let second = session(&pool);
    assert_eq!(encoded(&*second, b"b"), [framed(b"\0\0\0\x02b1")]);
    assert_eq!(encoded(&*first, b"c"), [framed(b"\0\0\0\x02c2")]);
    let hoarder = session(&pool);
    hoarder.decode(9, b"x").unwrap();
    assert!(matches!(settled(&*hoarder)[..], [Outgoing::End(CloseReason::CodecOutOfMemory, _)]));
    // As many VMs may be set aside as are in use: one.
    assert!(matches!(encoded(&*first, b"d")[..], [Outgoing::End(CloseReason::CodecOutOfMemory, _)]));
    assert_eq!(encoded(&*second, b"e"), [framed(b"\0\0\0\x02e2")]);
    // The extra memory has a limit too.
    second.decode(9, b"x").unwrap();
    assert_eq!(encoded(&*session(&pool), b"f"), [framed(b"\0\0\0\x02f1")]);
}

#[test]
fn garbage_of_many_calls_is_no_reason_to_fail() {
    // Two thirds of the memory stay in use, and each call leaves a tenth as garbage.
    let text = "
        local fb = require('fooking.buffer')
        kept = {}
        for i = 1, 27 do kept[i] = ('k'):rep(100000) .. i end
        function onWrite(c, n, i, o) fb.append(o, #(('x'):rep(400000) .. fb.data(i))) return 1 end
    ";
    let session = session(&pool(text).unwrap());
    for _ in 0..100 {
        assert_eq!(encoded(&*session, b"a"), [framed(b"400001")]);
    }
}

#[test]
fn scripts_find_what_stands_beside_them_and_the_libraries() {
    let text = "
        assert(require('beside').found and dofile('beside.lua').found and loadfile('beside.lua')().found)
        assert(require('beside') == require('beside'))
        assert(require('fooking.buffer') and require('longwire.connection'))
        local nothing, problem = loadfile('nowhere.lua')
        assert(nothing == nil and problem:find('nowhere.lua'))
        assert(select(2, xpcall(error, function(e) return e .. '!' end, 'x')) == 'x!')
        assert(select('#', pcall(error)) == 2 and select(2, pcall(error, 'x')) == 'x')
        assert(load('return ...', 'name', 't', {})(5) == 5)
        assert(coroutine.wrap(function() coroutine.yield(7) end)() == 7)
        assert(debug.traceback('here'):find('^here\\nstack traceback'))
        assert(os.time() and io.open and math.pi and utf8.char(8364) and table.unpack and string.pack)
        assert(package.cpath == '' and not pcall(package.loadlib, 'x', 'y'))
        print('loaded', 1, nil, {})
    ";
    pool(text).unwrap();
}

#[test]
fn a_script_that_cannot_be_loaded_says_where_it_is_wrong() {
    for (text, problem) in [
        ("\nfunction (", "codec.lua:2: <name> expected near '('"),
        ("\n\nerror('no')", "codec.lua:3: no"),
        ("while true do end", "codec.lua:1: too many instructions"),
        ("local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end", "not enough memory"),
        ("dofile('broken.lua')", "broken.lua:3: syntax error near 'is'"),
        ("dofile('nowhere.lua')", "codec.lua:1: cannot open nowhere.lua"),
    ] {
        let error = pool(text).unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let missing =
        Pool::load("test", &options("/nowhere/codec.lua".into()), 1, Manner::default()).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/codec.lua: "), "{missing}");
}

#[test]
fn a_handle_is_of_its_call_and_a_connection_of_its_session() {
    let text = "
        local fb, fc = require('fooking.buffer'), require('fooking.connection')
        conns = {}
        function onConnect(c) conns[c] = fc.id(c) end
        function onWrite(c, n, i, o)
            assert(conns[c] == fc.id(c) and type(c) == 'userdata')
            assert(fb.size(fc.buffer(c)) == 0 and fc.buffer(c) ~= i and i ~= o)
            old = old or i
            if fb.data(i) == 'old' then fb.size(old) end
            for conn in pairs(conns) do
                assert(pcall(fc.send, conn, '!') == (conn == c))
            end
            return 1
        end
    ";
    let pool = pool(text).unwrap();
    let (first, second) = (session(&pool), session(&pool));
    assert!(first.open() && second.open());
    assert_eq!(encoded(&*first, b"a"), [framed(b"!")]);
    assert_eq!(encoded(&*second, b"a"), [framed(b"!")]);
    let why = unwritten(&*second, b"old");
    assert!(why.contains("codec.lua:9: size: this handle is of another call"), "{why}");
    assert_eq!(encoded(&*second, b"a"), [framed(b"!")]);
    assert_eq!(encoded(&*first, b"a"), [framed(b"!")]);
}
