//! Runs the tests of the router port, its clients, its load and its handshake once more with two nodes: one has the sessions, the other
//! takes the commands, and a real engine joins them (`support::two_nodes`).
//!
//! For this the test binary runs itself. If a test fails there, its whole output is shown here.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::end_with_the_run;
use crate::support::engine::Kind;
use crate::support::two_nodes::VARIABLE;

const MODULES: [&str; 4] = ["router::port::", "router::client::", "router::load::", "router::auth::"];

/// Tests that are skipped because two nodes make no difference, and the reasons.
const LEFT_OUT: &[(&str, &str)] = &[(
    "router::load::of_a_hundred_thousand_sessions_nothing_remains",
    "it has no commands, so it uses only the node with the sessions",
)];

/// A run takes half a minute on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routers_tests_pass_with_redis_between_commands_and_sessions() {
    run(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routers_tests_pass_with_nats_between_commands_and_sessions() {
    run(Kind::Nats).await;
}

async fn run(kind: Kind) {
    let listed = itself(kind, &["--list"]).await;
    let mut expected: BTreeSet<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    for module in MODULES {
        assert!(expected.iter().any(|name| name.starts_with(module)), "{module} has no tests: {listed}");
    }
    for (name, _) in LEFT_OUT {
        assert!(expected.remove(name), "there is no test {name}");
    }
    // One test at a time, because the run for the other engine uses the other core.
    let skips = LEFT_OUT.iter().flat_map(|(name, _)| ["--skip", *name]);
    let arguments: Vec<&str> = ["--test-threads=1"].into_iter().chain(skips).collect();
    let said = itself(kind, &arguments).await;
    let passed: BTreeSet<&str> =
        said.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok")).collect();
    assert_eq!(passed, expected, "{said}");
}

/// Runs this binary with these arguments and two nodes for each test, and returns its output.
async fn itself(kind: Kind, arguments: &[&str]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("Linux knows it"));
    command.args(MODULES).args(arguments).env(VARIABLE, kind.word());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    end_with_the_run(&mut command, libc::SIGKILL);
    let mut command = tokio::process::Command::from(command);
    let run = tokio::time::timeout(TIMEOUT, command.kill_on_drop(true).output()).await;
    let run = run.expect("it comes to an end").expect("it starts");
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{kind:?}: {}\n{said}", run.status);
    said
}
