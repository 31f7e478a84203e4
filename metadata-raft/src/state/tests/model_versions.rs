//! Random steps on files with versions, against a naive twin that keeps every version as a list of blocks.
//!
//! After each command the state must agree with itself; after the waiting work both must show the same versions of every file, and the
//! drive must be charged for exactly the blocks that the twin still names.

use super::copies::copy;
use super::touched::Keeper;
use super::versions::{numbers, restore, retain, rows_of};
use super::waiting::follow;
use super::{Bench, row};
use model::entry::BlockRow;
use model::id::EntryId;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use std::collections::{BTreeMap, BTreeSet};

const MINUTE_MS: u64 = 60_000;

#[derive(Clone, Debug)]
enum Step {
    Put { file: u8, content: u8 },
    Restore { file: u8, version: u8, is_based: bool },
    Copy { file: u8, to: u8 },
    Purge { file: u8 },
    Keep { versions: u8 },
    Last { minutes: u8 },
    Age { minutes: u8 },
    Work,
}

fn step() -> impl Strategy<Value = Step> {
    let byte = any::<u8>;
    prop_oneof![
        8 => (byte(), byte()).prop_map(|(file, content)| Step::Put { file, content }),
        4 => (byte(), byte(), any::<bool>())
            .prop_map(|(file, version, is_based)| Step::Restore { file, version, is_based }),
        2 => (byte(), byte()).prop_map(|(file, to)| Step::Copy { file, to }),
        1 => byte().prop_map(|file| Step::Purge { file }),
        1 => (1_u8..8).prop_map(|versions| Step::Keep { versions }),
        1 => (1_u8..60).prop_map(|minutes| Step::Last { minutes }),
        3 => (0_u8..20).prop_map(|minutes| Step::Age { minutes }),
        2 => proptest::strategy::Just(Step::Work),
    ]
}

/// A version of the twin.
#[derive(Clone, Debug)]
struct Content {
    number: u64,
    rows: Vec<BlockRow>,
    /// In minutes, since when another is behind it.
    old_since: Option<u64>,
}

/// What the twin knows: all versions of each file, oldest first.
struct Twin {
    files: BTreeMap<u8, (EntryId, Vec<Content>)>,
    versions_max: usize,
    age_minutes: u64,
    now_minutes: u64,
}

impl Twin {
    fn current(&self, file: u8) -> Option<&Content> {
        self.files.get(&file)?.1.last()
    }

    fn commit(&mut self, file: u8, rows: Vec<BlockRow>) {
        let (now, max) = (self.now_minutes, self.versions_max);
        let (_, versions) = self.files.get_mut(&file).unwrap();
        let number = versions.last().map_or(1, |last| last.number + 1);
        if let Some(last) = versions.last_mut() {
            last.old_since = Some(now);
        }
        versions.push(Content {
            number,
            rows,
            old_since: None,
        });
        while versions.len() > max {
            versions.remove(0);
        }
    }

    /// What the waiting work leaves.
    fn work(&mut self) {
        let (now, age, max) = (self.now_minutes, self.age_minutes, self.versions_max);
        for (_, versions) in self.files.values_mut() {
            versions.retain(|version| version.old_since.is_none_or(|since| since + age > now));
            while versions.len() > max {
                versions.remove(0);
            }
        }
    }

    fn charged(&self) -> u64 {
        let all = self.files.values().flat_map(|(_, versions)| versions);
        let named: BTreeSet<(model::digest::Digest, u32)> = all
            .flat_map(|version| version.rows.iter().map(|row| (row.digest, row.size)))
            .collect();
        named.iter().map(|(_, size)| u64::from(*size)).sum()
    }
}

fn content(byte: u8) -> Vec<BlockRow> {
    let mut rows = vec![row(&format!("x{}", byte % 4), 10), row(&format!("y{}", byte % 9), 7)];
    rows.truncate(usize::from(byte % 3));
    if byte % 7 > 2 {
        rows.push(row(&format!("z{}", byte % 16), 5));
    }
    rows
}

fn path(file: u8) -> String {
    format!("/f{}", file % 4)
}

struct Pair {
    bench: Bench,
    twin: Twin,
}

impl Pair {
    fn new() -> Self {
        let mut bench = Bench::with_epoch(1 << 40, 60 * MINUTE_MS);
        retain(&mut bench, Some(5), Some(30 * 60)).unwrap();
        let twin = Twin {
            files: BTreeMap::new(),
            versions_max: 5,
            age_minutes: 30,
            now_minutes: 0,
        };
        Self { bench, twin }
    }

