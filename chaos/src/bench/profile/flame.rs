//! A flame graph as an SVG file: width is CPU time, the root at the bottom.
//!
//! Ours and static, without scripts: the usual generator is licensed under the CDDL and puts its script into each picture. The name and
//! share of a frame are shown where the pointer rests.
//! Pure. Invariant: the picture is never longer than asked for; the narrowest frames are left out until it is not.

use super::fold::{Folded, package};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1_200.0;
const ROW: f64 = 16.0;
const TOP: f64 = 34.0;
/// Of the font, 11 pixels high.
const CHARACTER_WIDTH: f64 = 6.3;
/// Frames narrower than this cannot be seen.
const NARROWEST: f64 = 0.4;

/// A frame with what it calls.
#[derive(Default)]
struct Node {
    samples: u64,
    calls: BTreeMap<String, Node>,
}

/// The picture of `folded`, at most `bytes_max` long.
pub(super) fn picture(title: &str, folded: &Folded, bytes_max: usize) -> String {
    let mut root = Node::default();
    for (stack, count) in &folded.stacks {
        root.samples += count;
        let mut node = &mut root;
        for name in stack {
            node = node.calls.entry(name.clone()).or_default();
            node.samples += count;
        }
    }
    let mut narrowest = NARROWEST;
    loop {
        let text = draw(title, &root, narrowest);
        // Without any frame left nothing more can be left out.
        if text.len() <= bytes_max || narrowest > WIDTH {
            return text;
        }
        narrowest *= 1.3;
    }
}

fn draw(title: &str, root: &Node, narrowest: f64) -> String {
    let mut frames = String::new();
    let scale = WIDTH / root.samples.max(1) as f64;
    let pen = Pen {
        scale,
        narrowest,
        height: TOP + ROW * rows(root, scale, narrowest) as f64,
        total: root.samples,
    };
    let mut x = 0.0;
    for (name, node) in &root.calls {
        pen.frame(&mut frames, name, node, x, 0);
        x += node.samples as f64 * scale;
    }
    let height = pen.height + 4.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
         font-family=\"monospace\" font-size=\"11\">\n<style>rect{{stroke:#fff;stroke-width:.4}}g:hover rect{{stroke:#000}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"4\" y=\"18\" font-size=\"14\">{} \
         ({} samples; width is CPU time)</text>\n{frames}</svg>\n",
        escaped(title),
        root.samples
    )
}

/// Rows of frames that are wide enough.
fn rows(node: &Node, scale: f64, narrowest: f64) -> usize {
    let wide = node
        .calls
        .values()
        .filter(|call| call.samples as f64 * scale >= narrowest);
    wide.map(|call| 1 + rows(call, scale, narrowest)).max().unwrap_or(0)
}

struct Pen {
    scale: f64,
    narrowest: f64,
    height: f64,
    total: u64,
}

impl Pen {
    fn frame(&self, text: &mut String, name: &str, node: &Node, x: f64, depth: usize) {
        let width = node.samples as f64 * self.scale;
        if width < self.narrowest {
            return;
        }
        let y = self.height - ROW * (depth + 1) as f64;
        let percent = node.samples as f64 * 100.0 / self.total.max(1) as f64;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "<g><title>{} ({percent:.2} %)</title><rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"15\" fill=\"{}\"/>",
            escaped(name),
            colour(name)
        );
        let room = (width / CHARACTER_WIDTH) as usize;
        if room >= 4 {
            let _ = write!(
                text,
                "<text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
                x + 2.0,
                y + 11.0,
                escaped(&shortened(name, room))
            );
        }
        text.push_str("</g>\n");
        let mut x = x;
        for (name, call) in &node.calls {
            self.frame(text, name, call, x, depth + 1);
            x += call.samples as f64 * self.scale;
        }
    }
}

/// The end of a path says more than its beginning.
fn shortened(name: &str, room: usize) -> String {
    let count = name.chars().count();
    if count <= room {
        return name.to_owned();
    }
    name.chars()
        .skip(count - room + 2)
        .fold("..".to_owned(), |mut text, character| {
            text.push(character);
            text
        })
}

/// One colour for each package, so that neighbours of one stand out; the kernel is grey.
fn colour(name: &str) -> String {
    if name.starts_with("kernel") || name.ends_with("(kernel)") {
        return "#bbb".to_owned();
    }
    let hash = package(name)
        .bytes()
        .fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("hsl({},60%,70%)", hash % 360)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{picture, shortened};
    use crate::bench::profile::fold::Folded;

    fn folded(stacks: &[(&[&str], u64)]) -> Folded {
        let stacks = stacks.iter();
        Folded {
            stacks: stacks
                .map(|(stack, count)| (stack.iter().map(|&name| name.to_owned()).collect(), *count))
                .collect(),
        }
    }

    #[test]
    fn a_frame_is_as_wide_as_its_share_and_stands_on_its_caller() {
        let picture = picture(
            "a < b",
            &folded(&[(&["node", "x"], 1), (&["node", "y"], 2), (&["load"], 1)]),
            10_000,
        );
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("a &lt; b"));
        // In the order of names: load from 0, node from a quarter on, and on it x and y.
        for frame in [
            "<title>load (25.00 %)</title><rect x=\"0.0\" y=\"50\" width=\"300.0\"",
            "<title>node (75.00 %)</title><rect x=\"300.0\" y=\"50\" width=\"900.0\"",
            "<title>x (25.00 %)</title><rect x=\"300.0\" y=\"34\" width=\"300.0\"",
            "<title>y (50.00 %)</title><rect x=\"600.0\" y=\"34\" width=\"600.0\"",
        ] {
            assert!(picture.contains(frame), "{frame} in {picture}");
        }
    }

    #[test]
    fn a_picture_keeps_to_its_length_by_leaving_narrow_frames_out() {
        let names: Vec<String> = (0..2_000).map(|number| format!("function_{number}")).collect();
        let stacks: Vec<([&str; 2], u64)> = names
            .iter()
            .zip(1..)
            .map(|(name, count)| (["node", name.as_str()], count))
            .collect();
        let stacks: Vec<(&[&str], u64)> = stacks.iter().map(|(stack, count)| (&stack[..], *count)).collect();
        let folded = folded(&stacks);
        let (long, short) = (picture("t", &folded, usize::MAX), picture("t", &folded, 20_000));
        assert!(
            long.len() > 20_000 && short.len() <= 20_000,
            "{} {}",
            long.len(),
            short.len()
        );
        assert!(short.contains("<title>node "), "the widest frames stay");
        assert!(picture("t", &folded, 1).len() < 1_000);
        assert!(picture("t", &Folded::default(), 1_000).ends_with("</svg>\n"));
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(shortened("codec::cut", 20), "codec::cut");
        assert_eq!(shortened("codec::cut::push", 8), "..::push");
    }
}
