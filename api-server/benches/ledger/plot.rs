//! A bar chart as SVG, readable on light and dark pages.

use std::fmt::Write as _;

use crate::lane::{Lane, Round};

/// Transfers per second.
pub struct Bar {
    name: String,
    slowest: f64,
    median: f64,
    fastest: f64,
}

impl Bar {
    pub fn of(name: &str, lane: &Lane) -> Self {
        let rounds = || lane.rounds.iter().map(Round::per_second);
        Self {
            name: name.to_owned(),
            slowest: rounds().fold(f64::INFINITY, f64::min),
            median: lane.per_second(),
            fastest: rounds().fold(0.0, f64::max),
        }
    }
}

const LEFT: f64 = 250.0;
const WIDTH: f64 = 400.0;
const ROW: f64 = 26.0;

/// One bar below the other, with a line from the slowest to the fastest round.
pub fn bars(bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.fastest).fold(1.0, f64::max);
    let (width, height) = (LEFT + WIDTH + 80.0, ROW * bars.len() as f64 + 50.0);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">
<style>text {{ fill: #24292f }} @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} }}</style>
<text x="{LEFT}" y="20" font-weight="bold">durable transfers per second</text>
"#
    );
    for (row, bar) in bars.iter().enumerate() {
        let (top, length) = (34.0 + ROW * row as f64, |value: f64| value / longest * WIDTH);
        let (middle, colour) =
            (top + 9.0, if bar.name.contains("pgbench") || bar.name.contains("cala") { "#8c959f" } else { "#2f81f7" });
        let (from, to) = (LEFT + length(bar.slowest), LEFT + length(bar.fastest));
        writeln!(
            svg,
            r##"<text x="{}" y="{}" text-anchor="end">{}</text>
<rect x="{LEFT}" y="{top}" width="{:.1}" height="18" fill="{colour}"/>
<path d="M{from:.1} {middle}H{to:.1}" stroke="#d29922" stroke-width="2"/>
<text x="{:.1}" y="{}">{:.0}</text>"##,
            LEFT - 8.0,
            top + 14.0,
            bar.name,
            length(bar.median),
            to.max(LEFT + length(bar.median)) + 6.0,
            top + 14.0,
            bar.median,
        )
        .unwrap();
    }
    svg + "</svg>\n"
}
