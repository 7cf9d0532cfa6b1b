//! Runs `longwire dev` on free ports, as a user would in a terminal.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::php_fpm::{kill, wait_until};

pub struct Dev {
    child: Child,
    greeting: String,
    /// Its standard output: the greeting, then the events.
    printed: Arc<Mutex<String>>,
    _files: TempDir,
}

impl Dev {
    /// Starts it and waits for the whole greeting. PHP's temporary files go to a folder that is removed when this is dropped.
    pub fn start(path: &Path, options: &[&str]) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.arg("dev").args(options).arg(path).env("TMPDIR", files.path());
        for option in ["--http", "--tcp", "--router", "--api"].iter().filter(|option| !options.contains(option)) {
            command.args([option, "127.0.0.1:0"]);
        }
        if !options.contains(&"--workers") {
            command.args(["--workers", "2"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary was built for this test");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut greeting = String::new();
        while !greeting.contains("Ctrl-C stops.") {
            assert!(stdout.read_line(&mut greeting).expect("text") > 0, "it did not start:\n{greeting}");
        }
        let printed = Arc::new(Mutex::new(greeting.clone()));
        let reader = printed.clone();
        // Read to the end, because a full pipe would block the node.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                *reader.lock().unwrap() += &(line + "\n");
            }
        });
        Self { child, greeting, printed, _files: files }
    }

    /// The value after a word of the greeting.
    pub fn greeted(&self, word: &str) -> Option<String> {
        let line = self.greeting.lines().find(|line| line.trim_start().starts_with(&format!("{word} ")))?;
        Some(line.trim_start()[word.len()..].trim().to_owned())
    }

    /// The URL of the page.
    pub fn page(&self) -> String {
        self.greeted("page").expect("the greeting names a page")
    }

    /// The address of the HTTP listener.
    pub fn http(&self) -> SocketAddr {
        let page = self.page();
        page.trim_start_matches("http://").trim_end_matches('/').parse().expect("the page has an address")
    }

    /// Sends a signal, waits for the end and returns the exit status.
    pub fn ends_after(&mut self, signal: i32) -> ExitStatus {
        kill(self.child.id(), signal);
        wait_until("longwire dev stops", || self.child.try_wait().is_ok_and(|status| status.is_some()));
        self.child.wait().expect("it is our child")
    }

    /// Everything on its terminal so far.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("longwire dev printed:\n{}", self.printed());
        }
        // If it has ended already, its process id may belong to another process.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            kill(self.child.id(), libc::SIGTERM);
        }
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        wait_until("longwire dev stops", || self.child.try_wait().is_ok_and(|status| status.is_some()));
    }
}
