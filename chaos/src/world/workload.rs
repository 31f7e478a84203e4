//! What users do in a world: a few of them on a few names, all of it through the gateway's use cases, at its hatch.
//!
//! There is an account in each drive group, and every client works on the names of all of them, so that all groups are at work.
//! Phases: 1. the cluster comes up and a user is made; 2. clients work while the nemesis does; 3. faults have ended: the cluster
//! must serve again, and everything that was acknowledged is read back.
//! Not here: faults (`nemesis`), what must hold of the answers (`oracle`).

use crate::oracle::durability::{self, Found};
use crate::world::clients::{Clients, Turn};
use crate::world::hatch::Hatch;
use crate::world::history::{Answer, Ask, History, NameNumber, Refusal, Tag};
use crate::world::home::{Account, Home};
use crate::world::phase::Phases;
use crate::world::plant::Plant;
use crate::world::shape;
use daemon::random::Random;
use gateway::drive::Core;
use model::error_kind::ErrorKind;
use model::id::EntryId;
use model::name::{DrivePath, EntryName};
use protocol::codes;
use protocol::metadata::drive::{EntryRef, PatchTo};
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients that work at once: a history with fewer than four proves too little.
const CLIENTS: Clients = Clients {
    count: 6,
    pause_max: Duration::from_millis(100),
};
/// Of how many answers one is lost where that is the bug.
const LOST_ONE_OF: u64 = 4;
const FOLDERS_PER_ACCOUNT: usize = 2;
const NAMES_PER_FOLDER: usize = 2;
const NAMES_PER_ACCOUNT: usize = FOLDERS_PER_ACCOUNT * NAMES_PER_FOLDER;

/// The users of one world.
#[derive(Clone)]
pub struct Workload {
    hatch: Hatch,
    /// One in each drive group.
    accounts: Vec<Account>,
    history: History,
    /// Entries that were met, which clients choose from.
    met: Arc<Mutex<Vec<(EntryId, u64)>>>,
    random: Random,
    /// A bug of the users themselves, whose history proves too little then.
    plant: Option<Plant>,
}

/// What users ask for, inside of a life of the gateway.
struct Visit {
    homes: Vec<Home>,
    history: History,
}

fn accounts() -> usize {
    shape::groups().count()
}

/// The numbers of the names of each folder, those of the first account first.
#[must_use]
pub fn folders() -> Vec<Vec<NameNumber>> {
    (0..accounts() * FOLDERS_PER_ACCOUNT)
        .map(|folder| (folder * NAMES_PER_FOLDER..(folder + 1) * NAMES_PER_FOLDER).collect())
        .collect()
}

fn name_of(name: NameNumber) -> (usize, EntryName) {
    let name_text = format!("name-{name}");
    let entry_name = EntryName::new(&name_text).expect("a short word is a name");
    (name / NAMES_PER_FOLDER, entry_name)
}

fn path_of(name: NameNumber) -> DrivePath {
    let (folder, entry_name) = name_of(name);
    let folder = folder % FOLDERS_PER_ACCOUNT;
    DrivePath::parse(&format!("/folder-{folder}/{}", entry_name.as_str())).expect("two short words are a path")
}

impl Workload {
    /// Waits until the cluster is up, and makes the users with their folders.
    ///
    /// Errors: the cluster does not come up.
    pub async fn begin(hatch: Hatch, history: History, random: Random, plant: Option<Plant>) -> Result<Self, String> {
        let made = hatch.ask_in_peace(|core| async move {
            let mut accounts = Vec::new();
            for group in shape::groups() {
                let home = Home::make(Arc::clone(&core), group, FOLDERS_PER_ACCOUNT).await?;
                accounts.push(home.account());
            }
            Ok(accounts)
        });
        Ok(Self {
            accounts: made.await?,
            hatch,
            history,
            met: Arc::default(),
            random,
            plant,
        })
    }

    /// The account in the last group, for whoever works beside these users.
    #[must_use]
    pub fn account(&self) -> &Account {
        self.accounts.last().expect("a world has groups")
    }

