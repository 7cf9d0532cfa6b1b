//! An embedded php-fpm: finds the binary, configures, starts and restarts it, and ends it when longwire ends.
//!
//! The pool lives in a private directory (`home`) that holds its configuration and its Unix socket. It uses the
//! system's php.ini and runs as the user that runs longwire, as `php -S` would: every script that this user can read can
//! run. For root that means `--allow-to-run-as-root`, with a warning. Run longwire as another user for anything but
//! development.
//!
//! No orphans stay behind, whichever process dies, with one exception:
//!
//! | process that ended | effect |
//! |---|---|
//! | longwire, by any signal | the kernel sends SIGTERM to the master (PR_SET_PDEATHSIG), which ends its workers |
//! | the master | its process group is killed, as workers would not notice; then it is started again, with backoff |
//! | both in the same instant, by SIGKILL | the workers stay: no process is left to end them |
//!
//! If longwire is killed by SIGKILL, its private directory also stays. The next start of any node of this user removes it.
//!
//! PR_SET_PDEATHSIG fires when the *thread* that forked ends, so one thread does nothing but fork the master and wait
//! for it. A reload (SIGUSR2) executes php-fpm anew and keeps both the process id and the death signal.

mod lines;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, warn};

use self::lines::{MAX_LINE, log_lines};
use super::home::{self, Home};
use crate::config::model::{Bind, Spawn};
use crate::config::php_fpm;
use crate::locks::lock;
use crate::service_manager;

/// How long php-fpm may take until its socket accepts; a cold disk and a large php.ini take less than a second.
const START_TIME: Duration = Duration::from_secs(10);
/// Pauses between restarts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// A master that lived this long counts as healthy: the next pause is [`FIRST_PAUSE`] again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// The signals of a stop, and how long each may take: finish running requests, stop, die.
const STOP_STAGES: [(i32, Duration); 3] = [
    (libc::SIGQUIT, Duration::from_secs(3)),
    (libc::SIGTERM, Duration::from_secs(1)),
    (libc::SIGKILL, Duration::from_secs(2)),
];

/// Why no php-fpm runs.
#[derive(Debug)]
pub enum SpawnError {
    /// No binary was found. The text names the missing binary or the package to install.
    NotFound(String),
    /// The private directory or the thread that runs php-fpm could not be made.
    NotPrepared(io::Error),
    /// It could not be started, or not be waited for.
    CannotStart {
        /// Which one.
        binary: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line of `ini` has a line break, quotes of both kinds or an unusable key.
    Ini(String),
    /// It ended instead of accepting connections.
    Exited {
        /// Which one.
        binary: PathBuf,
        /// How.
        status: ExitStatus,
        /// The last lines that it wrote to stderr.
        said: String,
    },
    /// It neither accepts connections nor ends.
    Silent(PathBuf),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::NotFound(what) => f.write_str(what),
            SpawnError::NotPrepared(error) => write!(f, "private directory for php-fpm: {error}"),
            SpawnError::CannotStart { binary, error } => write!(f, "cannot start {}: {error}", binary.display()),
            SpawnError::Ini(key) => write!(
                f,
                "ini setting {key:?} cannot be written to a pool file: its value has a line break, or an apostrophe together with \", $ or \\"
            ),
            SpawnError::Exited { binary, status, said } => {
                write!(f, "{} ended at once ({status}): {said}", binary.display())
            }
            SpawnError::Silent(binary) => {
                write!(f, "{} does not accept connections after {} s", binary.display(), START_TIME.as_secs())
            }
        }
    }
}

impl std::error::Error for SpawnError {}

/// A php-fpm that is kept running. Dropping it tells php-fpm to stop; [`stop`](Self::stop) also waits.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<SharedMaster>,
    ended: watch::Receiver<bool>,
}

#[derive(Debug)]
struct SharedMaster {
    state: Mutex<MasterState>,
    changed: Condvar,
}

#[derive(Debug)]
struct MasterState {
    /// The running master, which leads the process group of this number.
    master: Option<i32>,
    stopping: bool,
}

