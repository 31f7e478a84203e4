//! Commits, blocks, pages, stripes, quota, request ids, determinism.

use super::{Bench, PROFILE, code, digest, request_key, row};
use crate::founding::CUT;
use bytes::Bytes;
use kv::overlay::Overlay;
use model::entry::BlockPlace;
use model::id::{DiskId, DriveId, EntryId, RowVersion, Slot, UserId};
use model::stripe::Astray;
use model::time::Age;
use protocol::frame;
use protocol::metadata::group::{AdoptedSlot, GroupCommand};
use protocol::metadata::query::{DriveAsk, Manifest, StripeCounts};
use protocol::metadata::upload::{DirectContent, InlineBlock, PageRows, UploadCommand};
use protocol::metadata::user::{CutParameters, UserCommand};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer, RequestKey, RequestLife};

pub(super) fn manifest(bench: &Bench, entry: EntryId, range: Option<(u64, u64)>) -> Manifest {
    match bench
        .ask(DriveAsk::ReadManifest {
            entry,
            version: None,
            range,
        })
        .unwrap()
    {
        QueryAnswer::Manifest(manifest) => manifest,
        other => panic!("{other:?}"),
    }
}

/// Leaves an inline block, a degraded stripe, a dying one, told rows and a request id.
pub(super) fn furnish(bench: &mut Bench) {
    let mut content = bench.content(&[row("tiny", 5)], &[]);
    content.inline = Some(InlineBlock {
        row: row("tiny", 5),
        sealed: Bytes::from_static(b"sealed"),
    });
    let command = bench.commit_command("/inline", None, content);
    let key = request_key(RequestLife::Day);
    bench.apply(Some(key), command).unwrap();
    let rows = [row("d1", 10), row("d2", 10)];
    let mut content = bench.content(&rows[..1], &rows);
    content.stripes[0].astray = vec![
        Astray { index: 0, disk: None },
        Astray {
            index: 4,
            disk: Some(DiskId(9)),
        },
    ];
    bench.commit("/degraded", None, content).unwrap();
    bench.put("/again", None, &rows[..1]).unwrap();
    bench.group(GroupCommand::TellRows {
        profile: PROFILE,
        pg_bits: 8,
        versions: vec![RowVersion(1); 256],
    });
    bench.advance(1_000);
}

