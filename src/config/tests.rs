//! Tests from a text to a model, or to its errors.

use std::time::Duration;

use proptest::prelude::*;

use super::model::*;
use super::*;
use crate::proto::heartbeat::{Copied, Pattern};

/// A valid configuration, to which each case adds its own lines.
const BASE: &str = r#"
[upstreams.php]
backends = ["127.0.0.1:9000"]
[apps.chat]
upstream = "php"
script = "/srv/chat.php"
check_script = false
[listeners.raw]
bind = "127.0.0.1:9005"
app = "chat"
"#;

fn parse(text: &str) -> Result<(Config, Vec<Warning>), Errors> {
    Config::parse(text, Path::new("/etc/longwire/longwire.toml"))
}

/// `text` is refused with these lines, which are shown here without the file's name.
fn check(text: &str, expected: &[&str]) {
    let errors = parse(text).expect_err(text).to_string();
    let errors: Vec<_> = errors.lines().map(|line| line.trim_start_matches("/etc/longwire/longwire.toml:")).collect();
    assert_eq!(errors, expected, "{text}");
}

#[test]
fn a_small_file_gets_every_default() {
    let (config, warnings) = parse(BASE).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.limits.max_sessions, 100_000);
    assert_eq!(config.admin, Some(Bind::Tcp("127.0.0.1:9011".parse().unwrap())));
    let [listener] = config.listeners.as_slice() else { panic!("{config:?}") };
    let Protocol::Stream { framing: StreamFraming::Length(framing), app, .. } = &listener.protocol else {
        panic!("{listener:?}")
    };
    assert_eq!((framing.width, framing.offset, framing.header, framing.keep_header), (4, 0, 4, false));
    assert_eq!((framing.endian, framing.counts), (Endian::Big, LengthCounts::Body));
    assert_eq!(listener.tcp.keepalive, Duration::from_secs(60));
    assert_eq!((app.document_root.as_path(), app.script_name.as_str()), (Path::new("/srv"), "/chat.php"));
    assert_eq!((app.uri.as_str(), app.max_queued_bytes, app.idle_timeout), ("/chat.php", 1 << 20, Duration::ZERO));
    assert_eq!(config.upstreams[0].max_connections, 4);
}

#[test]
fn the_router_closes_silent_connections_of_the_short_protocol_only_if_it_is_written() {
    let timeouts = |written: &str| {
        let (config, _) = parse(&format!("{BASE}\n[router]\n{written}")).unwrap();
        (config.router.idle_timeout.as_secs(), config.router.short_idle_timeout.as_secs())
    };
    assert_eq!(timeouts(""), (600, 0));
    assert_eq!(timeouts("idle_timeout = \"1m\""), (60, 60));
    assert_eq!(timeouts("idle_timeout = 0"), (0, 0));
}

#[test]
fn beside_a_secret_the_short_protocol_has_to_be_asked_for() {
    let parsed = |written: &str| {
        let (config, warnings) = parse(&format!("{BASE}\n[router]\n{written}")).unwrap();
        (config.router.short_protocol, warnings.len())
    };
    let secret = "secret = \"a secret of a shop\"";
    assert_eq!(parsed(""), (true, 0));
    assert_eq!(parsed("short_protocol = false"), (false, 0));
    assert_eq!(parsed(secret), (false, 0));
    assert_eq!(parsed(&format!("{secret}\nshort_protocol = true")), (true, 1), "with a warning");
    assert_eq!(parsed(&format!("bind = \"0.0.0.0:9010\"\n{secret}")), (false, 0));
}

#[test]
fn messages_on_their_way_have_room_for_the_largest() {
    let bound =
        |written: &str| parse(&format!("{BASE}\n{written}")).map(|(config, _)| config.router.max_buffered_bytes);
    assert_eq!(bound(""), Ok(64 << 20));
    assert_eq!(bound("[router]\nmax_message_bytes = \"100 MiB\""), Ok(100 << 20));
    assert_eq!(bound("[router]\nmax_buffered_bytes = \"16 MiB\""), Ok(16 << 20));
    let wrong = bound("[router]\nmax_buffered_bytes = \"16 MiB\"\n[api]\nmax_body_bytes = \"17 MiB\"").unwrap_err();
    assert!(
        wrong.to_string().contains("must be at least max_message_bytes and max_body_bytes of [api], 17 MiB"),
        "{wrong}"
    );
}

