//! ARCHITECTURE.md has every view that a reader looks for, each with content, and what it names is there.
//!
//! Not here: whether what it says is right, which is for reviewers; the table of packages (`arrows`).

use crate::tree::{Fault, Source};

const PAGE: &str = "ARCHITECTURE.md";

/// Headings, with words that show that the section is about what its heading says.
const SECTIONS: [(&str, &[&str]); 20] = [
    ("# Architecture", &["Holdfast", "It is not"]),
    ("## Context", &["```", "operator", "HTTP"]),
    ("## Drivers", &["quality", "constraint", "docs/requirements.md"]),
    ("## Module view", &["<!-- packages -->", "door"]),
    ("## Components and connectors", &["```", "QUIC", "queue", "journal"]),
    ("## Deployment view", &["host", "disk", "port", "deploy/"]),
    ("## Interfaces", &["docs/api.md", "frame", "/metrics", "docs/format"]),
    ("## The words", &["docs/glossary.md"]),
    ("## Sequences", &["A write", "A dead disk"]),
    ("### A write", &["1. ", "14. "]),
    ("### A read", &["1. ", "5. "]),
    ("### A change notice", &["1. ", "4. "]),
    ("### A dead disk", &["1. ", "5. "]),
    ("## Code map", &["begin with"]),
    ("## Promises", &["promise"]),
    ("## Failure model", &["What may fail"]),
    ("## Limits", &["docs/limits.md"]),
    ("## Decisions", &["docs/decisions/README.md", "0005", "0011"]),
    ("## Unknown", &["C-2"]),
    ("## Departures from the first design", &["- "]),
];

/// Less than this tells nothing.
const SECTION_BYTES_MIN: usize = 150;

/// The text below `heading`, up to the next heading of its own rank or a higher one; `None` when it is not there.
pub(crate) fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let begin = if page.starts_with(&format!("{heading}\n")) {
        heading.len()
    } else {
        page.find(&format!("\n{heading}\n"))? + 1 + heading.len()
    };
    let below = &page[begin..];
    let rank = heading.chars().take_while(|letter| *letter == '#').count();
    // The title's own text ends at the first heading of any rank.
    let ends = |line: &str| {
        let other = line.chars().take_while(|letter| *letter == '#').count();
        other > 0 && line[other..].starts_with(' ') && (other <= rank || rank == 1)
    };
    let mut end = 0;
    for line in below.split_inclusive('\n') {
        if ends(line) {
            break;
        }
        end += line.len();
    }
    Some(&below[..end])
}

/// Sections that are missing, empty, or about something else.
pub(crate) fn gaps(page: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (heading, words) in SECTIONS {
        let Some(text) = section(page, heading) else {
            faults.push(Fault::new(PAGE, 1, format!("lacks the section `{heading}`")));
            continue;
        };
        if text.trim().len() < SECTION_BYTES_MIN {
            faults.push(Fault::new(PAGE, 1, format!("`{heading}` is empty")));
        }
        for word in words.iter().filter(|word| !text.contains(**word)) {
            faults.push(Fault::new(PAGE, 1, format!("`{heading}` says nothing of `{word}`")));
        }
    }
    faults
}

/// Rust files that the page names and the tree does not have. A name may leave out the beginning of the path.
pub(crate) fn stale_names(page: &str, sources: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (number, line) in page.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs")) {
            let is_there = |source: &Source| source.path == word || source.path.ends_with(&format!("/{word}"));
            if !sources.iter().any(is_there) {
                faults.push(Fault::new(PAGE, number + 1, format!("there is no file {word}")));
            }
        }
    }
    faults
}
