//! A private php-fpm with its own directory, pool and socket. Dropping it ends it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longwire::config::model::Bind;

use super::end_with_the_run;

/// Settings of a pool.
pub struct Pool {
    pub workers: usize,
    pub tcp: bool,
    /// Further lines for the global section.
    pub globals: Vec<String>,
    /// Further lines for the pool section.
    pub lines: Vec<String>,
    /// php.ini settings that cannot be set in a pool, as `key=value`.
    pub ini: Vec<String>,
}

impl Pool {
    pub fn of(workers: usize) -> Self {
        Self { workers, tcp: false, globals: Vec::new(), lines: Vec::new(), ini: Vec::new() }
    }

    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    pub fn global(mut self, line: &str) -> Self {
        self.globals.push(line.to_owned());
        self
    }

    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    pub fn ini(mut self, setting: &str) -> Self {
        self.ini.push(setting.to_owned());
        self
    }

    pub fn start(self) -> PhpFpm {
        PhpFpm::start(&self)
    }
}

pub struct PhpFpm {
    dir: tempfile::TempDir,
    address: Bind,
    /// The number of workers, which is the maximum of connections served at a time.
    pub workers: usize,
    ini: Vec<String>,
    master: Option<Child>,
}

impl PhpFpm {
    fn start(pool: &Pool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = if pool.tcp { Bind::Tcp(free_port()) } else { Bind::Unix(dir.path().join("fpm.sock")) };
        let listen = match &address {
            Bind::Tcp(address) => address.to_string(),
            Bind::Unix(path) => path.display().to_string(),
        };
        let config = format!(
            "[global]\nerror_log = {log}\ndaemonize = no\n{globals}\n[test]\nuser = root\ngroup = root\nlisten = {listen}\n\
             pm = static\npm.max_children = {workers}\ncatch_workers_output = yes\n{lines}\n",
            log = dir.path().join("fpm.log").display(),
            workers = pool.workers,
            globals = pool.globals.join("\n"),
            lines = pool.lines.join("\n"),
        );
        fs::write(dir.path().join("fpm.conf"), config).expect("the directory is ours");
        let mut fpm = Self { dir, address, workers: pool.workers, ini: pool.ini.clone(), master: None };
        fpm.start_again();
        fpm
    }

    /// Starts the master and waits until it accepts connections.
    pub fn start_again(&mut self) {
        assert!(self.master.is_none(), "it runs already");
        let mut command = Command::new(longwire::config::php_fpm::find(None).expect("php-fpm is installed"));
        command
            .arg("--fpm-config")
            .arg(self.dir.path().join("fpm.conf"))
            .args(["--nodaemonize", "--allow-to-run-as-root"])
            .args(self.ini.iter().flat_map(|setting| ["-d", setting]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        end_with_the_run(&mut command, libc::SIGTERM);
        let child = command.spawn().expect("it can be executed");
        self.master = Some(child);
        wait_until("php-fpm accepts", || self.accepts());
    }

    fn accepts(&self) -> bool {
        match &self.address {
            Bind::Unix(path) => UnixStream::connect(path).is_ok(),
            Bind::Tcp(address) => std::net::TcpStream::connect(address).is_ok(),
        }
    }

    pub fn address(&self) -> Bind {
        self.address.clone()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a script and returns its path. The opening tag is added.
    pub fn script(&self, name: &str, code: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("<?php\n{code}\n")).expect("the directory is ours");
        path
    }

    pub fn master(&self) -> u32 {
        self.master.as_ref().expect("it runs").id()
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: i32) {
        kill(self.master(), signal);
    }

    /// Ends master and workers at once.
    pub fn stop(&mut self) {
        if let Some(mut master) = self.master.take() {
            // SAFETY: the process group is the one made for this child.
            unsafe { libc::kill(-(master.id() as i32), libc::SIGKILL) };
            master.wait().expect("it is our child");
            if let Bind::Unix(path) = &self.address {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Drop for PhpFpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a signal. After SIGSTOP it waits until every thread has stopped: a thread on another core goes on for a moment, in which it could
/// still send a message.
pub fn kill(pid: u32, signal: i32) {
    // SAFETY: sends a signal to a process that a test started.
    unsafe { libc::kill(pid as i32, signal) };
    if signal == libc::SIGSTOP {
        wait_until("all its threads are stopped", || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it is there").flatten();
            let mut states = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
            // The state follows the name, which is in brackets (proc_pid_stat(5)).
            states.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 'Z', 'X'])))
        });
    }
}

/// Waits for a condition, and fails the test if it does not become true in 20 s.
#[track_caller]
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "waited 20 s, but it did not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The same for async tests; other tasks run meanwhile.
pub async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "waited 20 s, but it did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