/// shows: DM-1
/// shows: DM-2
/// shows: D-2.6
#[test]
fn the_first_commit_on_a_base_version_wins_and_versions_count_up() {
    let mut bench = Bench::new(1 << 30);
    let first = bench.put("/f", None, &[row("a", 100)]).unwrap();
    assert!(first.is_new_entry && first.version.number == 1);
    let second = bench.put("/f", Some(1), &[row("b", 100)]).unwrap();
    assert_eq!(
        (second.is_new_entry, second.version.number, second.view.entry.revision),
        (false, 2, 2)
    );
    let late = bench.put("/f", Some(1), &[row("c", 100)]).unwrap_err();
    assert_eq!(
        (late.code.as_str(), late.fields["version"].as_str()),
        ("version_conflict", "2")
    );
    let id = first.view.entry.id;
    let QueryAnswer::Versions(versions) = bench
        .ask(DriveAsk::Versions {
            entry: id,
            before: None,
        })
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(
        versions.iter().map(|version| version.number).collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(code(bench.put("/f", None, &[row("d", 100)])), "name_taken");
    bench.mkdir("/d").unwrap();
    assert_eq!(code(bench.put("/d", Some(1), &[row("d", 100)])), "not_a_file");
    assert_eq!(code(bench.put("/no/f", None, &[row("d", 100)])), "parent_not_found");
    assert_eq!(code(bench.put("/gone", Some(3), &[row("d", 100)])), "not_found");
    bench.sound();
}

/// The requirement asks for the parameters of each version; they are those of its drive, which nothing changes (decision 0024).
///
/// shows: H-P4 scale=1/2
#[test]
fn each_version_tells_its_block_lengths_and_how_its_drive_is_cut() {
    let mut bench = Bench::new(1 << 30);
    let lengths = [300_000, 1_048_576, 262_144, 7];
    let blocks: Vec<_> = (0..4).map(|at| row(&format!("b{at}"), lengths[at])).collect();
    let id = bench.put("/f", None, &blocks).unwrap().view.entry.id;
    bench.put("/f", Some(1), &blocks[1..2]).unwrap();
    for (version, expected) in [(1, &lengths[..]), (2, &lengths[1..2])] {
        let ask = DriveAsk::ReadManifest {
            entry: id,
            version: Some(version),
            range: None,
        };
        let QueryAnswer::Manifest(manifest) = bench.ask(ask).unwrap() else {
            panic!()
        };
        let found: Vec<u32> = manifest.blocks.iter().map(|block| block.block.row.size).collect();
        assert_eq!(found, expected, "version {version}");
        assert_eq!(manifest.drive.cut, CUT, "version {version}");
    }
}

/// shows: H-P4 scale=1/2
#[test]
fn a_drive_keeps_the_cut_parameters_that_it_was_made_with() {
    let mut bench = Bench::new(1 << 30);
    let slot = Slot::of_username("bob");
    bench.group(GroupCommand::AdoptSlots {
        slots: vec![AdoptedSlot { slot, age: Age(0) }],
    });
    let (adas, bobs) = (bench.drive, DriveId::new(slot, 9));
    let finer = CutParameters {
        avg_bytes: 1 << 19,
        ..CUT
    };
    bench.drive = bobs;
    let mut making = bench.create_user("bob", 1 << 30);
    let UserCommand::CreateUser { user, home, .. } = &mut making else {
        panic!()
    };
    *user = UserId::new(slot, 70);
    home.cut = finer;
    bench.run(Command::User(making)).unwrap();
    bench.drive = adas;
    bench.put("/f", None, &[row("a", 100)]).unwrap();
    let (ada, mut bob) = (bench.owner, bench.owner);
    bob.user = UserId::new(slot, 70);
    for (drive, owner, expected) in [(adas, ada, CUT), (bobs, bob, finer)] {
        bench.drive = drive;
        let facts = bench.ask_as(Some(owner), DriveAsk::Facts).unwrap();
        let QueryAnswer::Drive(facts) = facts else { panic!() };
        assert_eq!(facts.cut, expected, "{drive:?}");
    }
}

#[test]
fn equal_content_is_no_conflict_and_makes_no_version() {
    let mut bench = Bench::new(1 << 30);
    bench.put("/f", None, &[row("a", 100)]).unwrap();
    bench.put("/f", Some(1), &[row("b", 100)]).unwrap();
    let again = bench.put("/f", Some(1), &[row("b", 100)]).unwrap();
    assert_eq!(
        (again.is_new_version, again.version.number, again.position.sequence),
        (false, 2, 2)
    );
    assert_eq!(bench.writes, 0);
    bench.sound();
}

#[test]
fn the_quota_holds_to_the_byte_and_a_version_costs_what_it_changed() {
    let mut bench = Bench::new(300);
    bench.put("/f", None, &[row("a", 200)]).unwrap();
    assert_eq!(code(bench.put("/g", None, &[row("b", 101)])), "quota_exceeded");
    bench.put("/g", None, &[row("b", 100)]).unwrap();
    assert_eq!(bench.usage().charged_bytes, 300);
    // Nothing new: blocks that are there cost nothing.
    let content = bench.content(&[row("a", 200), row("b", 100)], &[]);
    bench.commit("/h", None, content).unwrap();
    assert_eq!(code(bench.put("/i", None, &[row("c", 1)])), "quota_exceeded");
    bench.sound();
    let f = bench.get("/f").unwrap().entry.id;
    bench.purge(f).unwrap();
    bench.reap();
    assert_eq!(
        bench.usage().charged_bytes,
        300,
        "the third file still holds both blocks"
    );
    bench.sound();
}

#[test]
fn pages_are_shared_and_blocks_live_as_long_as_somebody_names_them() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 100), row("b", 50)];
    let f = bench.put("/f", None, &rows).unwrap().view.entry.id;
    let same = bench.content(&rows, &[]);
    let g = bench.commit("/g", None, same).unwrap().view.entry.id;
    bench.sound();
    bench.purge(f).unwrap();
    bench.reap();
    assert_eq!(bench.usage().released_bytes, 0);
    bench.purge(g).unwrap();
    bench.sound();
    // A writer counts the page up again before the reaper comes.
    let same = bench.content(&rows, &[]);
    let h = bench.commit("/h", None, same).unwrap().view.entry.id;
    bench.reap();
    assert_eq!(bench.usage().charged_bytes, 150);
    bench.purge(h).unwrap();
    bench.reap();
    assert_eq!((bench.usage().charged_bytes, bench.usage().released_bytes), (0, 150));
    bench.sound();
    // A released block is alive again when it is named in its grace.
    let same = bench.content(&rows, &[]);
    bench.commit("/i", None, same).unwrap();
    assert_eq!((bench.usage().charged_bytes, bench.usage().released_bytes), (150, 0));
    bench.sound();
}

