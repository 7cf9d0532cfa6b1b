//! Checks the API against its own description: schemathesis makes valid and invalid requests from `openapi.json` and compares every
//! answer with the description.
//!
//! `tests/venv.sh schemathesis` installs it (`make test` does).

use std::process::Stdio;
use std::time::Duration;

use longwire::proto::framing::{Framing, LengthFraming};
use tokio::process::Command;

use crate::support::client::Client;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::Pool;
use crate::support::target_dir;

/// A run takes ten seconds.
const TIMEOUT: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_as_the_description_says() {
    let fpm = Pool::of(1).start();
    let listeners = "[listeners.length]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n";
    let script = fpm.script("handler.php", "header('Longwire-Set: role=admin'); echo $_SERVER['SESSIONID'];");
    let node = Longwire::with(&fpm, &script, "", "", listeners);
    let mut client = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
    let sid = client.ask("?").await;

    let folder = tempfile::tempdir().expect("a temporary directory");
    // Give it the id of a real session; otherwise the paths with an id would always answer 404.
    let config = format!("[parameters]\n\"path.id\" = \"{sid}\"\n\"path.key\" = \"role\"\n");
    std::fs::write(folder.path().join("schemathesis.toml"), config).expect("the directory is ours");
    let schemathesis = target_dir().join("schemathesis-venv/bin/st");
    assert!(schemathesis.exists(), "schemathesis is not installed: run tests/venv.sh schemathesis (`make test` does)");
    let run = Command::new(schemathesis)
        .arg("run")
        .arg(format!("http://{}/openapi.json", node.address("api")))
        // The same requests in each run, so that every failure in CI can be reproduced.
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "50", "--generation-deterministic"])
        .args(["--no-color"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(TIMEOUT, run).await.expect("it comes to an end").expect("it starts");
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}:\n{said}", run.status);
    assert!(said.contains("16 selected / 16 total"), "{said}");
    assert!(said.contains("Tested: 16"), "{said}");
    // The requests must have reached the router.
    assert!(node.metric("longwire_commands_total", "door=\"api\"") > 200.0);
}
