//! The command line: commands, options and their help texts.

mod bench;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::bench::{AcceptArgs, BenchArgs, BenchCommand, EchoArgs, FanoutArgs, IdleArgs, TimeArgs};

use crate::config::model::{
    DelimiterFraming, Endian, Escape, FlaggedFraming, LengthCounts, LengthFraming, PacketFraming, StreamFraming,
};
use crate::config::value::duration_text;
use crate::proto::framing::OptionFault;

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

/// How bytes become frames; the options have the names of the configuration keys.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Framing")]
pub struct FramingArgs {
    /// How bytes become frames.
    #[arg(long, value_name = "TYPE", default_value = "length")]
    pub framing: FramingWord,
    /// Width of the length field: 1, 2, 3, 4 or 8.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub length_bytes: u8,
    /// Where the length field begins in the header.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub length_offset: u8,
    /// Byte order of the length field.
    #[arg(long, value_name = "ORDER", default_value = "big")]
    pub length_endian: EndianWord,
    /// Which bytes the length counts.
    #[arg(long, value_name = "WHAT", default_value = "body")]
    pub length_counts: CountsWord,
    /// Mask of the bits of the length field that hold the length, as in 0x3ff; 0 for all bits.
    #[arg(long, value_name = "BITS", default_value = "0", value_parser = parse_bits)]
    pub length_mask: u64,
    /// Number that is added to the length to get the count of bytes after the header.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub length_adjust: i32,
    /// Where the body begins [default: where the length field ends].
    #[arg(long, value_name = "N")]
    pub header_bytes: Option<u8>,
    /// Keep the header as part of the frame.
    #[arg(long)]
    pub keep_header: bool,
    /// Number of bytes after the body that the length does not count.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub trailer_bytes: u8,
    /// Bytes at the start of every frame; escapes as in --delimiter.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub start: String,
    /// Bytes at the end of every frame, after body and trailer; escapes as in --delimiter.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub end: String,
    /// Bytes that end a frame; the escapes \n, \r, \t, \0, \\ and \xNN are replaced.
    #[arg(long, value_name = "TEXT", default_value = "\\n")]
    pub delimiter: String,
    /// Remove one carriage return from the end of a received frame.
    #[arg(long)]
    pub strip_cr: bool,
    /// Bytes that are escaped and their codes, in hex, as in 7e=7d02,7d=7d01.
    #[arg(long, value_name = "LIST", default_value = "")]
    pub escapes: String,
    /// Ignore empty frames.
    #[arg(long)]
    pub skip_empty: bool,
    /// Skip bytes that cannot be a frame, up to the next start.
    #[arg(long)]
    pub resync: bool,
    /// How long the silence lasts that ends a frame.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_time)]
    pub gap: Duration,
}

/// The framings of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FramingWord {
    /// A header says how long the frame is.
    Length,
    /// A byte string ends the frame.
    Delimiter,
    /// Silence ends the frame; for a client this is the same as raw.
    Gap,
    /// Each read is a frame.
    Raw,
    /// A Lua script of the listener cuts the frames. It exists here only to be refused with a reason.
    #[value(hide = true)]
    Lua,
}

/// Why a client cannot speak a framing in Lua.
pub const NO_LUA: &str =
    "a framing in Lua works only on a listener in the configuration: its script covers the server's side alone";

/// Byte orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EndianWord {
    /// Network order.
    Big,
    /// Little end first.
    Little,
}

/// Which bytes a length counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CountsWord {
    /// The bytes after the header.
    Body,
    /// Header and body together.
    Frame,
}

