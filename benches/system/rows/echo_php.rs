//! Echo through php-fpm, compared with nginx in front of pools of the same kind.

use std::io;
use std::path::Path;

use super::echo::{columns, echo};
use crate::measure::Settings;
use crate::peers::{Nginx, PhpFpm, has_nginx};
use crate::process::Node;
use crate::table::{Column, Over, Row};

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    // A pool for each variant, because connections kept by nginx occupy their workers during the turns of the others.
    let fpm = PhpFpm::start(dir, "longwire")?;
    let node = Node::start(dir, &fpm.handler())?;
    let nginx = has_nginx()
        .then(|| {
            let (new, kept) = (PhpFpm::start(dir, "new")?, PhpFpm::start(dir, "kept")?);
            Ok::<_, io::Error>((Nginx::for_php(dir, &new, &kept)?, new, kept))
        })
        .transpose()?;
    let (mut variants, mut notes) = (Vec::new(), Vec::new());
    for connections in settings.counts(&[32, 1000]) {
        let variant =
            |name, url, server, fpm: &PhpFpm| echo(name, url, (connections, 64), [server, fpm.pid()], settings);
        variants.push(variant("Longwire tcp", node.url("tcp"), node.pid(), &fpm));
        variants.push(variant("Longwire ws", node.url("ws"), node.pid(), &fpm));
        if let Some((nginx, new, kept)) = &nginx {
            let (new_url, kept_url) = (nginx.url("http", "/new"), nginx.url("http", "/kept"));
            variants.push(variant("nginx, new connections", new_url, nginx.pid(), new).peer());
            variants.push(variant("nginx, fastcgi_keep_conn", kept_url, nginx.pid(), kept).peer());
        }
    }
    if nginx.is_none() {
        notes.push("nginx is not installed here, so Longwire is not compared with it.".to_owned());
    }
    let mut columns = columns("php-fpm");
    let both = &["/cpu/cpu_us_per_message/0", "/cpu/cpu_us_per_message/1"];
    // Compare and draw the sum of both CPU times, so that a server gains nothing by moving work to php-fpm.
    columns[1].over = Over::Median;
    columns.insert(3, Column::median("both", both, 1).over(Over::Spread));
    columns.insert(6, Column::median("p99.9 ms", &["/latency/p999_us"], 2).per(1000.0));
    Row { name: "echo-php", columns, against: Vec::new(), variants, notes }.run(settings)
}
