//! Unix sockets: mode, owner and group of their files, and which users may connect.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::echo::ECHO;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, wait_until};

/// Another user than the one that runs the tests, without special rights.
const STRANGER: u32 = 65_534;

fn is_root() -> bool {
    // SAFETY: it takes no arguments and returns a number.
    unsafe { libc::geteuid() == 0 }
}

/// The four sockets of a node, by their names.
const DOORS: [&str; 4] = ["clients", "router", "api", "admin"];

fn config(fpm: &PhpFpm, script: &Path, folder: &Path, socket: &str) -> String {
    let door = |name: &str| format!("bind = \"unix:{}/{name}.sock\"\n{socket}", folder.display());
    format!(
        "[apps.app]\nupstream = \"php\"\nscript = {script:?}\ncheck_script = false\n[upstreams.php]\nbackends = [\"{}\"]\n\
         [admin]\n{}[router]\n{}[api]\n{}[listeners.clients]\napp = \"app\"\n{}",
        fpm.address(),
        door("admin"),
        door("router"),
        door("api"),
        door("clients")
    )
}

#[test]
fn each_socket_is_given_to_whom_it_is_for_before_anybody_can_connect() {
    let fpm = Pool::of(1).start();
    let folder = tempfile::tempdir().expect("a temporary directory");
    // SAFETY: it takes no arguments and returns a number.
    let own_group = unsafe { libc::getegid() };
    let (owner, group) =
        if is_root() { (STRANGER, 12_345) } else { (fs::metadata(folder.path()).unwrap().uid(), own_group) };
    let socket = match is_root() {
        true => format!("socket = {{ mode = \"0620\", owner = {owner}, group = \"{group}\" }}\n"),
        false => format!("socket = {{ mode = \"0620\", group = {group} }}\n"),
    };
    let stopped = AtomicBool::new(false);
    let node = std::thread::scope(|scope| {
        for door in DOORS {
            let (path, stopped) = (folder.path().join(format!("{door}.sock")), &stopped);
            scope.spawn(move || {
                // Mode and owner must be set before the first connection is accepted. A node that did not start ends the wait.
                let begin = Instant::now();
                while UnixStream::connect(&path).is_err() {
                    if stopped.load(Ordering::Relaxed) || begin.elapsed() > Duration::from_secs(120) {
                        return;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
                let file = fs::metadata(&path).expect("it is there");
                let found = (file.permissions().mode() & 0o7777, file.uid(), file.gid());
                assert_eq!(found, (0o620, owner, group), "{door}");
            });
        }
        let script = fpm.script("echo.php", ECHO);
        let node = Longwire::serve_prepared(&config(&fpm, &script, folder.path(), &socket), |_| {});
        stopped.store(true, Ordering::Relaxed);
        node
    });
    assert_eq!(node.admin("/live").0, 200);
    drop(node);
}

/// Runs a push as another user and returns its output.
fn push_as(user: u32, folder: &Path) -> String {
    let code = format!(
        "require '{0}/api.php'; $router = new RouterClient('unix:{0}/router.sock'); \
         echo json_encode($router->sendAllMsg('hi')), $router->lastError();",
        folder.display()
    );
    let output = Command::new("php").args(["-r", &code]).uid(user).gid(user).output().expect("php is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_program_of_another_user_pushes_where_the_socket_lets_it() {
    if !is_root() {
        // Only root can become another user.
        return;
    }
    let fpm = Pool::of(1).start();
    let script = fpm.script("echo.php", ECHO);
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-client/api.php");
    for (socket, is_let_in) in [
        ("", false),
        ("socket = { mode = \"0660\" }\n", false),
        ("socket = { mode = \"0660\", group = 65_534 }\n", true),
        ("socket = { mode = \"0600\", owner = 65_534 }\n", true),
        ("socket = { mode = 0o666 }\n", true),
    ] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        fs::copy(&api, folder.path().join("api.php")).expect("it is there");
        let _node = Longwire::serve_prepared(&config(&fpm, &script, folder.path(), socket), |_| {});
        let said = push_as(STRANGER, folder.path());
        assert_eq!(said.starts_with('{'), is_let_in, "{socket}: {said}");
    }
}

#[test]
fn a_socket_that_cannot_be_given_away_prevents_the_start_and_check_says_so() {
    if !is_root() {
        return;
    }
    let fpm = Pool::of(1).start();
    let script = fpm.script("echo.php", ECHO);
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("the directory is ours");
    let text = config(&fpm, &script, folder.path(), "socket = { owner = \"root\" }\n");
    let file = folder.path().join("longwire.toml");
    fs::write(&file, text).expect("the directory is ours");
    for command in ["check", "serve"] {
        // A copy, because the other user may have no access to the build folder. `cp` makes it, because a child that another test forks
        // while this process writes the file would hold it open, and the kernel does not run a file that is open for writing (ETXTBSY).
        let binary = folder.path().join("longwire");
        if !binary.exists() {
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_longwire")).arg(&binary).status();
            assert!(copied.expect("cp starts").success());
        }
        let mut run = Command::new("timeout");
        run.args(["60"]).arg(&binary).args([command, "--config"]).arg(&file).uid(STRANGER).gid(STRANGER);
        let output = run.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains("cannot be given to owner 0, which requires root"), "{command}: {said}");
        wait_until("no file is left", || DOORS.iter().all(|door| !folder.path().join(format!("{door}.sock")).exists()));
    }
}
