//! The command line of `longwire bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{FramingArgs, TlsArgs, parse_time};

/// The kinds of measurement.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Send messages and wait for their replies.
    ///
    /// Without --rate, messages are sent at full speed: a client sends its next message as soon as a reply has come. With --rate,
    /// each message is due at a fixed time. Its latency counts from then, even if a stall of the server delays the sending.
    #[command(after_help = ECHO_EXAMPLES)]
    Echo(EchoArgs),
    /// Publish messages and check that each reaches every subscriber.
    #[command(after_help = FANOUT_EXAMPLES)]
    Fanout(FanoutArgs),
    /// Hold many silent connections and measure what they cost.
    Idle(IdleArgs),
    /// Connect, disconnect and connect again, to measure the rate of new connections.
    Accept(AcceptArgs),
}

const ECHO_EXAMPLES: &str = "\
Examples:
  longwire bench echo tcp://127.0.0.1:9005
  longwire bench echo ws://127.0.0.1:8080/ws --connections 1000 --rate 5000 --duration 30s
  longwire bench echo http://127.0.0.1/handler.php --any-reply
  longwire bench echo tcp://127.0.0.1:9005 --pid $(pgrep -o longwire) --pid $(pgrep -o php-fpm) --json";

const FANOUT_EXAMPLES: &str = "\
Examples, for a script that joins a session to the channel 'news' when the client sends 'join news':
  longwire bench fanout ws://127.0.0.1:8080/ws --say 'join news' --publish router://127.0.0.1:9010/news
  longwire bench fanout tcp://127.0.0.1:9005 --say 'join news' --publish 'http://127.0.0.1:9012/v1/send?to=channel:news'";

/// Options of every `bench` command.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// How long to wait for a connection, for an answer to --say, or for a reply.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub timeout: Duration,
    /// Report CPU and memory of this process and its children; may be repeated.
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Print the report as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
    /// Do not print progress.
    #[arg(long, short)]
    pub quiet: bool,
    /// Largest frame that is accepted.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub max_frame_bytes: usize,
    /// A header of the WebSocket handshake, or of each http:// request: 'Name: value'; may be repeated.
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// Which server certificates to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
    // Last, because its help heading holds for everything after it.
    /// Framing of a tcp://, tls:// or unix: connection.
    #[command(flatten)]
    pub framing: FramingArgs,
}

/// Options of every command that measures for a given time.
#[derive(Clone, Debug, Args)]
pub struct TimeArgs {
    /// Time at the start that is not measured.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub warm_up: Duration,
    /// Time that is measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub duration: Duration,
}

/// Arguments of `bench echo`.
#[derive(Clone, Debug, Args)]
pub struct EchoArgs {
    /// tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH, wss://, http:// or https://.
    pub url: String,
    /// Number of clients.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub connections: usize,
    /// Messages that one client may have sent without a reply yet.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub in_flight: usize,
    /// Size of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub bytes: usize,
    /// Messages a second, of all clients together [default: full speed].
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// Warm-up and measured time.
    #[command(flatten)]
    pub times: TimeArgs,
    /// Accept any reply, not just an echo: each reply counts for the oldest message without one.
    #[arg(long)]
    pub any_reply: bool,
    /// Options of every `bench` command.
    #[command(flatten)]
    pub common: BenchArgs,
}

/// Arguments of `bench fanout`.
#[derive(Clone, Debug, Args)]
pub struct FanoutArgs {
    /// Where subscribers connect: tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH or wss://.
    pub url: String,
    /// Where messages are published: router://HOST:PORT/CHANNEL, http(s)://HOST:PORT/PATH (POST), or the URL of a listener, as for
    /// the subscribers.
    #[arg(long, value_name = "URL")]
    pub publish: String,
    /// File with the secret of the router port.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// A header of the publisher's handshake or requests: 'Name: value'; may be repeated.
    #[arg(long, value_name = "HEADER")]
    pub publish_header: Vec<String>,
    /// Number of subscribers.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub connections: usize,
    /// Number of channels; subscribers and messages are spread over them in turn. '{channel}' in --say and --publish stands for a
    /// channel's number.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub channels: usize,
    /// Text that each subscriber sends first, to join the channel; the first frame that comes back is taken as the answer.
    #[arg(long, value_name = "TEXT")]
    pub say: Option<String>,
    /// Size of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub bytes: usize,
    /// Messages published a second.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Messages that may be on their way at once: not yet delivered to every subscriber.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub window: usize,
    /// Warm-up and measured time.
    #[command(flatten)]
    pub times: TimeArgs,
    /// Accept any delivery, not just the exact message: each counts as the next message that this subscriber is missing.
    #[arg(long)]
    pub any_reply: bool,
    /// Options of every `bench` command.
    #[command(flatten)]
    pub common: BenchArgs,
}

/// Arguments of `bench idle`.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    /// tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH or wss://.
    pub url: String,
    /// Number of clients.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub connections: usize,
    /// Text that each client sends first; the first frame that comes back is taken as the answer.
    #[arg(long, value_name = "TEXT")]
    pub say: Option<String>,
    /// How long the connections are held.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub hold: Duration,
    /// Options of every `bench` command.
    #[command(flatten)]
    pub common: BenchArgs,
}

/// Arguments of `bench accept`.
#[derive(Clone, Debug, Args)]
pub struct AcceptArgs {
    /// tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH or wss://.
    pub url: String,
    /// Number of connections that are opened at the same time.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub parallel: usize,
    /// Text that each client sends before it disconnects; the first frame that comes back is taken as the answer.
    #[arg(long, value_name = "TEXT")]
    pub say: Option<String>,
    /// Warm-up and measured time.
    #[command(flatten)]
    pub times: TimeArgs,
    /// Options of every `bench` command.
    #[command(flatten)]
    pub common: BenchArgs,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be a whole number, at least 1".into())
}

fn rate(text: &str) -> Result<f64, String> {
    // At 1e9 a message is due every nanosecond, which is the resolution of the clock here.
    text.parse()
        .ok()
        .filter(|rate| (1e-3..=1e9).contains(rate))
        .ok_or_else(|| "must be messages a second, from 0.001 to 1000000000".into())
}