    fn put(&mut self, file: u8, rows: &[BlockRow]) {
        let base = self.twin.current(file).map(|current| current.number);
        let is_same = self.twin.current(file).is_some_and(|current| current.rows == rows);
        let put = self.bench.put(&path(file), base, rows).unwrap();
        assert_eq!(put.is_new_version, !is_same);
        if is_same {
            return;
        }
        let id = put.view.entry.id;
        self.twin.files.entry(file).or_insert((id, Vec::new()));
        self.twin.commit(file, rows.to_vec());
    }

    fn restore(&mut self, file: u8, pick: u8, is_based: bool) {
        let Some((id, versions)) = self.twin.files.get(&file).cloned() else {
            return;
        };
        let current = versions.last().unwrap();
        // One number below and one above what is there, so that refusals come too.
        let wanted = u64::from(pick) % (current.number + 2);
        let base = is_based.then_some(current.number);
        let restored = restore(&mut self.bench, id, wanted, base);
        let Some(old) = versions.iter().find(|version| version.number == wanted) else {
            // By age a version may wait for its sweep; the twin takes it away with the work alone, as the state does.
            assert_eq!(restored.unwrap_err().code, "version_not_found");
            return;
        };
        restored.unwrap();
        if old.rows != current.rows {
            self.twin.commit(file, old.rows.clone());
        }
    }

    fn copy(&mut self, file: u8, to: u8) {
        let Some((id, versions)) = self.twin.files.get(&file).cloned() else {
            return;
        };
        let copied = copy(&mut self.bench, id, &path(to));
        if self.twin.files.contains_key(&to) {
            assert_eq!(copied.unwrap_err().code, "name_taken");
            return;
        }
        let id = copied.unwrap().view.entry.id;
        self.twin.files.insert(to, (id, Vec::new()));
        self.twin.commit(to, versions.last().unwrap().rows.clone());
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put { file, content: byte } => self.put(file % 4, &content(*byte)),
            Step::Restore {
                file,
                version,
                is_based,
            } => self.restore(file % 4, *version, *is_based),
            Step::Copy { file, to } => self.copy(file % 4, to % 4),
            Step::Purge { file } => {
                if let Some((id, _)) = self.twin.files.remove(&(file % 4)) {
                    self.bench.purge(id).unwrap();
                }
            }
            Step::Keep { versions } => {
                retain(&mut self.bench, Some(u32::from(*versions)), None).unwrap();
                self.twin.versions_max = usize::from(*versions);
                // A job that has not come by would leave more than the twin has.
                self.work();
            }
            Step::Last { minutes } => {
                retain(&mut self.bench, None, Some(60 * u64::from(*minutes))).unwrap();
                self.twin.age_minutes = u64::from(*minutes);
            }
            Step::Age { minutes } => {
                self.bench.advance(u64::from(*minutes) * MINUTE_MS);
                self.twin.now_minutes += u64::from(*minutes);
            }
            Step::Work => self.work(),
        }
        self.bench.sound();
    }

    fn work(&mut self) {
        follow(&mut self.bench);
        self.twin.work();
        for (file, (id, versions)) in &self.twin.files {
            let wanted: Vec<u64> = versions.iter().rev().map(|version| version.number).collect();
            assert_eq!(numbers(&self.bench, *id), wanted, "file {file}");
            for version in versions {
                assert_eq!(rows_of(&self.bench, *id, version.number).unwrap(), version.rows);
            }
        }
        assert_eq!(self.bench.usage().charged_bytes, self.twin.charged());
        assert_eq!(self.bench.usage().files, self.twin.files.len() as u64);
    }
}

proptest! {
    #![proptest_config(Config { cases: 96, failure_persistence: None, ..Config::default() })]

    #[test]
    fn versions_come_and_go_as_in_the_naive_twin(steps in proptest::collection::vec(step(), 1..100)) {
        let mut pair = Pair::new();
        let mut keeper = Keeper::default();
        for step in &steps {
            pair.step(step);
            keeper.look(&pair.bench);
            // Nothing was done meanwhile.
            let renewed = keeper.renewed;
            keeper.look(&pair.bench);
            assert_eq!(keeper.renewed, renewed);
        }
        pair.work();
        pair.bench.sound();
        keeper.look(&pair.bench);
        assert!(keeper.used > 0);
    }
}
