//! `longwire health`, as a container's health check calls it, and the search for a configuration.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use longwire::config::model::{Bind, Config};

use crate::support::longwire::Longwire;
use crate::support::php_fpm::free_port;

const APP: &str = "[router]\nbind = \"off\"\n[api]\nbind = \"off\"\n[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n\
    [apps.app]\nupstream = \"php\"\nscript = \"/srv/handler.php\"\ncheck_script = false\n";

/// Runs the command in a folder, and returns its status and everything that it printed.
fn run(folder: &Path, args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_longwire")).args(args).current_dir(folder).output().unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().expect("it ends by itself"), printed)
}

/// A configuration in `folder` whose backend is a socket that a test makes, or does not.
fn write(folder: &Path, admin: &str) -> String {
    let backend = folder.join("php.sock");
    let config =
        format!("[admin]\nbind = {admin:?}\n{APP}[upstreams.php]\nbackends = [\"unix:{}\"]\n", backend.display());
    fs::write(folder.join("longwire.toml"), &config).unwrap();
    config
}

#[test]
fn a_node_is_ready_or_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    for admin in ["0.0.0.0:PORT", "unix:admin.sock"] {
        let admin = admin.replace("PORT", &free_port().port().to_string());
        let config = write(folder.path(), &admin.replace("unix:", &format!("unix:{}/", folder.path().display())));
        let (status, printed) = run(folder.path(), &["health"]);
        assert!(status == 1 && printed.starts_with("cannot connect to the admin listener at "), "{status} {printed}");

        let missing = Longwire::serve_prepared(&config, |_| {});
        let (status, printed) = run(folder.path(), &["health"]);
        assert!(status == 1 && printed.starts_with("not ready: "), "{status} {printed}");
        assert!(printed.contains("php"), "{printed}");
        drop(missing);

        let backend = std::os::unix::net::UnixListener::bind(folder.path().join("php.sock")).unwrap();
        let _ready = Longwire::serve_prepared(&config, |_| {});
        assert_eq!(run(folder.path(), &["health"]), (0, "ready\n".to_owned()));
        drop(backend);
        fs::remove_file(folder.path().join("php.sock")).unwrap();
    }
}

#[test]
fn what_keeps_it_from_asking_is_said() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "off");
    let (status, printed) = run(folder.path(), &["health", "--config", "longwire.toml"]);
    assert!(status == 1 && printed.contains("admin.bind is \"off\""), "{status} {printed}");

    // Something that accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    write(folder.path(), &silent.local_addr().unwrap().to_string());
    let (status, printed) = run(folder.path(), &["health", "--timeout", "200ms"]);
    assert!(status == 1 && printed.contains("within 200ms"), "{status} {printed}");

    // The node's secrets are not in the environment of a health check.
    let text = fs::read_to_string(folder.path().join("longwire.toml")).unwrap();
    let secret = "[router]\nbind = \"127.0.0.1:0\"\nsecret = \"env:LONGWIRE_NO_SUCH_SECRET\"\n";
    fs::write(folder.path().join("longwire.toml"), text.replace("[router]\nbind = \"off\"\n", secret)).unwrap();
    let (status, printed) = run(folder.path(), &["check"]);
    assert!(status == 1 && printed.contains("LONGWIRE_NO_SUCH_SECRET"), "{status} {printed}");
    let (status, printed) = run(folder.path(), &["health", "--timeout", "200ms"]);
    assert!(status == 1 && printed.contains("within 200ms"), "{status} {printed}");

    // A server that is not Longwire answers with the status that is asked for.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    write(folder.path(), &other.local_addr().unwrap().to_string());
    let answers = std::thread::spawn(move || {
        let (mut client, _) = other.accept().unwrap();
        let _request = client.read(&mut [0; 1024]).unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nwelcome").unwrap();
    });
    let (status, printed) = run(folder.path(), &["health"]);
    assert!(status == 1 && printed.contains("another server has this address"), "{status} {printed}");
    answers.join().unwrap();

    fs::write(folder.path().join("longwire.toml"), "[admin]\nbnd = 1\n").unwrap();
    let (status, printed) = run(folder.path(), &["health"]);
    assert!(status == 1 && printed.contains("bnd"), "{status} {printed}");
}

/// `/etc/longwire/longwire.toml` comes first, so this test asks for nothing where a package is installed.
#[test]
fn without_config_the_file_of_this_folder_is_read_and_named() {
    if Path::new("/etc/longwire/longwire.toml").exists() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for command in ["serve", "check", "health"] {
        let (status, printed) = run(folder.path(), &[command]);
        assert!(status == 1 && printed.contains("/etc/longwire/longwire.toml"), "{command}: {status} {printed}");
    }
    write(folder.path(), "off");
    let (status, printed) = run(folder.path(), &["check"]);
    assert!(status == 0 && printed.contains("longwire.toml"), "{status} {printed}");
    let (config, _) = Config::load(&folder.path().join("longwire.toml")).unwrap();
    assert_eq!(config.admin, None::<Bind>);
}

#[test]
fn the_version_names_the_features() {
    let folder = tempfile::tempdir().unwrap();
    let (status, printed) = run(folder.path(), &["--version"]);
    let version = env!("CARGO_PKG_VERSION");
    assert!(status == 0 && printed.starts_with(&format!("longwire {version} (")), "{status} {printed}");
    assert_eq!(printed.contains("lua"), cfg!(feature = "lua"), "{printed}");
}
