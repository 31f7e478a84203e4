//! How the files of a batch are laid into commands, before any of their bytes is read.
//!
//! Pure: from names and lengths alone, so that a batch that must be one command is refused before its body comes.
//! Invariants: every file is in one command, in order; no command passes its bytes, however the contents are cut.

use super::WantedFile;
use model::limits::{BATCH_FILES_MAX, BLOCK_BYTES_MIN, COMMAND_BYTES_MAX, PAGE_BLOCKS_MIN};
use protocol::metadata::drive::Place;
use protocol::metadata::upload::UploadTarget;
use std::ops::Range;

/// The envelope, and the stripes' own records: a few of at most some hundred bytes.
const AROUND_BYTES: usize = 16 << 10;
/// A file's digest, its ids and numbers.
const FILE_BYTES: usize = 128;
/// One number and one length in front of a name of a path.
const NAME_AROUND_BYTES: usize = 12;
/// A row in a page and one in a stripe, with its place.
const BLOCK_BYTES: usize = 96;
/// A page's digest and count.
const PAGE_BYTES: usize = 40;

/// The files of each command; an empty batch has none.
pub(super) fn commands_of(files: &[WantedFile]) -> Vec<Range<usize>> {
    let mut commands: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, file) in files.iter().enumerate() {
        let weight = bytes_max(file);
        match commands.last_mut() {
            Some(last) if bytes + weight <= COMMAND_BYTES_MAX && last.len() < BATCH_FILES_MAX => {
                last.end = at + 1;
                bytes += weight;
            }
            _ => {
                commands.push(at..at + 1);
                bytes = AROUND_BYTES + weight;
            }
        }
    }
    commands
}

