//! What users do in a world of collection: contents come in every way there is, are shared, go into the trash and go for good.
//!
//! Every third content was written before, so that it is found, held again at zero, or comes anew after its death. Uploads break off,
//! are given up and are left where they stand. No two operations want one name, so only contents and counts can go wrong.
//! Phases as in `workload`; in the end two graces pass, and then everything that is there is read and every fragment is accounted for.
//! Not here: faults (`nemesis`), what was promised (`ledger`), what must hold of it (`oracle::collection`).

use crate::oracle::collection::{Findings, Found};
use crate::world::census;
use crate::world::clients::{Clients, Turn};
use crate::world::hatch::{Died, Hatch};
use crate::world::history::{Tag, content};
use crate::world::home::{Account, Home, order, patiently};
use crate::world::ledger::Ledger;
use crate::world::phase::Phases;
use crate::world::processes::Ground;
use crate::world::shape;
use bytes::Bytes;
use daemon::random::Random;
use futures_util::{StreamExt, stream};
use gateway::drive::Core;
use gateway::drive::copies::Copied;
use gateway::drive::delta::{SyncOrder, Wanted};
use gateway::drive::upload::file_batch::{BatchOrder, WantedFile};
use gateway::drive::upload::resume::{Chunk, Standing, Total};
use gateway::drive::upload::{Body, UploadDone};
use model::entry::{BlockRow, EntryType};
use model::error_kind::ErrorKind;
use model::id::{EntryId, UploadId};
use model::name::EntryName;
use protocol::metadata::QueryAnswer;
use protocol::metadata::drive::{EntryRef, Place};
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Enough at once that what the cluster does by itself is the smaller part of a world's work.
const CLIENTS: Clients = Clients {
    count: 16,
    pause_max: Duration::from_millis(60),
};
const FOLDERS: usize = 2;
/// With more files than this, more go than come.
const CROWD: usize = 60;
/// What the drive keeps of a file, so that old versions go too while the world lasts.
pub const VERSIONS_MAX: u32 = 4;
/// A client gives an upload up after this at most.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(400);
/// How long the long body lasts that breaks off: its first stripes are written by then.
const BREAKS_OFF_AFTER: Duration = Duration::from_millis(400);
/// A client that rests between two parts of an upload, some of them for longer than birth epochs stay open.
const REST_MAX: Duration = Duration::from_secs(12);
/// More than one stripe.
const LONG_BYTES: usize = 5 << 20;
const BATCH_FILES_MAX: u64 = 6;
const LISTED_AT_ONCE: u16 = 1000;
/// Files that are read side by side in the end.
const READ_AT_ONCE: usize = 8;

/// The users of one world.
#[derive(Clone)]
pub struct Turnover {
    hatch: Hatch,
    account: Account,
    ledger: Ledger,
    random: Random,
}

/// What users ask for, inside of a life of the gateway.
struct Visit {
    home: Home,
    ledger: Ledger,
}

/// Whether it happened; why not, or that nobody knows.
type Outcome = Result<(), Failure>;

fn body_of(bytes: Bytes) -> Body {
    stream::iter([Ok(bytes)]).boxed()
}

fn below(random: &Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("below a usize")
}

impl Turnover {
    /// Waits until the cluster is up, and makes the user with its folders.
    ///
    /// Errors: the cluster does not come up.
    pub async fn begin(hatch: Hatch, ledger: Ledger, random: Random) -> Result<Self, String> {
        let made = hatch.ask_in_peace(|core| async move {
            let home = Home::make(core, shape::FIRST_GROUP, FOLDERS).await?;
            let drive = home.caller.home;
            let told = patiently(async || {
                home.core
                    .set_retention(&home.caller, drive, Some(VERSIONS_MAX), None)
                    .await
            });
            told.await
                .map_err(|why| format!("the drive could not be told what to keep: {why}"))?;
            Ok(home.account())
        });
        Ok(Self {
            account: made.await?,
            hatch,
            ledger,
            random,
        })
    }

    fn visit(&self) -> impl FnOnce(Arc<Core>) -> Visit + use<> {
        let (account, ledger) = (self.account.clone(), self.ledger.clone());
        move |core| Visit {
            home: account.at(core),
            ledger,
        }
    }

