//! The latency that Longwire adds to the time of a script, while php-fpm is busy but has no queue.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::measure::{Settings, Variant, bench, role_report, written};
use crate::peers::{CHILDREN, Nginx, PhpFpm, Script, has_nginx};
use crate::process::{Floor, Node, record_request};
use crate::table::{Against, Column, OTHERS, Over, Row};

const BYTES: usize = 64;
const CLIENTS: &str = "100";
const BARE: &str = "bare FastCGI client";

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let mut scripts = Vec::new();
    // Shares of the maximum rate through Longwire. A script that only echoes is limited by the CPU, and single messages need more CPU than
    // queued ones.
    for (case, script, load) in
        [("a script that waits 2 ms", Script::Waits, 0.7), ("a script that only echoes", Script::Echoes, 0.35)]
    {
        let dir = dir.join(format!("{script:?}"));
        fs::create_dir(&dir)?;
        scripts.push((case, Setting::new(&dir, script, load, settings)?));
    }
    let (mut variants, duration) = (Vec::new(), settings.seconds(5));
    for (case, setting) in &scripts {
        let case = format!("{case}, {:.0} a second", setting.rate);
        let rate = setting.rate.to_string();
        let through = |name: &str, url: String, fpm: &PhpFpm, server: u32| {
            let (pids, rate, warm_up) = ([server, fpm.pid()], rate.clone(), settings.warm_up());
            Variant::new(name, case.clone(), move || {
                let (bytes, text) = (BYTES.to_string(), written(duration));
                let words = ["echo", &url, "--connections", CLIENTS, "--bytes", &bytes, "--rate", &rate];
                bench(&[&words[..], &["--duration", &text], &warm_up].concat(), &pids, duration)
            })
        };
        let [fpm, alone, relayed, new] = &setting.pools;
        variants.push(through("Longwire tcp", setting.node.url("tcp"), fpm, setting.node.pid()));
        variants.push(through("Longwire ws", setting.node.url("ws"), fpm, setting.node.pid()));
        variants.push(through("relay floor", setting.relay.url(0), relayed, setting.relay.pid()));
        let (request, rate) = (&setting.request, rate.clone());
        variants.push(Variant::new(BARE, case.clone(), move || {
            let (pid, children, millis) =
                (alone.pid().to_string(), CHILDREN.to_string(), duration.as_millis().to_string());
            let words =
                [&alone.socket, request, Path::new(&pid), Path::new(&rate), Path::new(&children), Path::new(&millis)];
            role_report("open-loop", &words, duration)
        }));
        if let Some(nginx) = &setting.nginx {
            variants.push(through("nginx, new connections", nginx.url("http", "/new"), new, nginx.pid()).peer());
        }
    }
    let columns = vec![
        Column::median("p50 µs", &["/latency/p50_us"], 0).over(Over::Spread),
        Column::median("p99 µs", &["/latency/p99_us"], 0).over(Over::Spread),
        Column::median("p99.9 µs", &["/latency/p999_us"], 0),
        Column::median("answers/s", &["/replies_per_s"], 0),
        Column::median("server (or bare client) CPU µs", &["/cpu/cpu_us_per_message/0"], 1),
        Column::median("php-fpm", &["/cpu/cpu_us_per_message/1"], 1),
        OTHERS,
    ];
    let bare = |line: &Variant<'_>, other: &Variant<'_>| other.name == BARE && other.case == line.case;
    let against = vec![Against::more("p50 added", "p50 µs", bare), Against::more("p99 added", "p99 µs", bare)];
    Row { name: "latency", columns, against, variants, notes: Vec::new() }.run(settings)
}

/// One script and all clients that call it, each with its own pool.
struct Setting {
    pools: [PhpFpm; 4],
    node: Node,
    relay: Floor,
    nginx: Option<Nginx>,
    /// The file with the request that Longwire sends.
    request: PathBuf,
    /// Rate in messages a second.
    rate: f64,
}

impl Setting {
    fn new(dir: &Path, script: Script, load: f64, settings: &Settings) -> io::Result<Self> {
        let pool = |name| PhpFpm::with_script(dir, name, script);
        let pools = [pool("longwire")?, pool("alone")?, pool("relayed")?, pool("new")?];
        let node = Node::start(dir, &pools[0].handler())?;
        let request = record_request(dir, &pools[1].script, BYTES)?;
        let relay = Floor::relay(dir, &pools[2].handler(), BYTES)?;
        let nginx = has_nginx().then(|| Nginx::for_php(dir, &pools[3], &pools[3])).transpose()?;
        let (bytes, text) = (BYTES.to_string(), written(settings.seconds(3)));
        let url = node.url("tcp");
        let words = ["echo", &url, "--connections", "32", "--bytes", &bytes, "--duration", &text];
        let most = bench(&[&words[..], &settings.warm_up()].concat(), &[], settings.seconds(3))?;
        let most = most["replies_per_s"].as_f64().filter(|rate| *rate > 0.0);
        let rate = most.ok_or_else(|| io::Error::other("no message got through Longwire"))? * load;
        Ok(Self { pools, node, relay, nginx, request, rate: rate.round().max(1.0) })
    }
}
