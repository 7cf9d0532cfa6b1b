//! Runs the tests of `php-client/`: phpunit against a running node.

use std::path::Path;
use std::process::Command;

use crate::support::longwire::Longwire;
use crate::support::php_fpm::Pool;

const SECRET: &str = "correct horse battery staple";
/// Timeout for phpunit. Its tests take 15 s on an idle machine.
const PHPUNIT_SECONDS: &str = "300";

#[test]
fn the_php_clients_pass_their_tests_against_a_running_longwire() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-client");
    let handler = client.join("tests/handler.php");
    let fpm = Pool::of(3).start();
    let listener = "[listeners.length]\nbind = \"127.0.0.1:0\"\napp = \"app\"";
    let web = "[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = { \"/page\" = \"app\" }";
    let app = "events = [\"join\", \"leave\", \"occupied\", \"vacated\"]\nplain_requests = true";
    let open = Longwire::with(&fpm, &handler, app, "", &format!("{listener}\n{web}"));
    let router = format!("[router]\nbind = \"127.0.0.1:0\"\nshort_protocol = false\nsecret = \"{SECRET}\"");
    let secret = Longwire::with(&fpm, &handler, "", "", &format!("{listener}\n{router}"));

    let temporary = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new("timeout")
        .args(["--kill-after=5", PHPUNIT_SECONDS, "phpunit", "--colors=never"])
        .current_dir(&client)
        .env("TMPDIR", temporary.path())
        .env("LONGWIRE_ROUTER", open.address("router").to_string())
        .env("LONGWIRE_TCP", open.address("length").to_string())
        .env("LONGWIRE_HTTP", open.address("web").to_string())
        .env("LONGWIRE_ROUTER_WITH_SECRET", secret.address("router").to_string())
        .env("LONGWIRE_SECRET", SECRET)
        .output()
        .expect("phpunit is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    // A run that found no tests must not pass.
    assert!(text(&output.stdout).contains("\nOK ("), "{}", text(&output.stdout));
}