/// shows: D-2.7 scale=1/2
#[test]
fn absent_blocks_are_asked_for_and_nothing_is_left_behind() {
    let mut bench = Bench::new(1 << 30);
    let before = bench.everything();
    let content = bench.content(&[row("a", 100), row("b", 50)], &[row("a", 100)]);
    let failure = bench.commit("/f", None, content).unwrap_err();
    assert_eq!(failure.code, "need_blocks");
    assert_eq!(failure.fields["blocks"], digest("b").to_hex());
    assert_eq!(bench.everything(), before);
}

#[test]
fn a_manifest_names_the_blocks_of_a_range_with_their_places() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 100), row("b", 50), row("c", 70)];
    let id = bench.put("/f", None, &rows).unwrap().view.entry.id;
    let whole = manifest(&bench, id, None);
    assert_eq!(
        whole.blocks.iter().map(|block| block.offset).collect::<Vec<_>>(),
        [0, 100, 150]
    );
    assert_eq!((whole.stripes.len(), whole.next_offset), (1, None));
    let part = manifest(&bench, id, Some((100, 150)));
    assert_eq!(part.blocks.len(), 1);
    assert_eq!(part.blocks[0].block.row, rows[1]);
    assert!(manifest(&bench, id, Some((220, 220))).blocks.is_empty());
    assert_eq!(
        code(bench.ask(DriveAsk::ReadManifest {
            entry: id,
            version: None,
            range: Some((0, 221))
        })),
        "bad_range"
    );
    let gone = DriveAsk::ReadManifest {
        entry: id,
        version: Some(2),
        range: None,
    };
    assert_eq!(code(bench.ask(gone)), "version_not_found");
}

#[test]
fn small_files_lie_inline_and_empty_ones_have_no_page() {
    let mut bench = Bench::new(1 << 30);
    let mut content = bench.content(&[row("tiny", 5)], &[]);
    content.inline = Some(InlineBlock {
        row: row("tiny", 5),
        sealed: Bytes::from_static(b"sealed"),
    });
    let id = bench.commit("/f", None, content).unwrap().view.entry.id;
    let block = &manifest(&bench, id, None).blocks[0].block;
    assert_eq!(block.place, BlockPlace::Inline(Bytes::from_static(b"sealed")));
    let empty = bench.content(&[], &[]);
    let id = bench.commit("/empty", None, empty).unwrap().view.entry.id;
    assert!(manifest(&bench, id, None).blocks.is_empty());
    bench.sound();
}

