//! The results of a run, for people and for programs.
//!
//! Each kind of run has a report that serializes to a fixed shape (README.md, "Measuring"). [`print()`] writes it as JSON or as
//! a table.

use std::fmt;
use std::io::{self, Write as _};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::process::Cpu;
use super::times::Percentiles;
use super::trouble::Counted;

/// `bench echo`.
#[derive(Debug, Serialize)]
pub(super) struct Echo {
    pub(super) mode: &'static str,
    pub(super) url: String,
    pub(super) connections: usize,
    pub(super) connected: usize,
    pub(super) in_flight: usize,
    pub(super) message_bytes: usize,
    pub(super) rate_per_s: Option<f64>,
    pub(super) interrupted: bool,
    pub(super) window_s: f64,
    pub(super) replies: u64,
    pub(super) replies_per_s: f64,
    /// `response`: from sending the message. `intended`: from the time when the message was due.
    pub(super) latency_from: &'static str,
    pub(super) latency: Percentiles,
    pub(super) clients_silent_over_1s: usize,
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) out_of_order: u64,
    pub(super) wrong: u64,
    pub(super) timeouts: u64,
    pub(super) unsent: u64,
    pub(super) in_flight_at_end: usize,
    pub(super) pings: u64,
    pub(super) cpu: Cpu,
    pub(super) errors: Vec<Counted>,
    pub(super) notes: Vec<String>,
}

/// `bench fanout`.
#[derive(Debug, Serialize)]
pub(super) struct Fanout {
    pub(super) mode: &'static str,
    pub(super) url: String,
    pub(super) publish: String,
    pub(super) connections: usize,
    pub(super) connected: usize,
    pub(super) channels: usize,
    pub(super) window: Option<usize>,
    pub(super) message_bytes: usize,
    pub(super) rate_per_s: Option<f64>,
    pub(super) interrupted: bool,
    pub(super) window_s: f64,
    pub(super) messages: u64,
    pub(super) messages_per_s: f64,
    pub(super) deliveries: u64,
    pub(super) deliveries_per_s: f64,
    /// `published`: from publishing the message. `intended`: from the time when the message was due.
    pub(super) latency_from: &'static str,
    pub(super) latency: Percentiles,
    /// From publishing until the last subscriber had the message.
    pub(super) latency_of_last: Percentiles,
    /// Messages of the whole run, warm-up included.
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) out_of_order: u64,
    pub(super) wrong: u64,
    pub(super) unsent: u64,
    pub(super) pings: u64,
    pub(super) cpu: Cpu,
    pub(super) errors: Vec<Counted>,
    pub(super) notes: Vec<String>,
}

/// Memory and CPU of a process.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    pub(super) pid: u32,
    pub(super) base_rss_bytes: Option<u64>,
    pub(super) base_pss_bytes: Option<u64>,
    pub(super) rss_bytes: Option<u64>,
    pub(super) pss_bytes: Option<u64>,
    pub(super) rss_bytes_per_connection: Option<f64>,
    pub(super) pss_bytes_per_connection: Option<f64>,
    pub(super) cpu_us_per_connection_and_s: Option<f64>,
}

/// `bench idle`.
#[derive(Debug, Serialize)]
pub(super) struct Idle {
    pub(super) mode: &'static str,
    pub(super) url: String,
    pub(super) connections: usize,
    pub(super) connected: usize,
    pub(super) answered: usize,
    pub(super) interrupted: bool,
    pub(super) set_up_s: f64,
    pub(super) set_up_per_s: f64,
    pub(super) window_s: f64,
    pub(super) pings: u64,
    pub(super) frames: u64,
    pub(super) closed: u64,
    pub(super) still_open: usize,
    pub(super) processes: Vec<Held>,
    pub(super) cpu: Cpu,
    pub(super) errors: Vec<Counted>,
    pub(super) notes: Vec<String>,
}

