//! What users did in a world and what they were answered, in the order in which it happened.
//!
//! Contents are made from a tag and nothing else, so that whoever reads one knows which write it is of, and whether every byte is.
//! Not here: what must hold of it (`oracle`).

use crate::oracle::linearizability::Event;
use crate::world::proof::CONCURRENCY_MIN;
use bytes::Bytes;
use model::id::EntryId;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A name in one of the world's folders, by number.
pub type NameNumber = usize;
/// Which content.
pub type Tag = u64;

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A new file of this content under a free name.
    Create(NameNumber, Tag),
    /// A new version of this content behind this one.
    Write(EntryId, u64, Tag),
    /// The present content.
    Read(EntryId),
    /// Who has this name.
    Look(NameNumber),
    /// Another name, which must be free.
    Rename(EntryId, NameNumber),
    /// Into the trash.
    Trash(EntryId),
    /// Who has the names of this folder.
    List(usize),
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A file was made or got this version.
    Wrote(EntryId, u64),
    /// The version and what it holds.
    Content(u64, Tag),
    /// Who has the name; nobody when `None`.
    Has(Option<EntryId>),
    /// It was done.
    Done,
    /// Who has the names of the folder.
    Names(Vec<(NameNumber, EntryId)>),
    /// Refused for a reason that says something of the state.
    Refused(Refusal),
    /// Refused for a reason that says nothing, with no effect.
    Nothing,
    /// Nobody knows whether it happened.
    Unknown,
}

/// Reasons that say something of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is taken.
    NameTaken,
    /// Another version is the newest.
    OtherVersion,
}

/// An operation.
pub type Done = Event<(Ask, Answer)>;

/// An operation that ended at `returned`; whether it happened is not known when the answer says so.
#[must_use]
pub fn done(called: u64, returned: u64, ask: Ask, answer: Answer) -> Done {
    Event {
        called,
        returned: (answer != Answer::Unknown).then_some(returned),
        operation: (ask, answer),
    }
}

/// What happened; clones are the same.
#[derive(Clone, Default)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    now: u64,
    tags: Tag,
    open: usize,
    open_max: usize,
    overlapping: usize,
    answered: usize,
    done: Vec<Done>,
    violations: Vec<String>,
}

impl History {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Counters and whole elements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A content that no other write has.
    #[must_use]
    pub fn fresh_tag(&self) -> Tag {
        let mut inner = self.inner();
        inner.tags += 1;
        inner.tags
    }

    /// An operation is called; when.
    #[must_use]
    pub fn called(&self) -> u64 {
        let mut inner = self.inner();
        inner.now += 1;
        inner.open += 1;
        inner.open_max = inner.open_max.max(inner.open);
        inner.overlapping += usize::from(inner.open >= CONCURRENCY_MIN);
        inner.now
    }

    /// It returned.
    pub fn returned(&self, called: u64, ask: Ask, answer: Answer) {
        let mut inner = self.inner();
        inner.now += 1;
        inner.open -= 1;
        inner.answered += usize::from(answer != Answer::Unknown);
        let operation = done(called, inner.now, ask, answer);
        inner.done.push(operation);
    }

    /// How many operations have an answer.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.inner().answered
    }

    /// Something that must never be was answered.
    pub fn accuse(&self, violation: String) {
        self.inner().violations.push(violation);
    }

    /// Everything that was done, and what must never be among it.
    #[must_use]
    pub fn read(&self) -> (Vec<Done>, Vec<String>) {
        let inner = self.inner();
        (inner.done.clone(), inner.violations.clone())
    }

    /// How many operations overlapped at most.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.inner().open_max
    }

    /// How many operations began beside enough others (`proof`).
    #[must_use]
    pub fn overlapping(&self) -> usize {
        self.inner().overlapping
    }
}

/// The content of a tag: its number and then bytes that follow from it; of 1 byte more than 8 to 300 KiB, inline, in copies or coded.
#[must_use]
pub fn content(tag: Tag) -> Bytes {
    let mut generator = ChaCha8Rng::seed_from_u64(tag);
    let bytes_max = [100, 4_000, 15_000, 60_000, 300_000][usize::try_from(tag % 5).expect("below five")];
    let length = usize::try_from(9 + generator.next_u64() % bytes_max).expect("some hundred thousand fit");
    let mut bytes = vec![0; length];
    bytes[..8].copy_from_slice(&tag.to_le_bytes());
    generator.fill_bytes(&mut bytes[8..]);
    Bytes::from(bytes)
}

/// The tag whose content `bytes` are, every one of them.
#[must_use]
pub fn tag_of(bytes: &[u8]) -> Option<Tag> {
    let (number, _) = bytes.split_first_chunk::<8>()?;
    let tag = Tag::from_le_bytes(*number);
    (content(tag) == bytes).then_some(tag)
}
