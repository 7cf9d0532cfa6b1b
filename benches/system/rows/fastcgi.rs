//! FastCGI clients alone, without WebSocket or TCP clients in front; and nginx, which needs clients.

use std::io;
use std::path::Path;

use super::echo::echo;
use crate::measure::{Settings, Variant, role_report};
use crate::peers::{Nginx, has_nginx};
use crate::process::{NULL_SCRIPT, null_responder, record_request};
use crate::roles::{BACKEND_CONNECTIONS, FLAT_OUT};
use crate::table::{Against, Column, OTHERS, Over, Row};

const BYTES: usize = 64;

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let request = record_request(dir, Path::new(NULL_SCRIPT), BYTES)?;
    let nginx = has_nginx().then(|| Nginx::for_null(dir, &socket)).transpose()?;
    let (pid, duration) = (responder.pid().to_string(), settings.seconds(5));
    let (mut variants, mut notes) = (Vec::new(), Vec::new());
    for (name, which) in
        [("Longwire's upstream", "longwire"), ("fastcgi-client", "crate"), ("fastcgi-client, BufStream", "buffered")]
    {
        let (socket, request, pid) = (&socket, &request, &pid);
        variants.push(Variant::new(name, format!("{BYTES} B"), move || {
            let millis = duration.as_millis().to_string();
            let words = [Path::new(which), socket, request, Path::new(pid), Path::new(&millis)];
            role_report("fastcgi-client", &words, duration)
        }));
    }
    let (socket, request, responder_pid) = (&socket, &request, &pid);
    variants.push(Variant::new("floor", format!("{BYTES} B"), move || {
        let (connections, millis) = (BACKEND_CONNECTIONS.to_string(), duration.as_millis().to_string());
        let words = [responder_pid, FLAT_OUT, &connections, &millis].map(Path::new);
        role_report("open-loop", &[&[socket.as_path(), request], &words[..]].concat(), duration)
    }));
    if let Some(nginx) = &nginx {
        let (url, pids) = (nginx.url("http", "/null"), [nginx.pid(), responder.pid()]);
        let mut variant = echo("nginx, HTTP in front", url, (32, BYTES), pids, settings).peer();
        variant.case = format!("{BYTES} B");
        variants.push(variant);
    } else {
        notes.push("nginx is not installed here, so it is not in the table.".to_owned());
    }
    let columns = vec![
        Column::median("requests/s", &["/replies_per_s"], 0),
        Column::median("client CPU µs/request", &["/cpu/cpu_us_per_message/0"], 2).over(Over::Spread),
        Column::median("responder", &["/cpu/cpu_us_per_message/1"], 2),
        Column::median("wrong or lost", &["/lost", "/repeated", "/out_of_order", "/wrong"], 0).over(Over::Sum),
        OTHERS,
    ];
    let against = vec![Against::times("floor", |_, other| other.name == "floor")];
    Row { name: "fastcgi", columns, against, variants, notes }.run(settings)
}