    /// Runs all clients until the phase of faults ends and each has its last answer.
    pub async fn work(&self, phases: &Phases) {
        let own = self.clone();
        let act = move |random: Random| {
            let own = own.clone();
            async move { own.act(&random).await }
        };
        let accuse = |violation| self.ledger.accuse(violation);
        CLIENTS.work(phases, &self.random, act, accuse).await;
    }

    async fn act(&self, random: &Random) -> Turn {
        self.ledger.called();
        let (visit, draws) = (self.visit(), random.clone());
        let done = self.hatch.ask(move |core| async move { visit(core).one(&draws).await });
        let (is_unknown, turn) = match done.await {
            // Of what died with its gateway nobody knows whether it happened.
            Err(Died) => (true, Turn::Later),
            Ok((_, Ok(()))) => (false, Turn::Done),
            Ok((what, Err(failure))) => match failure.kind {
                ErrorKind::Bug | ErrorKind::Corrupt => {
                    self.ledger
                        .accuse(format!("{what} is answered {}: {}", failure.code, failure.detail));
                    (true, Turn::Done)
                }
                // What is unavailable or busy has not happened (decision 0020).
                kind => {
                    let is_unknown = matches!(kind, ErrorKind::Ambiguous | ErrorKind::Exhausted);
                    (is_unknown, Turn::after(&failure))
                }
            },
        };
        self.ledger.returned(is_unknown);
        turn
    }

    /// Waits until the cluster serves again and two graces have passed, then takes stock of everything.
    ///
    /// Errors: it does not serve again.
    pub async fn take_stock(&self, ground: &Ground) -> Result<Findings, String> {
        let (visit, ground) = (self.visit(), ground.clone());
        self.hatch
            .ask_in_peace(move |core| async move { visit(core).find(&ground).await })
            .await
    }
}

impl Visit {
    async fn one(&self, random: &Random) -> (&'static str, Outcome) {
        if self.ledger.crowd() > CROWD && random.below(2) == 0 {
            return ("purge", self.purge(random).await);
        }
        match random.below(100) {
            0..=21 => ("create", self.create(random).await),
            22..=31 => ("write", self.write(random).await),
            32..=39 => ("read", self.read(random).await),
            40..=48 => ("trash", self.trash(random).await),
            49..=53 => ("restore", self.restore(random).await),
            54..=67 => ("purge", self.purge(random).await),
            68..=76 => ("copy", self.copy(random).await),
            77 => ("copy of a folder", self.copy_folder(random).await),
            78..=82 => ("restore of a version", self.restore_version(random).await),
            83..=85 => ("upload that breaks off", self.break_off(random).await),
            86..=88 => ("upload that is given up", self.give_up(random).await),
            89..=93 => ("upload in parts", self.resume(random).await),
            94..=96 => ("upload of blocks", self.stage(random).await),
            _ => ("batch", self.batch(random).await),
        }
    }

    /// A place that nobody else wants.
    fn fresh_place(&self, random: &Random) -> Place {
        let name = EntryName::new(&format!("file-{}", self.ledger.number())).expect("a short word is a name");
        self.home.place(below(random, FOLDERS), name)
    }

    fn fresh_target(&self, random: &Random) -> UploadTarget {
        UploadTarget::Place {
            place: self.fresh_place(random),
            with_parents: false,
        }
    }

    fn made(&self, done: &UploadDone, tag: Tag) {
        let committed = &done.committed;
        self.ledger
            .wrote(committed.view.entry.id, committed.version.number, tag);
    }

    async fn create(&self, random: &Random) -> Outcome {
        let tag = self.ledger.tag(random);
        let (entry, version) = self.home.upload(self.fresh_target(random), None, tag).await?;
        self.ledger.wrote(entry, version, tag);
        Ok(())
    }

    async fn write(&self, random: &Random) -> Outcome {
        let Some((entry, base)) = self.ledger.pick_where(random, |file| !file.is_trashed) else {
            return self.create(random).await;
        };
        let tag = self.ledger.tag(random);
        self.ledger.may_hold(entry, tag);
        let (entry, version) = self.home.upload(UploadTarget::Entry(entry), Some(base), tag).await?;
        self.ledger.wrote(entry, version, tag);
        Ok(())
    }

