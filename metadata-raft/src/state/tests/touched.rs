//! Whoever keeps an answer about a drive is told that it still holds, or the new one: against a twin that asks anew each time.

use super::collection::take_lease;
use super::repacking::{gather, repackable, switch, thin};
use super::{Bench, PROFILE, code, path, request_key, row};
use crate::state::query::all_entries;
use bytes::Bytes;
use model::authorize::Principal;
use model::id::{EntryId, GroupId, Incarnation, ROOT_ENTRY, RowVersion, UserId};
use protocol::frame;
use protocol::metadata::drive::EntryRef;
use protocol::metadata::query::{DriveAsk, DriveMark, DriveQuery};
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::user::UserCommand;
use protocol::metadata::{Command, Query, QueryAnswer, RequestLife};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};

/// What somebody keeps of a bench's drive, and how often it could be used.
#[derive(Default)]
pub(super) struct Keeper {
    kept: BTreeMap<Bytes, (DriveMark, Bytes)>,
    entries: BTreeSet<u64>,
    pub(super) used: usize,
    pub(super) renewed: usize,
}

fn since(bench: &Bench, ask: DriveAsk, seen: Option<DriveMark>) -> Result<(DriveMark, Option<Bytes>), Failure> {
    let query = DriveQuery {
        drive: bench.drive,
        principal: Some(bench.owner),
        ask,
    };
    match bench.query(&Query::DriveSince(query, seen))? {
        QueryAnswer::Since(mark, answer) => Ok((mark, answer)),
        other => panic!("{other:?}"),
    }
}

impl Keeper {
    /// Asks for every entry that there was, both ways.
    pub(super) fn look(&mut self, bench: &Bench) {
        let present = all_entries(&bench.kv, bench.drive).unwrap();
        self.entries.extend(present.iter().map(|record| record.shown.number));
        for number in self.entries.clone() {
            let entry = EntryId {
                drive: bench.drive,
                number,
            };
            let asks = [
                DriveAsk::Get(EntryRef::Id(entry)),
                DriveAsk::List {
                    folder: EntryRef::Id(entry),
                    limit: 3,
                    page_token: None,
                },
                DriveAsk::ReadManifest {
                    entry,
                    version: None,
                    range: None,
                },
                DriveAsk::ReadManifest {
                    entry,
                    version: Some(1),
                    range: None,
                },
                DriveAsk::ReadRows {
                    entry,
                    version: None,
                    first: 0,
                },
                DriveAsk::ListVersions {
                    entry,
                    before: None,
                    limit: 100,
                },
            ];
            for ask in asks {
                self.compare(bench, ask);
            }
        }
    }

    fn compare(&mut self, bench: &Bench, ask: DriveAsk) {
        let key = frame::encode(&ask).unwrap();
        let kept = self.kept.get(&key).cloned();
        let told = since(bench, ask.clone(), kept.as_ref().map(|(mark, _)| *mark));
        let anew = bench.ask(ask.clone()).map(|answer| frame::encode(&answer).unwrap());
        match (told, anew) {
            (Ok((mark, Some(answer))), Ok(anew)) => {
                assert_eq!(answer, anew, "{ask:?}");
                self.renewed += 1;
                self.kept.insert(key, (mark, answer));
            }
            (Ok((mark, None)), Ok(anew)) => {
                let (seen, answer) = kept.expect("only who keeps an answer is told that it holds");
                assert_eq!((seen, &answer), (mark, &anew), "a kept answer is stale: {ask:?}");
                self.used += 1;
            }
            (Err(told), Err(anew)) => assert_eq!(told.code, anew.code, "{ask:?}"),
            (told, anew) => panic!("{ask:?}: told {told:?}, and anew {anew:?}"),
        }
    }
}

#[test]
fn an_answer_holds_until_a_command_touches_the_drive_and_no_longer() {
    let mut bench = Bench::new(1 << 30);
    let get = || DriveAsk::Get(EntryRef::Path(path("/f")));
    bench.put("/f", None, &[row("a", 10)]).unwrap();
    let (mark, answer) = since(&bench, get(), None).unwrap();
    assert!(answer.is_some(), "who keeps nothing is told the answer");
    assert_eq!(since(&bench, get(), Some(mark)).unwrap(), (mark, None));
    bench.advance(5_000);
    assert_eq!(code(bench.mkdir("/f")), "name_taken");
    assert_eq!(
        since(&bench, get(), Some(mark)).unwrap(),
        (mark, None),
        "neither time nor what was refused touches a drive"
    );
    bench.mkdir("/other").unwrap();
    let (next, answer) = since(&bench, get(), Some(mark)).unwrap();
    assert!(next.index > mark.index && answer.is_some(), "{next:?}");
    for other in [
        DriveMark {
            group: GroupId(2),
            ..next
        },
        DriveMark {
            incarnation: Incarnation(2),
            ..next
        },
        DriveMark { index: 0, ..next },
    ] {
        assert!(since(&bench, get(), Some(other)).unwrap().1.is_some(), "{other:?}");
    }
}

