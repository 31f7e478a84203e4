//! Batches of small files: each file as its own commit would be, all or nothing, quota, bounds, repeats.

use super::{Bench, code, digest, path, place, request_key, row, survival};
use model::entry::{BlockPlace, BlockRow};
use model::id::EntryId;
use model::limits::COMMAND_OPERATIONS_MAX;
use model::name::EntryName;
use protocol::metadata::drive::{EntryRef, Place};
use protocol::metadata::file_batch::{BatchCommitted, BatchedFile, FileBatch, FileOutcome, told};
use protocol::metadata::query::{ChangeType, DriveAsk};
use protocol::metadata::upload::{PageRows, UploadCommand, UploadTarget};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey, RequestLife};
use protocol::wire_error::Failure;

fn file(bench: &mut Bench, at: &str, base_version: Option<u64>, rows: &[BlockRow]) -> BatchedFile {
    let page = PageRows {
        digest: digest(&format!("page {rows:?}")),
        rows: rows.to_vec(),
    };
    let names = path(at).names().len();
    BatchedFile {
        target: UploadTarget::Place {
            place: place(at),
            with_parents: true,
        },
        base_version,
        fresh: (0..names).map(|_| bench.fresh()).collect(),
        size: rows.iter().map(|row| u64::from(row.size)).sum(),
        digest: digest(&format!("file {rows:?}")),
        pages: if rows.is_empty() { Vec::new() } else { vec![page] },
        content_type: None,
    }
}

/// A batch whose files' blocks lie in one stripe, each once.
fn batch(bench: &mut Bench, is_atomic: bool, files: Vec<BatchedFile>) -> FileBatch {
    let rows = files.iter().flat_map(|file| &file.pages).flat_map(|page| &page.rows);
    let mut rows: Vec<BlockRow> = rows.copied().collect();
    rows.sort_by_key(|row| row.digest);
    rows.dedup();
    FileBatch {
        principal: bench.owner,
        drive: bench.drive,
        is_atomic,
        stripes: if rows.is_empty() {
            Vec::new()
        } else {
            vec![bench.stripe(&rows)]
        },
        files,
        survival: survival(),
    }
}

fn command(batch: &FileBatch) -> Command {
    Command::Upload(UploadCommand::CommitBatch(batch.clone()))
}

