//! The programs that Longwire is compared with, and php-fpm. One that is not installed is left out, with a note under the table.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{Handler, NULL_SCRIPT, Process, accepts, output_of};
use crate::roles::BACKEND_CONNECTIONS;

/// Number of php-fpm's workers, and of connections kept to it.
pub(crate) const CHILDREN: usize = 4;

/// Debian's path, which is often not in PATH.
const NGINX: &str = "/usr/sbin/nginx";
const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

pub(crate) fn has_nginx() -> bool {
    Path::new(NGINX).exists()
}

pub(crate) fn has_nchan() -> bool {
    has_nginx() && Path::new(NCHAN).exists()
}

/// The installed programs with their versions.
pub(crate) fn versions() -> Vec<String> {
    let mut found = Vec::new();
    let short = Duration::from_secs(10);
    if let Some(fpm) = longwire::config::php_fpm::find(None).ok()
        && let Ok(text) = output_of(Command::new(fpm).arg("-v"), short)
    {
        found.push(format!("php-fpm {}", text.split_whitespace().nth(1).unwrap_or("?")));
    }
    if has_nginx() {
        // nginx prints its version on standard error.
        let said = Command::new(NGINX).arg("-v").output();
        let text = said.map(|said| String::from_utf8_lossy(&said.stderr).into_owned()).unwrap_or_default();
        found.push(format!("nginx {}", text.trim().rsplit('/').next().unwrap_or("?")));
    }
    if has_nchan()
        && let Ok(text) =
            output_of(Command::new("dpkg-query").args(["-W", "-f=${Version}", "libnginx-mod-nchan"]), short)
    {
        found.push(format!("nchan {text}"));
    }
    found
}

/// The kind of script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// It only echoes.
    Echoes,
    /// It waits for 2 ms, as for a database, and echoes.
    Waits,
}

/// php-fpm with a script that echoes.
pub(crate) struct PhpFpm {
    process: Process,
    pub(crate) socket: PathBuf,
    pub(crate) script: PathBuf,
}

impl PhpFpm {
    /// A pool of [`CHILDREN`], `pm = static`, opcache on.
    pub(crate) fn start(dir: &Path, name: &str) -> io::Result<Self> {
        Self::with_script(dir, name, Script::Echoes)
    }