/// What a file adds to its command at most.
fn bytes_max(file: &WantedFile) -> usize {
    let Ok(target) = &file.target else { return 0 };
    let names = match target {
        UploadTarget::Place {
            place: Place::Path(path),
            ..
        } => {
            let bytes = path.names().iter().map(|name| name.as_str().len() + NAME_AROUND_BYTES);
            bytes.sum()
        }
        UploadTarget::Place {
            place: Place::In { name, .. },
            ..
        } => name.as_str().len(),
        UploadTarget::Entry(_) => 0,
    };
    let content_type = file.content_type.as_ref().map_or(0, String::len);
    let blocks = usize::try_from(file.size)
        .unwrap_or(usize::MAX)
        .div_ceil(BLOCK_BYTES_MIN);
    let pages = blocks.div_ceil(PAGE_BLOCKS_MIN);
    FILE_BYTES + names + content_type + blocks * BLOCK_BYTES + pages * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::{AROUND_BYTES, bytes_max, commands_of};
    use crate::drive::upload::file_batch::WantedFile;
    use model::authorize::Principal;
    use model::digest::{Digest, StripeHash};
    use model::entry::BlockRow;
    use model::id::{DiskId, DriveId, EntryId, RowVersion, UserId};
    use model::limits::{BATCH_FILES_MAX, BLOCK_BYTES_MIN, COMMAND_BYTES_MAX};
    use model::name::{DrivePath, EntryName};
    use model::profile::{Domain, ProfileId};
    use model::stripe::{Astray, StripeForm, StripeId};
    use model::time::WallTime;
    use protocol::codes;
    use protocol::frame::encode;
    use protocol::metadata::drive::Place;
    use protocol::metadata::file_batch::{BatchedFile, FileBatch};
    use protocol::metadata::upload::{NewBlock, NewStripe, PageRows, Survival, UploadCommand, UploadTarget};
    use protocol::metadata::{Command, Envelope, RequestKey, RequestLife};

    fn at(path: &str, size: u64) -> WantedFile {
        let place = Place::Path(DrivePath::parse(path).unwrap());
        WantedFile {
            target: Ok(UploadTarget::Place {
                place,
                with_parents: true,
            }),
            base_version: Some(u64::MAX),
            size,
            content_type: None,
        }
    }

    /// Stripes of so many blocks, each with all fragments astray.
    fn stripes_of(mut left: usize) -> Vec<NewStripe> {
        let row = BlockRow {
            digest: Digest([255; 32]),
            size: u32::MAX,
        };
        let new = NewBlock {
            row,
            offset: u32::MAX,
            sealed_bytes: u32::MAX,
        };
        let mut stripes = Vec::new();
        while left > 0 {
            let here = left.min(300);
            left -= here;
            let astray = |index| Astray {
                index,
                disk: Some(DiskId(u32::MAX)),
            };
            stripes.push(NewStripe {
                id: StripeId(u128::MAX),
                profile: ProfileId::Dev,
                form: StripeForm {
                    stripe_bytes: u32::MAX,
                    k: 5,
                    m: 4,
                    stripe_hash: StripeHash([255; 32]),
                },
                row_version: RowVersion(u64::MAX),
                astray: (0..9).map(astray).collect(),
                blocks: vec![new; here],
            });
        }
        stripes
    }

    /// The command for these files when every number is as long as it can be and every block as short.
    fn encoded(files: &[WantedFile]) -> usize {
        let row = BlockRow {
            digest: Digest([255; 32]),
            size: u32::MAX,
        };
        let blocks = |file: &WantedFile| match file.target {
            Ok(_) => (file.size as usize).div_ceil(BLOCK_BYTES_MIN),
            Err(_) => 0,
        };
        let batched = files.iter().filter_map(|file| {
            let target = file.target.clone().ok()?;
            let names = match &target {
                UploadTarget::Place {
                    place: Place::Path(path),
                    ..
                } => path.names().len(),
                _ => 1,
            };
            let rows = vec![row; blocks(file)];
            let pages = rows.chunks(32).map(|rows| PageRows {
                digest: Digest([255; 32]),
                rows: rows.to_vec(),
            });
            Some(BatchedFile {
                target,
                base_version: file.base_version,
                fresh: vec![u64::MAX; names],
                size: u64::MAX,
                digest: Digest([255; 32]),
                pages: pages.collect(),
                content_type: file.content_type.clone(),
            })
        });
        let principal = Principal {
            user: UserId(u64::MAX),
            device: None,
            is_admin: true,
        };
        let batch = FileBatch {
            principal,
            drive: DriveId(u64::MAX),
            is_atomic: true,
            stripes: stripes_of(files.iter().map(blocks).sum()),
            files: batched.collect(),
            survival: Survival {
                survives: Domain::Region,
                is_degraded: true,
            },
        };
        let key = RequestKey {
            source: u64::MAX,
            id: u128::MAX,
            asked: [255; 32],
            life: RequestLife::Day,
            made_hour: Some(u32::MAX),
        };
        let envelope = Envelope {
            request_id: Some(key),
            wall: WallTime(u64::MAX),
            command: Command::Upload(UploadCommand::CommitBatch(batch)),
        };
        encode(&envelope).unwrap().len()
    }

    #[test]
    fn a_thousand_small_files_are_one_command() {
        let files: Vec<_> = (0..1000)
            .map(|number| at(&format!("/photos/2026/november/IMG_{number:05}.jpg"), 4096))
            .collect();
        let commands = commands_of(&files);
        assert_eq!((commands.len(), commands[0].clone()), (1, 0..BATCH_FILES_MAX));
        assert!(commands_of(&[]).is_empty());
    }

    #[test]
    fn no_command_passes_its_bytes_and_every_file_is_in_one() {
        let deep = "/d".repeat(99);
        let wide = format!("/{}", "n".repeat(255)).repeat(15);
        let mut shapes: Vec<(&str, Vec<WantedFile>)> = vec![
            ("short", (0..1000).map(|n| at(&format!("/{n}"), 12 << 10)).collect()),
            ("deep", (0..1000).map(|n| at(&format!("{deep}/{n}"), 0)).collect()),
            (
                "wide",
                (0..1000).map(|n| at(&format!("{wide}/{n}"), 12 << 10)).collect(),
            ),
            ("long", vec![at("/f", 12 << 20)]),
            ("halves", vec![at("/f", 6 << 20), at("/g", 6 << 20)]),
        ];
        let in_folder = |n: usize| WantedFile {
            target: Ok(UploadTarget::Place {
                place: Place::In {
                    parent: EntryId {
                        drive: DriveId(u64::MAX),
                        number: u64::MAX,
                    },
                    name: EntryName::new(&format!("{n}{}", "x".repeat(250))).unwrap(),
                },
                with_parents: false,
            }),
            content_type: Some("t".repeat(255)),
            ..at("/x", 1)
        };
        shapes.push(("in a folder", (0..1000).map(in_folder).collect()));
        let refused = |n: usize| WantedFile {
            target: Err(codes::CROSS_DRIVE.failure()),
            ..at("/x", n as u64)
        };
        shapes.push(("refused", (0..1000).map(refused).collect()));
        for (what, files) in shapes {
            let mut next = 0;
            for command in commands_of(&files) {
                assert_eq!(command.start, next, "{what}");
                next = command.end;
                let taken = &files[command];
                let promised: usize = AROUND_BYTES + taken.iter().map(bytes_max).sum::<usize>();
                let bytes = encoded(taken);
                assert!(
                    bytes <= promised && promised <= COMMAND_BYTES_MAX,
                    "{what}: {bytes} of {promised}"
                );
            }
            assert_eq!(next, files.len(), "{what}");
        }
    }
}
