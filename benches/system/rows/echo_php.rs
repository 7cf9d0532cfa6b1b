//! Echo through php-fpm, beside nginx in front of the same pool.

use std::io;
use std::path::Path;

use super::echo::{columns, echo};
use crate::measure::Settings;
use crate::peers::{CHILDREN, Nginx, PhpFpm, has_nginx};
use crate::process::{Handler, Node};
use crate::table::Row;

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let fpm = PhpFpm::start(dir)?;
    let handler = Handler { socket: fpm.socket.clone(), script: fpm.script.clone(), max_connections: CHILDREN };
    let node = Node::start(dir, &handler)?;
    let nginx = has_nginx().then(|| Nginx::for_php(dir, &fpm)).transpose()?;
    let (mut variants, mut notes) = (Vec::new(), Vec::new());
    for connections in settings.counts(&[32, 1000]) {
        let variant = |name, url, server| echo(name, url, (connections, 64), [server, fpm.pid()], settings.seconds(5));
        variants.push(variant("Longwire tcp", node.url("tcp"), node.pid()));
        variants.push(variant("Longwire ws", node.url("ws"), node.pid()));
        if let Some(nginx) = &nginx {
            variants.push(variant("nginx, new connections", nginx.url("http", "/new"), nginx.pid()).peer());
            variants.push(variant("nginx, fastcgi_keep_conn", nginx.url("http", "/kept"), nginx.pid()).peer());
        }
    }
    if nginx.is_none() {
        notes.push("nginx is not installed here, so nothing stands beside Longwire.".to_owned());
    }
    Row { name: "echo-php", columns: columns("php-fpm"), variants, notes }.run(settings)
}
