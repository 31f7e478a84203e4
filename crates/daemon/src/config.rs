//! From a TOML file to a checked configuration: text, then the raw form, then the checked form, which alone travels.
//!
//! Invariants: unknown keys are refused (raw types carry `#[serde(deny_unknown_fields)]`); every error names the file, the line
//! where there is one, and what to do; all problems of the check are told at once.
//! Not here: what the keys mean (each service owns its section) and secrets, which never stand in a configuration file.

use serde::de::DeserializeOwned;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Largest configuration file that is read: a hundred times the longest example.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The raw form of a configuration: what the file may say.
///
/// Implementors carry `#[derive(Deserialize)]` and `#[serde(deny_unknown_fields)]`, on every nested table too.
pub trait RawConfig: DeserializeOwned {
    /// The checked form, in which wrong values cannot be written.
    type Checked;

    /// Checks values and their relations, and gives every problem that it finds.
    fn check(self) -> Result<Self::Checked, Vec<Problem>>;
}

/// One thing that is wrong with a configuration's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key as a path, such as `node.disks`; list positions by number, such as `node.disks.0.path`.
    pub key: String,
    /// What is wrong, such as `is 0`.
    pub what: String,
    /// What to do, such as `set it to at least 1`.
    pub remedy: String,
}

impl Problem {
    /// A problem of the value at `key`.
    #[must_use]
    pub fn new(key: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Why a configuration cannot be used; its text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, each with its line (counted from 1) where one is known. Never empty.
    pub faults: Vec<Fault>,
}

/// One line of a `ConfigError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": {}; {}", fault.what, fault.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads and checks the configuration in `file`.
///
/// Errors: the file cannot be read, is no TOML, has unknown, missing or mistyped keys, or its values do not pass the check.
pub fn load<Raw: RawConfig>(file: &Path) -> Result<Raw::Checked, ConfigError> {
    let fail = |what: String, remedy: &str| {
        Err(ConfigError {
            file: file.to_owned(),
            faults: vec![Fault {
                line: None,
                what,
                remedy: remedy.to_owned(),
            }],
        })
    };
    match std::fs::metadata(file) {
        Err(error) => {
            return fail(
                format!("read it: {error}"),
                "give the path of an existing, readable file",
            );
        }
        Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
            return fail(
                format!("is {} bytes long", metadata.len()),
                "give a configuration file below 1 MiB",
            );
        }
        Ok(_) => {}
    }
    match std::fs::read_to_string(file) {
        Ok(text) => parse::<Raw>(file, &text),
        Err(error) => fail(format!("read it: {error}"), "give the path of a readable file in UTF-8"),
    }
}

/// Checks the configuration `text`; `file` is only named in errors.
///
/// Errors: as `load`, without those of reading.
pub fn parse<Raw: RawConfig>(file: &Path, text: &str) -> Result<Raw::Checked, ConfigError> {
    let fail = |faults| ConfigError {
        file: file.to_owned(),
        faults,
    };
    let raw = toml::from_str::<Raw>(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        let remedy = remedy_for(error.message()).to_owned();
        // The parser's message may have lines of its own; one fault is one line.
        fail(vec![Fault {
            line,
            what: error.message().replace('\n', " "),
            remedy,
        }])
    })?;
    raw.check().map_err(|problems| {
        let faults = problems
            .into_iter()
            .map(|problem| Fault {
                line: line_of_key(text, &problem.key),
                what: format!("`{}` {}", problem.key, problem.what),
                remedy: problem.remedy,
            })
            .collect();
        fail(faults)
    })
}

fn remedy_for(message: &str) -> &'static str {
    if message.contains("unknown field") {
        "remove it or correct its spelling"
    } else if message.contains("missing field") {
        "add it"
    } else if message.contains("invalid type") || message.contains("invalid value") {
        "give a value of the expected type"
    } else {
        "correct it"
    }
}

/// The line, counted from 1, of the byte at `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The line of the deepest part of `key` that the text has; `None` when it has not even the first.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut line = None;
    let mut value = DeValue::Table(root.into_inner());
    for part in key.split('.') {
        value = match value {
            DeValue::Table(table) => match table.into_iter().find(|(name, _)| name.get_ref() == part) {
                None => return line,
                Some((name, inner)) => {
                    line = Some(line_of(text, name.span().start));
                    inner.into_inner()
                }
            },
            DeValue::Array(array) => {
                let position: usize = part.parse().ok()?;
                match array.into_iter().nth(position) {
                    None => return line,
                    Some(element) => {
                        line = Some(line_of(text, element.span().start));
                        element.into_inner()
                    }
                }
            }
            _ => return line,
        };
    }
    line
}

#[cfg(test)]
mod tests;
