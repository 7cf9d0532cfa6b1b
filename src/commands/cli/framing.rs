//! Options that say how bytes become frames.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{parse_hex, parse_time, unescape};
use crate::config::model::{
    DelimiterFraming, Endian, Escape, FlaggedFraming, LengthCounts, LengthFraming, PacketFraming, StreamFraming,
};
use crate::config::value::duration_text;
use crate::proto::framing::OptionFault;

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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::cli::{Cli, Command};

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
