//! The command line: commands, options and their help texts.

mod bench;
mod framing;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::bench::{AcceptArgs, BenchArgs, BenchCommand, EchoArgs, FanoutArgs, IdleArgs, TimeArgs};
pub use self::framing::{CountsWord, EndianWord, FramingArgs, FramingWord, NO_LUA};

/// Long TCP and WebSocket connections for plain PHP.
#[derive(Clone, Debug, Parser)]
#[command(version = VERSION.as_str(), max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The version, the commit if the build was told it (`LONGWIRE_COMMIT`, as packages are), and the features.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = [("jemalloc", cfg!(feature = "jemalloc")), ("lua", cfg!(feature = "lua"))];
    let features: Vec<_> = features.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    let commit = option_env!("LONGWIRE_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map_or(String::new(), |commit| format!("commit {commit}; "));
    format!("{} ({commit}features: {features})", env!("CARGO_PKG_VERSION"))
});

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the server with a configuration file.
    Serve(ConfigArgs),
    /// Check a configuration and print what it would run.
    ///
    /// The exit status is 0 if the configuration would start, 1 if it would not, 2 if the command line is wrong.
    Check(ConfigArgs),
    /// Ask the running node of a configuration whether it is ready, for the health check of a container.
    ///
    /// It asks the admin listener of the configuration. The exit status is 0 if the node is ready, 1 if it is not or does not answer.
    Health(HealthArgs),
    /// For development: serve one PHP script, or a folder with a script and a page. Starts its own php-fpm.
    #[command(after_help = DEV_EXAMPLES)]
    Dev(DevArgs),
    /// Talk to a server frame by frame: type a line, see the replies.
    #[command(after_help = CONNECT_EXAMPLES)]
    Connect(ConnectArgs),
    /// Measure a server: CPU per frame, latency, lost frames.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print every configuration key with its default and its meaning.
    Defaults,
}

const DEV_EXAMPLES: &str = "\
Examples:
  longwire dev handler.php
  longwire dev php-examples/chat
  longwire dev handler.php --events connect,close --workers 2
  longwire dev handler.php --http 127.0.0.1:0 --tcp 127.0.0.1:0
  longwire dev handler.php --framing delimiter --delimiter '\\r\\n'
  longwire dev /srv/app/handler.php --fastcgi unix:/run/php/php8.2-fpm.sock";

const CONNECT_EXAMPLES: &str = "\
Examples:
  longwire connect tcp://127.0.0.1:9005
  longwire connect ws://127.0.0.1:8080/ws --header 'Cookie: PHPSESSID=abc'
  longwire connect unix:/run/longwire.sock --framing delimiter
  longwire connect ws://127.0.0.1:8080/ws --send hello --send-hex 00ff
  longwire connect tcp://127.0.0.1:9005 --exec talk.txt

A script for --exec has one order per line; escapes such as \\n and \\xNN are replaced.
The exit status is 1 if an expectation fails. Orders:
  send hello          send a text frame
  hex 00 ff           send a binary frame
  expect hello        the next frame is exactly this text
  expect-hex 00 ff    the next frame is exactly these bytes
  expect-close 4001   the server closes, with this code if one is given
  wait 500ms          do nothing for a while
  close               close, and wait until the server has closed too";

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML) [default: /etc/longwire/longwire.toml if it exists, otherwise ./longwire.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `health`.
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// The configuration of the node.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How long to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    pub timeout: Duration,
}

/// Arguments of `dev`.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// The PHP script that handles every event, or a folder. In a folder, handler.php is the script, and every file that is not PHP is
    /// served to browsers.
    #[arg(value_name = "SCRIPT|DIR")]
    pub path: PathBuf,
    /// Where TCP clients connect; port 0 picks a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9005")]
    pub tcp: String,
    /// Where browsers connect: a page at /, WebSocket at /ws; port 0 picks a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: String,
    /// Where other programs, such as RouterClient, send commands; "off" disables it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9010")]
    pub router: String,
    /// Where the same commands are accepted over HTTP; "off" disables it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9012")]
    pub api: String,
    /// Number of PHP processes [default: twice the cores, at least 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub workers: Option<u32>,
    /// Use the FastCGI responder at this address instead of starting a php-fpm.
    #[arg(long, value_name = "ADDR", conflicts_with = "workers")]
    pub fastcgi: Option<String>,
    /// Events that run the script, besides message [default: none for a script; connect and close for a folder].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub events: Option<Vec<DevEvent>>,
    /// Framing of the TCP listener.
    #[command(flatten)]
    pub framing: FramingArgs,
}

