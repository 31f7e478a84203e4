//! An account of a world: its drive with some folders, and the ways in which whoever shares it writes and reads there.
//!
//! Its drive lies in a group that is chosen, so that users of several are served by several.
//! Not here: what they do (`workload`, `turnover`).

use crate::world::history::{Tag, content, tag_of};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use gateway::drive::account::NewUser;
use gateway::drive::upload::UploadOrder;
use gateway::drive::{Caller, Core};
use model::authorize::Principal;
use model::error_kind::ErrorKind;
use model::id::{DriveId, EntryId, GroupId, Slot};
use model::name::{DrivePath, EntryName, Username};
use protocol::codes;
use protocol::metadata::drive::{EntryRef, Place};
use protocol::metadata::query::Manifest;
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest time until a cluster is up, or serves again after its faults: some elections, and breakers that close.
const PATIENCE: Duration = Duration::from_secs(60);
const READ_TRIES: usize = 5;
/// Among so many names there is one for each group: they fall to the groups as coins do.
const NAMES_TRIED: u32 = 64;
/// Pause between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// Contents that no client writes, long enough to be coded.
const BEFORE: Tag = (1 << 40) + 3;
const AFTER: Tag = (1 << 40) + 2;

/// Tries until it succeeds; the last failure when it did not in time.
pub async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(failure) if began.elapsed() > PATIENCE => return Err(format!("{}: {}", failure.code, failure.detail)),
            Err(_) => sleep(TRY_AGAIN).await,
        }
    }
}

/// An upload of so many bytes.
#[must_use]
pub fn order(target: UploadTarget, base_version: Option<u64>, length: u64) -> UploadOrder {
    UploadOrder {
        target,
        base_version,
        declared_bytes: Some(length),
        is_body_held_back: false,
        content_type: None,
        key: None,
    }
}

/// What users know of where they are, in whichever life of the gateway. It holds nothing of one, whose port is free once it has died.
#[derive(Clone)]
pub struct Account {
    caller: Caller,
    folders: Vec<EntryId>,
}

impl Account {
    /// Its drive.
    #[must_use]
    pub fn drive(&self) -> DriveId {
        self.caller.home
    }

    /// The same in a life of the gateway.
    #[must_use]
    pub fn at(&self, core: Arc<Core>) -> Home {
        Home {
            core,
            caller: self.caller,
            folders: self.folders.clone(),
        }
    }
}

/// Where it is, in a life of the gateway; clones are the same.
#[derive(Clone)]
pub struct Home {
    /// The gateway's use cases.
    pub core: Arc<Core>,
    /// Whoever shares the account.
    pub caller: Caller,
    /// `/folder-0` and its like, in order.
    pub folders: Vec<EntryId>,
}

impl Home {
    /// Waits until the cluster is up, and makes a user of `group` with so many folders; the same one each time.
    ///
    /// Errors: the cluster does not come up.
    pub async fn make(core: Arc<Core>, group: GroupId, folders: usize) -> Result<Self, String> {
        let name = patiently(async || name_in(&core, group).await).await;
        let name = name.map_err(|why| format!("no group could be chosen: {why}"))?;
        let caller = arrive(&core, name).await?;
        let mut made = Vec::new();
        for number in 0..folders {
            let path = DrivePath::parse(&format!("/folder-{number}")).expect("a short word is a path");
            let folder = patiently(async || match core.entry(&caller, EntryRef::Path(path.clone())).await {
                Err(failure) if failure.kind == ErrorKind::NotFound => {
                    core.create_folder(&caller, Place::Path(path.clone()), false, None)
                        .await
                }
                found => found,
            });
            let folder = folder.await.map_err(|why| format!("no folder could be made: {why}"))?;
            made.push(folder.entry.id);
        }
        let home = Self {
            core,
            caller,
            folders: made,
        };
        // Files of every form can be written: rows are planned and told by now, or soon.
        let probe = patiently(async || home.store("before", BEFORE).await);
        probe.await.map_err(|why| format!("nothing could be stored: {why}"))?;
        Ok(home)
    }

    /// What outlives the gateway.
    #[must_use]
    pub fn account(&self) -> Account {
        Account {
            caller: self.caller,
            folders: self.folders.clone(),
        }
    }

