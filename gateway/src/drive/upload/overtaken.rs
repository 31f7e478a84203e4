//! Rows of an upload that another gateway has named meanwhile.
//!
//! A client that moves to another gateway leaves one behind that still makes durable what it received, and names it while the other one
//! goes on from what was named before. Both cut one content from one row on, so both come to the same rows: whoever finds that rows
//! were named passes by its own of them and names those behind.
//! Invariant: nothing is named behind rows that are not known to be the same, down to the digests of their pages.
//! Not here: tails, and commands that are refused for anything else (`session`, `resume`).

use crate::drive::upload::Stage;
use crate::drive::upload::session::Unnamed;
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::UploadId;
use protocol::codes as group_codes;
use protocol::metadata::upload::{ResumableState, RowRun, SessionState, Survival};
use protocol::wire_error::Failure;

/// Rows that somebody else has named, by their count, and that were not compared yet: the group lists the rows of the open page alone.
#[derive(Default)]
pub(super) struct Passed(Vec<RowRun>);

impl Passed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the first `rows` of `runs`, or all when they are fewer, with the pages that end behind them; answers how many.
    fn take_from(&mut self, runs: &mut Vec<RowRun>, rows: u64) -> u64 {
        let mut left = rows;
        while left > 0
            && let Some(run) = runs.first_mut()
        {
            let count = usize::try_from(left).map_or(run.rows.len(), |left| left.min(run.rows.len()));
            left -= count as u64;
            if count == run.rows.len() {
                self.0.push(runs.remove(0));
            } else {
                let page_end = None;
                let rows = run.rows.drain(..count).collect();
                self.0.push(RowRun { rows, page_end });
            }
        }
        rows - left
    }

    /// Whether these are the last rows of the session.
    fn are_last_of(&self, session: &SessionState) -> bool {
        let mut ends: Vec<Digest> = Vec::new();
        let mut open: Vec<BlockRow> = Vec::new();
        for run in &self.0 {
            open.extend(&run.rows);
            if let Some(end) = run.page_end {
                ends.push(end);
                open.clear();
            }
        }
        let is_open = if ends.is_empty() {
            session.open_rows.ends_with(&open)
        } else {
            session.open_rows == open
        };
        is_open && session.page_digests.ends_with(&ends)
    }
}

impl Stage {
    /// Passes by the rows of `unnamed` that somebody else has named, as `refusal` says of a command behind the first `position` rows.
    /// Answers how many rows are named or passed by then; while these are fewer than the session has, none of `unnamed` is left. Where
    /// they are as many, also the least that the session's blocks survive: those of others are among them.
    ///
    /// Errors: the refusal, when it is about something else or the rows are others.
    pub(super) async fn pass_by(
        &self,
        upload: UploadId,
        mut position: u64,
        (unnamed, passed): (&mut Unnamed, &mut Passed),
        refusal: Failure,
    ) -> Result<(u64, Option<Survival>), Failure> {
        let told = refusal.fields.get("position").and_then(|told| told.parse::<u64>().ok());
        let is_behind = |named: &u64| group_codes::WRONG_POSITION.is(&refusal) && *named > position;
        let Some(mut named) = told.filter(is_behind) else {
            return Err(refusal);
        };
        loop {
            position += passed.take_from(unnamed.runs_mut(), named - position);
            if position < named {
                return Ok((position, None));
            }
            let ResumableState::Open { session, survival, .. } = self.core.resumable(&self.caller, upload).await?
            else {
                return Err(refusal);
            };
            if session.rows > position {
                // It has gone on since it refused.
                named = session.rows;
                continue;
            }
            if session.rows < position || !passed.are_last_of(&session) {
                return Err(refusal);
            }
            *passed = Passed::default();
            return Ok((position, survival));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Passed;
    use model::authorize::Principal;
    use model::digest::Digest;
    use model::entry::BlockRow;
    use model::id::{DriveId, EntryId, UploadId, UserId};
    use protocol::metadata::upload::{RowRun, SessionState, UploadTarget};

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn rows(bytes: &[u8]) -> Vec<BlockRow> {
        let row = |byte: &u8| BlockRow {
            digest: digest(*byte),
            size: 1,
        };
        bytes.iter().map(row).collect()
    }

    fn run(bytes: &[u8], page_end: Option<u8>) -> RowRun {
        RowRun {
            rows: rows(bytes),
            page_end: page_end.map(digest),
        }
    }

    fn session(pages: &[u8], open: &[u8]) -> SessionState {
        let drive = DriveId(1);
        SessionState {
            upload: UploadId { drive, number: 1 },
            principal: Principal {
                user: UserId(1),
                device: None,
                is_admin: false,
            },
            target: UploadTarget::Entry(EntryId { drive, number: 2 }),
            base_version: None,
            declared_bytes: None,
            is_resumable: true,
            content_type: None,
            rows: 0,
            row_bytes: 0,
            pages: 0,
            open_rows: rows(open),
            page_digests: pages.iter().copied().map(digest).collect(),
            tail: None,
        }
    }

    #[test]
    fn rows_are_passed_by_with_the_ends_of_their_pages() {
        let whole = || vec![run(&[1, 2, 3], Some(100)), run(&[4, 5], None)];
        let cases = [
            (0, vec![], whole()),
            (
                2,
                vec![run(&[1, 2], None)],
                vec![run(&[3], Some(100)), run(&[4, 5], None)],
            ),
            (3, vec![run(&[1, 2, 3], Some(100))], vec![run(&[4, 5], None)]),
            (
                4,
                vec![run(&[1, 2, 3], Some(100)), run(&[4], None)],
                vec![run(&[5], None)],
            ),
            (5, whole(), vec![]),
            (6, whole(), vec![]),
        ];
        for (count, wanted, left) in cases {
            let (mut passed, mut runs) = (Passed::default(), whole());
            assert_eq!(passed.take_from(&mut runs, count), count.min(5));
            assert_eq!((passed.0, runs), (wanted, left), "{count}");
        }
    }

    #[test]
    fn what_was_passed_by_is_what_the_group_has_or_is_refused() {
        let within = Passed(vec![run(&[2], None), run(&[3], None)]);
        assert!(within.are_last_of(&session(&[], &[2, 3])));
        assert!(within.are_last_of(&session(&[100], &[1, 2, 3])));
        let others: [&[u8]; 4] = [&[2], &[3, 2], &[2, 3, 4], &[]];
        for other in others {
            assert!(!within.are_last_of(&session(&[], other)), "{other:?}");
        }
        let across = Passed(vec![run(&[2, 3], Some(101)), run(&[4], None)]);
        assert!(across.are_last_of(&session(&[100, 101], &[4])));
        let others: [(&[u8], &[u8]); 5] = [
            (&[100], &[4]),
            (&[101, 100], &[4]),
            (&[100, 101], &[]),
            (&[100, 101], &[3, 4]),
            (&[100, 101], &[5]),
        ];
        for (pages, open) in others {
            assert!(!across.are_last_of(&session(pages, open)), "{pages:?} {open:?}");
        }
        let at_an_end = Passed(vec![run(&[2, 3], Some(101))]);
        assert!(at_an_end.are_last_of(&session(&[101], &[])));
        assert!(!at_an_end.are_last_of(&session(&[101], &[2])));
    }
}
