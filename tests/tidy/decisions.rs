//! Decision records: each whole, all listed, and one for each point where our reading of the requirements departs from their words.
//!
//! Not here: whether a decision is a good one.

use crate::architecture::section;
use crate::tree::{Fault, root};
use std::fs;

const FOLDER: &str = "docs/decisions";
const READINGS: &str = "docs/decisions/0022-readings-of-requirements.md";

/// Sections of a record, and how much each says at least.
const SECTIONS: [(&str, usize); 4] = [
    ("## Situation", 60),
    ("## Choice", 120),
    ("## Price", 30),
    ("## Refused", 40),
];

/// Every point that docs/requirements.md leaves to us, by a word that its reading must hold. The order is that of the reading.
const SETTLED: [&str; 14] = [
    "erasure coding",
    "99.99 %",
    "409",
    "long polling",
    "4096 fixed slots",
    "read-index",
    "quota",
    "BLAKE3",
    "encrypted metadata volume",
    "bare metal",
    "55 s",
    "C-2",
    "slots of their own",
    "not built",
];

/// A record: its file's name and its text.
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// All records, by number.
pub(crate) fn records() -> Vec<Record> {
    let rows = fs::read_dir(root().join(FOLDER)).unwrap();
    let mut records: Vec<Record> = rows
        .map(|row| row.unwrap().path())
        .map(|path| Record {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .filter(|record| record.name != "README.md")
        .collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(records.len() > 20, "the decisions were not found");
    records
}

/// Records without a date, a reason, a price or a refused alternative; holes in the numbers; records that `list` does not name.
pub(crate) fn unfinished(records: &[Record], list: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, record) in records.iter().enumerate() {
        let path = format!("{FOLDER}/{}", record.name);
        let mut tell = |what: String| faults.push(Fault::new(&path, 1, what));
        let number = format!("{:04}", at + 1);
        if !record.name.starts_with(&format!("{number}-")) || !record.text.starts_with(&format!("# {number} ")) {
            tell(format!("file and title do not begin with {number}"));
        }
        if !list.contains(&format!("[{number}]({})", record.name)) {
            tell(format!("{FOLDER}/README.md does not list it"));
        }
        if !record.text.contains("Decided 20") {
            tell("has no line `Decided <date>.`".to_owned());
        }
        for (heading, least) in SECTIONS {
            let said = section(&record.text, heading).map_or(0, |text| text.trim().len());
            if said < least {
                tell(format!("`{heading}` says {said} bytes"));
            }
        }
        for cited in cited_numbers(&record.text).filter(|cited| *cited == 0 || *cited > records.len()) {
            tell(format!("names decision {cited:04}, which is not there"));
        }
    }
    faults
}

/// Numbers after the word `decision`.
fn cited_numbers(text: &str) -> impl Iterator<Item = usize> {
    let after = text.split("ecision ").skip(1);
    after.filter_map(|rest| rest.get(..4)?.parse().ok())
}

/// Settled points without a reading of their own.
pub(crate) fn missing_readings(page: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, word) in SETTLED.iter().enumerate() {
        let number = format!("{}. ", at + 1);
        let reading = page.lines().find(|line| line.starts_with(&number)).unwrap_or_default();
        if !reading.contains(word) {
            faults.push(Fault::new(
                READINGS,
                1,
                format!("point {} says nothing of `{word}`", at + 1),
            ));
        }
    }
    faults
}

/// Departures that ARCHITECTURE.md tells and that name no record which is there.
pub(crate) fn unrecorded_departures(architecture: &str, records: &[Record]) -> Vec<Fault> {
    let told = section(architecture, "## Departures from the first design").unwrap_or_default();
    let mut faults = Vec::new();
    let mut count = 0;
    for line in told.lines().filter(|line| line.starts_with("- ")) {
        count += 1;
        let is_recorded = cited_numbers(line).any(|number| (1..=records.len()).contains(&number));
        if !is_recorded {
            faults.push(Fault::new(
                "ARCHITECTURE.md",
                1,
                format!("a departure names no decision: {line}"),
            ));
        }
    }
    if count == 0 {
        faults.push(Fault::new("ARCHITECTURE.md", 1, "tells no departure"));
    }
    faults
}

/// Words of the glossary that have no meaning beside them or stand there twice.
pub(crate) fn glossary_faults(page: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut words = Vec::new();
    for (number, line) in page.lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (word, meaning) = (cells[1], cells[2]);
        if word == "word" {
            continue;
        }
        if meaning.len() < 8 || cells.len() != 4 {
            faults.push(Fault::new(
                "docs/glossary.md",
                number + 1,
                format!("`{word}` has no meaning"),
            ));
        }
        if words.contains(&word) {
            faults.push(Fault::new(
                "docs/glossary.md",
                number + 1,
                format!("`{word}` stands there twice"),
            ));
        }
        words.push(word);
    }
    if words.len() < 50 {
        faults.push(Fault::new(
            "docs/glossary.md",
            1,
            format!("has only {} words", words.len()),
        ));
    }
    faults
}
