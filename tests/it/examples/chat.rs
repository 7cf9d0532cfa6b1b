//! The chat of `php-examples` in real browsers: `tests/chat/people.py` plays three people.
//!
//! It uses Playwright, which `tests/venv.sh chat` installs (`make test` does). `LONGWIRE_SCREENSHOTS=DIR` saves screenshots there, to
//! look at after a change.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::support::dev::Dev;
use crate::support::target_dir;

/// Timeout for the run, which normally takes ten seconds.
const TIMEOUT: Duration = Duration::from_secs(240);

#[tokio::test]
async fn people_meet_talk_whisper_move_and_leave() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dev = Dev::start(&root.join("php-examples/chat"), &["--workers", "4"]);
    let python = target_dir().join("chat-venv/bin/python");
    assert!(python.exists(), "Playwright is not installed: run tests/venv.sh chat (`make test` does)");
    let run = Command::new(python)
        .arg(root.join("tests/chat/people.py"))
        .args([&dev.page(), "/usr/bin/chromium"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(TIMEOUT, run).await.expect("the people come to an end").expect("Python starts");
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}:\n{said}", run.status);
    // PHP must not have logged errors either.
    let complaints: Vec<_> = dev
        .printed()
        .lines()
        .filter(|line| line.contains("php:") || line.contains("Longwire-"))
        // CI runs as root.
        .filter(|line| !line.contains("php runs as root"))
        .map(str::to_owned)
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
