//! Lines over time, as SVG.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Size of the picture.
const SIZE: (f64, f64) = (760.0, 320.0);
/// Room for labels: left, right, top, bottom.
const ROOM: (f64, f64, f64, f64) = (60.0, 170.0, 34.0, 42.0);
/// Colours that people who see no red or no green can tell apart (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
    /// A vertical line, and what it says.
    pub mark: Option<(f64, String)>,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows.
    pub label: String,
    /// Its lower end; above 0 where it is logarithmic.
    pub from: f64,
    /// Its upper end.
    pub to: f64,
    /// Equal distances are equal factors.
    pub logarithmic: bool,
}

/// A line.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A time that has a name: a strip along the upper edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Where it begins, as a value of the x axis.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// What it is called.
    pub name: String,
}

impl Axis {
    /// Where a value is, from 0 to 1; what is outside is at the end.
    fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        let span = if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        if span.is_finite() { span } else { 0.0 }
    }

    /// Round values to label.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (-3..7).map(|n| 10f64.powi(n)).flat_map(|one| [one, 2.0 * one, 5.0 * one]);
            return decades.filter(|value| (self.from..=self.to).contains(value)).collect();
        }
        let rough = (self.to - self.from) / 6.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let (first, last) = ((self.from / step).ceil() as i64, (self.to / step + 1e-9).floor() as i64);
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

impl Plot {
    /// Writes the picture.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        self.write_with(file, &[])
    }

    /// Writes the picture with times that have names.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_with(&self, file: &Path, spans: &[Span]) -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        fs::write(file, self.svg(spans)).with_context(|| format!("writing {}", file.display()))
    }

    fn svg(&self, spans: &[Span]) -> String {
        let ((width, height), (left, right, top, bottom)) = (SIZE, ROOM);
        let x = |value| left + self.x.place(value) * (width - left - right);
        let y = |value| height - bottom - self.y.place(value) * (height - top - bottom);
        let (x0, x1, y0, y1) = (left, width - right, height - bottom, top);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"{left}\" y=\"20\" font-size=\"14\">{}</text>\n",
            escape(&self.title)
        );
        for value in self.x.ticks() {
            let at = x(value);
            let _ = writeln!(out, "<path d=\"M{at:.1} {y0:.1}V{y1:.1}\" stroke=\"#eeeeee\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
                y0 + 15.0
            );
        }
        for value in self.y.ticks() {
            let at = y(value);
            let shown = (value * 1000.0).round() / 1000.0;
            let _ = writeln!(out, "<path d=\"M{x0:.1} {at:.1}H{x1:.1}\" stroke=\"#dddddd\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
                x0 - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(x0, x1),
            height - 8.0,
            escape(&self.x.label),
            f64::midpoint(y0, y1),
            escape(&self.y.label)
        );
        out.push_str(&self.strip(spans));
        if let Some((at, text)) = &self.mark {
            let at = x(*at);
            let _ = writeln!(
                out,
                "<path d=\"M{at:.1} {y0:.1}V{y1:.1}\" stroke=\"#888888\" stroke-dasharray=\"4 3\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#666666\">{}</text>",
                at + 4.0,
                y1 + 11.0,
                escape(text)
            );
        }
        for (n, series) in self.series.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            let path: Vec<String> =
                series.points.iter().map(|(px, py)| format!("{:.1} {:.1}", x(*px), y(*py))).collect();
            if !path.is_empty() {
                let path = path.join("L");
                let _ = writeln!(
                    out,
                    "<path d=\"M{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>"
                );
            }
            let line = top + 14.0 + 18.0 * n as f64;
            let _ = writeln!(
                out,
                "<path d=\"M{:.1} {:.1}h18\" stroke=\"{colour}\" stroke-width=\"3\"/>\n\
                 <text x=\"{:.1}\" y=\"{line:.1}\">{}</text>",
                x1 + 12.0,
                line - 4.0,
                x1 + 36.0,
                escape(&series.name)
            );
        }
        out.push_str("</svg>\n");
        out
    }

    /// The times that have names, and what their colours mean, below the lines' names.
    fn strip(&self, spans: &[Span]) -> String {
        let ((width, _), (left, right, top, _)) = (SIZE, ROOM);
        let x = |value| left + self.x.place(value) * (width - left - right);
        let (mut names, mut out): (Vec<&str>, String) = (Vec::new(), String::new());
        for span in spans {
            let n = names.iter().position(|name| *name == span.name).unwrap_or_else(|| {
                names.push(&span.name);
                names.len() - 1
            });
            let colour = COLOURS[(COLOURS.len() - 1 - n) % COLOURS.len()];
            let (from, to) = (x(span.from), x(span.to).max(x(span.from) + 1.0));
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"6\" fill=\"{colour}\"/>",
                top - 6.0,
                to - from
            );
        }
        for (n, name) in names.iter().enumerate() {
            let colour = COLOURS[(COLOURS.len() - 1 - n) % COLOURS.len()];
            let line = top + 14.0 + 18.0 * (self.series.len() + 1 + n) as f64;
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"18\" height=\"6\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{line:.1}\">{}</text>",
                width - right + 12.0,
                line - 7.0,
                width - right + 36.0,
                escape(name)
            );
        }
        out
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(from: f64, to: f64, logarithmic: bool) -> Axis {
        Axis { label: "a < b".into(), from, to, logarithmic }
    }

    #[test]
    fn places_and_ticks_are_within_the_axis() {
        let (line, log) = (axis(0.0, 32.0, false), axis(10.0, 5000.0, true));
        assert_eq!((line.place(-1.0), line.place(16.0), line.place(99.0)), (0.0, 0.5, 1.0));
        assert!((log.place((10f64 * 5000.0).sqrt()) - 0.5).abs() < 1e-9);
        assert_eq!(line.ticks(), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(log.ticks(), [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]);
        assert!(axis(1.0, 1.0, false).place(1.0).is_finite(), "nothing to show is no crash");
    }

    #[test]
    fn a_picture_has_all_its_lines() {
        let series = |name: &str, y: f64| Series {
            name: name.into(),
            points: vec![(0.0, y), (10.0, y), (20.0, 2.0 * y)],
        };
        let plot = Plot {
            title: "p99 & more".into(),
            x: axis(0.0, 20.0, false),
            y: axis(10.0, 100.0, true),
            series: vec![
                series("one", 20.0),
                series("two", 40.0),
                Series { name: "none".into(), points: vec![] },
            ],
            mark: Some((10.0, "here".into())),
        };
        let spans = [(0.0, 5.0, "calm"), (5.0, 9.0, "stopped"), (9.0, 20.0, "calm")]
            .map(|(from, to, name)| Span { from, to, name: name.into() });
        let svg = plot.svg(&spans);
        // The paper, three times, and two names.
        assert_eq!(svg.matches("<rect").count(), 1 + 3 + 2);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("p99 &amp; more") && svg.contains("a &lt; b") && !svg.contains("NaN"));
        assert_eq!(svg.matches("fill=\"none\"").count(), 2);
        assert_eq!(svg.matches("<svg").count() + svg.matches("</svg>").count(), 2);
    }
}
