//! What `longwire bench` may be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{FramingArgs, TlsArgs, parse_time};

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Send messages and wait for their replies.
    ///
    /// Flat out without --rate; a client sends its next message when a reply has come. With --rate each message has a time at
    /// which it is due, and what a stall keeps from being sent in time counts as late.
    #[command(after_help = ECHO_EXAMPLES)]
    Echo(EchoArgs),
    /// Publish messages and see each reach every subscriber.
    #[command(after_help = FANOUT_EXAMPLES)]
    Fanout(FanoutArgs),
    /// Hold many connections that say nothing, and see what they cost.
    Idle(IdleArgs),
    /// Connect, leave, and come again.
    Accept(AcceptArgs),
}

const ECHO_EXAMPLES: &str = "\
Examples:
  longwire bench echo tcp://127.0.0.1:9005
  longwire bench echo ws://127.0.0.1:8080/ws --connections 1000 --rate 5000 --duration 30s
  longwire bench echo http://127.0.0.1/handler.php --any-reply
  longwire bench echo tcp://127.0.0.1:9005 --pid $(pgrep -o longwire) --pid $(pgrep -o php-fpm) --json";

const FANOUT_EXAMPLES: &str = "\
Examples, with a script that joins a session to the channel 'news' when it says 'join news':
  longwire bench fanout ws://127.0.0.1:8080/ws --say 'join news' --publish router://127.0.0.1:9010/news
  longwire bench fanout tcp://127.0.0.1:9005 --say 'join news' --publish 'http://127.0.0.1:9012/v1/send?to=channel:news'";

/// What all have.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// How long a connection, an answer or a reply may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub timeout: Duration,
    /// Report what this process and its children use; may be repeated.
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Report as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
    /// Say nothing of how it goes.
    #[arg(long, short)]
    pub quiet: bool,
    /// Largest frame that is accepted.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub max_frame_bytes: usize,
    /// A header of the WebSocket handshake, or of each request of http://: 'Name: value'; may be repeated.
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// Whom to believe.
    #[command(flatten)]
    pub tls: TlsArgs,
    // Last, because its help heading holds for everything after it.
    /// Framing of a tcp://, tls:// or unix: connection.
    #[command(flatten)]
    pub framing: FramingArgs,
}

/// What all have that measure for a while.
#[derive(Clone, Debug, Args)]
pub struct TimeArgs {
    /// Time that is not measured, at the start.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub warm_up: Duration,
    /// Time that is measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub duration: Duration,
}

/// What `bench echo` may be told.
#[derive(Clone, Debug, Args)]
pub struct EchoArgs {
    /// tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH, wss://, http:// or https://.
    pub url: String,
    /// Clients.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub connections: usize,
    /// Messages of one client that may wait for their replies.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub in_flight: usize,
    /// Size of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub bytes: usize,
    /// Messages a second, of all clients together [default: flat out].
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// How long it takes.
    #[command(flatten)]
    pub times: TimeArgs,
    /// A reply need not be the message: each answers the oldest that waits.
    #[arg(long)]
    pub any_reply: bool,
    /// What all have.
    #[command(flatten)]
    pub common: BenchArgs,
}

/// What `bench fanout` may be told.
#[derive(Clone, Debug, Args)]
pub struct FanoutArgs {
    /// Where subscribers connect: tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH or wss://.
    pub url: String,
    /// Where messages are published: router://HOST:PORT/CHANNEL, http(s)://HOST:PORT/PATH (POST), or a listener like that of
    /// the subscribers.
    #[arg(long, value_name = "URL")]
    pub publish: String,
    /// The secret of the router port.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// A header of the publisher's handshake or requests: 'Name: value'; may be repeated.
    #[arg(long, value_name = "HEADER")]
    pub publish_header: Vec<String>,
    /// Subscribers.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub connections: usize,
    /// Channels, of which subscribers and messages take turns: '{channel}' in --say and --publish is the number of one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub channels: usize,
    /// What each subscriber says first, to join the channel; the first frame that comes back is the answer.
    #[arg(long, value_name = "TEXT")]
    pub say: Option<String>,
    /// Size of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub bytes: usize,
    /// Messages a second.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Messages that not everybody has yet.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub window: usize,
    /// How long it takes.
    #[command(flatten)]
    pub times: TimeArgs,
    /// A delivery need not be the message: each is the next one that its subscriber has not got.
    #[arg(long)]
    pub any_reply: bool,
    /// What all have.
    #[command(flatten)]
    pub common: BenchArgs,
}

/// What `bench idle` may be told.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    /// tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH or wss://.
    pub url: String,
    /// Clients.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    pub connections: usize,
    /// What each client says first; the first frame that comes back is the answer.
    #[arg(long, value_name = "TEXT")]
    pub say: Option<String>,
    /// How long they are held.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub hold: Duration,
    /// What all have.
    #[command(flatten)]
    pub common: BenchArgs,
}

/// What `bench accept` may be told.
#[derive(Clone, Debug, Args)]
pub struct AcceptArgs {
    /// tcp://HOST:PORT, tls://, unix:PATH, ws://HOST:PORT/PATH or wss://.
    pub url: String,
    /// Connections that are opened at the same time.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    pub parallel: usize,
    /// What each client says before it leaves; the first frame that comes back is the answer.
    #[arg(long, value_name = "TEXT")]
    pub say: Option<String>,
    /// How long it takes.
    #[command(flatten)]
    pub times: TimeArgs,
    /// What all have.
    #[command(flatten)]
    pub common: BenchArgs,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number from 1 on".into())
}

fn rate(text: &str) -> Result<f64, String> {
    // Above it a message would be due every nanosecond.
    text.parse()
        .ok()
        .filter(|rate| (1e-3..=1e9).contains(rate))
        .ok_or_else(|| "a number of messages a second, above 0".into())
}
