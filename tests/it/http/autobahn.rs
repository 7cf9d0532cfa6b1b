//! Runs the Autobahn TestSuite against a node with the echo of `php-examples` in a real php-fpm.
//!
//! The suite is a Python package that `tests/venv.sh autobahn` installs (`make test` does). Its report stays in
//! `target/autobahn-report`, with a page for each case that shows what was on the wire.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::support::longwire::Longwire;
use crate::support::php_fpm::Pool;
use crate::support::target_dir;

/// How many cases the suite has, in the version that `requirements.txt` names.
const CASES: usize = 517;
/// Cases without a verdict, because the RFC leaves the server's behaviour open: a close frame in the middle of large messages, and
/// close codes above the permitted range.
const INFORMATIONAL: [&str; 3] = ["7.1.6", "7.13.1", "7.13.2"];
/// Number of cases at once. Some cases only wait for a second, so running them in parallel saves time. With many more, the slowest
/// ones would come near the timeout of a case.
const AT_ONCE: &str = "4";
/// After this time a hanging suite is stopped. A run takes three minutes on two idle cores, most of it in zlib at both ends.
const TIMEOUT: Duration = Duration::from_secs(900);

#[tokio::test]
async fn every_autobahn_case_passes_through_php_fpm() {
    // The largest messages of the suite have 16 MiB, and php-fpm warns of bodies above post_max_size.
    let fpm = Pool::of(4).line("php_admin_value[post_max_size] = 32M").start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples/echo/handler.php");
    let listeners = r#"
        [listeners.web]
        bind = "127.0.0.1:0"
        protocol = "http"
        routes = { "/" = "app" }
        websocket = { deflate = true, deflate_min_bytes = 0 }
        "#;
    let node = Longwire::with(&fpm, &script, "max_frame_bytes = \"16 MiB\"", "", listeners);

    let outcomes = run_suite(&format!("ws://{}/", node.address("web"))).await;

    let bad: Vec<_> = outcomes.iter().filter(|(case, outcome)| !outcome.is_good(case)).collect();
    assert!(bad.is_empty(), "{} of {} cases are not as they must be: {bad:#?}", bad.len(), outcomes.len());
    assert_eq!(outcomes.len(), CASES, "cases that ran");
}

/// The suite's verdict on a case: for the messages, and for the end of the connection.
#[derive(Debug)]
struct Outcome {
    behavior: String,
    close: String,
}

impl Outcome {
    fn is_good(&self, case: &str) -> bool {
        let is_good = |word: &str| word == "OK" || (word == "INFORMATIONAL" && INFORMATIONAL.contains(&case));
        is_good(&self.behavior) && is_good(&self.close)
    }
}

/// Runs every case; returns the outcomes by the names of the cases.
async fn run_suite(url: &str) -> BTreeMap<String, Outcome> {
    let report = target_dir().join("autobahn-report");
    if report.exists() {
        fs::remove_dir_all(&report).expect("the report of an earlier run can be removed");
    }
    let runner = target_dir().join("autobahn-venv/bin/kosoku");
    assert!(runner.exists(), "the suite is not installed: run tests/venv.sh autobahn (`make test` does)");
    let run = Command::new(runner)
        .args(["--parallelism", AT_ONCE, "--outdir"])
        .arg(&report)
        .arg(url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(TIMEOUT, run).await.expect("the suite ends in time").expect("the suite starts");
    // The exit status is ignored: the suite is less strict than we are, and sometimes Python aborts while it exits. The index is
    // written after the reports of all cases.
    let index = fs::read(report.join("index.json"))
        .unwrap_or_else(|error| panic!("no report ({error}): {}", String::from_utf8_lossy(&run.stderr)));
    outcomes(&index)
}

/// Reads `index.json`: `{agent: {case: {"behavior": ..., "behaviorClose": ..., ...}}}`.
fn outcomes(index: &[u8]) -> BTreeMap<String, Outcome> {
    let index: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_slice(index).expect("the index has this shape");
    let word = |case: &serde_json::Value, key: &str| case[key].as_str().expect("an outcome is a word").to_owned();
    let cases = index.into_values().flatten();
    cases
        .map(|(name, case)| (name, Outcome { behavior: word(&case, "behavior"), close: word(&case, "behaviorClose") }))
        .collect()
}