fn answer(result: Result<CommandAnswer, Failure>) -> Result<BatchCommitted, Failure> {
    match result? {
        CommandAnswer::Batch(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

fn send(bench: &mut Bench, is_atomic: bool, files: Vec<BatchedFile>) -> Result<BatchCommitted, Failure> {
    let batch = batch(bench, is_atomic, files);
    let command = command(&batch);
    let result = answer(bench.run(command));
    bench.sound();
    result
}

/// `new`, `version N`, `same`, or the code of the refusal.
fn word(outcome: &FileOutcome) -> String {
    match outcome {
        FileOutcome::New { .. } => "new".to_owned(),
        FileOutcome::Known {
            view,
            is_new_version: true,
        } => format!("version {}", view.entry.version),
        FileOutcome::Known {
            is_new_version: false, ..
        } => "same".to_owned(),
        FileOutcome::Refused(failure) => failure.code.clone(),
    }
}

fn words(answer: &BatchCommitted) -> Vec<String> {
    answer.files.iter().map(word).collect()
}

fn blocks_of(bench: &Bench, entry: EntryId) -> Vec<BlockPlace> {
    let ask = DriveAsk::ReadManifest {
        entry,
        version: None,
        range: None,
    };
    match bench.ask(ask).unwrap() {
        QueryAnswer::Manifest(manifest) => manifest.blocks.into_iter().map(|block| block.block.place).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_a_batch_share_a_stripe_and_are_there_with_all_that_the_answer_says() {
    let mut bench = Bench::new(1 << 30);
    let folder = bench.mkdir("/d").unwrap();
    let files = vec![
        file(&mut bench, "/d/a", None, &[row("a", 10)]),
        file(&mut bench, "/d/b", None, &[row("b", 20), row("c", 30)]),
        file(&mut bench, "/empty", None, &[]),
        file(&mut bench, "/new/deep/a", None, &[row("a", 10)]),
        file(&mut bench, "/new/deep/b", None, &[row("b", 20)]),
    ];
    let done = send(&mut bench, true, files).unwrap();
    assert_eq!(words(&done), ["new"; 5]);
    assert_eq!(done.survival, survival());
    let mut stripes = Vec::new();
    for (at, outcome) in ["/d/a", "/d/b", "/empty", "/new/deep/a", "/new/deep/b"]
        .into_iter()
        .zip(&done.files)
    {
        let FileOutcome::New { number, folder } = outcome else {
            panic!("{outcome:?}")
        };
        let view = bench.get(at).unwrap();
        let (parent, above) = &done.folders[*folder as usize];
        assert_eq!(
            (view.entry.id.number, view.entry.parent.unwrap().number),
            (*number, *parent)
        );
        assert_eq!(view.path, format!("{above}/{}", view.entry.name));
        assert_eq!((view.entry.version, view.entry.revision), (1, 1));
        assert_eq!((view.entry.created_at, view.entry.modified_at), (done.time, done.time));
        for place in blocks_of(&bench, view.entry.id) {
            let BlockPlace::Stripe { stripe, .. } = place else {
                panic!("{place:?}")
            };
            stripes.push(stripe);
        }
    }
    stripes.dedup();
    assert_eq!(stripes.len(), 1, "all blocks lie in one stripe");
    assert_eq!(done.folders.len(), 3);
    assert_eq!(done.folders[0], (folder.number, "/d".to_owned()));
    assert_eq!(
        bench.usage().charged_bytes,
        60,
        "a content that comes twice is charged once"
    );
}

#[test]
fn what_is_refused_leaves_nothing_and_the_others_are_there() {
    let mut bench = Bench::new(1 << 30);
    bench.put("/taken", None, &[row("old", 5)]).unwrap();
    bench.mkdir("/folder").unwrap();
    let files = vec![
        file(&mut bench, "/taken", None, &[row("a", 10)]),
        file(&mut bench, "/good", None, &[row("b", 20)]),
        file(&mut bench, "/good", None, &[row("c", 30)]),
        file(&mut bench, "/good", Some(1), &[row("d", 40)]),
        file(&mut bench, "/taken", Some(7), &[row("e", 50)]),
        file(&mut bench, "/taken", Some(7), &[row("old", 5)]),
        file(&mut bench, "/folder", Some(1), &[row("f", 60)]),
        file(&mut bench, "/taken/below", None, &[row("g", 70)]),
        file(&mut bench, "/other", Some(3), &[row("h", 80)]),
        file(&mut bench, "/last", None, &[row("a", 10)]),
    ];
    let done = send(&mut bench, false, files).unwrap();
    let expected = [
        "name_taken",
        "new",
        "name_taken",
        "version 2",
        "version_conflict",
        "same",
        "not_a_file",
        "parent_not_folder",
        "not_found",
        "new",
    ];
    assert_eq!(words(&done), expected);
    let FileOutcome::Refused(failure) = &done.files[0] else {
        panic!()
    };
    assert_eq!(failure.detail, "", "what the code says anyway is not kept");
    let existing = bench.get("/taken").unwrap().entry.id;
    assert_eq!(failure.fields["existing"], existing.to_string());
    assert!(told(failure.clone()).detail.starts_with("Something of that name"));
    // Blocks of refused files are gone; that of the first is the last one's too.
    assert_eq!(bench.usage().charged_bytes, 5 + 20 + 40 + 10);
    let ask = DriveAsk::FindBlocks(["c", "e", "f", "g", "h"].map(digest).to_vec());
    let QueryAnswer::Blocks(found) = bench.ask(ask).unwrap() else {
        panic!()
    };
    assert!(found.found.is_empty(), "{found:?}");
}

#[test]
fn a_batch_that_is_all_or_nothing_is_nothing_when_one_file_is_refused() {
    let mut bench = Bench::new(100);
    bench.put("/taken", None, &[row("old", 5)]).unwrap();
    let before = bench.everything();
    let good = file(&mut bench, "/new/good", None, &[row("a", 10)]);
    for (bad, expected) in [
        (file(&mut bench, "/taken", None, &[row("b", 10)]), "name_taken"),
        (file(&mut bench, "/new/good", None, &[row("b", 10)]), "name_taken"),
        (file(&mut bench, "/x", None, &[row("b", 90)]), "quota_exceeded"),
    ] {
        let failure = send(&mut bench, true, vec![good.clone(), good_as(&good, "/y"), bad]).unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.fields["item"].as_str()),
            (expected, "2")
        );
        assert_eq!(bench.everything(), before);
    }
}

fn good_as(good: &BatchedFile, at: &str) -> BatchedFile {
    BatchedFile {
        target: UploadTarget::Place {
            place: place(at),
            with_parents: false,
        },
        fresh: vec![77],
        ..good.clone()
    }
}

#[test]
fn the_quota_refuses_the_files_that_pass_it_and_no_others() {
    let mut bench = Bench::new(100);
    bench.put("/old", None, &[row("old", 40)]).unwrap();
    let files = vec![
        file(&mut bench, "/a", None, &[row("a", 30)]),
        file(&mut bench, "/b", None, &[row("b", 31)]),
        file(&mut bench, "/c", None, &[row("c", 30)]),
        file(&mut bench, "/d", None, &[row("d", 1)]),
        file(&mut bench, "/e", None, &[row("old", 40), row("a", 30)]),
    ];
    let done = send(&mut bench, false, files).unwrap();
    assert_eq!(words(&done), ["new", "quota_exceeded", "new", "quota_exceeded", "new"]);
    let FileOutcome::Refused(failure) = &done.files[1] else {
        panic!()
    };
    assert_eq!(
        (&failure.fields["quota_bytes"][..], &failure.fields["used_bytes"][..]),
        ("100", "40")
    );
    assert_eq!(bench.usage().charged_bytes, 100);
}

#[test]
fn a_repeat_gets_the_first_answer_and_another_batch_under_its_id_is_refused() {
    let mut bench = Bench::new(1 << 30);
    bench.put("/taken", None, &[row("old", 5)]).unwrap();
    let files = vec![
        file(&mut bench, "/a", None, &[row("a", 10)]),
        file(&mut bench, "/taken", None, &[row("b", 10)]),
        file(&mut bench, "/taken", Some(1), &[row("c", 10)]),
    ];
    let first = batch(&mut bench, false, files);
    let key = request_key(RequestLife::Day);
    let done = answer(bench.apply(Some(key), command(&first))).unwrap();
    assert_eq!(words(&done), ["new", "name_taken", "version 2"]);
    let before = bench.everything();
    // Another try has other numbers and other stripes.
    let again = FileBatch {
        stripes: Vec::new(),
        ..first.clone()
    };
    assert_eq!(answer(bench.apply(Some(key), command(&again))).unwrap(), done);
    assert_eq!(bench.everything(), before);
    let other = RequestKey { asked: [4; 32], ..key };
    assert_eq!(code(bench.apply(Some(other), command(&again))), "request_id_reused");
    bench.sound();
}

#[test]
fn a_batch_is_bounded_and_blocks_that_went_away_refuse_it_whole() {
    let mut bench = Bench::new(1 << 30);
    assert_eq!(code(send(&mut bench, false, Vec::new())), "malformed_command");
    let many: Vec<_> = (0..=COMMAND_OPERATIONS_MAX)
        .map(|at| file(&mut bench, &format!("/{at}"), None, &[]))
        .collect();
    assert_eq!(code(send(&mut bench, false, many.clone())), "command_too_large");
    let deep: Vec<_> = (0..COMMAND_OPERATIONS_MAX / 50)
        .map(|at| file(&mut bench, &format!("/{at}{}", "/d".repeat(51)), None, &[]))
        .collect();
    // 51 folders for each of 20 files.
    let done = send(&mut bench, false, deep).unwrap();
    assert_eq!(words(&done)[18..], ["new", "command_too_large"]);
    let done = send(&mut bench, true, many[..COMMAND_OPERATIONS_MAX].to_vec());
    assert_eq!(code(done), "name_taken", "the first folders have such names");
    let numbered =
        (0..COMMAND_OPERATIONS_MAX).map(|at| file(&mut bench, &format!("/f{at}"), None, &[row(&format!("{at}"), 9)]));
    let numbered: Vec<_> = numbered.collect();
    let done = send(&mut bench, true, numbered).unwrap();
    assert_eq!(words(&done), ["new"; COMMAND_OPERATIONS_MAX]);
    for is_atomic in [false, true] {
        let lacking = vec![
            file(&mut bench, "/x", None, &[row("0", 9)]),
            file(&mut bench, "/y", None, &[row("gone", 9)]),
        ];
        let mut lacking = batch(&mut bench, is_atomic, lacking);
        lacking.stripes.clear();
        let failure = answer(bench.run(command(&lacking))).unwrap_err();
        assert_eq!(failure.code, "need_blocks");
        assert_eq!(failure.fields["blocks"], digest("gone").to_hex());
        assert_eq!(code(bench.get("/x")), "not_found");
    }
}

/// Names that the command does not have are in its answer.
#[test]
fn the_answer_is_bounded_as_the_command_is() {
    let mut bench = Bench::new(1 << 30);
    let mut deep = String::new();
    for _ in 0..14 {
        deep += &format!("/{}", "n".repeat(255));
        bench.mkdir(&deep).unwrap();
    }
    let mut files = Vec::new();
    for at in 0..450 {
        let parent = bench.mkdir(&format!("{deep}/{at}")).unwrap();
        let target = UploadTarget::Place {
            place: Place::In {
                parent,
                name: EntryName::new("x").unwrap(),
            },
            with_parents: false,
        };
        files.push(BatchedFile {
            target,
            ..file(&mut bench, "/x", None, &[])
        });
    }
    let done = send(&mut bench, false, files).unwrap();
    let bytes = protocol::frame::encode(&CommandAnswer::Batch(done.clone()))
        .unwrap()
        .len();
    assert!((1_200_000..1_700_000).contains(&bytes), "{bytes}");
    let words = words(&done);
    let taken = words.iter().filter(|word| *word == "new").count();
    assert_eq!(done.folders.len(), taken);
    assert!(
        taken > 350 && words[taken..].iter().all(|word| word == "command_too_large"),
        "{taken}"
    );
}

/// The naive twin: the same files, each by a commit of its own.
#[test]
fn a_batch_does_what_its_files_would_do_one_after_the_other() {
    const NAMES: [&str; 7] = ["/a", "/b", "/A", "/d", "/d/a", "/d/b", "/a/x"];
    let draw = |round: u64, at: u64, what: u64, below: usize| {
        let hash = model::hash::stable_hash(&[round, at, what].map(u64::to_be_bytes).concat());
        (hash % below as u64) as usize
    };
    let (mut together, mut alone) = (Bench::new(400), Bench::new(400));
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..80 {
        let wanted: Vec<(&str, Option<u64>, Vec<BlockRow>)> = (0..9)
            .map(|at| {
                let base = [None, None, Some(1), Some(2), Some(3)][draw(round, at, 0, 5)];
                let blocks = (0..draw(round, at, 1, 3) as u64)
                    .map(|number| draw(round, at, 2 + number, 40) as u32)
                    .map(|size| row(&format!("{size}"), 10 + size));
                (NAMES[draw(round, at, 9, NAMES.len())], base, blocks.collect())
            })
            .collect();
        let of_batch: Vec<_> = wanted
            .iter()
            .map(|(at, base, rows)| {
                let mut file = file(&mut together, at, *base, rows);
                if let UploadTarget::Place { with_parents, .. } = &mut file.target {
                    *with_parents = false;
                }
                file
            })
            .collect();
        let done = send(&mut together, false, of_batch).unwrap();
        let singly = wanted.iter().map(|(at, base, rows)| match alone.put(at, *base, rows) {
            Ok(committed) if committed.is_new_entry => "new".to_owned(),
            Ok(committed) if committed.is_new_version => format!("version {}", committed.version.number),
            Ok(_) => "same".to_owned(),
            Err(failure) => failure.code,
        });
        let singly: Vec<String> = singly.collect();
        assert_eq!(words(&done), singly, "round {round}: {wanted:?}");
        seen.extend(singly);
        assert_eq!(tree_of(&together), tree_of(&alone), "round {round}");
        assert_eq!(
            together.usage().charged_bytes,
            alone.usage().charged_bytes,
            "round {round}"
        );
    }
    for outcome in [
        "new",
        "version 2",
        "same",
        "name_taken",
        "version_conflict",
        "quota_exceeded",
        "not_found",
    ] {
        assert!(seen.contains(outcome), "{outcome} never came: {seen:?}");
    }
}

fn tree_of(bench: &Bench) -> Vec<(String, u64, u64, u64)> {
    let listing = bench.list("/", 1000, None).unwrap();
    let shown = listing.entries.into_iter();
    shown
        .map(|entry| (entry.name, entry.size, entry.version, entry.revision))
        .collect()
}

#[test]
fn each_file_of_a_batch_is_a_change_of_its_own() {
    let mut bench = Bench::new(1 << 30);
    let files = vec![
        file(&mut bench, "/a", None, &[row("a", 10)]),
        file(&mut bench, "/n/b", None, &[row("b", 10)]),
        file(&mut bench, "/a", None, &[row("c", 10)]),
        file(&mut bench, "/a", Some(1), &[row("d", 10)]),
    ];
    let done = send(&mut bench, false, files).unwrap();
    let QueryAnswer::Changes(changes) = bench.ask_as(None, DriveAsk::Changes { after: 0, limit: 100 }).unwrap() else {
        panic!()
    };
    let told: Vec<_> = changes
        .changes
        .iter()
        .map(|change| (change.sequence, change.change))
        .collect();
    let made = ChangeType::Created;
    assert_eq!(told, [(1, made), (2, made), (3, made), (4, ChangeType::Updated)]);
    assert_eq!(done.position.sequence, 4);
    let stranger = model::authorize::Principal {
        user: model::id::UserId(9),
        device: None,
        is_admin: true,
    };
    let one = file(&mut bench, "/z", None, &[]);
    let mut foreign = batch(&mut bench, false, vec![one]);
    foreign.principal = stranger;
    assert_eq!(code(bench.run(command(&foreign))), "not_found");
    let elsewhere = BatchedFile {
        target: UploadTarget::Place {
            place: Place::In {
                parent: model::id::DriveId(bench.drive.0 + 1).root(),
                name: EntryName::new("x").unwrap(),
            },
            with_parents: false,
        },
        ..file(&mut bench, "/x", None, &[])
    };
    assert_eq!(
        words(&send(&mut bench, false, vec![elsewhere]).unwrap()),
        ["cross_drive"]
    );
    assert!(bench.ask(DriveAsk::Get(EntryRef::Path(path("/n/b")))).is_ok());
}