#[test]
fn everything_that_is_written_arrives() {
    let text = r#"
[node]
name = "edge-1"
number = 7
threads = 3
[admin]
bind = "off"
[log]
format = "json"
level = "info,longwire::upstream=debug"
[upstreams.own]
max_connections = 2
linger = 0
[upstreams.own.spawn]
workers = 3
ini = { memory_limit = "256M", display_errors = false, precision = 17 }
[upstreams.php]
backends = ["unix:run/a.sock", { address = "[::1]:9000", weight = 2 }]
[apps.chat]
upstream = "php"
script = "app/index.php"
check_script = false
document_root = "."
events = ["close", "message"]
on_error = { send = "sorry" }
params = { SHOP = "7" }
max_frame_bytes = "2 MiB"
[apps.site]
upstream = "own"
script = "app/index.php"
check_script = false
on_error = "close"
idle_timeout = "0"
[listeners.lines]
bind = "unix:run/lines.sock"
app = "chat"
framing = { type = "delimiter", delimiter = [0x0D, 0xFF], strip_cr = true }
[listeners.web]
bind = "[::]:8080"
protocol = "http"
[listeners.web.routes]
"/a/*" = "chat"
"/a/b" = "site"
"/a/b/*" = "chat"
"/" = "site"
[listeners.web.websocket]
origins = ["https://Shop.example"]
deflate = true
"#;
    let (config, warnings) = parse(text).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.node, Node { name: "edge-1".into(), number: 7, threads: 3 });
    assert_eq!((config.admin, config.log.format), (None, LogFormat::Json));
    assert_eq!(config.listeners[0].bind, Bind::Unix("/etc/longwire/run/lines.sock".into()));
    let Protocol::Stream { framing, app, .. } = &config.listeners[0].protocol else { panic!() };
    assert_eq!(*framing, StreamFraming::Delimiter(DelimiterFraming { delimiter: vec![0x0D, 0xFF], strip_cr: true }));
    assert_eq!(app.script, Path::new("/etc/longwire/app/index.php"));
    assert_eq!((app.script_name.as_str(), app.on_error.clone()), ("/app/index.php", OnError::Send("sorry".into())));
    assert_eq!(app.events, Events { close: true, ..Events::default() });
    assert_eq!((app.max_queued_bytes, app.params[0].1.reveal()), (2 << 20, "7"));
    let Protocol::Http(http) = &config.listeners[1].protocol else { panic!() };
    let paths: Vec<_> = http.routes.iter().map(|route| (route.path.as_str(), route.app.name.as_str())).collect();
    assert_eq!(paths, [("/a/b/*", "chat"), ("/a/b", "site"), ("/a/*", "chat"), ("/", "site")]);
    assert_eq!(http.websocket.origins, Origins::List(vec![OriginPattern::Exact("https://shop.example".into())]));
    let spawn = config.upstreams[0].spawn.as_ref().unwrap();
    assert_eq!(spawn.ini.len(), 3);
    assert_eq!(spawn.ini[1], ("display_errors".into(), "off".into()));
    assert_eq!(config.upstreams[1].backends[1].weight, 2);
}

#[test]
fn every_error_comes_at_once_and_in_the_order_of_lines() {
    check(
        "[limits]\nmax_session = 1\nhandshake_timeout = 10\n[log]\nformat = \"xml\"\n[listeners.a]\nbind = 9005\napp = \"x\"\n",
        &[
            "2: limits.max_session: unknown key, did you mean \"max_sessions\"?",
            "3: limits.handshake_timeout = 10: must be a duration: \"500ms\", \"30s\", \"5m\" or \"1h\", this is an integer",
            "5: log.format = \"xml\": must be \"text\" or \"json\"",
            "7: listeners.a.bind = 9005: must be \"host:port\", \"[::1]:port\" or \"unix:/path\", this is an integer",
            "8: listeners.a.app = \"x\": there is no [apps.x]",
        ],
    );
}

#[test]
fn several_syntax_errors_come_without_echoes() {
    let errors = parse("[node\nname = \"x\"\n[limits]\nmax_sessions = = 3\n").unwrap_err();
    let lines: Vec<_> = errors.problems().iter().map(Problem::line).collect();
    assert_eq!(lines, [1, 4], "{errors}");
}

