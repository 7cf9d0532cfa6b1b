//! The results of a row: a table for people, and the raw rounds for programs.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::document;
use crate::measure::{Settings, Variant, one_round};
use crate::picture;

/// A column of the table: one figure per variant, from the reports of `longwire bench`.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    /// Its place in a report: JSON pointers, whose values are added up.
    pub(crate) at: &'static [&'static str],
    pub(crate) over: Over,
    /// Divisor of the figure, for the unit in the column's head.
    pub(crate) per: f64,
    pub(crate) digits: usize,
}

/// How the figures of several rounds are combined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The median.
    Median,
    /// The median, followed by the least and the most.
    Spread,
    /// The sum, for errors.
    Sum,
    /// The largest value.
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

    /// The figure of each round that has it.
    pub(crate) fn figures(&self, variant: &Variant<'_>) -> Vec<f64> {
        let figure = |report: &Value| {
            let parts: Vec<f64> = self.at.iter().filter_map(|at| report.pointer(at)?.as_f64()).collect();
            (!parts.is_empty()).then(|| parts.iter().sum::<f64>() / self.per)
        };
        variant.rounds.iter().filter_map(|round| figure(&round.report)).collect()
    }

    fn of(&self, variant: &Variant<'_>) -> String {
        let figures = self.figures(variant);
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

/// The column with other processes' share of the machine, which every row has.
pub(crate) const OTHERS: Column = Column::median("others %", &["/cpu/others_cpu_percent"], 0).over(Over::Most);

/// A column that compares a line with another line of its table.
pub(crate) struct Against {
    head: String,
    /// Whether the second variant is the one to which the first is compared.
    is_other: fn(&Variant<'_>, &Variant<'_>) -> bool,
    /// Head of the column whose medians are compared; `None` for the first one with a spread.
    column: Option<&'static str>,
    is_difference: bool,
}

impl Against {
    /// A column with the ratio to another line.
    pub(crate) fn times(of: &str, is_other: fn(&Variant<'_>, &Variant<'_>) -> bool) -> Self {
        Self { head: format!("times {of}"), is_other, column: None, is_difference: false }
    }

    /// A column with the difference to another line, in the column `column`.
    pub(crate) fn more(head: &str, column: &'static str, is_other: fn(&Variant<'_>, &Variant<'_>) -> bool) -> Self {
        Self { head: head.to_owned(), is_other, column: Some(column), is_difference: true }
    }

    fn of(&self, line: &Variant<'_>, row: &Row<'_>) -> String {
        let named = |column: &&Column| match self.column {
            Some(head) => column.head == head,
            None => column.over == Over::Spread,
        };
        let other = row.variants.iter().find(|other| (self.is_other)(line, other));
        let (Some(column), Some(other)) = (row.columns.iter().find(named), other) else { return "-".to_owned() };
        let (of_line, of_other) = (column.figures(line), column.figures(other));
        if of_line.is_empty() || of_other.is_empty() {
            return "-".to_owned();
        }
        let (of_line, of_other) = (median(of_line), median(of_other));
        if self.is_difference {
            format!("{:+.digits$}", of_line - of_other, digits = column.digits)
        } else {
            format!("{:.2}", of_line / of_other)
        }
    }
}

/// A row: the variants that are measured together.
pub(crate) struct Row<'a> {
    pub(crate) name: &'static str,
    pub(crate) columns: Vec<Column>,
    /// Comparisons, printed after the columns.
    pub(crate) against: Vec<Against>,
    pub(crate) variants: Vec<Variant<'a>>,
    /// Notes for the reader, such as a peer that is not installed.
    pub(crate) notes: Vec<String>,
}

impl Row<'_> {
    /// Measures the row, prints its table, and writes the files. The results of finished rounds are kept if the next one fails.
    pub(crate) fn run(mut self, settings: &Settings) -> io::Result<()> {
        for round in 0..settings.rounds as usize {
            one_round(&mut self.variants, round, settings)?;
            self.write_raw()?;
        }
        let table = self.table();
        println!("{}\n\n{table}", self.name);
        if settings.writes {
            picture::draw(&self)?;
            document::write(self.name, &table, settings)?;
        }
        Ok(())
    }

    fn table(&self) -> String {
        let heads = ["variant", "case"].into_iter().chain(self.columns.iter().map(|column| column.head));
        let heads = heads.chain(self.against.iter().map(|against| against.head.as_str()));
        let mut lines: Vec<Vec<String>> = vec![heads.map(str::to_owned).collect()];
        for variant in &self.variants {
            let noisy = variant.rounds.iter().filter(|round| round.is_noisy).count();
            // With few rounds even one disturbed round makes the median doubtful, so mark the line.
            let name = if noisy > 0 { format!("{} *", variant.name) } else { variant.name.clone() };
            let figures = self.columns.iter().map(|column| column.of(variant));
            let figures = figures.chain(self.against.iter().map(|against| against.of(variant, self)));
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

/// The median of at least one figure.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}
