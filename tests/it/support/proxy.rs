//! nginx and other proxies in front of a test's server.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::php_fpm::{PhpFpm, kill, wait_until};

/// A running proxy. Dropping it ends the proxy.
pub struct Proxy {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts a program whose last argument is its configuration file. `DIR` in the configuration stands for a private folder.
    pub fn start(config: &str, program: &str, arguments: &[&str], listens: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("proxy.conf");
        fs::write(&file, config.replace("DIR", &dir.path().display().to_string())).expect("the directory is ours");
        let child = Command::new(program)
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {program} (tests/install-deps.sh test installs it): {error}"));
        let proxy = Self { child, _dir: dir };
        for address in listens {
            wait_until("the proxy listens", || std::net::TcpStream::connect(address).is_ok());
        }
        proxy
    }

    /// nginx with these lines in its only `server` block, and the address where it listens.
    pub fn nginx(server: &str) -> (Self, SocketAddr) {
        let address = free_address();
        let temporary =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("{what}_temp_path DIR/{what};\n"));
        let config = format!(
            "user root; pid DIR/pid; error_log DIR/error.log; worker_processes 1;\nevents {{ worker_connections 4096; }}\n\
             http {{ access_log off;\n{}server {{ listen {address};\n{server}\n}} }}",
            temporary.concat()
        );
        (Self::start(&config, "/usr/sbin/nginx", &["-g", "daemon off;", "-e", "stderr", "-c"], &[address]), address)
    }

    /// nginx that serves the folder of the scripts with that php-fpm.
    pub fn nginx_before(fpm: &PhpFpm) -> (Self, SocketAddr) {
        Self::nginx(&format!(
            "root {root};\nlocation ~ \\.php$ {{ include /etc/nginx/fastcgi_params;\n\
             fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; fastcgi_pass {backend}; }}",
            root = fpm.dir().display(),
            backend = fpm.address(),
        ))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that nginx ends its workers too.
        kill(self.child.id(), libc::SIGTERM);
        let _ = self.child.wait();
    }
}

pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}
