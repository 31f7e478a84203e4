//! Names, paths and usernames: what is allowed, what collides, and the table by which it does.
//!
//! Bytes are kept as written. Two entries of a folder collide when their NFC forms are equal; a case-folded key finds twins.
//! Invariant: a stored key depends on the fold table's version, so a table is never changed, only followed by another.
//! Not here: walking a path (`metadata-raft`).

use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, USERNAME_BYTES_MAX};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// Why a name, path or username is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameError {
    /// It has no bytes.
    Empty,
    /// It passes its limit in bytes.
    TooLong,
    /// It is `.` or `..`.
    Dots,
    /// It has a `/` or a NUL or another control character.
    ForbiddenCharacter,
    /// A path does not begin with `/`.
    NotAbsolute,
    /// A path has more parts than a drive is deep.
    TooDeep,
}

impl NameError {
    /// What is wrong and what to do about it, in one sentence.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Empty => "the name is empty; give at least one character",
            Self::TooLong => "the name or path is too long; a name has at most 255 bytes, a path 4096",
            Self::Dots => "`.` and `..` are no names; give the absolute path without them",
            Self::ForbiddenCharacter => "the name holds a slash, a NUL or another control character; leave it out",
            Self::NotAbsolute => "the path does not begin with `/`; give the absolute path",
            Self::TooDeep => "the path passes 100 folders; keep the tree flatter",
        }
    }
}

/// A checked name of an entry, as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryName(String);

impl EntryName {
    /// Checks one name: 1 to 255 bytes, not `.` or `..`, no slash, no control character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if name == "." || name == ".." {
            return Err(NameError::Dots);
        }
        if name.chars().any(|letter| letter == '/' || letter.is_control()) {
            return Err(NameError::ForbiddenCharacter);
        }
        Ok(Self(name.to_owned()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key by which two names collide: the NFC form.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.nfc().collect()
    }

    /// The key by which twins are found: NFC of the lower-cased NFC form.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.nfc().collect::<String>().to_lowercase().nfc().collect()
    }
}

impl TryFrom<String> for EntryName {
    type Error = String;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name).map_err(|error| error.advice().to_owned())
    }
}

impl From<EntryName> for String {
    fn from(name: EntryName) -> Self {
        name.0
    }
}

/// A checked absolute path inside a drive: its names from the root downwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrivePath(Vec<EntryName>);

impl DrivePath {
    /// Reads `/a/b`; `/` is the root. One trailing slash is allowed, empty parts are not.
    pub fn parse(path: &str) -> Result<Self, NameError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let Some(rest) = path.strip_prefix('/') else {
            return Err(if path.is_empty() {
                NameError::Empty
            } else {
                NameError::NotAbsolute
            });
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let names = rest.split('/').map(EntryName::new).collect::<Result<Vec<_>, _>>()?;
        if names.len() > usize::from(DEPTH_MAX) {
            return Err(NameError::TooDeep);
        }
        Ok(Self(names))
    }

    /// From the root downwards; empty for the root.
    #[must_use]
    pub fn names(&self) -> &[EntryName] {
        &self.0
    }

    /// The folder's path and the last name; `None` for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, &EntryName)> {
        let (last, above) = self.0.split_last()?;
        Some((Self(above.to_vec()), last))
    }
}

/// A folded username: 1 to 64 of `a-z 0-9 . _ - @`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Username(String);

impl Username {
    /// Folds ASCII letters to lower case and checks the alphabet.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > USERNAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let folded = name.to_ascii_lowercase();
        let is_allowed =
            |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"._-@".contains(&letter);
        if !folded.bytes().all(is_allowed) {
            return Err(NameError::ForbiddenCharacter);
        }
        Ok(Self(folded))
    }

    /// Folded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Username {
    type Error = String;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name).map_err(|error| error.advice().to_owned())
    }
}

impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::{DrivePath, EntryName, NameError, Username};

    #[test]
    fn bad_names_are_refused_each_for_its_reason() {
        let cases = [
            ("", NameError::Empty),
            (".", NameError::Dots),
            ("..", NameError::Dots),
            ("a/b", NameError::ForbiddenCharacter),
            ("a\0b", NameError::ForbiddenCharacter),
            ("a\nb", NameError::ForbiddenCharacter),
        ];
        for (name, error) in cases {
            assert_eq!(EntryName::new(name), Err(error), "{name:?}");
        }
        assert_eq!(EntryName::new(&"x".repeat(256)), Err(NameError::TooLong));
        assert!(EntryName::new(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn composed_and_decomposed_forms_collide_and_case_makes_twins() {
        let composed = EntryName::new("Caf\u{e9}").unwrap();
        let decomposed = EntryName::new("Cafe\u{301}").unwrap();
        let lower = EntryName::new("caf\u{e9}").unwrap();
        assert_ne!(composed, decomposed);
        assert_eq!(composed.key(), decomposed.key());
        assert_ne!(composed.key(), lower.key());
        assert_eq!(composed.folded(), lower.folded());
    }

    #[test]
    fn paths_are_absolute_and_have_no_dots_or_empty_parts() {
        assert_eq!(DrivePath::parse("/").unwrap().names().len(), 0);
        assert_eq!(DrivePath::parse("/a/b/").unwrap().names().len(), 2);
        assert_eq!(DrivePath::parse("a"), Err(NameError::NotAbsolute));
        assert_eq!(DrivePath::parse(""), Err(NameError::Empty));
        assert_eq!(DrivePath::parse("/a//b"), Err(NameError::Empty));
        assert_eq!(DrivePath::parse("/a/../b"), Err(NameError::Dots));
        assert_eq!(DrivePath::parse(&"/a".repeat(101)), Err(NameError::TooDeep));
        assert_eq!(
            DrivePath::parse(&format!("/{}", "a".repeat(4096))),
            Err(NameError::TooLong)
        );
    }

    #[test]
    fn usernames_fold_to_lower_case_and_keep_their_alphabet() {
        assert_eq!(Username::new("Ada.L@x").unwrap().as_str(), "ada.l@x");
        assert_eq!(Username::new("ad\u{e4}"), Err(NameError::ForbiddenCharacter));
        assert_eq!(Username::new(&"a".repeat(65)), Err(NameError::TooLong));
    }
}
