//! `longwire dev SCRIPT.php`: serves one script with a php-fpm of its own. It opens a TCP and an HTTP listener, the router port
//! and the API on loopback, has a page to try the script with, and shows every event on the terminal.
//!
//! `longwire dev DIR` takes the script's folder instead: `handler.php` in it is the script, and all files that are not PHP are
//! served as static files. If the folder has a page of its own, that page replaces the built-in one at `/`.
//!
//! Only the page and the terminal are special to development. For everything else it writes a configuration like an
//! operator's and runs it.

mod console;
mod fields;
mod problems;
mod served_app;

use std::fmt::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use clap::ValueEnum;

use self::problems::Problems;
use self::served_app::ServedApp;
pub use self::served_app::ServedAppError;
use crate::commands::cli::{DevArgs, DevEvent};
use crate::config;
use crate::config::model::{Bind, Config, Protocol, StreamFraming};
use crate::config::value::duration_text;
use crate::http::{Page, PageBody};
use crate::node::{Extras, Running, StartError};
use crate::serve::{self, Hangup};
use crate::transport::listening::dial_address;

/// The path that the page opens its WebSocket on.
const WEBSOCKET_PATH: &str = "/ws";
/// The path where the page reads errors; page.html has it too.
const PROBLEMS_PATH: &str = "/_longwire/problems";

/// Why `dev` does not run.
#[derive(Debug)]
pub enum DevError {
    /// The script or folder cannot be read.
    ServedApp(ServedAppError),
    /// An option of the command line is not valid.
    Arguments(String),
    /// The configuration made from the command line is not valid: an address that cannot be parsed, for example.
    Config(config::Errors),
    /// The node did not start.
    Start(StartError),
}

impl fmt::Display for DevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DevError::ServedApp(error) => error.fmt(f),
            DevError::Arguments(what) => f.write_str(what),
            DevError::Config(errors) => errors.fmt(f),
            DevError::Start(error @ StartError::Bind(_)) => {
                write!(
                    f,
                    "{error}; choose another address with --http, --tcp, --router or --api (port 0 picks a free port)"
                )
            }
            DevError::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DevError {}

/// Serves until a signal comes.
///
/// # Errors
///
/// Says why it cannot serve.
pub fn run(args: &DevArgs) -> Result<ExitCode, DevError> {
    let served_app = ServedApp::find(&args.path).map_err(DevError::ServedApp)?;
    if args.fastcgi.is_none() {
        served_app.check_readable().map_err(DevError::ServedApp)?;
    }
    let config = configuration(args, &served_app)?;
    let problems = Problems::default();
    let console = console::init(problems.clone());
    let page = Page {
        path: served_app.built_in_page(),
        content_type: "text/html; charset=utf-8",
        body: PageBody::Fixed(Bytes::from_static(include_bytes!("page.html"))),
    };
    let wrong = Page {
        path: PROBLEMS_PATH,
        content_type: "text/event-stream",
        body: PageBody::Fresh(Arc::new(move |last_seen| problems.since(last_seen))),
    };
    let extras = Extras { pages: vec![page, wrong] };
    serve::run(&config, &extras, Hangup::End, |node| console.show(&greeting(node, &served_app, args)))
        .map_err(DevError::Start)
}

/// The configuration that an operator would write for this command line.
fn configuration(args: &DevArgs, served_app: &ServedApp) -> Result<Config, DevError> {
    let framing = args.framing.stream_framing().map_err(DevError::Arguments)?;
    let events = names(&events(args, served_app));
    let static_line =
        served_app.folder.as_deref().map_or(String::new(), |folder| format!("static = {}", path_text(folder)));
    let upstream = match (&args.fastcgi, args.workers) {
        (Some(address), _) => format!("backends = [{}]", quoted(address)),
        (None, workers) => {
            let workers = workers.map_or(String::new(), |workers| format!("workers = {workers}\n"));
            // Frames of 16 MiB must fit a POST; 0 means no limit.
            format!("[upstreams.php.spawn]\n{workers}recheck_files = true\nini = {{ post_max_size = \"0\" }}")
        }
    };
    let text = format!(
        r#"
        [admin]
        bind = "off"
        [router]
        bind = {router}
        [api]
        bind = {api}
        [listeners.tcp]
        bind = {tcp}
        app = "dev"
        [listeners.http]
        bind = {http}
        protocol = "http"
        routes = {{ {path} = "dev" }}
        {static_line}
        [listeners.http.websocket]
        deflate = true
        # Autobahn's suite counts it as an error if a short message is sent uncompressed.
        deflate_min_bytes = 0
        [apps.dev]
        upstream = "php"
        script = {script}
        events = {events}
        max_frame_bytes = "16 MiB"
        max_queued_bytes = "16 MiB"
        max_reply_bytes = "32 MiB"
        [upstreams.php]
        {upstream}
        "#,
        router = quoted(&args.router),
        api = quoted(&args.api),
        tcp = quoted(&args.tcp),
        http = quoted(&args.http),
        // Everything below the path too, for scripts that route by REQUEST_URI.
        path = quoted(&format!("{WEBSOCKET_PATH}/*")),
        script = path_text(&served_app.script),
        events = serde_json::to_string(&events).expect("strings are JSON"),
    );
    let (mut config, _) = Config::parse(&text, Path::new("longwire dev")).map_err(DevError::Config)?;
    for listener in &mut config.listeners {
        if let Protocol::Stream { framing: default, .. } = &mut listener.protocol {
            default.clone_from(&framing);
        }
    }
    Ok(config)
}

