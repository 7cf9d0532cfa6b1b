//! Runs the tests of `php-client/`: phpunit against a running node, and a shop's program after Composer has installed the package.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::longwire::Longwire;
use crate::support::php_fpm::Pool;

const SECRET: &str = "correct horse battery staple";
/// Timeout for phpunit. Its tests take 15 s on an idle machine.
const PHPUNIT_SECONDS: &str = "300";
/// Timeout for the installations with Composer. They take 8 s on an idle machine.
const PACKAGE_SECONDS: &str = "200";
const LENGTH: &str = "[listeners.length]\nbind = \"127.0.0.1:0\"\napp = \"app\"";

#[test]
fn the_php_clients_pass_their_tests_against_a_running_longwire() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-client");
    let handler = client.join("tests/handler.php");
    let fpm = Pool::of(3).start();
    let web = "[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = { \"/page\" = \"app\" }";
    let app = "events = [\"join\", \"leave\", \"occupied\", \"vacated\"]\nplain_requests = true";
    let open = Longwire::with(&fpm, &handler, app, "", &format!("{LENGTH}\n{web}"));
    let router = format!("[router]\nbind = \"127.0.0.1:0\"\nshort_protocol = false\nsecret = \"{SECRET}\"");
    let secret = Longwire::with(&fpm, &handler, "", "", &format!("{LENGTH}\n{router}"));

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
    let printed = printed(&output);
    // A run that found no tests must not pass.
    assert!(printed.contains("\nOK ("), "{printed}");
}

#[test]
fn a_shop_that_installs_the_package_with_composer_pushes_and_tests_with_it() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-client");
    let fpm = Pool::of(1).start();
    let node = Longwire::with(&fpm, &client.join("tests/handler.php"), "", "", LENGTH);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new("timeout")
        .args(["--kill-after=5", PACKAGE_SECONDS])
        .arg(client.join("tests/package.sh"))
        .env("TMPDIR", temporary.path())
        .env("LONGWIRE_ROUTER", node.address("router").to_string())
        .env("LONGWIRE_TCP", node.address("length").to_string())
        .output()
        .expect("timeout is there");
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "composer.json is valid\nthe coding standard is kept\nsplit.sh has tagged {version}\n\
         the archive of {version} works\nthe path works\nthe tag of the split repository works\n"
    );
    assert_eq!(printed(&output), expected);
}

/// The output of a program that must have succeeded.
fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