impl FramingArgs {
    /// The options that ask for the same framing, quoted for a shell. Defaults are left out.
    pub fn words(&self) -> Vec<String> {
        let word = |value: &dyn ValueEnumName| value.name();
        let number = |n: i128| n.to_string();
        let options = [
            ("--framing", word(&self.framing), "length".into()),
            ("--length-bytes", number(self.length_bytes.into()), number(4)),
            ("--length-offset", number(self.length_offset.into()), number(0)),
            ("--length-endian", word(&self.length_endian), "big".into()),
            ("--length-counts", word(&self.length_counts), "body".into()),
            ("--length-mask", format!("{:#x}", self.length_mask), "0x0".into()),
            ("--length-adjust", number(self.length_adjust.into()), number(0)),
            ("--header-bytes", self.header_bytes.map_or(String::new(), |n| n.to_string()), String::new()),
            ("--trailer-bytes", number(self.trailer_bytes.into()), number(0)),
            ("--start", self.start.clone(), String::new()),
            ("--end", self.end.clone(), String::new()),
            ("--delimiter", self.delimiter.clone(), "\\n".into()),
            ("--escapes", self.escapes.clone(), String::new()),
            ("--gap", duration_text(self.gap), "20ms".into()),
        ];
        let flags = [
            ("--keep-header", self.keep_header),
            ("--strip-cr", self.strip_cr),
            ("--skip-empty", self.skip_empty),
            ("--resync", self.resync),
        ];
        let options = options.into_iter().filter(|(_, value, default)| value != default);
        let options = options.flat_map(|(name, value, _)| [name.to_owned(), quoted(&value)]);
        options.chain(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned())).collect()
    }

    /// The framing that was asked for.
    ///
    /// # Errors
    ///
    /// Names the option that is out of range or does not fit another one.
    pub fn stream_framing(&self) -> Result<StreamFraming, String> {
        let option = |fault: OptionFault| {
            // `connect` has an --escape already.
            let name = if fault.key == "escape" { "escapes".into() } else { fault.key.replace('_', "-") };
            format!("--{name}: {}", fault.rule)
        };
        match self.framing {
            FramingWord::Raw => Ok(StreamFraming::Raw),
            FramingWord::Gap if self.gap.is_zero() => Err("--gap must be above zero".into()),
            FramingWord::Gap => Ok(StreamFraming::Gap(self.gap)),
            FramingWord::Lua => Err(NO_LUA.into()),
            FramingWord::Delimiter => {
                let delimiter = unescape(&self.delimiter)?;
                if delimiter.is_empty() {
                    return Err("--delimiter must not be empty".into());
                }
                let flagged = FlaggedFraming {
                    delimiter: DelimiterFraming { delimiter, strip_cr: self.strip_cr },
                    start: unescape(&self.start)?,
                    escapes: parse_escapes(&self.escapes)?,
                    skip_empty: self.skip_empty,
                    resync: self.resync,
                };
                flagged.check().map_err(option)?;
                Ok(StreamFraming::of_flagged(flagged))
            }
            FramingWord::Length => {
                let least = usize::from(self.length_offset) + usize::from(self.length_bytes);
                let framing = LengthFraming {
                    width: self.length_bytes,
                    offset: self.length_offset.into(),
                    endian: match self.length_endian {
                        EndianWord::Big => Endian::Big,
                        EndianWord::Little => Endian::Little,
                    },
                    header: self.header_bytes.map_or(least, usize::from),
                    counts: match self.length_counts {
                        CountsWord::Body => LengthCounts::Body,
                        CountsWord::Frame => LengthCounts::Frame,
                    },
                    keep_header: self.keep_header,
                };
                if !matches!(framing.width, 1..=4 | 8) {
                    return Err("--length-bytes must be 1, 2, 3, 4 or 8".into());
                }
                if framing.header < least {
                    return Err(format!("--header-bytes must be at least {least}, where the length field ends"));
                }
                let packet = PacketFraming {
                    length: framing,
                    mask: self.length_mask,
                    adjust: self.length_adjust.into(),
                    trailer: self.trailer_bytes.into(),
                    start: unescape(&self.start)?,
                    end: unescape(&self.end)?,
                    resync: self.resync,
                };
                packet.check().map_err(option)?;
                Ok(StreamFraming::of_packets(packet))
            }
        }
    }
}

/// The command line's word for a value.
trait ValueEnumName {
    fn name(&self) -> String;
}

impl<T: ValueEnum> ValueEnumName for T {
    fn name(&self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }
}

/// A word, quoted for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Reads `0x3ff` or `1023`.
fn parse_bits(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "must be a number, as in 0x3ff or 1023".into())
}

