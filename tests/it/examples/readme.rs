//! README.md is correct: its snippets run as pasted, and its tables are complete.

use std::collections::BTreeSet;
use std::path::Path;

use longwire::config::model::Config;
use longwire::metrics::upstream::RequestOutcome;
use longwire::proto::close::CloseReason;
use longwire::proto::framing::{Framing, LengthFraming};

use crate::support::client::Client;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::Pool;

const README: &str = include_str!("../../../README.md");

/// The text below a heading, up to the next heading of the same level.
fn section(heading: &str) -> &'static str {
    let (_, below) = README.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    let level = heading.split(' ').next().expect("a heading begins with #");
    below.split(&format!("\n{level} ")).next().expect("split gives one piece at least")
}

/// The first block of code of this language.
fn block(text: &'static str, language: &str) -> &'static str {
    let (_, code) = text.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no block of {language}"));
    code.split("```").next().expect("split gives one piece at least")
}

/// The trimmed cells of a section's tables, without table heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|--");
    let body = lines.iter().enumerate().filter(|(at, line)| {
        let is_head = lines.get(at + 1).is_some_and(|next| is_rule(next));
        line.starts_with('|') && !is_rule(line) && !is_head
    });
    body.map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[tokio::test]
async fn the_first_handler_works_as_pasted() {
    let fpm = Pool::of(1).start();
    let handler = block(section("## The first handler"), "php");
    let script = fpm.script("handler.php", handler.strip_prefix("<?php\n").expect("it is a whole file"));
    let node = Longwire::with(&fpm, &script, "", "", LISTENERS);
    let mut web = Client::upgrade(node.address("web"), "/ws?name=Ada", "").await;
    assert_eq!(web.ask("hello").await, "Ada, you said: HELLO");
    assert_eq!(web.ask("bye").await, "Ada, you said: BYE");
    assert_eq!(web.end().await, Some(1000));
    let mut stream = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
    assert_eq!(stream.ask("hello").await, "stranger, you said: HELLO");
    let line = node.wait_for_log("the handler's own line", |line| line["target"] == "longwire::php");
    assert!(line["message"].as_str().is_some_and(|text| text.ends_with(" said hello")), "{line}");
}

#[tokio::test]
async fn the_table_of_params_is_what_php_finds() {
    /// Entries that PHP adds itself or takes from its own process.
    const OF_PHP: [&str; 10] =
        ["USER", "HOME", "FCGI_ROLE", "PHP_SELF", "REQUEST_TIME", "REQUEST_TIME_FLOAT", "argv", "argc", "PATH", "PWD"];
    let fpm = Pool::of(1).start();
    let note = r#"
        file_put_contents(__DIR__ . '/keys', implode("\n", array_keys($_SERVER)) . "\n", FILE_APPEND);
        if ($_SERVER['LONGWIRE_EVENT'] === 'message') { echo 'noted'; }
        if ($_SERVER['LONGWIRE_EVENT'] === 'connect') { header('Longwire-Uid: 42'); header('Longwire-Set: room=1'); }
    "#;
    let script = fpm.script("keys.php", note);
    let node = Longwire::with(&fpm, &script, "events = [\"connect\", \"close\"]", "", LISTENERS);
    let mut web = Client::upgrade(node.address("web"), "/ws", "Cookie: a=1\r\n").await;
    assert_eq!(web.ask("hello").await, "noted");
    web.close(1000).await;
    web.end().await;
    node.closed(1);
    let delivered = || node.metric("longwire_upstream_requests_total", "event=\"close\"") == 1.0;
    crate::support::php_fpm::eventually("the close event is delivered", delivered).await;

    let keys = std::fs::read_to_string(fpm.dir().join("keys")).expect("it was written");
    let found: BTreeSet<&str> = keys.lines().filter(|key| !OF_PHP.contains(key) && !key.starts_with("HTTP_")).collect();
    // The name of the attribute is chosen by the handler.
    let found: BTreeSet<&str> =
        found.into_iter().map(|key| if key == "LONGWIRE_ATTR_ROOM" { "LONGWIRE_ATTR_<KEY>" } else { key }).collect();
    let told: BTreeSet<&str> = rows(section("### What the script finds"))
        .iter()
        .flat_map(|row| quoted(row[0]))
        .filter(|key| *key != "HTTP_*")
        .collect();
    assert_eq!(told, found);
    assert!(keys.lines().any(|key| key == "HTTP_COOKIE"), "{keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_commands_do_as_they_say() {
    let fpm = Pool::of(1).start();
    let listeners = "[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n";
    let script = fpm.script("handler.php", "header('Longwire-Join: kitchen'); echo $_SERVER['SESSIONID'];");
    let node = Longwire::with(&fpm, &script, "", "", listeners);
    let mut client = Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await;
    let sid = client.ask("?").await;
    let commands = block(section("### Over HTTP"), "sh").replace("127.0.0.1:9012", &node.address("api").to_string());
    let output =
        std::process::Command::new("timeout").args(["60", "bash", "-ec", &commands]).output().expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(&client.frame().await.body[..], b"dinner is ready");
    assert_eq!(&client.frame().await.body[..], b"back in five minutes\n");
    assert_eq!(printed.matches("\"reached\":1").count(), 2, "{printed}");
    let channel = format!("{{\"channel\":\"kitchen\",\"count\":1,\"sessions\":[\"{sid}\"]}}");
    assert!(printed.ends_with(&channel), "{printed}");
}

#[test]
fn the_table_of_close_reasons_is_the_one_in_the_code() {
    let told: Vec<(String, u16)> = rows(section("## Close reasons"))
        .iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].parse().expect("a code is a number")))
        .collect();
    let known: Vec<_> = CloseReason::ALL.iter().map(|reason| (reason.label().to_owned(), reason.code())).collect();
    assert_eq!(told, known);
}