/// Events that a script can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DevEvent {
    /// A session begins.
    Connect,
    /// A frame has come; the script always gets this event.
    Message,
    /// A session has ended.
    Close,
    /// A session has joined a channel.
    Join,
    /// A session has left a channel.
    Leave,
    /// A channel has got its first session.
    Occupied,
    /// A channel has lost its last session.
    Vacated,
}

/// Arguments of `connect`.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// tcp://HOST:PORT, unix:PATH or ws://HOST:PORT/PATH. With TLS: tls://HOST:PORT or wss://HOST:PORT/PATH.
    pub url: String,
    /// Replace the escapes \n, \r, \t, \0, \\ and \xNN in typed lines and in --send.
    #[arg(long)]
    pub escape: bool,
    /// Send this text as a frame and wait for a reply; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub send: Vec<String>,
    /// Send these bytes as a binary frame and wait for a reply; may be repeated. Sent after every --send.
    #[arg(long, value_name = "HEX")]
    pub send_hex: Vec<String>,
    /// Run the orders in this file; "-" is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["send", "send_hex"])]
    pub exec: Option<PathBuf>,
    /// Collect replies for this long after --send, instead of one reply for each frame.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub wait: Option<Duration>,
    /// How long to wait for the connection, and for each expected reply.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub timeout: Duration,
    /// Print only the received frames, one per line, without marks and times.
    #[arg(long, short)]
    pub quiet: bool,
    /// Largest frame that is accepted.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub max_frame_bytes: usize,
    /// A header of the WebSocket handshake: 'Name: value'; may be repeated.
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// Which server certificates to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// The Origin of the WebSocket handshake.
    #[arg(long)]
    pub origin: Option<String>,
    /// A WebSocket sub-protocol to offer; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub protocol: Vec<String>,
    // Last, because its help heading holds for everything after it.
    /// Framing of a tcp://, tls:// or unix: connection.
    #[command(flatten)]
    pub framing: FramingArgs,
}

/// Which server certificates a TLS client trusts.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// PEM file with the CAs to trust for tls:// and wss://, instead of the system's CAs.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Accept any server certificate.
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
}

/// Reads `500ms`, `30s`, `5m`, `1h`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    crate::config::value::parse_duration(text).ok_or_else(|| "a duration needs a unit: 500ms, 30s, 5m, 1h".into())
}

/// Reads `\n`, `\r`, `\t`, `\0`, `\\` and `\xNN`.
///
/// # Errors
///
/// Names the escape that is unknown.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let (byte, len) = match escape.as_bytes().first() {
            Some(b'n') => (b'\n', 1),
            Some(b'r') => (b'\r', 1),
            Some(b't') => (b'\t', 1),
            Some(b'0') => (0, 1),
            Some(b'\\') => (b'\\', 1),
            Some(b'x') => {
                let hex = escape.get(1..3).and_then(|digits| parse_hex(digits).ok());
                let hex = hex.ok_or_else(|| format!("\\x needs two hex digits: {text:?}"))?;
                (hex[0], 3)
            }
            _ => return Err(format!("only n, r, t, 0, \\ or xNN may follow \\: {text:?}")),
        };
        bytes.push(byte);
        rest = &escape[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Reads `00ff` or `00 ff`.
///
/// # Errors
///
/// If the text is not pairs of hex digits.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> =
        text.chars().filter(|c| !c.is_ascii_whitespace()).map(|c| Some(c.to_digit(16)? as u8)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => {
            Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        _ => Err(format!("{text:?} is not made of pairs of hex digits")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn escapes_are_read_or_refused() {
        for (text, expected) in [
            ("plain", Some(&b"plain"[..])),
            ("\\r\\n", Some(b"\r\n")),
            ("a\\x00\\xFFb\\\\", Some(b"a\x00\xffb\\")),
            ("", Some(b"")),
            ("\\", None),
            ("\\x1", None),
            ("\\xg0", None),
            ("\\x é", None),
            ("\\q", None),
        ] {
            assert_eq!(unescape(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn hex_is_read_or_refused() {
        for (text, expected) in
            [("00fF", Some(&[0, 255][..])), ("00 ff 1", None), (" 0 1 ", Some(&[1])), ("", Some(&[])), ("zz", None)]
        {
            assert_eq!(parse_hex(text).ok().as_deref(), expected, "{text}");
        }
    }
}
