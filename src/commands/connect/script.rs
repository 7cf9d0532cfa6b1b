//! Scripts for `--exec`: one step per line. The whole file is read before anything is sent.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use crate::commands::cli::{parse_hex, parse_time, unescape};

/// Longest script that is read, in bytes; the rest is ignored.
const MAX_BYTES: u64 = 16 << 20;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScriptStep {
    Send(Vec<u8>),
    SendHex(Vec<u8>),
    Expect(Vec<u8>),
    /// With this code, or with any if `None`.
    ExpectClose(Option<u16>),
    Wait(Duration),
    Close,
}

/// Steps with their line numbers, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// The file's name, for error messages.
    pub name: String,
    pub steps: Vec<(usize, ScriptStep)>,
}

impl Script {
    /// Reads a file, `-` for standard input.
    pub(super) fn load(file: &Path) -> Result<Self, String> {
        let name = file.display().to_string();
        let mut text = String::new();
        let read = if name == "-" {
            io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
        } else {
            File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        };
        read.map_err(|error| format!("cannot read {name}: {error}"))?;
        Self::parse(name, &text)
    }

    fn parse(name: String, text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        for (index, line) in text.lines().enumerate() {
            // Spaces at the end may be part of the frame to send.
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let step = parse_step(line).map_err(|rule| format!("{name}:{}: {rule}", index + 1))?;
            steps.push((index + 1, step));
        }
        Ok(Self { name, steps })
    }
}

fn parse_step(line: &str) -> Result<ScriptStep, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match (word.trim_end(), rest) {
        ("send", text) => unescape(text).map(ScriptStep::Send),
        ("hex", hex) => parse_hex(hex).map(ScriptStep::SendHex),
        ("expect", text) => unescape(text).map(ScriptStep::Expect),
        ("expect-hex", hex) => parse_hex(hex).map(ScriptStep::Expect),
        ("expect-close", code) => match code.trim() {
            "" => Ok(ScriptStep::ExpectClose(None)),
            code => code
                .parse()
                .map(|code| ScriptStep::ExpectClose(Some(code)))
                .map_err(|_| format!("{code:?} is not a close code")),
        },
        ("wait", time) => parse_time(time.trim()).map(ScriptStep::Wait),
        ("close", rest) if rest.trim().is_empty() => Ok(ScriptStep::Close),
        _ => Err(format!("{line:?} is not send, hex, expect, expect-hex, expect-close, wait or close")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_read_with_its_line() {
        let text = "# a talk\nsend hello \\x00\n\nhex 00 fF\nexpect\nexpect-hex 01\nexpect-close 4001\nexpect-close\nwait 5ms\n  close\n";
        let script = Script::parse("talk".into(), text).unwrap();
        let expected = [
            (2, ScriptStep::Send(b"hello \0".to_vec())),
            (4, ScriptStep::SendHex(vec![0, 255])),
            (5, ScriptStep::Expect(Vec::new())),
            (6, ScriptStep::Expect(vec![1])),
            (7, ScriptStep::ExpectClose(Some(4001))),
            (8, ScriptStep::ExpectClose(None)),
            (9, ScriptStep::Wait(Duration::from_millis(5))),
            (10, ScriptStep::Close),
        ];
        assert_eq!(script.steps, expected);
    }

    #[test]
    fn a_bad_step_is_named_with_its_line() {
        for (text, part) in [
            ("send a\nsned b", "talk:2: \"sned b\" is not send"),
            ("hex 0", "talk:1: \"0\" is not made of pairs"),
            ("wait 5", "talk:1: a duration needs a unit"),
            ("close now", "talk:1: \"close now\" is not send"),
            ("expect-close x", "talk:1: \"x\" is not a close code"),
            ("send \\q", "talk:1: only n, r, t"),
        ] {
            let error = Script::parse("talk".into(), text).unwrap_err();
            assert!(error.starts_with(part), "{error}");
        }
    }
}
