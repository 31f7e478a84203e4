//! Rows as an SVG: CPU above, memory below, over the number of polls.
//!
//! Not here: what is measured (`polls`).

use super::crowd::Way;
use super::{CORE_PERCENT_MAX, POLL_BYTES_MAX, Row};

const WIDTH: f64 = 720.0;
const PANEL: f64 = 240.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
const WAYS: [(Way, &str); 2] = [(Way::Http1, "#b0413e"), (Way::Http2, "#3e6fb0")];

/// One diagram.
struct Panel {
    top: f64,
    title: String,
    /// What a row shows in it.
    value: fn(&Row) -> f64,
    goal: f64,
}

/// Draws the rows of polls that wait for `timeout_s`.
pub(super) fn draw(rows: &[Row], timeout_s: u64) -> String {
    let panels = [
        Panel {
            top: TOP,
            title: format!("CPU of the gateway, percent of a core, polls of {timeout_s} s"),
            value: |row| row.core_percent,
            goal: CORE_PERCENT_MAX,
        },
        Panel {
            top: TOP + PANEL + BOTTOM + TOP,
            title: "Memory of the gateway for each poll, KiB".to_owned(),
            value: |row| row.poll_bytes / 1024.0,
            goal: POLL_BYTES_MAX / 1024.0,
        },
    ];
    let height = 2.0 * (TOP + PANEL + BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for panel in &panels {
        panel.draw(rows, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

impl Panel {
    fn draw(&self, rows: &[Row], svg: &mut String) {
        let most_polls = rows.iter().map(|row| row.polls).max().unwrap_or(1).max(1) as f64;
        let most = rows.iter().map(self.value).fold(self.goal, f64::max) * 1.1;
        let bottom = self.top + PANEL;
        let x = |polls: f64| LEFT + polls / most_polls * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| bottom - value / most * PANEL;
        let mut put = |line: String| svg.extend([line.as_str(), "\n"]);
        put(text(LEFT, self.top - 12.0, "start", &self.title));
        for step in 0..=4 {
            let (polls, value) = (most_polls * f64::from(step) / 4.0, most * f64::from(step) / 4.0);
            put(ruled((LEFT, y(value)), (WIDTH - RIGHT, y(value)), "#ddd"));
            put(text(LEFT - 6.0, y(value) + 4.0, "end", &format!("{value:.1}")));
            put(text(x(polls), bottom + 16.0, "middle", &format!("{polls:.0}")));
        }
        put(ruled((LEFT, y(self.goal)), (WIDTH - RIGHT, y(self.goal)), "#2a2"));
        put(text(WIDTH - RIGHT, y(self.goal) - 4.0, "end", "asked: below this line"));
        for (number, (way, colour)) in WAYS.into_iter().enumerate() {
            let points: Vec<(f64, f64)> = rows
                .iter()
                .filter(|row| row.way == way)
                .map(|row| (x(row.polls as f64), y((self.value)(row))))
                .collect();
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            put(format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>",
                path.join(" ")
            ));
            for (x, y) in points {
                put(format!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                ));
            }
            let at = bottom + 32.0;
            put(format!(
                "<text x=\"{:.1}\" y=\"{at:.1}\" fill=\"{colour}\">{}</text>",
                LEFT + 100.0 * number as f64,
                way.name()
            ));
        }
    }
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>")
}

fn ruled(from: (f64, f64), to: (f64, f64), colour: &str) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    )
}