#[test]
fn the_table_of_failures_has_every_cause_of_an_upstream() {
    let rows = rows(section("## When things go wrong"));
    let told: BTreeSet<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    for outcome in RequestOutcome::ALL {
        assert!(*outcome == RequestOutcome::Done || told.contains(outcome.label()), "{} is not told", outcome.label());
    }
}

#[test]
fn the_configuration_for_production_is_accepted() {
    let text = block(section("### The configuration"), "toml");
    // The script does not exist on this machine.
    let text = text.replace("\nscript = ", "\ncheck_script = false\nscript = ");
    let (config, warnings) = Config::parse(&text, Path::new("/etc/longwire/longwire.toml")).expect("it is good");
    assert!(warnings.is_empty(), "{warnings:?}");
    let pool = block(section("### A pool of its own"), "ini");
    let children = format!("\npm.max_children = {}\n", config.upstreams[0].max_connections);
    assert!(pool.contains(&children), "max_connections and pm.max_children differ");
    let socket = format!("\nlisten = {}\n", config.upstreams[0].backends[0].address).replace("unix:", "");
    assert!(pool.contains(&socket), "backends and listen differ");
}

#[test]
fn the_heartbeat_fits_the_protocol_that_it_is_shown_for() {
    let heartbeat = block(section("### Heartbeat"), "toml");
    let text = format!(
        "[listeners.sms]\nbind = \"127.0.0.1:0\"\napp = \"sms\"\n\
         framing = {{ length_counts = \"frame\", header_bytes = 12, keep_header = true }}\n{heartbeat}\
         [apps.sms]\nupstream = \"php\"\nscript = \"/srv/sms.php\"\ncheck_script = false\n\
         [upstreams.php]\nbackends = [\"127.0.0.1:9000\"]\n"
    );
    let (_, warnings) = Config::parse(&text, Path::new("longwire.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn what_check_says_is_what_its_golden_files_have() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check");
    let mut golden = String::new();
    for file in std::fs::read_dir(folder).expect("it is there").flatten() {
        if file.path().extension().is_some_and(|extension| extension == "txt") {
            golden += &std::fs::read_to_string(file.path()).expect("it is text");
        }
    }
    let shown: Vec<_> = README.lines().filter_map(|line| line.strip_prefix("longwire.toml:")).collect();
    assert!(!shown.is_empty());
    for line in shown {
        let (_, message) = line.split_once(": ").expect("a line number, then the message");
        assert!(golden.lines().any(|line| line.ends_with(message)), "no golden file has {message:?}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    let has_heading = |text: &str, name: &str| {
        text.lines().filter(|line| line.starts_with('#')).map(anchor).any(|anchor| anchor == name)
    };
    let targets: Vec<&str> = README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(targets.len() > 20, "{targets:?}");
    for target in &targets {
        let (file, name) = target.split_once('#').map_or((*target, None), |(file, name)| (file, Some(name)));
        match (file, name) {
            _ if target.starts_with("https://") => {}
            ("", Some(name)) => assert!(has_heading(README, name), "no heading for {target}"),
            (file, None) => assert!(root.join(file).exists(), "{target} is not there"),
            (file, Some(name)) => {
                let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("{target} is not there"));
                assert!(has_heading(&text, name), "no heading for {target}");
            }
        }
    }
}