    /// Runs all clients until the phase of faults ends and each has its last answer.
    pub async fn work(&self, phases: &Phases) {
        let own = self.clone();
        let act = move |random: Random| {
            let own = own.clone();
            async move { own.act(&random).await }
        };
        let accuse = |violation| self.history.accuse(violation);
        let clients = match self.plant {
            Some(Plant::OneAtATime) => Clients { count: 1, ..CLIENTS },
            _ => CLIENTS,
        };
        clients.work(phases, &self.random, act, accuse).await;
    }

    async fn act(&self, random: &Random) -> Turn {
        let ask = self.choose(random);
        let called = self.history.called();
        let (visit, asked) = (self.visit(), ask.clone());
        let answer = self
            .hatch
            .ask(move |core| async move { visit(core).answered(&asked).await });
        let (answer, turn) = match answer.await {
            Ok(told) if !self.loses_answer(random) => told,
            // Of what died with its gateway nobody knows whether it happened.
            _ => (Answer::Unknown, Turn::Later),
        };
        self.note(&ask, &answer);
        self.history.returned(called, ask, answer);
        turn
    }

    fn loses_answer(&self, random: &Random) -> bool {
        self.plant == Some(Plant::LosesAnswers) && random.below(LOST_ONE_OF) == 0
    }

    fn choose(&self, random: &Random) -> Ask {
        let below = |bound: usize| usize::try_from(random.below(bound as u64)).expect("below a usize");
        let name = below(self.accounts.len() * NAMES_PER_ACCOUNT);
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        // The last ones met are those that others work on too.
        let recent = &met[met.len().saturating_sub(8)..];
        let Some((entry, version)) = recent.get(below(recent.len().max(1))).copied() else {
            return Ask::Create(name, self.history.fresh_tag());
        };
        match random.below(100) {
            0..=19 => Ask::Create(name, self.history.fresh_tag()),
            20..=39 => Ask::Write(entry, version, self.history.fresh_tag()),
            40..=62 => Ask::Read(entry),
            63..=76 => Ask::Look(name),
            77..=84 => {
                // No entry goes to another drive.
                let at = self.accounts.iter().position(|account| account.drive() == entry.drive);
                let first = at.expect("what was met is some account's") * NAMES_PER_ACCOUNT;
                Ask::Rename(entry, first + name % NAMES_PER_ACCOUNT)
            }
            85..=91 => Ask::Trash(entry),
            _ => Ask::List(below(self.accounts.len() * FOLDERS_PER_ACCOUNT)),
        }
    }

    fn note(&self, ask: &Ask, answer: &Answer) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: Vec<(EntryId, u64)> = match (ask, answer) {
            (_, Answer::Wrote(entry, version)) => vec![(*entry, *version)],
            (Ask::Read(entry), Answer::Content(version, _)) => vec![(*entry, *version)],
            (_, Answer::Has(Some(entry))) => vec![(*entry, 1)],
            (_, Answer::Names(found)) => found.iter().map(|(_, entry)| (*entry, 1)).collect(),
            _ => Vec::new(),
        };
        for (entry, version) in seen {
            match met.iter_mut().find(|(known, _)| *known == entry) {
                Some((_, newest)) => *newest = version.max(*newest),
                None => met.push((entry, version)),
            }
        }
    }

    fn visit(&self) -> impl FnOnce(Arc<Core>) -> Visit + use<> {
        let (accounts, history) = (self.accounts.clone(), self.history.clone());
        move |core| Visit {
            homes: accounts.iter().map(|account| account.at(Arc::clone(&core))).collect(),
            history,
        }
    }

    /// Waits until the cluster serves again and reads back everything that was acknowledged.
    ///
    /// Errors: it does not serve again.
    pub async fn read_back(&self) -> Result<BTreeMap<(EntryId, u64), Found>, String> {
        let visit = self.visit();
        self.hatch
            .ask_in_peace(move |core| async move { visit(core).read_all().await })
            .await
    }
}

