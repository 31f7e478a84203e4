//! Scripts of thirty operations, made from a seed, and their run against journal and model.

use crate::model::{Model, options};
use bytes::Bytes;
use disk::{Disk, Draft, Journal, JournalError, Purpose, SegmentNumber, TailPolicy};
use std::sync::Arc;

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choosing operations.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Payload lengths and their fill; `true`: the checksum covers only a header of 8 bytes.
    Append(Vec<(usize, u8, bool)>),
    /// Copies the living record of this rank, with its sequence.
    Copy(usize),
    Roll,
    MarkIdle,
    /// The closed segment of this rank.
    MoveToLimbo(usize),
    /// The closed segment of this rank.
    Unlink(usize),
    /// The process is killed and starts again.
    Reopen,
}

pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) policy: TailPolicy,
    pub(crate) operations: Vec<Operation>,
}

const OPERATIONS: usize = 30;

impl Script {
    pub(crate) fn new(seed: u64, policy: TailPolicy) -> Self {
        let mut rng = Rng::new(seed);
        let operations = (0..OPERATIONS).map(|_| operation(&mut rng)).collect();
        Self {
            seed,
            policy,
            operations,
        }
    }
}

fn operation(rng: &mut Rng) -> Operation {
    match rng.below(20) {
        0 => Operation::Roll,
        1 => Operation::MarkIdle,
        2 => Operation::MoveToLimbo(rng.below(8)),
        3 => Operation::Unlink(rng.below(8)),
        4 | 5 => Operation::Reopen,
        6..=8 => Operation::Copy(rng.below(64)),
        _ => {
            let records = 1 + rng.below(4);
            let most = [60, 400, 3000, 9000][rng.below(4)];
            Operation::Append(
                (0..records)
                    .map(|_| (rng.below(most), rng.next() as u8, rng.below(4) == 0))
                    .collect(),
            )
        }
    }
}

/// A payload whose first eight bytes, where it has them, are its length and a checksum of the rest.
pub(crate) fn payload(length: usize, fill: u8) -> Bytes {
    let mut bytes: Vec<u8> = (0..length).map(|at| fill.wrapping_add((at / 7) as u8) | 1).collect();
    if length >= 8 {
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    Bytes::from(bytes)
}

/// Runs the script to its end or to the first error that is not a full disk; the model knows what was acknowledged.
pub(crate) fn run(script: &Script, disk: &Arc<dyn Disk>, model: &mut Model) -> Result<(), JournalError> {
    let mut journal = open(script, disk, model)?;
    for operation in &script.operations {
        let answer = match operation {
            Operation::Reopen => {
                drop(journal);
                journal = open(script, disk, model)?;
                Ok(())
            }
            other => apply(other, &mut journal, model),
        };
        match answer {
            Ok(()) => {}
            Err(JournalError::Full) => model.refused += 1,
            Err(error) => {
                let later = journal.append(&[Draft::new(16, payload(20, 1))], Purpose::Foreground);
                assert!(
                    later.is_err(),
                    "seed {}: an append after a failure is never acknowledged",
                    script.seed
                );
                return Err(error);
            }
        }
    }
    match journal.close() {
        Err(JournalError::Full) => Ok(()),
        answer => answer,
    }
}

fn open(script: &Script, disk: &Arc<dyn Disk>, model: &mut Model) -> Result<Journal, JournalError> {
    let (journal, recovery) = Journal::open(Arc::clone(disk), "j", options(script.policy))?;
    assert_eq!(recovery.damage, [], "seed {}: a kill damages nothing", script.seed);
    model.moved(&recovery.kept);
    Ok(journal)
}

fn apply(operation: &Operation, journal: &mut Journal, model: &mut Model) -> Result<(), JournalError> {
    match operation {
        Operation::Append(records) => {
            let draft = |(length, fill, is_partial): &(usize, u8, bool)| {
                let header_bytes = (*is_partial && *length >= 8).then_some(8);
                let payload = payload(*length, *fill);
                let middle = payload.len() / 2;
                Draft {
                    kind: 16,
                    sequence: None,
                    payload: vec![payload.slice(..middle), payload.slice(middle..)],
                    header_bytes,
                }
            };
            append(
                journal,
                model,
                &records.iter().map(draft).collect::<Vec<_>>(),
                Purpose::Foreground,
            )
        }
        Operation::Copy(rank) => match model.living(*rank) {
            None => Ok(()),
            Some((sequence, bytes)) => {
                let draft = Draft {
                    kind: 16,
                    sequence: Some(sequence),
                    payload: vec![bytes],
                    header_bytes: None,
                };
                append(journal, model, &[draft], Purpose::Compaction)
            }
        },
        Operation::Roll => journal.roll(),
        Operation::MarkIdle => journal.mark_idle(),
        Operation::MoveToLimbo(rank) => closed(journal, *rank).map_or(Ok(()), |number| journal.move_to_limbo(number)),
        Operation::Unlink(rank) => match closed(journal, *rank) {
            None => Ok(()),
            Some(number) => {
                let gone = model.begin_unlink(number);
                journal.unlink(number)?;
                model.end_unlink(&gone);
                Ok(())
            }
        },
        Operation::Reopen => Ok(()),
    }
}

fn closed(journal: &Journal, rank: usize) -> Option<SegmentNumber> {
    let closed: Vec<SegmentNumber> = journal
        .segments()
        .iter()
        .filter(|info| !info.is_active)
        .map(|info| info.number)
        .collect();
    (!closed.is_empty()).then(|| closed[rank % closed.len()])
}

fn append(journal: &mut Journal, model: &mut Model, drafts: &[Draft], purpose: Purpose) -> Result<(), JournalError> {
    let first = journal.next_sequence();
    let mut next = first;
    let written: Vec<(u64, Bytes)> = drafts
        .iter()
        .map(|draft| {
            let sequence = draft.sequence.unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            (sequence, Bytes::from(draft.payload.concat()))
        })
        .collect();
    model.submit(&written);
    match journal.append(drafts, purpose) {
        Ok(places) => {
            model.acknowledge(&places, &written);
            for (place, (_, bytes)) in places.iter().zip(&written) {
                match journal.reader().payload(*place) {
                    // The power went between the acknowledgement and this.
                    Err(JournalError::Disk(_)) => {}
                    answer => assert!(
                        answer.as_ref() == Ok(bytes),
                        "what was acknowledged is readable at its place {place:?}"
                    ),
                }
            }
            Ok(())
        }
        Err(error) => {
            // Refused before anything was written: the sequences were not used and will be given to others.
            if error == JournalError::Full && next != first && journal.next_sequence() == first {
                model.withdraw(&written);
            }
            Err(error)
        }
    }
}