/// The events of the command line. The default for a folder is connect, message and close, because its page relies on them. The
/// default for a script is messages alone, because it may be as short as one `echo`.
fn events(args: &DevArgs, served_app: &ServedApp) -> Vec<DevEvent> {
    match (&args.events, &served_app.folder) {
        (Some(events), _) => events.clone(),
        (None, Some(_)) => vec![DevEvent::Connect, DevEvent::Message, DevEvent::Close],
        (None, None) => Vec::new(),
    }
}

/// The names of events in a configuration.
fn names(events: &[DevEvent]) -> Vec<String> {
    let name = |event: &DevEvent| event.to_possible_value().expect("no event is hidden").get_name().to_owned();
    events.iter().map(name).collect()
}

fn path_text(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A TOML string, written by the JSON encoder: JSON's escapes are valid in TOML too.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings are JSON")
}

/// The text after the start: the addresses, and the command to connect.
fn greeting(node: &Running, served_app: &ServedApp, args: &DevArgs) -> String {
    let mut text = format!("\n  Longwire serves {}\n\n", served_app.script.display());
    let mut line = |what: &str, how: String| writeln!(text, "  {what:<12} {how}").expect("a String takes everything");
    let http = node.address("http").map(shown);
    let tcp = node.address("tcp").map(shown);
    if let Some(http) = &http {
        line("page", format!("http://{http}/"));
        if served_app.has_page() {
            line("try it", format!("http://{http}{}", served_app.built_in_page()));
        }
        line("WebSocket", format!("ws://{http}{WEBSOCKET_PATH}"));
    }
    if let Some(tcp) = &tcp {
        line("TCP", format!("{tcp} ({})", framing_words(args)));
        line("type", format!("{} connect {}{}", this_command(), scheme(tcp), framing_options(args)));
    }
    if let Some(router) = node.router_address().map(shown) {
        line("router", format!("{router} (RouterClient)"));
    }
    if let Some(api) = node.api_address() {
        line("API", if let Bind::Tcp(_) = api { format!("http://{}/", shown(api)) } else { shown(api) });
    }
    let events = events(args, served_app);
    if !events.contains(&DevEvent::Connect) || !events.contains(&DevEvent::Close) {
        let told: Vec<_> = names(&events).into_iter().filter(|event| event != "message").collect();
        let told = if told.is_empty() { "message only".to_owned() } else { format!("message, {}", told.join(", ")) };
        line("events", format!("{told}; add connect and close with --events connect,close"));
    }
    text.push_str("\n  Each event and each push is shown below. Ctrl-C stops.\n\n");
    text
}

/// How to call this program, which need not be in PATH.
fn this_command() -> String {
    std::env::args().next().unwrap_or_else(|| "longwire".to_owned())
}

fn shown(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => dial_address(*address).to_string(),
        Bind::Unix(_) => bind.to_string(),
    }
}

fn scheme(address: &str) -> String {
    if address.starts_with("unix:") { address.to_owned() } else { format!("tcp://{address}") }
}

fn framing_words(args: &DevArgs) -> String {
    match args.framing.stream_framing() {
        Ok(StreamFraming::Length(length)) => format!("frames: {}-byte length, then the body", length.width),
        Ok(StreamFraming::Delimiter(lines)) => {
            format!("frames end with {:?}", String::from_utf8_lossy(&lines.delimiter))
        }
        Ok(StreamFraming::Packet(packet)) => {
            format!("frames: a {}-byte header that contains the length, then the body", packet.length.header)
        }
        Ok(StreamFraming::Flagged(flagged)) => {
            let [start, end] = [&flagged.start, &flagged.delimiter.delimiter].map(|bytes| bytes.escape_ascii());
            format!("frames begin with \"{start}\" and end with \"{end}\"")
        }
        Ok(StreamFraming::Gap(gap)) => format!("frames end after {} of silence", duration_text(gap)),
        Ok(StreamFraming::Raw | StreamFraming::Lua(_)) | Err(_) => "each read is a frame".to_owned(),
    }
}

/// The options with which `longwire connect` uses the same framing.
fn framing_options(args: &DevArgs) -> String {
    args.framing.words().into_iter().map(|word| format!(" {word}")).collect()
}
