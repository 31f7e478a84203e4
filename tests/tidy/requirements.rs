//! The map from requirement to test: docs/requirements.md is generated from `shows:` marks and must be current.
//!
//! docs/requirements.tsv lists every id with the reason for which it is still open, its statement and, where no single test can show
//! the whole row, the sides of its check. A mark is a doc line `shows: ID, ID scale=done/asked, ID side=name` above a test.
//! Invariant: a row with sides is shown when each of them has a mark at full scale, a row without when one mark is at full scale;
//! fractions are never added up, since two halves may be the same half. `make fix` writes the page; the test only compares.

use crate::tree::{Fault, Source, root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

const PAGE: &str = "docs/requirements.md";
const LIST: &str = "docs/requirements.tsv";
const MARK: &str = concat!("sho", "ws: ");

/// A line of the list.
pub(crate) struct Row {
    id: String,
    reason: String,
    statement: String,
    /// What must be shown apart; empty where one test can show all.
    sides: Vec<String>,
}

/// What one mark says of one id.
pub(crate) struct Shown {
    test: String,
    line: usize,
    side: Option<String>,
    scale: Option<String>,
}

pub(crate) type Marks = BTreeMap<String, Vec<Shown>>;

/// Marks that the list does not allow, marks without a test, and a page that differs from what the marks give.
pub(crate) fn out_of_date() -> Vec<Fault> {
    let list = fs::read_to_string(root().join(LIST)).unwrap();
    let rows = rows(&list);
    assert!(rows.len() > 150, "the list of requirements was not found");
    let (shown, mut faults) = marks(&sources());
    faults.extend(unknown(&rows, &shown));
    let page = render(&rows, &shown);
    let path = root().join(PAGE);
    if std::env::var_os("HOLDFAST_FIX").is_some() {
        fs::write(&path, &page).unwrap();
    }
    if fs::read_to_string(&path).unwrap_or_default() != page {
        faults.push(Fault::new(PAGE, 1, "is not what the marks give; run `make fix`"));
    }
    faults
}

/// The rows of a list.
pub(crate) fn rows(list: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut cells = line.split('\t').map(str::to_owned);
        let mut cell = || cells.next().unwrap_or_default();
        let (id, reason, statement, sides) = (cell(), cell(), cell(), cell());
        let sides = sides.split(',').filter(|side| !side.is_empty()).map(str::to_owned);
        Row {
            id,
            reason,
            statement,
            sides: sides.collect(),
        }
    };
    list.lines().map(row).collect()
}

/// All marks by id, and those that cannot be read.
pub(crate) fn marks(sources: &[Source]) -> (Marks, Vec<Fault>) {
    let (mut shown, mut faults) = (Marks::new(), Vec::new());
    for source in sources {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some((_, mark)) = line
                .trim_start()
                .strip_prefix("///")
                .and_then(|rest| rest.split_once(MARK))
            else {
                continue;
            };
            let fault = |what: String| Fault::new(&source.path, number + 1, what);
            let name = lines[number..].iter().take(12).find_map(|line| function_name(line));
            let Some(name) = name else {
                faults.push(fault("a `shows:` mark above no test".to_owned()));
                continue;
            };
            for part in mark.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                let test = format!("{}::{name}", source.path);
                match read(part, test, number + 1) {
                    Ok((id, found)) => shown.entry(id).or_default().push(found),
                    Err(what) => faults.push(fault(what)),
                }
            }
        }
    }
    (shown, faults)
}

/// One part of a mark: an id, and what limits it.
fn read(part: &str, test: String, line: usize) -> Result<(String, Shown), String> {
    let mut words = part.split_whitespace();
    let id = words.next().unwrap_or_default().to_owned();
    let mut found = Shown {
        test,
        line,
        side: None,
        scale: None,
    };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let place = match key {
            "side" => &mut found.side,
            "scale" if is_a_part(value) => &mut found.scale,
            "scale" => {
                return Err(format!(
                    "`{word}` of `{id}` is not done/asked with less done than asked"
                ));
            }
            _ => return Err(format!("`{word}` of `{id}` is neither side=name nor scale=done/asked")),
        };
        if place.replace(value.to_owned()).is_some() {
            return Err(format!("`{id}` has two of `{key}`"));
        }
    }
    Ok((id, found))
}

/// Whether it is `n/m` with 0 < n < m.
fn is_a_part(scale: &str) -> bool {
    let numbers = scale.split_once('/').and_then(|(done, asked)| {
        let (done, asked): (u64, u64) = (done.parse().ok()?, asked.parse().ok()?);
        Some((done, asked))
    });
    numbers.is_some_and(|(done, asked)| 0 < done && done < asked)
}

/// Marks whose id or side the list does not know, and those that leave the side open where there are some.
pub(crate) fn unknown(rows: &[Row], shown: &Marks) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (id, tests) in shown {
        let row = rows.iter().find(|row| &row.id == id);
        for test in tests {
            let what = match (row, &test.side) {
                (None, _) => format!("shows `{id}`, which {LIST} does not know"),
                (Some(row), None) if !row.sides.is_empty() => {
                    format!("shows `{id}` without a side; it has {}", row.sides.join(", "))
                }
                (Some(row), Some(side)) if !row.sides.contains(side) => {
                    format!("shows `{id}` side={side}, which {LIST} does not know")
                }
                _ => continue,
            };
            let path = test.test.split("::").next().unwrap_or_default();
            faults.push(Fault::new(path, test.line, what));
        }
    }
    faults
}

fn function_name(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("fn ")?;
    let name = rest.split(['(', '<']).next()?;
    (!line.trim_start().starts_with("//")).then_some(name)
}

/// `shown`, or what is still missing.
fn state(row: &Row, tests: &[Shown]) -> String {
    let whole: BTreeSet<Option<&str>> = tests
        .iter()
        .filter(|test| test.scale.is_none())
        .map(|test| test.side.as_deref())
        .collect();
    let missing = row.sides.iter().filter(|side| !whole.contains(&Some(side.as_str())));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    match row.sides.is_empty() {
        true if whole.is_empty() => "partial".to_owned(),
        false if !missing.is_empty() => format!("partial: lacks {}", missing.join(", ")),
        _ => "shown".to_owned(),
    }
}

/// The page that the marks give.
pub(crate) fn render(rows: &[Row], shown: &Marks) -> String {
    let mut page = String::from(
        "# Requirements and the tests that show them\n\nGenerated by `make fix` from the `shows:` marks of the tests and docs/requirements.tsv; not edited by hand.\n\
         `partial` means that every test that shows the row runs below the scale that the row asks for, or that a side of it is shown by no test at full scale.\n\n\
         | id | requirement | state | shown by |\n|---|---|---|---|\n",
    );
    for row in rows {
        let (state, tests) = match shown.get(&row.id) {
            None => (format!("open: {}", row.reason), String::new()),
            Some(tests) => {
                let names: Vec<String> = tests.iter().map(name).collect();
                (state(row, tests), names.join("<br>"))
            }
        };
        let (id, statement) = (&row.id, &row.statement);
        writeln!(page, "| {id} | {statement} | {state} | {tests} |").expect("a string takes every line");
    }
    page
}

fn name(shown: &Shown) -> String {
    let side = shown.side.iter().map(|side| format!("side {side}"));
    let limits: Vec<String> = side.chain(shown.scale.clone()).collect();
    match limits.is_empty() {
        true => format!("`{}`", shown.test),
        false => format!("`{}` ({})", shown.test, limits.join(", ")),
    }
}
