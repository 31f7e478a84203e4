//! A user's drive in the worlds of these tests: making it, making folders in it, listing it.

#[path = "../shared/founding.rs"]
#[allow(dead_code)]
mod founding;

use super::world::World;
use model::authorize::Principal;
use model::id::{DriveId, EntryId, GroupId};
use model::name::EntryName;
use protocol::metadata::drive::{DriveCommand, EntryRef, Place};
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::{Command, Query, QueryAnswer};

/// The drive group of these worlds.
pub(crate) const GROUP: GroupId = GroupId(1);

/// The user's home drive, and the group that serves it.
#[derive(Clone, Copy)]
pub(crate) struct Drive {
    pub(crate) group: GroupId,
    pub(crate) principal: Principal,
    pub(crate) drive: DriveId,
}

impl Drive {
    /// Makes the user; waits until the group knows its slots.
    pub(crate) async fn create(world: &World) -> Self {
        Self::create_in(world, GROUP, "ada").await
    }

    /// Makes a user of this name, whose slot `group` serves.
    pub(crate) async fn create_in(world: &World, group: GroupId, name: &str) -> Self {
        let (drive, create) = Self::named(group, name);
        world.command(group, None, &create).await.unwrap();
        drive
    }

    /// The drive of the user of this name, and the command that makes both.
    pub(crate) fn named(group: GroupId, name: &str) -> (Self, Command) {
        let (principal, drive) = founding::user(name);
        let named = Self {
            group,
            principal,
            drive,
        };
        (named, founding::create_user(name))
    }

    /// The command that makes the folder of this number in the root.
    pub(crate) fn folder(&self, number: u64) -> Command {
        self.folder_in(self.drive.root(), number)
    }

    /// The command that makes the folder of this number in another one.
    pub(crate) fn folder_in(&self, parent: EntryId, number: u64) -> Command {
        let place = Place::In {
            parent,
            name: EntryName::new(&format!("folder {number:06}")).unwrap(),
        };
        Command::Drive(DriveCommand::CreateFolder {
            principal: self.principal,
            drive: self.drive,
            place,
            with_parents: false,
            fresh: vec![number + 1_000],
        })
    }

    /// Makes folders; each is acknowledged before the next.
    pub(crate) async fn make(&self, world: &World, numbers: std::ops::Range<u64>) {
        for number in numbers {
            match world.command(self.group, None, &self.folder(number)).await {
                // Without a request id a repeat after an unknown outcome meets itself.
                Err(failure) if failure.code == "name_taken" => {}
                answer => drop(answer.unwrap()),
            }
        }
    }

    /// Has the group log nearly a MiB: a command with far more numbers than it needs.
    #[allow(dead_code)]
    pub(crate) async fn fill(&self, world: &World) {
        let command = Command::Drive(DriveCommand::CreateFolder {
            principal: self.principal,
            drive: self.drive,
            place: Place::In {
                parent: self.drive.root(),
                name: EntryName::new("folder").unwrap(),
            },
            with_parents: false,
            fresh: vec![u64::MAX; 90_000],
        });
        // The first makes the folder, the others find its name taken.
        drop(world.command(self.group, None, &command).await);
    }

    /// The query for the first names of the root.
    pub(crate) fn listing(&self) -> Query {
        self.page(self.drive.root(), None)
    }

    /// The query for the names of a folder from `page_token` on.
    pub(crate) fn page(&self, folder: EntryId, page_token: Option<String>) -> Query {
        let ask = DriveAsk::List {
            folder: EntryRef::Id(folder),
            limit: 1000,
            page_token,
        };
        Query::Drive(DriveQuery {
            drive: self.drive,
            principal: Some(self.principal),
            ask,
        })
    }

    /// The names in the root, as a linearizable read gives them.
    pub(crate) async fn names(&self, world: &World) -> Vec<String> {
        match world.query(self.group, &self.listing()).await.unwrap() {
            QueryAnswer::Listing(listing) => listing.entries.into_iter().map(|entry| entry.name).collect(),
            other => panic!("{other:?}"),
        }
    }
}

/// The names of these folders, in the order of a listing.
pub(crate) fn names(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("folder {number:06}")).collect()
}