/// Everything that is needed to start the master, any number of times.
#[derive(Debug)]
struct Pool {
    name: String,
    binary: PathBuf,
    /// Settings of php.ini for its command line, `key="value"`.
    ini: Vec<String>,
    /// Removed with all its content when the supervisor's thread ends.
    home: Home,
    /// The pool's configuration file.
    config: String,
    /// The last lines of its stderr, which explain a failed start.
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Supervisor {
    /// Starts php-fpm for the upstream `name`, and gives the address of its socket once it accepts.
    pub async fn start(spawn: &Spawn, name: &str) -> Result<(Self, Bind), SpawnError> {
        let Prepared { binary, ini, home } = prepare(spawn)?;
        let config = pool_config(spawn, &ini, name, home.path());
        let ini = ini.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let socket = home.path().join(home::SOCKET_FILE);
        if is_root() {
            warn!(target: "longwire::php", upstream = name, "php runs as root, because longwire does");
        }

        let pool = Pool { name: name.to_owned(), binary, ini, home, config, last_lines: Arc::default() };
        let shared = Arc::new(SharedMaster {
            state: Mutex::new(MasterState { master: None, stopping: false }),
            changed: Condvar::new(),
        });
        let (started_tx, started) = tokio::sync::oneshot::channel();
        let (ended_tx, ended) = watch::channel(false);
        let for_thread = shared.clone();
        thread::Builder::new()
            .name("php-fpm".to_owned())
            .spawn(move || {
                for_thread.keep_running(&pool, started_tx);
                drop(pool);
                let _ = ended_tx.send(true);
            })
            .map_err(SpawnError::NotPrepared)?;
        let mut supervisor = Self { shared, ended };
        match started.await {
            Ok(Ok(())) => Ok((supervisor, Bind::Unix(socket))),
            Ok(Err(error)) => {
                // The private directory is removed before this process may end.
                let _ = supervisor.ended.wait_for(|ended| *ended).await;
                Err(error)
            }
            Err(_) => unreachable!("the thread reports the result of the first start before it ends"),
        }
    }

    /// Finds problems that would keep [`start`](Self::start) from executing php-fpm, without executing it.
    ///
    /// # Errors
    ///
    /// The same as there.
    pub fn check(spawn: &Spawn) -> Result<(), SpawnError> {
        prepare(spawn).map(|_| ())
    }

    /// Gives running requests a few seconds to end, then ends php-fpm, and returns when all of its processes are gone.
    pub async fn stop(mut self) {
        for (signal, patience) in STOP_STAGES {
            self.shared.stop(signal);
            if tokio::time::timeout(patience, self.ended.wait_for(|ended| *ended)).await.is_ok() {
                return;
            }
        }
        error!(target: "longwire::php", "php-fpm did not end after SIGKILL");
    }

    /// The process id of the master, while there is one.
    pub fn master(&self) -> Option<u32> {
        self.shared.lock().master.map(i32::cast_unsigned)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // After `stop` no process is left to signal. Without `stop` nothing would wait for the workers, so they get no time.
        self.shared.stop(libc::SIGTERM);
    }
}

impl SharedMaster {
    fn lock(&self) -> std::sync::MutexGuard<'_, MasterState> {
        lock(&self.state)
    }