#[test]
fn a_stripe_of_a_closed_or_coming_birth_epoch_is_refused() {
    let mut bench = Bench::new(1 << 30);
    bench.advance(30 * super::EPOCH_MS);
    let now = bench.epoch();
    assert_eq!(now.0, 30);
    for (born, is_taken) in [(5, false), (6, true), (30, true), (31, false)] {
        let mut content = bench.content(&[row(&format!("{born}"), 10)], &[row(&format!("{born}"), 10)]);
        let id = content.stripes[0].id.0;
        content.stripes[0].id.0 = (id & !0xfff_ffff) | born;
        let result = bench.commit(&format!("/{born}"), None, content);
        assert_eq!(result.is_ok(), is_taken, "{born}");
        if let Err(failure) = result {
            assert_eq!(failure.code, "birth_epoch_closed");
        }
    }
    bench.sound();
}

#[test]
fn a_stripe_counted_under_an_older_row_is_refused() {
    let mut bench = Bench::new(1 << 30);
    let tell = |version| GroupCommand::TellRows {
        profile: PROFILE,
        pg_bits: 8,
        versions: vec![RowVersion(version); 256],
    };
    bench.group(tell(3));
    bench.group(tell(2));
    let failure = bench.put("/f", None, &[row("a", 10)]).unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fields["row_version"].as_str()),
        ("stale_row", "3")
    );
    let mut content = bench.content(&[row("a", 10)], &[row("a", 10)]);
    content.stripes[0].row_version = RowVersion(3);
    bench.commit("/f", None, content).unwrap();
    bench.sound();
}

#[test]
fn malformed_stripes_pages_and_sums_are_refused() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 100), row("b", 50)];
    let good = bench.content(&rows, &rows);
    let check = |bench: &mut Bench, expected: &str, change: &dyn Fn(&mut DirectContent)| {
        let mut content = good.clone();
        change(&mut content);
        assert_eq!(code(bench.commit("/f", None, content)), expected);
    };
    check(&mut bench, "size_mismatch", &|content| content.size += 1);
    check(&mut bench, "malformed_stripe", &|content| {
        content.stripes[0].blocks[1].offset = 5
    });
    check(&mut bench, "malformed_stripe", &|content| {
        content.stripes[0].form.stripe_bytes = 100
    });
    check(&mut bench, "malformed_stripe", &|content| content.stripes[0].form.k = 5);
    check(&mut bench, "malformed_stripe", &|content| {
        content.stripes[0].id.0 ^= 1 << 30
    });
    check(&mut bench, "malformed_stripe", &|content| {
        content.stripes[0].astray = (0..3).map(|index| Astray { index, disk: None }).collect();
    });
    check(&mut bench, "malformed_page", &|content| {
        content.pages.push(PageRows {
            digest: digest("empty"),
            rows: Vec::new(),
        });
    });
    bench.commit("/f", None, good.clone()).unwrap();
    let mut other = bench.content(&rows[..1], &[]);
    other.pages[0].digest = good.pages[0].digest;
    assert_eq!(code(bench.commit("/g", None, other)), "malformed_page");
    let mut reused = bench.content(&[row("z", 9)], &[row("z", 9)]);
    reused.stripes[0].id = good.stripes[0].id;
    assert_eq!(code(bench.commit("/g", None, reused)), "stripe_exists");
    bench.sound();
}