/// The tree has not changed, and its feed says nothing: what is kept names places that hold no more.
#[test]
fn a_repair_ends_what_is_kept_about_its_drive() {
    let mut bench = Bench::new(1 << 30);
    let entry = bench.put("/f", None, &[row("a", 10)]).unwrap().view.entry.id;
    let ask = || DriveAsk::ReadManifest {
        entry,
        version: None,
        range: None,
    };
    let (mark, answer) = since(&bench, ask(), None).unwrap();
    let QueryAnswer::Manifest(manifest) = frame::decode(&answer.unwrap()).unwrap() else {
        panic!("asked for a manifest")
    };
    let repaired = UploadCommand::SetStripe {
        drive: bench.drive,
        profile: PROFILE,
        stripe: manifest.stripes[0].id,
        row_version: RowVersion(1),
        astray: Vec::new(),
        is_damaged: false,
    };
    bench.run(Command::Upload(repaired)).unwrap();
    assert!(since(&bench, ask(), Some(mark)).unwrap().1.is_some());
}

/// The blocks lie elsewhere, and their old stripe goes at once.
#[test]
fn a_repacking_ends_what_is_kept_about_its_drive() {
    const LEASE: u64 = 9;
    let mut bench = Bench::new(1 << 30);
    let (_, entry) = thin(&mut bench);
    let ask = || DriveAsk::ReadManifest {
        entry,
        version: None,
        range: None,
    };
    take_lease(&mut bench, 1, LEASE).unwrap();
    let (mark, _) = since(&bench, ask(), None).unwrap();
    let found = repackable(&bench, None);
    let repacking = gather(&mut bench, LEASE, &found);
    assert_eq!(since(&bench, ask(), Some(mark)).unwrap(), (mark, None));
    switch(&mut bench, &repacking).unwrap();
    assert!(since(&bench, ask(), Some(mark)).unwrap().1.is_some());
}

#[test]
fn a_repeat_of_a_command_touches_nothing() {
    let mut bench = Bench::new(1 << 30);
    let key = request_key(RequestLife::Day);
    let content = bench.content(&[row("a", 10)], &[row("a", 10)]);
    let command = bench.commit_command("/f", None, content);
    bench.apply(Some(key), command.clone()).unwrap();
    let root = || DriveAsk::Get(EntryRef::Path(path("/f")));
    let (mark, _) = since(&bench, root(), None).unwrap();
    bench.apply(Some(key), command).unwrap();
    assert_eq!(since(&bench, root(), Some(mark)).unwrap(), (mark, None));
}

#[test]
fn whoever_may_not_read_is_refused_whatever_mark_he_has() {
    let mut bench = Bench::new(1 << 30);
    bench.put("/f", None, &[row("a", 10)]).unwrap();
    let get = || DriveAsk::Get(EntryRef::Path(path("/f")));
    let (mark, _) = since(&bench, get(), None).unwrap();
    let owner = bench.owner;
    bench.owner.user = UserId::new(bench.drive.slot(), 9);
    assert_eq!(code(since(&bench, get(), Some(mark))), "not_found");
    bench.owner = owner;
    let admin = Principal {
        user: UserId::new(bench.drive.slot(), 5),
        device: None,
        is_admin: true,
    };
    let disable = UserCommand::PatchUser {
        principal: admin,
        user: owner.user,
        quota_bytes: None,
        is_disabled: Some(true),
        password_hash: None,
    };
    bench.run(Command::User(disable)).unwrap();
    assert_eq!(code(since(&bench, get(), Some(mark))), "user_disabled");
    let delete = UserCommand::DeleteUser {
        principal: admin,
        user: owner.user,
    };
    bench.run(Command::User(delete)).unwrap();
    let enable = UserCommand::PatchUser {
        principal: admin,
        user: owner.user,
        quota_bytes: Some(1 << 20),
        is_disabled: Some(false),
        password_hash: None,
    };
    bench.run(Command::User(enable)).unwrap();
    assert!(
        since(&bench, get(), Some(mark)).unwrap().1.is_some(),
        "an account that came back is looked at anew"
    );
}

#[test]
fn what_does_not_follow_from_the_drive_alone_cannot_be_kept() {
    let bench = Bench::new(1 << 30);
    let folder = EntryId {
        drive: bench.drive,
        number: ROOT_ENTRY,
    };
    for ask in [
        DriveAsk::Usage,
        DriveAsk::Facts,
        DriveAsk::Retention,
        DriveAsk::FindBlocks(Vec::new()),
        DriveAsk::Feed {
            scope: folder,
            after: None,
            limit: 1,
        },
    ] {
        assert_eq!(code(since(&bench, ask, None)), "denied");
    }
    let of_nobody = DriveQuery {
        drive: bench.drive,
        principal: None,
        ask: DriveAsk::Get(EntryRef::Id(folder)),
    };
    assert_eq!(code(bench.query(&Query::DriveSince(of_nobody, None))), "denied");
}

/// A mark that an earlier release left out: index 0 until the first command.
#[test]
fn a_drive_without_a_mark_has_one_that_ends_with_its_first_command() {
    let mut bench = Bench::new(1 << 30);
    bench.put("/f", None, &[row("a", 10)]).unwrap();
    let key = crate::state::keys::touched(bench.drive);
    kv::seam::Kv::write(&bench.kv, vec![kv::seam::Change::Delete(key)]).unwrap();
    let get = || DriveAsk::Get(EntryRef::Path(path("/f")));
    let (mark, _) = since(&bench, get(), None).unwrap();
    assert_eq!(mark.index, 0);
    assert_eq!(since(&bench, get(), Some(mark)).unwrap(), (mark, None));
    bench.put("/f", Some(1), &[row("b", 10)]).unwrap();
    assert!(since(&bench, get(), Some(mark)).unwrap().1.is_some());
}