#[test]
fn a_line_that_is_not_toml_is_refused_with_what_to_write() {
    for (line, expected) in [
        ("bind = 127.0.0.1:8080", "a text must be in quotes"),
        ("bind = /run/node.sock", "a text must be in quotes"),
        ("mode = 0660", "a mode must be in quotes"),
        ("// where it listens", "a comment begins with #"),
        ("; where it listens", "a comment begins with #"),
    ] {
        let error = parse(&format!("[listeners.web]\n{line}\n")).unwrap_err().to_string();
        assert!(error.contains(":2: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn each_rule_has_its_message() {
    for (addition, expected) in [
        (
            "framing = { type = \"raw\", length_bytes = 4 }",
            "11: listeners.raw.framing.length_bytes = 4: only for type = \"length\"",
        ),
        (
            "framing = { header_bytes = 3 }",
            "11: listeners.raw.framing.header_bytes = 3: must be at least 4, where the length field ends",
        ),
        (
            "framing = { type = \"delimiter\", delimiter = \"\" }",
            "11: listeners.raw.framing.delimiter = \"\": must be a string or a list of bytes, 1 to 64 bytes long",
        ),
        ("framing = { length_bytes = 5 }", "11: listeners.raw.framing.length_bytes = 5: must be 1, 2, 3, 4 or 8"),
        ("routes = { \"/\" = \"chat\" }", "11: listeners.raw.routes: only for protocol = \"http\""),
        ("tcp_keepalive = \"1ms\"", "11: listeners.raw.tcp_keepalive = \"1ms\": must be 0 or from 1s to 9h"),
        (
            "[listeners.two]\nbind = \"0.0.0.0:9005\"\napp = \"chat\"",
            "12: listeners.two.bind = \"0.0.0.0:9005\": raw listens there too",
        ),
        (
            "[listeners.two]\nbind = \"127.0.0.1:9011\"\napp = \"chat\"",
            "12: listeners.two.bind = \"127.0.0.1:9011\": admin listens there too",
        ),
        (
            "[listeners.two]\nbind = \"127.0.0.1:1\"",
            "11: listeners.two.app: missing, for example app = \"chat\"; protocol is \"tcp\" by default",
        ),
        (
            "[listeners.two]\nbind = \"127.0.0.1:1\"\nprotocol = \"http\"\nroutes = { ws = \"chat\" }",
            "14: listeners.two.routes.ws = \"chat\": a path begins with \"/\", has no query, and has \"*\" only at its end, as \"/*\"",
        ),
        (
            "[listeners.two]\nbind = \"127.0.0.1:1\"\nprotocol = \"http\"\nroutes = { \"/\" = \"chta\" }",
            "14: listeners.two.routes.\"/\" = \"chta\": there is no [apps.chta], did you mean \"chat\"?",
        ),
        (
            "[listeners.\"a b\"]\nbind = \"127.0.0.1:1\"\napp = \"chat\"",
            "11: listeners.\"a b\": a name is 1 to 64 characters of A-Z a-z 0-9 . _ -",
        ),
        ("[node]\nnumber = 4096", "12: node.number = 4096: must be an integer from 0 to 4095"),
        (
            "[log]\nlevel = \"warning\"",
            "12: log.level = \"warning\": must be error, warn, info, debug or trace, also by module: info,longwire::upstream=debug",
        ),
        (
            "[log]\nlevel = \"\"",
            "12: log.level = \"\": must be error, warn, info, debug or trace, also by module: info,longwire::upstream=debug",
        ),
        (
            "[log]\nlevel = \"info,x=loud\"",
            "12: log.level = \"info,x=loud\": must be error, warn, info, debug or trace, also by module: info,longwire::upstream=debug",
        ),
        (
            "[upstreams.b]\nmax_connections = 1",
            "11: upstreams.b.backends: missing, for example backends = [\"unix:/run/php/php8.2-fpm.sock\"], or a spawn table",
        ),
        (
            "[upstreams.b]\nbackends = [\"127.0.0.1:1\"]\nspawn = {}",
            "11: upstreams.b: backends and spawn exclude each other",
        ),
        (
            "[upstreams.b]\nmax_connections = 9\nspawn = { workers = 8 }",
            "12: upstreams.b.max_connections = 9: must be at most the 8 workers of spawn",
        ),
        (
            "[upstreams.b]\nbackends = [\"127.0.0.1:1\", { weight = 2 }]",
            "12: upstreams.b.backends = { weight = 2 }: missing address",
        ),
        ("[upstreams.b]\nbackends = []", "12: upstreams.b.backends = []: at least one address is needed"),
        ("[upstreams.b.spawn]\nini = { a = \"b\\nuser = root\" }", "12: upstreams.b.spawn.ini.a: must be one line"),
    ] {
        check(&format!("{}{addition}\n", BASE), &[expected]);
    }
}

#[test]
fn each_rule_of_an_app_has_its_message() {
    for (addition, expected) in [
        (
            "events = [\"conect\"]",
            "12: apps.b.events = \"conect\": must be \"connect\", \"message\", \"close\", \"join\", \"leave\", \"occupied\" or \"vacated\", did you mean \"connect\"?",
        ),
        (
            "subprotocols = [\"mqtt\", \"two words\"]",
            "12: apps.b.subprotocols = \"two words\": a sub-protocol is made of A-Z a-z 0-9 and !#$%&'*+-.^_`|~",
        ),
        (
            "subprotocols = [\"\"]",
            "12: apps.b.subprotocols = \"\": a sub-protocol is made of A-Z a-z 0-9 and !#$%&'*+-.^_`|~",
        ),
        ("subprotocols = [\"mqtt\", \"mqtt\"]", "12: apps.b.subprotocols = \"mqtt\": is in the list twice"),
        ("max_queued_bytes = 1024", "12: apps.b.max_queued_bytes = 1024: must be at least max_frame_bytes, 1 MiB"),
        (
            "max_frame_bytes = 0",
            "12: apps.b.max_frame_bytes = 0: must be a size from 1 B to 4 GiB: 65536 or \"64 KiB\"",
        ),
        (
            "document_root = \"/var\"",
            "12: apps.b.document_root = \"/var\": the script /etc/longwire/b.php is not below it",
        ),
        (
            "uri = \"b\"",
            "12: apps.b.uri = \"b\": must begin with \"/\" and have neither spaces nor characters beyond ASCII",
        ),
        ("params = { SESSIONID = \"1\" }", "12: apps.b.params.SESSIONID: this param is set by longwire itself"),
        ("params = { A = 1 }", "12: apps.b.params.A: must be a string, this is an integer"),
        (
            "params = { A = \"env:LONGWIRE_NO_SUCH\" }",
            "12: apps.b.params.A: environment variable LONGWIRE_NO_SUCH: environment variable not found",
        ),
        (
            "on_error = \"retry\"",
            "12: apps.b.on_error = \"retry\": must be \"ignore\", \"close\" or { send = \"text\" }",
        ),
        (
            "param_prefix = \"1\"",
            "12: apps.b.param_prefix = \"1\": is made of A-Z a-z 0-9 _ and does not begin with a digit",
        ),
        (
            "send_timeout = 0",
            "12: apps.b.send_timeout = 0: must be a duration: \"500ms\", \"30s\", \"5m\" or \"1h\", this is an integer",
        ),
        ("send_timeout = \"0s\"", "12: apps.b.send_timeout = \"0s\": must be above zero"),
        ("send_timeout = \"9000h\"", "12: apps.b.send_timeout = \"9000h\": must be at most a year, \"8760h\""),
    ] {
        let app = "[apps.b]\nupstream = \"php\"\nscript = \"b.php\"\ncheck_script = false\n";
        let listener = "[listeners.b]\nbind = \"127.0.0.1:1\"\napp = \"b\"\n";
        let text = format!("{}{app}{addition}\n{listener}", &BASE[1..]);
        let expected = expected.replacen("12", "14", 1);
        check(&text, &[&expected]);
    }
}

#[test]
fn a_limit_that_the_length_field_cannot_announce_is_refused_only_when_written() {
    let narrow = format!("{BASE}framing = {{ length_bytes = 2, length_counts = \"frame\" }}\n");
    assert!(parse(&narrow).is_ok());
    let written = narrow.replace("[listeners", "max_frame_bytes = \"64 KiB\"\n[listeners");
    let rule = "the length field of listener \"raw\" has 2 bytes and can announce at most 65533 B";
    check(&written, &[&format!("8: apps.chat.max_frame_bytes = \"64 KiB\": {rule}")]);
}

#[test]
fn paths_begin_at_the_folder_of_the_file_and_are_tidy() {
    for (script, root, expected) in [
        ("./a.php", "", ("/etc/longwire/a.php", "/etc/longwire", "/a.php", "/a.php")),
        ("../app/./a.php", "", ("/etc/app/a.php", "/etc/app", "/a.php", "/a.php")),
        ("../app/sub/a b.php", "../app", ("/etc/app/sub/a b.php", "/etc/app", "/sub/a b.php", "/sub/a%20b.php")),
        ("/srv/a.php", "/", ("/srv/a.php", "/", "/srv/a.php", "/srv/a.php")),
    ] {
        let root = if root.is_empty() { String::new() } else { format!("document_root = \"{root}\"\n") };
        let text = BASE.replace("/srv/chat.php", script).replace("[listeners", &format!("{root}[listeners"));
        let app = parse(&text).unwrap().0.apps[0].clone();
        let found = (app.script.to_str().unwrap(), app.document_root.to_str().unwrap(), &*app.script_name, &*app.uri);
        assert_eq!(found, expected);
    }
}

#[test]
fn a_file_that_is_not_text_or_far_too_large_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (prepare, part) in [
        ((&|file: &File| file.set_len(MAX_FILE_BYTES + 1)) as &dyn Fn(&File) -> std::io::Result<()>, "is larger than"),
        (&|mut file: &File| file.set_len(0).and_then(|()| std::io::Write::write_all(&mut file, b"\xff")), "UTF-8"),
    ] {
        prepare(file.as_file()).unwrap();
        let error = Config::load(file.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains(part), "{error}");
    }
}

#[test]
fn a_missing_script_is_an_error_only_where_php_surely_sees_our_files() {
    for (backend, refused, warnings) in
        [("unix:/run/php.sock", true, 0), ("127.0.0.1:9000", false, 1), ("192.0.2.1:9000", false, 0)]
    {
        let text = BASE.replace("check_script = false\n", "").replace("127.0.0.1:9000", backend);
        match parse(&text) {
            Ok((_, found)) => assert_eq!((false, warnings), (refused, found.len()), "{backend}"),
            Err(errors) => assert!(refused && errors.to_string().contains("No such file"), "{backend}: {errors}"),
        }
    }
}

#[test]
fn what_nothing_leads_to_is_a_warning() {
    let text = format!(
        "{BASE}[apps.old]\nupstream = \"old\"\nscript = \"/old.php\"\ncheck_script = false\n[upstreams.old]\nspawn = {{}}\n"
    );
    let (_, warnings) = parse(&text).unwrap();
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["/etc/longwire/longwire.toml:11: apps.old: no listener leads to \"old\""]);
}

#[test]
fn a_param_that_no_event_could_carry_is_refused_here_and_not_at_the_start() {
    let with = |bytes: usize| {
        parse(&BASE.replace("[listeners", &format!("params = {{ KEY = \"{}\" }}\n[listeners", "x".repeat(bytes))))
            .map(drop)
    };
    with(65_000).expect("it fits");
    let error = with(70_000).unwrap_err().to_string();
    assert!(error.contains("apps.chat.params.KEY: a param of 70008 bytes") && error.len() < 200, "{error}");
}

#[test]
fn secrets_are_in_no_message_and_no_debug_text() {
    let secret = std::env::var("PATH").unwrap();
    let text = BASE.replace("[listeners", "params = { KEY = \"env:PATH\", key-2 = \"env:PATH\" }\n[listeners");
    let errors = parse(&text).unwrap_err().to_string();
    assert!(errors.contains("key-2") && !errors.contains(&secret), "{errors}");
    let (config, _) = parse(&text.replace("key-2", "KEY_2")).unwrap();
    assert_eq!(config.apps[0].params[1].1.reveal(), secret);
    assert!(!format!("{config:?}").contains(&secret));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_is_never_a_panic(at in 0_usize..BASE.len(), with in "\\PC{0,3}", cut in 0_usize..20) {
        let end = (at + cut).min(BASE.len());
        let text = format!("{}{with}{}", &BASE[..at], &BASE[end..]);
        let _ = parse(&text);
    }
}

#[test]
fn a_heartbeat_is_what_was_written_with_its_defaults() {
    let text = r#"
[listeners.sms]
bind = "127.0.0.1:0"
app = "sms"
framing = { length_counts = "frame", header_bytes = 12, keep_header = true }
[listeners.sms.heartbeat]
send = [0, 0, 0, 12, 0, 0, 0, 8, 0, 0, 0, 0]
sequence = { offset = 8, width = 4 }
answer = { offset = 4, bytes = [0x80, 0, 0, 8] }
probe = { offset = 4, bytes = "test" }
reply = [0, 0, 0, 12, 0, 0, 0, 9, 0, 0, 0, 0]
copy = { from = 8, to = 8, bytes = 4 }
[apps.sms]
upstream = "php"
script = "/srv/sms.php"
check_script = false
[upstreams.php]
backends = ["127.0.0.1:9000"]
ask_limits = true
"#;
    let (config, warnings) = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty() && config.upstreams[0].ask_limits, "{warnings:?}");
    let Protocol::Stream { heartbeat: Some(heartbeat), .. } = &config.listeners[0].protocol else { panic!() };
    let ask = heartbeat.ask.as_ref().unwrap();
    assert_eq!((ask.after, ask.every), (Duration::from_secs(60), Duration::from_secs(60)));
    assert_eq!((ask.max_unanswered, ask.sequence.clone()), (3, Some(8..12)));
    assert_eq!(ask.answer, Some(Pattern { offset: 4, bytes: vec![0x80, 0, 0, 8] }));
    let reply = heartbeat.reply.as_ref().unwrap();
    assert_eq!(reply.probe, Pattern { offset: 4, bytes: b"test".to_vec() });
    assert_eq!(reply.copy, Some(Copied { from: 8, to: 8, len: 4 }));
}