    async fn read(&self, random: &Random) -> Outcome {
        let Some((entry, _)) = self.ledger.pick(random) else {
            return self.create(random).await;
        };
        match self.home.read(entry, None).await {
            Ok((_, tag)) => self.ledger.read_as(entry, Some(tag)),
            Err(failure) if failure.kind == ErrorKind::NotFound => self.ledger.read_as(entry, None),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn trash(&self, random: &Random) -> Outcome {
        let Some((entry, _)) = self.ledger.pick_where(random, |file| !file.is_trashed) else {
            return self.create(random).await;
        };
        self.home.core.trash(&self.home.caller, entry, None).await?;
        self.ledger.trashed(entry, true);
        Ok(())
    }

    async fn restore(&self, random: &Random) -> Outcome {
        let Some((entry, _)) = self.ledger.pick_where(random, |file| file.is_trashed) else {
            return self.create(random).await;
        };
        self.home.core.restore(&self.home.caller, entry, None, None).await?;
        self.ledger.trashed(entry, false);
        Ok(())
    }

    async fn purge(&self, random: &Random) -> Outcome {
        if random.below(8) == 0
            && let Some(shelf) = self.ledger.take_shelf(random)
        {
            return self.home.core.purge(&self.home.caller, shelf, None).await;
        }
        let Some((entry, _)) = self.ledger.pick(random) else {
            return self.create(random).await;
        };
        self.ledger.removing(entry);
        self.home.core.purge(&self.home.caller, entry, None).await?;
        self.ledger.removed(entry);
        Ok(())
    }

    async fn copy(&self, random: &Random) -> Outcome {
        let Some((entry, _)) = self.ledger.pick_where(random, |file| !file.is_trashed) else {
            return self.create(random).await;
        };
        let place = self.fresh_place(random);
        let copied = self.home.core.copy(&self.home.caller, entry, (place, false), None);
        match copied.await? {
            Copied::There(view) => self.ledger.copied(entry, view.entry.id),
            Copied::Begun(_) => return Err(Failure::bug("a file is copied by a job")),
        }
        Ok(())
    }

    /// By one command, or by a job, which goes on when this has returned; whoever removes the copy for good may come before it.
    async fn copy_folder(&self, random: &Random) -> Outcome {
        let folder = self.home.folders[below(random, FOLDERS)];
        let number = self.ledger.number();
        let name = EntryName::new(&format!("shelf-{number}")).expect("a short word is a name");
        let parent = self.home.caller.home.root();
        let place = (Place::In { parent, name }, false);
        let (core, caller) = (&self.home.core, &self.home.caller);
        let copied = match number.is_multiple_of(2) {
            true => core.begin_copy(caller, folder, place, None).await?,
            false => core.copy(caller, folder, place, None).await?,
        };
        self.ledger.shelved(match copied {
            Copied::There(view) => view.entry.id,
            Copied::Begun(facts) => facts.copy,
        });
        Ok(())
    }

    async fn restore_version(&self, random: &Random) -> Outcome {
        let Some((entry, newest)) = self.ledger.pick_where(random, |file| !file.is_trashed) else {
            return self.create(random).await;
        };
        let back = 1 + random.below(u64::from(VERSIONS_MAX));
        let wanted = (newest.saturating_sub(back).max(1), None);
        let restored = self.home.core.restore_version(&self.home.caller, entry, wanted, None);
        restored.await.map(drop)
    }

    /// The client goes away in the middle of the body: nothing is committed, and what was written already has no name.
    async fn break_off(&self, random: &Random) -> Outcome {
        let (whole, breaks_off_after) = match random.below(16) {
            0 => (long(random), BREAKS_OFF_AFTER),
            _ => (content(self.ledger.tag(random)), Duration::ZERO),
        };
        let length = whole.len() as u64;
        let part = whole.slice(..whole.len() - 1);
        let end = stream::once(async move {
            sleep(breaks_off_after).await;
            Err(gateway::codes::BODY_CUT.failure())
        });
        let body = stream::iter([Ok(part)]).chain(end).boxed();
        let order = order(self.fresh_target(random), None, length);
        let core = &self.home.core;
        let done = core
            .upload(&self.home.caller, core.admit(Some(length))?, order, body)
            .await;
        match done {
            Ok(_) => Err(Failure::bug("a body that broke off was committed")),
            Err(failure) if gateway::codes::BODY_CUT.is(&failure) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// The gateway's work for an upload ends wherever it stands.
    async fn give_up(&self, random: &Random) -> Outcome {
        let tag = self.ledger.tag(random);
        let upload = self.home.upload(self.fresh_target(random), None, tag);
        if let Ok(done) = timeout(random.up_to(GIVEN_UP_AFTER), upload).await {
            let (entry, version) = done?;
            self.ledger.wrote(entry, version, tag);
        }
        Ok(())
    }

    /// A resumable upload in two parts, of which the second comes late or never.
    async fn resume(&self, random: &Random) -> Outcome {
        let (core, caller) = (&self.home.core, &self.home.caller);
        let tag = self.ledger.tag(random);
        let whole = content(tag);
        let length = whole.len() as u64;
        let order = order(self.fresh_target(random), None, length);
        let upload = core.open_resumable(caller, order).await?;
        let begun = whole.slice(..1 + below(random, whole.len() - 1));
        let Standing::Open { stored_bytes, .. } = self.part(upload, length, 0, begun).await? else {
            return Err(Failure::bug("the first part of an upload finished it"));
        };
        if random.below(4) == 0 {
            sleep(random.up_to(REST_MAX)).await;
        }
        match random.below(4) {
            // Left where it stands: it is the client's for days.
            0 => Ok(()),
            1 => core.abandon(caller, upload).await,
            _ => {
                let stored = usize::try_from(stored_bytes).expect("a short content's length");
                let rest = whole.slice(stored..);
                if let Standing::Finished(done) = self.part(upload, length, stored_bytes, rest).await? {
                    self.made(&done, tag);
                }
                Ok(())
            }
        }
    }

    async fn part(&self, upload: UploadId, length: u64, first: u64, bytes: Bytes) -> Result<Standing, Failure> {
        let declared_bytes = Some(bytes.len() as u64);
        let chunk = Chunk {
            first: Some(first),
            declared_bytes,
            total: Total::Known(length),
        };
        let core = &self.home.core;
        let admitted = core.admit(declared_bytes)?;
        core.resume(&self.home.caller, admitted, upload, chunk, body_of(bytes).into())
            .await
    }

    /// A block that is sent by itself, with the commit of a file that consists of it or without.
    async fn stage(&self, random: &Random) -> Outcome {
        let (core, caller) = (&self.home.core, &self.home.caller);
        let tag = self.ledger.tag(random);
        let bytes = content(tag);
        let facts = core.drive_facts(caller, caller.home).await?;
        let digest = core.seals.of(&facts)?.digest(&bytes);
        let order = SyncOrder {
            target: self.fresh_target(random),
            base_version: None,
            wanted: Wanted::Hashes(vec![digest]),
            content_type: None,
            key: None,
        };
        let synced = core.sync(caller, order).await?;
        if !synced.missing.is_empty() {
            let size = u32::try_from(bytes.len()).expect("a short content's length");
            let row = BlockRow { digest, size };
            let expected = core.expect_block(Some(caller), synced.upload, row, 0).await?;
            core.take_block(expected, bytes).await?;
        }
        if random.below(2) == 0 {
            return Ok(());
        }
        let done = core.commit_blocks(caller, None, synced.upload).await?;
        self.made(&done, tag);
        Ok(())
    }

    /// Some files whose blocks lie in shared stripes.
    async fn batch(&self, random: &Random) -> Outcome {
        let count = 2 + random.below(BATCH_FILES_MAX - 1);
        let tags: Vec<Tag> = (0..count).map(|_| self.ledger.tag(random)).collect();
        let contents: Vec<Bytes> = tags.iter().map(|tag| content(*tag)).collect();
        let wanted = contents.iter().map(|bytes| WantedFile {
            target: Ok(self.fresh_target(random)),
            base_version: None,
            size: bytes.len() as u64,
            content_type: None,
        });
        let order = BatchOrder {
            files: wanted.collect(),
            is_atomic: random.below(2) == 0,
            key: None,
            asked: Vec::new(),
        };
        let length: u64 = contents.iter().map(|bytes| bytes.len() as u64).sum();
        let core = &self.home.core;
        let body = body_of(Bytes::from(contents.concat()));
        let batch = core.upload_batch(&self.home.caller, core.admit(Some(length))?, order, body);
        let mut outcome = Ok(());
        for (done, tag) in batch.await?.into_iter().zip(tags) {
            match done {
                Ok(done) => self.made(&done, tag),
                Err(failure) => outcome = Err(failure),
            }
        }
        outcome
    }

    async fn find(&self, ground: &Ground) -> Result<Findings, String> {
        self.home.serves_again().await?;
        sleep(ground.kind.quiet()).await;
        let census = census::take(&self.home.core, ground).await?;
        let mut files = self.listed().await?;
        files.extend(self.ledger.read().0.into_keys());
        let readings: Vec<_> = files.into_iter().map(|file| self.versions_of(file)).collect();
        let read: Vec<Result<_, String>> = stream::iter(readings).buffered(READ_AT_ONCE).collect().await;
        let mut found = BTreeMap::new();
        for read in read {
            found.extend(read?);
        }
        Ok(Findings { files: found, census })
    }

    /// Every file in the tree and, on top of it, in the trash.
    async fn listed(&self) -> Result<BTreeSet<EntryId>, String> {
        let (core, caller) = (&self.home.core, &self.home.caller);
        let (mut files, mut folders) = (BTreeSet::new(), vec![caller.home.root()]);
        while let Some(folder) = folders.pop() {
            let mut token: Option<String> = None;
            loop {
                let page = patiently(async || {
                    let folder = EntryRef::Id(folder);
                    core.list(caller, folder, LISTED_AT_ONCE, token.as_deref()).await
                });
                let page = page
                    .await
                    .map_err(|why| format!("folder {folder} does not list: {why}"))?;
                for entry in page.entries {
                    match entry.entry_type {
                        EntryType::Folder => folders.push(entry.id),
                        EntryType::File => {
                            files.insert(entry.id);
                        }
                    }
                }
                token = page.next_page_token;
                if token.is_none() {
                    break;
                }
            }
        }
        let mut after = None;
        loop {
            let limit = LISTED_AT_ONCE;
            let ask = patiently(async || {
                let ask = DriveAsk::Trash { limit, after };
                core.ask(caller, caller.home, ask).await
            });
            let QueryAnswer::Trash(page) = ask.await.map_err(|why| format!("the trash does not list: {why}"))? else {
                return Err("the trash was answered as something else".to_owned());
            };
            // Users of this world trash files alone.
            files.extend(page.entries.iter().map(|(_, view)| view.entry.id));
            after = page.entries.last().map(|(age_ms, view)| (*age_ms, view.entry.id));
            if !page.has_more {
                return Ok(files);
            }
        }
    }

    /// Every version of a file as it reads; none when the file is not there.
    async fn versions_of(&self, file: EntryId) -> Result<Option<(EntryId, BTreeMap<u64, Found>)>, String> {
        let (core, caller) = (&self.home.core, &self.home.caller);
        let listed = patiently(async || match core.versions(caller, file, LISTED_AT_ONCE, None).await {
            Ok((versions, _)) => Ok(Some(versions)),
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        });
        let listed = listed
            .await
            .map_err(|why| format!("versions of {file} do not list: {why}"))?;
        let Some(versions) = listed else { return Ok(None) };
        let mut found = BTreeMap::new();
        for version in versions {
            let read = self.home.read_patiently(file, version.number).await;
            found.insert(version.number, read);
        }
        Ok(Some((file, found)))
    }
}

/// A content of more than one stripe, which nobody commits.
fn long(random: &Random) -> Bytes {
    let mut bytes = vec![0; LONG_BYTES];
    random.fill(&mut bytes);
    Bytes::from(bytes)
}