    /// The same with this script.
    pub(crate) fn with_script(dir: &Path, name: &str, script_kind: Script) -> io::Result<Self> {
        let dir = dir.join(name);
        fs::create_dir(&dir)?;
        let program = longwire::config::php_fpm::find(None).map_err(io::Error::other)?;
        let (socket, script, config) = (dir.join("fpm.sock"), dir.join("echo.php"), dir.join("fpm.conf"));
        // A pool without opcache would distort the figures, so then the script prints an error instead of the echo.
        let wait = if script_kind == Script::Waits { "usleep(2000);" } else { "" };
        let code = format!(
            "<?php\n{wait}$body = opcache_get_status(false) ? file_get_contents('php://input') : 'opcache is off';\n\
             header('Content-Length: ' . strlen($body));\necho $body;\n"
        );
        fs::write(&script, code)?;
        let text = format!(
            "[global]\nerror_log = {}\ndaemonize = no\n[bench]\nuser = root\ngroup = root\nlisten = {}\nlisten.backlog = 4096\n\
             pm = static\npm.max_children = {CHILDREN}\nphp_admin_flag[opcache.enable] = on\n",
            dir.join("fpm.log").display(),
            socket.display(),
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("--fpm-config").arg(&config).args(["--nodaemonize", "--allow-to-run-as-root"]);
        let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        accepts("php-fpm", || UnixStream::connect(&socket).is_ok())?;
        Ok(Self { process, socket, script })
    }

    /// The handler for a node in front of it, which may use all of its workers.
    pub(crate) fn handler(&self) -> Handler {
        Handler { socket: self.socket.clone(), script: self.script.clone(), max_connections: CHILDREN }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The params of Debian's `fastcgi_params` that such a script may need.
fn params(script: &Path) -> String {
    format!(
        "fastcgi_param SCRIPT_FILENAME {}; fastcgi_param REQUEST_METHOD $request_method;\n\
         fastcgi_param CONTENT_LENGTH $content_length; fastcgi_param CONTENT_TYPE $content_type;\n\
         fastcgi_param SCRIPT_NAME /echo.php; fastcgi_param REQUEST_URI $request_uri;\n\
         fastcgi_param REMOTE_ADDR $remote_addr; fastcgi_param SERVER_PROTOCOL $server_protocol;",
        script.display()
    )
}

/// An nginx `upstream` with this number of kept connections.
fn keeping(connections: usize, socket: &Path) -> String {
    format!(
        "upstream kept {{ server unix:{}; keepalive {connections}; keepalive_requests 1000000000; }}",
        socket.display()
    )
}

/// nginx with one worker. With several, each would keep that many connections.
pub(crate) struct Nginx {
    process: Process,
    address: SocketAddr,
}

impl Nginx {
    /// nginx in front of php-fpm: `/new` opens a connection for each request, `/kept` keeps one for each worker.
    pub(crate) fn for_php(dir: &Path, new: &PhpFpm, kept: &PhpFpm) -> io::Result<Self> {
        let http = keeping(CHILDREN, &kept.socket);
        let server = format!(
            "location /new {{ fastcgi_pass unix:{}; {} }}\n\
             location /kept {{ fastcgi_pass kept; fastcgi_keep_conn on; {} }}",
            new.socket.display(),
            params(&new.script),
            params(&kept.script),
        );
        Self::start(dir, "", &http, &server)
    }

    /// nginx in front of the null responder, over kept connections: `/null`.
    pub(crate) fn for_null(dir: &Path, socket: &Path) -> io::Result<Self> {
        let params = params(Path::new(NULL_SCRIPT));
        let server = format!("location /null {{ fastcgi_pass kept; fastcgi_keep_conn on; {params} }}");
        Self::start(dir, "", &keeping(BACKEND_CONNECTIONS, socket), &server)
    }

    /// nginx with nchan: subscribers of one channel at `/sub`, POSTs at `/pub`.
    pub(crate) fn with_nchan(dir: &Path) -> io::Result<Self> {
        let server = "location = /sub { nchan_subscriber websocket; nchan_channel_id news; \
                      nchan_subscriber_first_message newest; }\n\
                      location = /pub { nchan_publisher; nchan_channel_id news; nchan_message_timeout 30s; \
                      nchan_message_buffer_length 1000; }";
        Self::start(dir, &format!("load_module {NCHAN};"), "nchan_shared_memory_size 256M;", server)
    }

    fn start(dir: &Path, modules: &str, http: &str, server: &str) -> io::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?;
        let (config, log, place) = (dir.join("nginx.conf"), dir.join("nginx.log"), dir.display());
        let text = format!(
            "{modules}\nuser root;\ndaemon off;\nworker_processes 1;\npid {place}/nginx.pid;\n\
             error_log {log} crit;\nevents {{ worker_connections 20000; }}\n\
             http {{\naccess_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 600s;\n\
             client_body_temp_path {place}/body;\nfastcgi_temp_path {place}/fastcgi;\nproxy_temp_path {place}/proxy;\n\
             uwsgi_temp_path {place}/uwsgi;\nscgi_temp_path {place}/scgi;\n{http}\n\
             server {{\nlisten {address} backlog=4096;\n{server}\n}}\n}}\n",
            log = log.display(),
        );
        fs::write(&config, text)?;
        let mut command = Command::new(NGINX);
        command.arg("-p").arg(dir).arg("-c").arg(&config).arg("-e").arg(&log).stderr(Stdio::null());
        let process = Process::start(&mut command)?;
        let up = accepts("nginx", || TcpStream::connect(address).is_ok());
        up.map_err(|error| {
            io::Error::other(format!("{error}; its log: {}", fs::read_to_string(&log).unwrap_or_default()))
        })?;
        Ok(Self { process, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.address)
    }
}
