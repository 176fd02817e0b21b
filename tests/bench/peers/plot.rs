//! The plot: CPU per request beside that of the bare server, as bars, in SVG.
//!
//! It is drawn here and not by a crate: forty lines of rectangles and text, which look the same on
//! every machine, against a plotting library with fonts.

use crate::peers::contender::Contender;
use crate::peers::report::Measured;
use std::fmt::Write as _;

/// Bars of this number of connections are drawn.
const CONNECTIONS: usize = 16;

/// Okabe and Ito's colours, distinct also without red-green vision, in the order of contenders.
const COLOURS: [&str; 8] = [
    "#999999", "#56b4e9", "#d55e00", "#009e73", "#e69f00", "#0072b2", "#cc79a7", "#000000",
];

const BAR: f64 = 16.0;
const GAP: f64 = 28.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 16.0;
const HEIGHT: f64 = 260.0;
const LEGEND_LINE: f64 = 18.0;

/// Ratios beyond this are cut off and keep their number.
const RATIO_MAX: f64 = 8.0;

pub(crate) fn svg(contenders: &[Contender], measured: &Measured) -> String {
    let cells: Vec<_> = measured
        .iter()
        .filter(|(cell, _)| cell.connections == CONNECTIONS)
        .collect();
    let group = BAR * contenders.len() as f64 + GAP;
    let width = LEFT + group * cells.len() as f64 + GAP;
    let bottom = TOP + HEIGHT;
    let full = bottom + 48.0 + LEGEND_LINE * contenders.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {full:.0}\" \
         width=\"{width:.0}\" height=\"{full:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>CPU of the server per request beside a bare hyper server, {CONNECTIONS} connections</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for ratio in 0..=RATIO_MAX as u32 {
        let y = bottom - height(f64::from(ratio));
        let colour = if ratio == 1 { "#000000" } else { "#dddddd" };
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{width:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{ratio} ×</text>",
            LEFT - 4.0,
            y + 4.0,
        );
    }
    for (at, (cell, figures)) in cells.iter().enumerate() {
        let start = LEFT + GAP + group * at as f64;
        let Ok(first) = &figures[0] else { continue };
        for (number, figures) in figures.iter().enumerate() {
            let Ok(figures) = figures else { continue };
            let ratio = figures.cpu / first.cpu;
            let (x, tall) = (start + BAR * number as f64, height(ratio));
            let y = bottom - tall;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"8\">{ratio:.1}</text>",
                BAR - 2.0,
                COLOURS[number % COLOURS.len()],
                x + BAR / 2.0 - 1.0,
                y - 2.0,
            );
        }
        let middle = start + (group - GAP) / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            cell.name(),
        );
    }
    for (number, contender) in contenders.iter().enumerate() {
        let y = bottom + 36.0 + LEGEND_LINE * number as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            y - 10.0,
            COLOURS[number % COLOURS.len()],
            LEFT + 18.0,
            y,
            contender.name,
        );
    }
    svg + "</svg>\n"
}

fn height(ratio: f64) -> f64 {
    HEIGHT * ratio.min(RATIO_MAX) / RATIO_MAX
}