impl Visit {
    async fn answered(&self, ask: &Ask) -> (Answer, Turn) {
        let result = match ask {
            Ask::Create(name, tag) => {
                let (folder, entry_name) = name_of(*name);
                let (home, number) = self.folder(folder);
                let target = UploadTarget::Place {
                    place: home.place(number, entry_name),
                    with_parents: false,
                };
                upload(home, target, None, *tag).await
            }
            Ask::Write(entry, base, tag) => {
                let target = UploadTarget::Entry(*entry);
                upload(self.home_of(*entry), target, Some(*base), *tag).await
            }
            Ask::Read(entry) => self.read(*entry).await,
            Ask::Look(name) => self.look(*name).await,
            Ask::Rename(entry, name) => self.rename(*entry, *name).await,
            Ask::Trash(entry) => {
                let home = self.home_of(*entry);
                let trashed = home.core.trash(&home.caller, *entry, None).await;
                trashed.map(|()| Answer::Done)
            }
            Ask::List(folder) => self.list(*folder).await,
        };
        match result {
            Ok(answer) => (answer, Turn::Done),
            Err(failure) => (self.judged(ask, &failure), Turn::after(&failure)),
        }
    }

    /// What a failure says of the state.
    fn judged(&self, ask: &Ask, failure: &Failure) -> Answer {
        match failure.kind {
            _ if codes::NAME_TAKEN.is(failure) => Answer::Refused(Refusal::NameTaken),
            _ if codes::VERSION_CONFLICT.is(failure) => Answer::Refused(Refusal::OtherVersion),
            ErrorKind::Bug | ErrorKind::Corrupt => {
                self.history
                    .accuse(format!("{ask:?} is answered {}: {}", failure.code, failure.detail));
                Answer::Unknown
            }
            ErrorKind::Ambiguous | ErrorKind::Exhausted => Answer::Unknown,
            // Unavailable and busy among them: whoever is told so may repeat it blindly, so it must not have happened (decision 0020).
            _ => Answer::Nothing,
        }
    }

    /// Whose a folder is, and which of theirs.
    fn folder(&self, folder: usize) -> (&Home, usize) {
        (&self.homes[folder / FOLDERS_PER_ACCOUNT], folder % FOLDERS_PER_ACCOUNT)
    }

    fn home_of(&self, entry: EntryId) -> &Home {
        let is_there = |home: &&Home| home.caller.home == entry.drive;
        let home = self.homes.iter().find(is_there);
        home.expect("what was met is some account's")
    }

    async fn read(&self, entry: EntryId) -> Result<Answer, Failure> {
        let (version, tag) = self.home_of(entry).read(entry, None).await?;
        Ok(Answer::Content(version, tag))
    }

    async fn look(&self, name: NameNumber) -> Result<Answer, Failure> {
        let (home, _) = self.folder(name_of(name).0);
        match home.core.entry(&home.caller, EntryRef::Path(path_of(name))).await {
            Ok(view) => Ok(Answer::Has(Some(view.entry.id))),
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(Answer::Has(None)),
            Err(failure) => Err(failure),
        }
    }

    async fn rename(&self, entry: EntryId, name: NameNumber) -> Result<Answer, Failure> {
        let (folder, name) = name_of(name);
        let (home, number) = self.folder(folder);
        let to = PatchTo::Parts {
            name: Some(name),
            parent: Some(home.folders[number]),
        };
        let view = home.core.patch(&home.caller, entry, to, None).await?;
        // What lies in the trash has no name that others see.
        Ok(if view.is_in_trash {
            Answer::Nothing
        } else {
            Answer::Done
        })
    }

    async fn list(&self, folder: usize) -> Result<Answer, Failure> {
        let (home, number) = self.folder(folder);
        let listed = EntryRef::Id(home.folders[number]);
        let listing = home.core.list(&home.caller, listed, 100, None).await?;
        let number = |name: &str| name.strip_prefix("name-")?.parse::<NameNumber>().ok();
        let names = listing
            .entries
            .iter()
            .filter_map(|entry| Some((number(&entry.name)?, entry.id)));
        Ok(Answer::Names(names.collect()))
    }

    async fn read_all(&self) -> Result<BTreeMap<(EntryId, u64), Found>, String> {
        for home in &self.homes {
            home.serves_again().await?;
        }
        let acknowledged = durability::acknowledged(&self.history.read().0);
        let mut found = BTreeMap::new();
        for (entry, version) in acknowledged.into_keys() {
            found.insert(
                (entry, version),
                self.home_of(entry).read_patiently(entry, version).await,
            );
        }
        Ok(found)
    }
}

async fn upload(home: &Home, target: UploadTarget, base_version: Option<u64>, tag: Tag) -> Result<Answer, Failure> {
    let (entry, version) = home.upload(target, base_version, tag).await?;
    Ok(Answer::Wrote(entry, version))
}