#[test]
fn astray_fragments_queue_a_stripe_and_are_counted_until_a_command_empties_them() {
    let mut bench = Bench::new(1 << 30);
    let mut content = bench.content(&[row("a", 10)], &[row("a", 10)]);
    content.stripes[0].astray = vec![
        Astray { index: 0, disk: None },
        Astray {
            index: 4,
            disk: Some(DiskId(9)),
        },
    ];
    let stripe = content.stripes[0].id;
    bench.commit("/f", None, content).unwrap();
    let queue = |bench: &Bench| match bench.ask_as(None, DriveAsk::DegradedStripes { limit: 10 }).unwrap() {
        QueryAnswer::Stripes(stripes) => stripes,
        other => panic!("{other:?}"),
    };
    let counts = |bench: &Bench| match bench.query(&Query::StripeCounts).unwrap() {
        QueryAnswer::StripeCounts(counts) => counts,
        other => panic!("{other:?}"),
    };
    let healthy = StripeCounts {
        total: 1,
        ..StripeCounts::default()
    };
    let degraded = StripeCounts {
        degraded: 1,
        astray: 2,
        missing: 1,
        ..healthy
    };
    assert_eq!(queue(&bench)[0].astray.len(), 2);
    assert_eq!(counts(&bench), degraded);
    bench.sound();
    let drive = bench.drive;
    let set = move |row_version, is_damaged| {
        Command::Upload(UploadCommand::SetStripe {
            drive,
            profile: PROFILE,
            stripe,
            row_version: RowVersion(row_version),
            astray: Vec::new(),
            is_damaged,
        })
    };
    assert_eq!(code(bench.run(set(0, false))), "stale_row");
    bench.run(set(2, false)).unwrap();
    assert!(queue(&bench).is_empty());
    assert_eq!(counts(&bench), healthy);
    // A damaged stripe's blocks are asked for again, and the new place makes every version whole.
    bench.run(set(2, true)).unwrap();
    assert_eq!(counts(&bench), StripeCounts { damaged: 1, ..healthy });
    let named = bench.content(&[row("a", 10)], &[]);
    assert_eq!(code(bench.commit("/g", None, named)), "need_blocks");
    let f = bench.get("/f").unwrap().entry.id;
    bench.put("/g", None, &[row("a", 10)]).unwrap();
    assert_ne!(manifest(&bench, f, None).stripes[0].id, stripe);
    bench.sound();
    let QueryAnswer::Stripes(dying) = bench.ask_as(None, DriveAsk::DyingStripes { limit: 10 }).unwrap() else {
        panic!()
    };
    assert_eq!(dying.iter().map(|facts| facts.id).collect::<Vec<_>>(), [stripe]);
    let both = StripeCounts {
        total: 2,
        damaged: 1,
        dying: 1,
        ..StripeCounts::default()
    };
    assert_eq!(counts(&bench), both);
}

#[test]
fn the_first_place_of_a_block_stays_and_the_other_is_dead_weight() {
    let mut bench = Bench::new(1 << 30);
    let f = bench.put("/f", None, &[row("a", 10)]).unwrap().view.entry.id;
    let place = manifest(&bench, f, None).stripes[0].id;
    bench.put("/g", None, &[row("a", 10), row("b", 10)]).unwrap();
    assert_eq!(manifest(&bench, f, None).stripes[0].id, place);
    let asked = DriveAsk::FindBlocks(vec![digest("b"), digest("x"), digest("a")]);
    let QueryAnswer::Blocks(found) = bench.ask(asked).unwrap() else {
        panic!()
    };
    assert_eq!(
        found.found.iter().map(|block| block.row).collect::<Vec<_>>(),
        [row("b", 10), row("a", 10)]
    );
    assert_eq!(found.stripes.len(), 2);
    bench.sound();
}