    /// Stores a file beside the folders, or finds that an earlier try without an answer did.
    async fn store(&self, name: &str, tag: Tag) -> Result<(), Failure> {
        let name = EntryName::new(name).expect("a short word is a name");
        let parent = self.caller.home.root();
        let target = UploadTarget::Place {
            place: Place::In { parent, name },
            with_parents: false,
        };
        match self.upload(target, None, tag).await {
            Err(failure) if !codes::NAME_TAKEN.is(&failure) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Waits until the cluster serves again after its faults.
    ///
    /// Errors: it does not.
    pub async fn serves_again(&self) -> Result<(), String> {
        let served = patiently(async || {
            let listed = EntryRef::Id(self.folders[0]);
            self.core.list(&self.caller, listed, 100, None).await?;
            self.store("after", AFTER).await
        });
        served
            .await
            .map_err(|why| format!("the cluster does not serve again: {why}"))
    }

    /// A name in one of the folders.
    #[must_use]
    pub fn place(&self, folder: usize, name: EntryName) -> Place {
        Place::In {
            parent: self.folders[folder],
            name,
        }
    }

    /// Writes the content of a tag; the file and its version.
    ///
    /// Errors: those of an upload.
    pub async fn upload(
        &self,
        target: UploadTarget,
        base_version: Option<u64>,
        tag: Tag,
    ) -> Result<(EntryId, u64), Failure> {
        let bytes = content(tag);
        let length = bytes.len() as u64;
        let body = stream::iter([Ok(bytes)]).boxed();
        let admitted = self.core.admit(Some(length))?;
        let order = order(target, base_version, length);
        let done = self.core.upload(&self.caller, admitted, order, body).await?;
        let committed = done.committed;
        Ok((committed.view.entry.id, committed.version.number))
    }

    /// Reads a version, the current one for `None`: its number and the tag whose content it is.
    ///
    /// Errors: those of a download; a bug when the bytes are no tag's.
    pub async fn read(&self, entry: EntryId, version: Option<u64>) -> Result<(u64, Tag), Failure> {
        let manifest: Manifest = self.core.manifest(&self.caller, entry, version, None).await?;
        let (number, size) = (manifest.version.number, manifest.version.size);
        let parts: Vec<Bytes> = self
            .core
            .stream(self.caller, entry, manifest, 0..size)
            .try_collect()
            .await?;
        match tag_of(&parts.concat()) {
            Some(tag) => Ok((number, tag)),
            None => Err(Failure::bug(format!(
                "version {number} of {entry} reads as what nobody wrote"
            ))),
        }
    }

    /// Reads a version after the faults: what is there comes at once, so few tries are enough.
    ///
    /// Errors: what the last of them met.
    pub async fn read_patiently(&self, entry: EntryId, version: u64) -> Result<Tag, String> {
        let mut last = String::new();
        for _ in 0..READ_TRIES {
            match self.read(entry, Some(version)).await {
                Ok((_, tag)) => return Ok(tag),
                Err(failure) => last = format!("{}: {}", failure.code, failure.detail),
            }
            sleep(TRY_AGAIN).await;
        }
        Err(last)
    }
}

/// A username whose slot `group` has.
async fn name_in(core: &Core, group: GroupId) -> Result<Username, Failure> {
    core.metadata.refresh_routes(0).await?;
    (1..=NAMES_TRIED)
        .map(|number| Username::new(&format!("user-{number}")).expect("a short word is a username"))
        .find(|name| core.metadata.group_of(Slot::of_username(name.as_str())) == Some(group))
        // Slots are not dealt yet.
        .ok_or_else(|| gateway::codes::METADATA_UNREACHABLE.failure())
}

/// Makes the user, or finds it.
async fn arrive(core: &Arc<Core>, name: Username) -> Result<Caller, String> {
    let made = patiently(async || {
        core.directory.refresh(0).await?;
        let new = NewUser {
            name: name.clone(),
            // Nobody signs in here.
            password_hash: "$argon2id$".to_owned(),
            quota_bytes: None,
            is_admin: false,
        };
        if let Some(facts) = core.login_facts(name.clone(), 0).await? {
            return Ok(facts.user);
        }
        core.create_user(new, None, 0).await
    });
    let user = made.await.map_err(|why| format!("no user could be made: {why}"))?;
    let principal = Principal {
        user: user.user,
        device: None,
        is_admin: false,
    };
    Ok(Caller {
        principal,
        home: user.home,
        trace: 0,
    })
}
