//! Draws a row as SVG in docs/performance: bars, or lines over the number that grows.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::table::{Over, Row, median};

/// Width of a picture, in pixels.
const WIDTH: u32 = 960;
const BAR: i32 = 18;
const HEAD: i32 = 34;
const MARGIN: i32 = 14;
/// The start of the bars, after their names.
const NAMES: i32 = 300;
/// Space after the longest bar for its figure.
const FIGURES: i32 = 150;
/// The axis is this much longer than the longest bar. Longer spread lines are cut at its end.
const BEYOND: f64 = 1.25;
const PANEL_HEIGHT: u32 = 360;
/// The axis of lines is this much higher than the highest value, to leave room for the legend.
const ABOVE: f64 = 1.35;
const FONT: &str = "sans-serif";
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0xd9, 0x5f, 0x0e),
    RGBColor(0x2c, 0x8c, 0x4b),
    RGBColor(0x8c, 0x56, 0xb8),
    RGBColor(0x9c, 0x6b, 0x3f),
    RGBColor(0xc2, 0x3b, 0x6b),
];
const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A figure of a variant: the median, the least and the most of its rounds.
struct Figure {
    name: String,
    case: String,
    least: f64,
    middle: f64,
    most: f64,
}

/// Draws the first column with a spread of a row.
pub(crate) fn draw(row: &Row<'_>) -> io::Result<()> {
    let Some(column) = row.columns.iter().find(|column| column.over == Over::Spread) else { return Ok(()) };
    let figures = row.variants.iter().filter_map(|variant| {
        let figures = column.figures(variant);
        let least = figures.iter().copied().reduce(f64::min)?;
        let most = figures.iter().copied().reduce(f64::max)?;
        Some(Figure { name: variant.name.clone(), case: variant.case.clone(), least, middle: median(figures), most })
    });
    let figures: Vec<Figure> = figures.collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{}.svg", row.name));
    let drawn = if row.name == "growth" {
        lines(&file, column.head, &figures)
    } else {
        bars(&file, column.head, column.digits, &figures)
    };
    drawn.map_err(|error| io::Error::other(format!("{}: {error}", file.display())))
}

fn bars(file: &Path, head: &str, digits: usize, figures: &[Figure]) -> Result<(), Box<dyn Error>> {
    let mut cases: Vec<&str> = Vec::new();
    for figure in figures {
        if !cases.contains(&figure.case.as_str()) {
            cases.push(&figure.case);
        }
    }
    let names = names(figures);
    let height = HEAD + cases.len() as i32 * HEAD + figures.len() as i32 * BAR + MARGIN;
    let area = SVGBackend::new(file, (WIDTH, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    say(&area, head, (MARGIN, MARGIN), 16, BLACK)?;
    let room = f64::from(WIDTH as i32 - NAMES - FIGURES);
    let mut y = HEAD;
    for case in cases {
        say(&area, case, (MARGIN, y + 10), 14, BLACK)?;
        y += HEAD;
        // Bars of one case share a scale. It is that of the longest median, because one bad round would make all bars short.
        let of_case = figures.iter().filter(|figure| figure.case == case);
        let longest = of_case.map(|figure| figure.middle).fold(f64::MIN_POSITIVE, f64::max);
        let at = |value: f64| NAMES + (value.min(longest * BEYOND) / longest / BEYOND * room) as i32;
        for figure in figures.iter().filter(|figure| figure.case == case) {
            let (top, middle) = (y - 4, y + BAR / 2 - 5);
            say(&area, &figure.name, (MARGIN + 12, y - 3), 13, GREY)?;
            let colour = colour_of(&names, &figure.name);
            area.draw(&Rectangle::new([(NAMES, top), (at(figure.middle), top + BAR - 5)], colour.filled()))?;
            // The spread, from the least to the most.
            area.draw(&PathElement::new([(at(figure.least), middle), (at(figure.most), middle)], BLACK))?;
            let text = format!("{:.digits$}", figure.middle);
            say(&area, &text, (at(figure.most) + 8, y - 3), 13, BLACK)?;
            y += BAR;
        }
    }
    area.present()?;
    Ok(())
}

/// One panel for each kind of number that grows; a case has its name after the number.
fn lines(file: &Path, head: &str, figures: &[Figure]) -> Result<(), Box<dyn Error>> {
    let mut panels: Vec<(&str, Vec<(f64, &Figure)>)> = Vec::new();
    for figure in figures {
        let (count, what) = figure.case.split_once(' ').ok_or("a case without a number")?;
        let point = (count.parse()?, figure);
        match panels.iter_mut().find(|(name, _)| *name == what) {
            Some((_, points)) => points.push(point),
            None => panels.push((what, vec![point])),
        }
    }
    let area = SVGBackend::new(file, (WIDTH, PANEL_HEIGHT * panels.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, (what, points)) in area.split_evenly((panels.len(), 1)).iter().zip(&panels) {
        let most = points.iter().map(|(_, figure)| figure.most).fold(0.0, f64::max);
        let most_of_all = points.iter().map(|(count, _)| *count).fold(1.0, f64::max);
        let least_of_all = points.iter().map(|(count, _)| *count).fold(most_of_all, f64::min);
        let mut chart = ChartBuilder::on(panel)
            .caption(format!("{head}, by {what}"), (FONT, 16))
            .margin(MARGIN)
            .margin_right(30)
            .x_label_area_size(30)
            .y_label_area_size(45)
            .build_cartesian_2d((least_of_all..most_of_all).log_scale(), 0.0..most * ABOVE)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|count| format!("{count:.0}"))
            .label_style((FONT, 12))
            .draw()?;
        let names = names(points.iter().map(|(_, figure)| *figure));
        for name in &names {
            let colour = colour_of(&names, name);
            let line: Vec<(f64, &Figure)> = points
                .iter()
                .filter(|(_, figure)| figure.name == *name)
                .map(|(count, figure)| (*count, *figure))
                .collect();
            let middle = line.iter().map(|(count, figure)| (*count, figure.middle));
            chart
                .draw_series(LineSeries::new(middle, colour.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(line.iter().map(|(count, figure)| {
                PathElement::new([(*count, figure.least), (*count, figure.most)], colour.stroke_width(1))
            }))?;
            chart.draw_series(
                line.iter().map(|(count, figure)| Circle::new((*count, figure.middle), 3, colour.filled())),
            )?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(GREY.mix(0.4))
            .label_font((FONT, 12))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// The names of the variants, in order, each once.
fn names<'a>(figures: impl IntoIterator<Item = &'a Figure>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for figure in figures {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    names
}

/// The colour of a variant. Floors are grey, because they are no product.
fn colour_of(names: &[&str], name: &str) -> RGBColor {
    if name.contains("floor") || name.contains("bare") {
        return GREY;
    }
    let at = names.iter().position(|known| *known == name).unwrap_or(0);
    COLOURS[at % COLOURS.len()]
}

fn say(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, colour: RGBColor) -> Result<(), Box<dyn Error>> {
    area.draw(&Text::new(text.to_owned(), at, (FONT, size).into_font().color(&colour)))?;
    Ok(())
}
