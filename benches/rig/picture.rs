//! A picture of figures: horizontal bars in groups, as an SVG that needs nothing else.

use std::fmt::Write as _;

/// One diagram; the shorter the bar the better, or the longer, as the title says.
pub struct Picture {
    pub title: String,
    pub groups: Vec<Group>,
}

/// Bars that are compared.
pub struct Group {
    pub name: String,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub name: String,
    pub value: f64,
    /// The text behind it.
    pub text: String,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 230.0;
const FIGURES: f64 = 110.0;
const ROW: f64 = 20.0;
const OURS: &str = "#0b6e4f";
const OTHERS: &str = "#9db4c0";

impl Picture {
    pub fn svg(&self) -> String {
        let rows: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let height = 56.0 + rows as f64 * ROW + self.groups.len() as f64 * 38.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        let mut y = 30.0;
        text(&mut svg, 16.0, y, "start", "16", &self.title);
        for group in &self.groups {
            y += 38.0;
            text(&mut svg, 16.0, y, "start", "14", &group.name);
            let most = group.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
            for bar in &group.bars {
                y += ROW;
                let width = (bar.value / most * (WIDTH - LABELS - FIGURES)).max(1.0);
                let colour = if bar.name.starts_with("Doorward") { OURS } else { OTHERS };
                text(&mut svg, LABELS - 8.0, y, "end", "13", &bar.name);
                let top = y - 12.0;
                let _ = writeln!(svg, "<rect x=\"{LABELS}\" y=\"{top}\" width=\"{width:.1}\" height=\"15\" fill=\"{colour}\"/>");
                text(&mut svg, LABELS + width + 6.0, y, "start", "13", &bar.text);
            }
        }
        svg + "</svg>\n"
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"#1b1b1b\">{words}</text>");
}