#[test]
fn a_repeated_request_gets_the_first_answer_and_another_one_under_its_id_is_refused() {
    let mut bench = Bench::new(1 << 30);
    let key = RequestKey {
        made_hour: Some(0),
        ..request_key(RequestLife::Hour)
    };
    let content = bench.content(&[row("a", 10)], &[row("a", 10)]);
    let command = bench.commit_command("/f", None, content);
    let first = bench.apply(Some(key), command).unwrap();
    // The second try has other stripes and numbers and meets a taken name: the answer is the first one all the same.
    let content = bench.content(&[row("a", 10)], &[row("a", 10)]);
    let command = bench.commit_command("/f", None, content);
    assert_eq!(bench.apply(Some(key), command.clone()).unwrap(), first);
    assert!(matches!(first, CommandAnswer::Committed(_)));
    let other = RequestKey { asked: [4; 32], ..key };
    assert_eq!(code(bench.apply(Some(other), command.clone())), "request_id_reused");
    let ahead = RequestKey {
        id: 5,
        made_hour: Some(9),
        ..key
    };
    assert_eq!(code(bench.apply(Some(ahead), command.clone())), "outcome_unknown");
    bench.sound();
    bench.advance(3 * 3_600_000);
    assert_eq!(code(bench.apply(Some(key), command)), "outcome_unknown");
    let drive = bench.drive;
    let sweep = Command::Drive(protocol::metadata::drive::DriveCommand::SweepRequests { drive });
    assert_eq!(bench.sweep(sweep).unwrap().operations, 1);
    bench.sound();
}

#[test]
fn age_grows_by_at_most_its_caps_and_never_back() {
    let mut bench = Bench::new(1 << 30);
    let advance = |bench: &mut Bench, term, led_ms| {
        bench.group(GroupCommand::Advance { term, led_ms });
        match bench.query(&Query::Group).unwrap() {
            QueryAnswer::Group(group) => group.counter_ms,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(advance(&mut bench, 1, 1_000), 1_000);
    assert_eq!(advance(&mut bench, 1, 1_500), 1_500);
    assert_eq!(
        advance(&mut bench, 1, 1_200),
        1_500,
        "an overtaken command adds nothing"
    );
    assert_eq!(
        advance(&mut bench, 1, 86_400_000),
        1_500 + 8 * super::EPOCH_MS,
        "a leap is cut to eight epochs"
    );
    assert_eq!(advance(&mut bench, 3, 100), 1_600 + 8 * super::EPOCH_MS);
    assert_eq!(
        advance(&mut bench, 2, 99_000),
        1_600 + 8 * super::EPOCH_MS,
        "an older term adds nothing"
    );
}

#[test]
fn a_group_answers_not_mine_for_slots_that_it_did_not_adopt() {
    let bench = Bench::new(1 << 30);
    let slot = model::id::Slot::new((bench.drive.slot().number() + 1) % 4096).unwrap();
    assert_eq!(code(bench.query(&protocol::metadata::Query::Slot(slot))), "not_mine");
    let control = protocol::metadata::Query::Control(protocol::metadata::query::ControlQuery::Cluster);
    assert_eq!(code(bench.query(&control)), "not_mine");
}

#[test]
fn two_replicas_that_apply_equal_commands_have_equal_bytes() {
    let script = |bench: &mut Bench| {
        let a = bench.mkdir("/a").unwrap();
        bench.put("/a/f", None, &[row("x", 10), row("y", 20)]).unwrap();
        bench.put("/a/f", Some(1), &[row("x", 10), row("z", 20)]).unwrap();
        bench.trash(a).unwrap();
        bench.restore(a).unwrap();
        bench.advance(5_000);
        let job = bench.purge(a).unwrap().job.unwrap();
        bench.finish_job(job);
        bench.reap();
    };
    let (mut one, mut two) = (Bench::new(1 << 30), Bench::new(1 << 30));
    script(&mut one);
    script(&mut two);
    assert_eq!(one.everything(), two.everything());
    // The answer's bytes too, and applying does not touch the store by itself.
    let content = one.content(&[row("q", 1)], &[row("q", 1)]);
    let command = one.commit_command("/q", None, content);
    let envelope = protocol::metadata::Envelope {
        request_id: None,
        wall: Default::default(),
        command,
    };
    let bytes = frame::encode(&envelope).unwrap();
    let mut overlays = [Overlay::new(&one.kv), Overlay::new(&two.kv)];
    let answers = overlays
        .each_mut()
        .map(|overlay| one.state.apply(overlay, 77, &bytes).unwrap());
    assert_eq!(answers[0], answers[1]);
    assert_eq!(one.everything(), two.everything());
}