/// Reads `7e=7d02,7d=7d01`.
fn parse_escapes(text: &str) -> Result<Vec<Escape>, String> {
    let escape = |pair: &str| {
        let (byte, code) = pair.split_once('=')?;
        let (byte, code) = (parse_hex(byte).ok()?, parse_hex(code).ok()?);
        Some(Escape { byte: *byte.first().filter(|_| byte.len() == 1)?, code: code.try_into().ok()? })
    };
    let escapes = text.split(',').filter(|pair| !pair.is_empty()).map(escape).collect::<Option<_>>();
    escapes.ok_or_else(|| {
        format!("--escapes must be pairs of one byte and its two-byte code, in hex, as in 7e=7d02,7d=7d01: {text:?}")
    })
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

    #[test]
    fn framing_options_say_the_same_as_the_configuration() {
        let framing = |args: &[&str]| {
            let line = ["longwire", "connect", "tcp://h:1"].iter().chain(args);
            let Command::Connect(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
            args.framing.stream_framing()
        };
        assert_eq!(framing(&[]), Ok(StreamFraming::Length(LengthFraming::default())));
        assert_eq!(framing(&["--framing", "raw"]), Ok(StreamFraming::Raw));
        let Ok(StreamFraming::Delimiter(lines)) = framing(&["--framing", "delimiter", "--delimiter", "\\r\\n"]) else {
            panic!()
        };
        assert_eq!(lines.delimiter, b"\r\n");
        assert_eq!(framing(&["--framing", "lua"]), Err(NO_LUA.to_owned()));
        assert!(framing(&["--length-bytes", "5"]).is_err());
        let flags = ["--framing", "delimiter", "--delimiter", "\\x7e", "--start", "\\x7e"];
        let escapes = Escape { byte: 0x7e, code: [0x7d, 2] };
        let escapes = vec![escapes, Escape { byte: 0x7d, code: [0x7d, 1] }];
        let jtt808 = framing(&[&flags[..], &["--escapes", "7e=7d02,7d=7d01"]].concat());
        let Ok(StreamFraming::Flagged(found)) = jtt808 else { panic!("{jtt808:?}") };
        assert_eq!((&found.start[..], &found.escapes), (&b"~"[..], &escapes));
        let one_code = framing(&[&flags[..], &["--escapes", "7e=7d02"]].concat()).unwrap_err();
        assert_eq!(one_code, "--escapes: 0x7d begins a code, so it needs a code of its own");
        assert!(framing(&[&flags[..], &["--escapes", "7e=7d"]].concat()).is_err());
        let gt06 = ["--length-bytes", "1", "--length-offset", "2", "--start", "xx", "--end", "\\r\\n"];
        let Ok(StreamFraming::Packet(found)) = framing(&gt06) else { panic!() };
        assert_eq!((&found.start[..], &found.end[..], found.length.header), (&b"xx"[..], &b"\r\n"[..], 3));
        let counted =
            ["--length-bytes", "2", "--length-mask", "0x3ff", "--length-adjust", "-2", "--trailer-bytes", "1"];
        let Ok(StreamFraming::Packet(found)) = framing(&counted) else { panic!() };
        assert_eq!((found.mask, found.adjust, found.trailer), (0x3ff, -2, 1));
        assert_eq!(framing(&["--length-mask", "5"]).unwrap_err(), "--length-mask: must be one run of bits");
        for (line, words) in [(&[][..], ""), (&flags[..], r"--framing delimiter --start '\x7e' --delimiter '\x7e'")] {
            let line = ["longwire", "connect", "tcp://h:1"].iter().chain(line);
            let Command::Connect(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
            assert_eq!(args.framing.words().join(" "), words);
        }
        let gap = framing(&["--framing", "gap", "--gap", "5ms"]);
        assert_eq!(gap, Ok(StreamFraming::Gap(Duration::from_millis(5))));
        assert!(framing(&["--length-offset", "2", "--header-bytes", "5"]).is_err());
        assert!(framing(&["--framing", "delimiter", "--delimiter", ""]).is_err());
    }
}
