//! Writes the tables of docs/performance.md, which are between markers. The text around them is written by hand and stays.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::measure::Settings;
use crate::peers;
use crate::process::output_of;

/// Replaces the block of a row.
pub(crate) fn write(row: &str, table: &str, settings: &Settings) -> io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let text = fs::read_to_string(&path)?;
    let (begin, end) = (format!("<!-- bench:{row}:begin -->"), format!("<!-- bench:{row}:end -->"));
    let place = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = place else {
        return Err(io::Error::other(format!("{} has no {begin} ... {end}", path.display())));
    };
    let rounds = settings.rounds;
    let block = format!(
        "{begin}\n\n{table}\n{machine}, {rounds} round{s}:\n`cargo bench --bench system -- {row} --rounds {rounds}`\n\n{end}",
        machine = machine(),
        s = if rounds == 1 { "" } else { "s" },
    );
    fs::write(&path, format!("{before}{block}{after}"))
}

/// Date, processor, cores, kernel, and the versions of the programs that Longwire is compared with.
fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        output_of(Command::new(program).args(arguments), Duration::from_secs(10))
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = said("date", &["-u", "+%Y-%m-%d"]);
    let (kernel, versions) = (said("uname", &["-sr"]), peers::versions().join(", "));
    format!("{date}, {model}, {cores} cores, {kernel}, {versions}")
}