    /// Tells the master to end, and the supervisor's thread not to start another. SIGKILL goes to the workers too.
    fn stop(&self, signal: i32) {
        let mut state = self.lock();
        state.stopping = true;
        if let Some(master) = state.master {
            let target = if signal == libc::SIGKILL { -master } else { master };
            // SAFETY: only sends a signal. The master is not reaped while `state.master` names it, so the number
            // cannot belong to another process.
            unsafe { libc::kill(target, signal) };
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The body of the supervisor's thread.
    fn keep_running(&self, pool: &Pool, started: tokio::sync::oneshot::Sender<Result<(), SpawnError>>) {
        let mut started = Some(started);
        let mut pause = FIRST_PAUSE;
        loop {
            let since = Instant::now();
            let ended = self.run_once(pool, &mut started);
            if let Some(started) = started.take() {
                // The first start failed. That is reported to the operator and not retried.
                let failure = match ended {
                    Ok(status) if since.elapsed() < START_TIME => {
                        let said = pool.last_lines();
                        SpawnError::Exited { binary: pool.binary.clone(), status, said }
                    }
                    Ok(_) => SpawnError::Silent(pool.binary.clone()),
                    Err(error) => SpawnError::CannotStart { binary: pool.binary.clone(), error },
                };
                let _ = started.send(Err(failure));
                return;
            }
            if since.elapsed() >= HEALTHY_AFTER {
                pause = FIRST_PAUSE;
            }
            if self.lock().stopping {
                return;
            }
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            let pause_ms = pause.as_millis() as u64;
            warn!(target: "longwire::php", upstream = pool.name, pause_ms, how, "php-fpm ended: starting it again");
            let waited = self.changed.wait_timeout_while(self.lock(), pause, |state| !state.stopping);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stopping {
                return;
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Starts the master and waits until it has ended, and every worker with it.
    fn run_once(
        &self,
        pool: &Pool,
        started: &mut Option<tokio::sync::oneshot::Sender<Result<(), SpawnError>>>,
    ) -> io::Result<ExitStatus> {
        // A program that cleans the directory for temporary files may have run since the last start.
        let socket = pool.home.prepare(&pool.config)?;
        let mut child = {
            let mut state = self.lock();
            if state.stopping {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let child = pool.spawn()?;
            state.master = Some(child.id().cast_signed());
            child
        };
        let stderr = child.stderr.take().expect("stderr is piped");
        let (upstream, last_lines) = (pool.name.clone(), pool.last_lines.clone());
        // Ends when the last process that holds the pipe has ended.
        let reader = thread::Builder::new()
            .name("php-fpm-log".to_owned())
            .spawn(move || log_lines(stderr, &upstream, &last_lines))?;

        if started.is_some() {
            if wait_until_accepting(&mut child, &socket)? {
                let tell = started.take().expect("checked above");
                let _ = tell.send(Ok(()));
            } else {
                self.stop(libc::SIGKILL);
            }
        }
        wait_unreaped(child.id());
        let mut state = self.lock();
        state.master = None;
        // SAFETY: only sends a signal. The master is not reaped yet, so the group is still its own.
        unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
        drop(state);
        let status = child.wait();
        if started.is_some() {
            // The last lines before its end explain best why it ended, so the reader may finish first.
            let _ = reader.join();
        }
        status
    }
}

impl Pool {
    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.binary);
        // A pool may switch opcache off but not on (zend_accelerator_module.c): a setting in the pool would only cause a warning.
        command.args(["-d", "opcache.enable=1"]);
        // PHP reads some settings once, before there are pools: opcache.preload, opcache.memory_consumption, apc.shm_size.
        command.args(self.ini.iter().flat_map(|setting| ["-d", setting]));
        command.arg("--nodaemonize").arg("--fpm-config").arg(self.home.path().join(home::CONFIG_FILE));
        if is_root() {
            command.arg("--allow-to-run-as-root");
        }
        for variable in service_manager::VARIABLES {
            command.env_remove(variable);
        }
        // A process group of its own: Ctrl-C in a terminal then goes only to longwire, which stops php-fpm itself.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let parent = std::process::id().cast_signed();
        // SAFETY: between fork and exec only prctl, getppid and the making of an io::Error from a code are called, none
        // of which allocates or takes a lock.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // Longwire may have been killed between fork and prctl. Then that signal will never come.
                if libc::getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
        command.spawn()
    }

    fn last_lines(&self) -> String {
        let lines = lock(&self.last_lines);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// Everything that a start needs: the binary, the settings for php.ini, and the private directory.
struct Prepared<'a> {
    binary: PathBuf,
    ini: Vec<(&'a str, String)>,
    home: Home,
}

/// Everything that can be checked before php-fpm is executed.
fn prepare(spawn: &Spawn) -> Result<Prepared<'_>, SpawnError> {
    let binary = php_fpm::find(spawn.binary.as_deref()).map_err(SpawnError::NotFound)?;
    let ini = settings(spawn)?;
    let home = Home::new(&std::env::temp_dir()).map_err(SpawnError::NotPrepared)?;
    Ok(Prepared { binary, ini, home })
}

/// The settings for php.ini: keys with quoted values.
fn settings<'a>(spawn: &'a Spawn) -> Result<Vec<(&'a str, String)>, SpawnError> {
    let mut ini = vec![
        // Errors of PHP go to the log and never into a reply.
        ("display_errors", "0"),
        ("log_errors", "1"),
        ("html_errors", "0"),
        // As in php.ini-production, whether or not this system has a php.ini: so a script that streams with
        // `ob_flush(); flush();` here also streams with any other php-fpm.
        ("output_buffering", "4096"),
        // Longwire already limits the size of frames, so PHP should not apply a limit of its own.
        ("post_max_size", "0"),
    ];
    if spawn.recheck_files {
        ini.extend([("opcache.validate_timestamps", "1"), ("opcache.revalidate_freq", "0")]);
    }
    // Of two lines with one key php-fpm 8.2 takes the first.
    ini.retain(|(key, _)| spawn.ini.iter().all(|(own, _)| own != key));
    ini.extend(spawn.ini.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let quoted = |(key, value): (&'a str, &str)| {
        let is_key = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
        let value = quoted(value).filter(|_| is_key).ok_or_else(|| SpawnError::Ini(key.to_owned()))?;
        Ok((key, value))
    };
    ini.into_iter().map(quoted).collect()
}

/// A value that php.ini and pool files take literally. In single quotes everything is literal; in double quotes `${NAME}` is a
/// variable and a backslash escapes.
fn quoted(value: &str) -> Option<String> {
    if value.contains(['\n', '\r', '\0']) {
        None
    } else if !value.contains('\'') {
        Some(format!("'{value}'"))
    } else if !value.contains(['"', '$', '\\']) {
        Some(format!("\"{value}\""))
    } else {
        None
    }
}

/// The configuration file of the private pool.
fn pool_config(spawn: &Spawn, ini: &[(&str, String)], name: &str, directory: &Path) -> String {
    let terminate = spawn.request_terminate_timeout;
    let pool: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let mut config = format!(
        "[global]\nerror_log = /proc/self/fd/2\nlog_level = warning\nlog_limit = {MAX_LINE}\ndaemonize = no\n\
         process_control_timeout = 3s\n\
         [longwire-{pool}]\nlisten = {socket}\nlisten.mode = 0600\nlisten.backlog = 511\n\
         pm = static\npm.max_children = {workers}\nrequest_terminate_timeout = {terminate}s\n\
         catch_workers_output = yes\ndecorate_workers_output = no\nclear_env = no\n",
        socket = directory.join(home::SOCKET_FILE).display(),
        terminate = terminate.as_secs() + u64::from(terminate.subsec_nanos() > 0),
        workers = spawn.workers.max(1),
    );
    if is_root() {
        config.push_str("user = root\ngroup = root\n");
    }
    for (key, value) in ini {
        // A pool that loads an extension which the master has loaded logs a warning.
        if !["extension", "zend_extension"].contains(key) {
            // As an admin value, so that a script cannot change it (ini_set).
            config.push_str(&format!("php_admin_value[{key}] = {value}\n"));
        }
    }
    config
}

/// True when the socket accepts; false if php-fpm ended or the time is over.
#[expect(clippy::disallowed_methods, reason = "runs on a thread that may block")]
fn wait_until_accepting(child: &mut Child, socket: &Path) -> io::Result<bool> {
    let deadline = Instant::now() + START_TIME;
    while Instant::now() < deadline {
        if UnixStream::connect(socket).is_ok() {
            return Ok(true);
        }
        if has_ended(child.id()) {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}

/// Waits for the end of a child without reaping it, so that its process id is not reused.
fn wait_unreaped(pid: u32) {
    while !wait_for_exit(pid, libc::WEXITED | libc::WNOWAIT) {}
}

fn has_ended(pid: u32) -> bool {
    wait_for_exit(pid, libc::WEXITED | libc::WNOWAIT | libc::WNOHANG)
}

fn wait_for_exit(pid: u32, options: i32) -> bool {
    // SAFETY: siginfo_t is plain data for which zeroes are valid, and waitid writes only to it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_PID, pid, &raw mut info, options);
        // EINTR says nothing; any other error means that there is no such child to wait for.
        if result != 0 { io::Error::last_os_error().kind() != io::ErrorKind::Interrupted } else { info.si_pid() != 0 }
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid has no conditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(ini: &[(&str, &str)]) -> Spawn {
        let ini = ini.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Spawn {
            binary: None,
            workers: 3,
            request_terminate_timeout: Duration::from_millis(1500),
            recheck_files: true,
            ini,
        }
    }

    #[test]
    fn ini_settings_are_written_and_those_that_could_break_out_are_refused() {
        let shop = spawn(&[("memory_limit", "64M"), ("extension", "redis")]);
        let config = pool_config(&shop, &settings(&shop).expect("fine"), "shop", Path::new("/run/x"));
        assert!(config.contains("php_admin_value[memory_limit] = '64M'\n"));
        assert!(config.contains("request_terminate_timeout = 2s\n"), "php-fpm counts whole seconds");
        assert!(!config.contains("redis"), "the command line has it");
        assert!(config.contains("pm.max_children = 3\n"));
        for (key, value) in
            [("a\nuser = root", "1"), ("a]", "1"), ("", "1"), ("a", "1\nuser = root"), ("a", "'\""), ("a", "'${HOME}")]
        {
            let refused = spawn(&[(key, value)]);
            assert!(matches!(settings(&refused), Err(SpawnError::Ini(_))), "{key:?} = {value:?}");
        }
    }
}
