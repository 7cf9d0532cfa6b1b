//! `longwire check` and `longwire defaults`, as an operator calls them.
//!
//! For each `tests/golden/check/NAME.toml`, the file `NAME.txt` beside it has the exit status and every printed line.
//! `LONGWIRE_BLESS=1 cargo test --test it check` writes these files; read the difference before you commit it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::end_with_the_run;
use crate::support::php_fpm::free_port;

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check")
}

fn longwire(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.args(args).current_dir(folder).env("HOME", "/home/not-to-be-printed");
    command.output().expect("the binary was built for this test")
}

fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("longwire prints UTF-8");
    let status = output.status.code().expect("check ends by itself");
    format!("exit status {status}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

/// Waits for a condition. A child that another test starts holds our sockets from its fork to its exec, so a dropped socket may stay
/// open for a moment.
fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: the condition did not become true");
    }
}

#[test]
fn each_configuration_gets_its_messages() {
    let folder = golden_folder();
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml") && (cfg!(feature = "lua") || !name.starts_with("lua-")))
        .collect();
    names.sort();
    assert!(names.len() > 10, "{names:?}");
    let mut differing = Vec::new();
    for name in names {
        let found = transcript(&longwire(&folder, &["check", "--config", &name]));
        // Relative paths become absolute. The path of this repository is replaced, since it differs between machines.
        let found = found.replace(folder.to_str().unwrap(), "HERE");
        for secret in ["not-to-be-printed", "hunter2"] {
            assert!(!found.contains(secret), "{name}: {found}");
        }
        let expected_file = folder.join(name.replace(".toml", ".txt"));
        if std::env::var_os("LONGWIRE_BLESS").is_some() {
            std::fs::write(&expected_file, &found).unwrap();
        } else if std::fs::read_to_string(&expected_file).unwrap_or_default() != found {
            differing.push(format!("{name} now gives\n{found}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn a_taken_port_is_said_and_the_file_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(golden_folder().join("good.toml")).unwrap();
    std::fs::write(folder.path().join("a.toml"), good.replacen("127.0.0.1:0", &address, 1)).unwrap();
    let check = || transcript(&longwire(folder.path(), &["check", "--config", "a.toml"]));
    let found = check();
    let line = format!(
        "\na.toml: listeners.stream.bind = \"{address}\": address already in use by process {}",
        std::process::id()
    );
    assert!(found.starts_with("exit status 1\n") && found.contains(&line), "{found}");
    drop(taken);
    eventually(|| check().starts_with("exit status 0\n"));
}

/// A node that was started with `a.toml` of this folder.
struct Node(Child);

impl Node {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.args(["serve", "--config", "a.toml"]).current_dir(folder).stderr(Stdio::null());
        end_with_the_run(&mut command, libc::SIGKILL);
        Self(command.spawn().expect("the binary was built for this test"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_that_runs_is_checked_and_what_it_holds_itself_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("handler.php"), "<?php").unwrap();
    let (stream, admin, more) = (free_port(), free_port(), free_port());
    let config = format!(
        "[admin]\nbind = \"{admin}\"\n[router]\nbind = \"unix:r.sock\"\n[api]\nbind = \"off\"\n\
         [listeners.stream]\nbind = \"{stream}\"\napp = \"app\"\n\
         [apps.app]\nupstream = \"php\"\nscript = \"handler.php\"\n[upstreams.php]\nbackends = [\"unix:/no/such/socket\"]\n"
    );
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.toml", &config);
    let node = Node::start(folder.path());
    let pid = node.0.id();
    eventually(|| TcpStream::connect(stream).is_ok());
    let check = |file: &str| transcript(&longwire(folder.path(), &["check", "--config", file]));

    let held = format!("held by process {pid}, which serves this file now; a restart frees it\n");
    let found = check("a.toml");
    assert!(found.starts_with("exit status 0\n"), "{found}");
    for key in [format!("admin.bind = \"{admin}\""), format!("listeners.stream.bind = \"{stream}\"")] {
        assert!(found.contains(&format!("\nnote: a.toml: {key}: {held}")), "{found}");
    }
    assert_eq!(found.matches(&held).count(), 3, "three addresses, among them the router's Unix socket: {found}");

    // The file has changed since, and is named by another path.
    write("a.toml", &format!("{config}[listeners.more]\nbind = \"{more}\"\napp = \"app\"\n"));
    let found = check(folder.path().join("a.toml").to_str().unwrap());
    assert!(found.starts_with("exit status 0\n") && found.matches(&held).count() == 3, "{found}");
    let taken = TcpListener::bind(more).unwrap();
    let found = check("a.toml");
    let line = format!("listeners.more.bind = \"{more}\": address already in use by process {}", std::process::id());
    assert!(found.starts_with("exit status 1\n") && found.contains(&line), "{found}");
    drop(taken);

    // Another file with the same addresses would not start.
    write("b.toml", &config);
    let found = check("b.toml");
    let other = format!("address already in use by process {pid} (longwire), which serves {}", folder.path().display());
    assert!(found.starts_with("exit status 1\n"), "{found}");
    assert_eq!(found.matches(&other).count(), 3, "{found}");
    let second = longwire(folder.path(), &["serve", "--config", "b.toml"]);
    assert!(String::from_utf8_lossy(&second.stderr).contains(&other), "serve must report the same");
}

#[test]
fn a_unix_socket_in_use_is_taken_and_one_left_behind_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(golden_folder().join("good.toml")).unwrap();
    std::fs::write(folder.path().join("a.toml"), good.replacen("127.0.0.1:0", "unix:a.sock", 1)).unwrap();
    let status = || longwire(folder.path(), &["check", "--config", "a.toml"]).status.code();
    let socket = folder.path().join("a.sock");
    assert_eq!(status(), Some(0));
    assert!(!socket.exists(), "a tested address must leave no socket file behind");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(status(), Some(1));
    drop(listener);
    eventually(|| status() == Some(0));
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "not a socket").unwrap();
    assert_eq!(status(), Some(1));
}

#[test]
fn a_file_that_is_not_there_and_a_wrong_command_line_have_their_own_status() {
    let folder = golden_folder();
    let absent = transcript(&longwire(&folder, &["check", "--config", "no-such.toml"]));
    assert!(absent.starts_with("exit status 1\n"), "{absent}");
    assert!(absent.contains("no-such.toml: cannot be read: No such file or directory"), "{absent}");
    assert_eq!(longwire(&folder, &["check", "--confg", "a"]).status.code(), Some(2));
    assert_eq!(longwire(&folder, &["chekc", "--config", "a"]).status.code(), Some(2));
}

#[test]
fn defaults_prints_the_whole_configuration() {
    let found = transcript(&longwire(&golden_folder(), &["defaults"]));
    assert!(found.starts_with("exit status 0\n"), "{found}");
    for part in ["\n#[limits]\n", "\n#max_sessions = 100_000\n", "\n#[listeners.web.websocket]\n"] {
        assert!(found.contains(part), "{part} is missing in\n{found}");
    }
}