#[test]
fn frames_that_raw_does_not_have_are_not_looked_for_without_a_warning() {
    let heartbeat =
        "framing = { type = \"raw\" }\nheartbeat = { send = \"PING\", answer = { offset = 0, bytes = \"PONG\" } }";
    let (_, warnings) = parse(&format!("{BASE}{heartbeat}")).unwrap_or_else(|errors| panic!("{errors}"));
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let warning = warning.to_string();
    assert!(warning.contains("listeners.raw.heartbeat.answer: type = \"raw\" has no frames"), "{warning}");
}

#[cfg(not(feature = "lua"))]
#[test]
fn a_build_without_lua_refuses_framings_in_lua() {
    check(
        &format!("{BASE}framing = {{ type = \"lua\", script = \"codec.lua\" }}\n"),
        &["11: listeners.raw.framing.type = \"lua\": this longwire was built without Lua (the cargo feature \"lua\")"],
    );
}

/// A `[cluster]` with TLS, from line 12 on.
fn cluster(engine: &str, tls: &str) -> String {
    format!("{BASE}[cluster]\n{engine}\ntls = {{ {tls} }}\n")
}

#[test]
fn each_rule_about_tls_to_the_engine_has_its_message() {
    let redis = "engine = \"redis\"\nurls = [\"rediss://10.0.0.5\"]";
    let nats = "engine = \"nats\"\nurls = [\"10.0.0.5\"]";
    for engine in [redis, nats] {
        for (tls, expected) in [
            ("cert = \"node.pem\"", "14: cluster.tls.cert = \"node.pem\": needs key, its private key"),
            (
                "ca = \"no-such.pem\", key = \"node.key\"",
                "14: cluster.tls.key = \"node.key\": needs cert, the certificate that it belongs to",
            ),
            (
                "ca = \"no-such.pem\"",
                "14: cluster.tls.ca = \"no-such.pem\": /etc/longwire/no-such.pem: No such file or directory (os error 2)",
            ),
            (
                "cert = \"/no-such.pem\", key = \"node.key\"",
                "14: cluster.tls.cert = \"/no-such.pem\": /no-such.pem: No such file or directory (os error 2)",
            ),
            ("crt = \"node.pem\"", "14: cluster.tls.crt: unknown key, did you mean \"cert\"?"),
        ] {
            check(&cluster(engine, tls), &[expected]);
        }
    }
}

#[test]
fn tls_that_reaches_no_engine_is_a_warning() {
    let local = "engine = \"local\"\n";
    let plain = "engine = \"redis\"\nurls = [\"redis://10.0.0.5\", \"redis+unix:///run/redis.sock\"]";
    for (engine, expected) in [
        (local, "cluster.tls: has no effect while engine is \"local\""),
        (plain, "cluster.tls: has no effect while no url begins with rediss://"),
    ] {
        let (config, warnings) = parse(&cluster(engine, "ca = \"no-such.pem\"")).unwrap();
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, [format!("/etc/longwire/longwire.toml:14: {expected}")]);
        assert_eq!(config.cluster.tls, None);
    }
}

#[test]
fn tls_without_files_is_asked_for_by_the_table_alone() {
    let nats = "engine = \"nats\"\nurls = [\"10.0.0.5\"]";
    let (config, warnings) = parse(&cluster(nats, "")).unwrap();
    assert_eq!((config.cluster.tls, warnings), (Some(ClientTls::default()), vec![]));
}
