//! What the rounds of a row come to: a table for people, raw rounds for programs.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::document;
use crate::measure::{Settings, Variant, by_turns};

/// A figure of every variant, out of the reports of `longwire bench`.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    /// Where it is in a report: JSON pointers, whose values are added up.
    pub(crate) at: &'static [&'static str],
    pub(crate) over: Over,
    /// Divides the figure, for the unit in the head.
    pub(crate) per: f64,
    pub(crate) digits: usize,
}

/// What becomes of the rounds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The one in the middle.
    Median,
    /// The same, with the least and the most behind it.
    Spread,
    /// All together: what should not have happened.
    Sum,
    /// The worst.
    Most,
}

impl Column {
    pub(crate) const fn median(head: &'static str, at: &'static [&'static str], digits: usize) -> Self {
        Self { head, at, over: Over::Median, per: 1.0, digits }
    }

    pub(crate) const fn over(mut self, over: Over) -> Self {
        self.over = over;
        self
    }

    pub(crate) const fn per(mut self, per: f64) -> Self {
        self.per = per;
        self
    }

    fn of(&self, variant: &Variant<'_>) -> String {
        let figure = |report: &Value| {
            let parts: Vec<f64> = self.at.iter().filter_map(|at| report.pointer(at)?.as_f64()).collect();
            (!parts.is_empty()).then(|| parts.iter().sum::<f64>() / self.per)
        };
        let figures: Vec<f64> = variant.rounds.iter().filter_map(|round| figure(&round.report)).collect();
        if figures.is_empty() {
            return "-".to_owned();
        }
        let digits = self.digits;
        let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
        let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self.over {
            Over::Median => format!("{:.digits$}", median(figures)),
            Over::Spread => format!("{:.digits$} ({least:.digits$}..{most:.digits$})", median(figures)),
            Over::Sum => format!("{:.digits$}", figures.iter().sum::<f64>()),
            Over::Most => format!("{most:.digits$}"),
        }
    }
}

/// Others' share of the machine: in every row.
pub(crate) const OTHERS: Column = Column::median("others %", &["/cpu/others_cpu_percent"], 0).over(Over::Most);

/// What is measured together.
pub(crate) struct Row<'a> {
    pub(crate) name: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) variants: Vec<Variant<'a>>,
    /// What a reader must know, such as a peer that was not there.
    pub(crate) notes: Vec<String>,
}

impl Row<'_> {
    /// Measures it, prints its table, and writes what is to be written.
    pub(crate) fn run(mut self, settings: &Settings) -> io::Result<()> {
        by_turns(&mut self.variants, settings)?;
        let table = self.table();
        println!("{}\n\n{table}", self.name);
        self.write_raw()?;
        if settings.writes { document::write(self.name, &table, settings) } else { Ok(()) }
    }

    fn table(&self) -> String {
        let heads = ["variant", "case"].into_iter().chain(self.columns.iter().map(|column| column.head));
        let mut lines: Vec<Vec<String>> = vec![heads.map(str::to_owned).collect()];
        for variant in &self.variants {
            let noisy = variant.rounds.iter().filter(|round| round.is_noisy).count();
            // Of a median over few rounds one that was disturbed is enough to be wary of.
            let name = if noisy > 0 { format!("{} *", variant.name) } else { variant.name.clone() };
            let figures = self.columns.iter().map(|column| column.of(variant));
            lines.push([name, variant.case.clone()].into_iter().chain(figures).collect());
        }
        let mut text = aligned(&lines);
        if lines.iter().any(|line| line[0].ends_with('*')) {
            text.push_str("\n\\* others used more than a tenth of the machine in at least one of its rounds\n");
        }
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }

    fn write_raw(&self) -> io::Result<()> {
        let variants = self.variants.iter().map(|variant| {
            let rounds = variant.rounds.iter();
            let rounds = rounds.map(|round| json!({ "report": round.report, "is_noisy": round.is_noisy }));
            json!({ "variant": variant.name, "case": variant.case, "rounds": rounds.collect::<Vec<_>>() })
        });
        let raw = json!({ "row": self.name, "notes": self.notes, "variants": variants.collect::<Vec<_>>() });
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.json", self.name)), serde_json::to_vec_pretty(&raw)?)
    }
}

/// A Markdown table that also reads well as text: words to the left, figures to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0).max(2))
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text.push_str(&if at < 2 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") });
        }
        text.push_str("|\n");
        if number == 0 {
            for (at, width) in widths.iter().enumerate() {
                let line = "-".repeat(width + 1);
                text.push_str(&if at < 2 { format!("|{line}-") } else { format!("|{line}:") });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// The one in the middle of at least one.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}