/// `bench accept`.
#[derive(Debug, Serialize)]
pub(super) struct Accept {
    pub(super) mode: &'static str,
    pub(super) url: String,
    pub(super) parallel: usize,
    pub(super) interrupted: bool,
    pub(super) window_s: f64,
    pub(super) accepted: u64,
    pub(super) accepted_per_s: f64,
    pub(super) latency: Percentiles,
    pub(super) failed: u64,
    pub(super) cpu: Cpu,
    pub(super) errors: Vec<Counted>,
    pub(super) notes: Vec<String>,
}

/// Writes a report.
pub(super) fn print(report: &impl Serialize, as_json: bool) {
    let json = serde_json::to_string(report).expect("a report is plain data");
    let text = if as_json { format!("{json}\n") } else { table(&json) };
    // `longwire bench ... | head` closes the pipe early, which is not an error.
    let _closed_early = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
}

/// The fields of a report, one per line: names in words, times in a suitable unit.
fn table(report: &str) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let Fields(fields) = serde_json::from_str(report).expect("the JSON was written by this program");
    for (name, value) in &fields {
        match (name.as_str(), value) {
            (_, serde_json::Value::Null) => {}
            ("errors", errors) => lines.extend(errors.as_array().into_iter().flatten().map(error_line)),
            ("notes", notes) => {
                lines.extend(notes.as_array().into_iter().flatten().map(|note| ("note".to_owned(), plain(note))));
            }
            ("processes", held) => lines.extend(held.as_array().into_iter().flatten().map(held_line)),
            ("cpu", cpu) => {
                lines.extend(cpu.as_object().into_iter().flatten().map(|(name, value)| (words(name), number(value))))
            }
            (_, serde_json::Value::Object(times)) => lines.push((words(name), percentiles(times))),
            (_, value) => lines.push((words(name), number(value))),
        }
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// The fields of a JSON object in written order (`serde_json::Value` would sort them by name).
struct Fields(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Vec<(String, serde_json::Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

fn words(name: &str) -> String {
    name.replace("_per_s", "/s").replace('_', " ")
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn number(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Array(list) if list.is_empty() => "-".to_owned(),
        serde_json::Value::Array(list) => list.iter().map(number).collect::<Vec<_>>().join("  "),
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        _ => match value.as_f64() {
            Some(number) if value.is_f64() && number < 100.0 => format!("{number:.2}"),
            Some(number) if value.is_f64() => format!("{number:.0}"),
            _ => plain(value),
        },
    }
}

fn percentiles(times: &serde_json::Map<String, serde_json::Value>) -> String {
    if times.get("count").and_then(serde_json::Value::as_u64) == Some(0) {
        return "-".to_owned();
    }
    let part = |(label, key): (&str, &str)| {
        let micros = times.get(key).and_then(serde_json::Value::as_f64).unwrap_or_default();
        format!("{label} {}", time(micros))
    };
    let parts = [("p50", "p50_us"), ("p90", "p90_us"), ("p99", "p99_us"), ("p99.9", "p999_us"), ("max", "max_us")];
    parts.map(part).join("  ")
}

fn time(micros: f64) -> String {
    match micros {
        ..1000.0 => format!("{micros:.0}us"),
        ..1_000_000.0 => format!("{:.2}ms", micros / 1000.0),
        _ => format!("{:.2}s", micros / 1_000_000.0),
    }
}

fn error_line(error: &serde_json::Value) -> (String, String) {
    let code = error["code"].as_u64().map_or_else(String::new, |code| format!(" {code}"));
    (
        format!("error {}{code}", plain(&error["kind"])),
        format!("{}  first: {}", error["count"], plain(&error["example"])),
    )
}

fn held_line(held: &serde_json::Value) -> (String, String) {
    let kib =
        |key: &str| held[key].as_f64().map_or_else(|| "-".to_owned(), |bytes| format!("{:.2} KiB", bytes / 1024.0));
    let text = format!(
        "PSS {} per connection (base {}), RSS {} (base {}), CPU {} us per connection and second",
        kib("pss_bytes_per_connection"),
        kib("base_pss_bytes"),
        kib("rss_bytes_per_connection"),
        kib("base_rss_bytes"),
        number(&held["cpu_us_per_connection_and_s"]),
    );
    (format!("process {}", held["pid"]), text)
}
