//! A set in a world whose layout changes: a folder to which clients only add files, and which they read as a whole.
//!
//! Each element is added once, under a name that nothing else has, so that nobody need know which of two tries was the one.
//! Not here: what must hold of it (`oracle::set`), operations that meet on a few names (`workload`).

use crate::oracle::linearizability::Event;
use crate::oracle::set::{Act, violations};
use crate::world::clients::{Clients, Turn};
use crate::world::hatch::Hatch;
use crate::world::history::History;
use crate::world::home::{Account, Home, patiently};
use crate::world::phase::Phases;
use daemon::random::Random;
use model::id::EntryId;
use model::name::{DrivePath, EntryName};
use protocol::codes;
use protocol::metadata::drive::{EntryRef, Place};
use protocol::metadata::upload::UploadTarget;
use protocol::wire_error::Failure;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const CLIENTS: Clients = Clients {
    count: 3,
    pause_max: Duration::from_millis(150),
};
/// A read is one answer, so that it is of one moment: fewer are added, and a world's usual time is over long before.
const ELEMENTS_MAX: u16 = 1_000;

#[derive(Default)]
struct Inner {
    now: u64,
    added: u64,
    done: Vec<Event<Act>>,
}

/// The set; clones are the same.
#[derive(Clone)]
pub struct Elements {
    hatch: Hatch,
    account: Account,
    folder: EntryId,
    history: History,
    inner: Arc<Mutex<Inner>>,
}

impl Elements {
    /// Makes the folder. What must never be is told to `history`.
    ///
    /// Errors: it cannot be made.
    pub async fn begin(hatch: Hatch, account: Account, history: History) -> Result<Self, String> {
        let own = account.clone();
        let made = hatch.ask_in_peace(move |core| async move { make(&own.at(core)).await });
        let folder = made.await.map_err(|why| format!("no set could be made: {why}"))?;
        Ok(Self {
            hatch,
            account,
            folder,
            history,
            inner: Arc::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Counters and whole elements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs all clients until the phase of faults ends and each has its last answer.
    pub async fn work(&self, phases: &Phases, random: &Random) {
        let own = self.clone();
        let act = move |random: Random| {
            let own = own.clone();
            async move {
                match random.below(3) {
                    0 => own.read().await,
                    _ => own.add().await,
                }
            }
        };
        CLIENTS
            .work(phases, random, act, |fault| self.history.accuse(fault))
            .await;
    }

    fn called(&self) -> u64 {
        let mut inner = self.inner();
        inner.now += 1;
        inner.now
    }

    fn returned(&self, called: u64, operation: Act, is_known: bool) {
        let mut inner = self.inner();
        inner.now += 1;
        let returned = is_known.then_some(inner.now);
        inner.done.push(Event {
            called,
            returned,
            operation,
        });
    }

    async fn add(&self) -> Turn {
        let element = {
            let mut inner = self.inner();
            inner.added += 1;
            inner.added
        };
        if element >= u64::from(ELEMENTS_MAX) {
            return Turn::Done;
        }
        let called = self.called();
        let name = EntryName::new(&format!("element-{element}")).expect("a short word is a name");
        let target = UploadTarget::Place {
            place: Place::In {
                parent: self.folder,
                name,
            },
            with_parents: false,
        };
        let (account, tag) = (self.account.clone(), self.history.fresh_tag());
        let added = self
            .hatch
            .ask(move |core| async move { account.at(core).upload(target, None, tag).await });
        // Of what died with its gateway nobody knows whether it happened.
        let added = added.await;
        let is_known = matches!(added, Ok(Ok(_)));
        let turn = match added {
            Ok(Err(failure)) => {
                self.judge(&format!("add element {element}"), &failure);
                Turn::after(&failure)
            }
            Ok(Ok(_)) => Turn::Done,
            Err(_) => Turn::Later,
        };
        self.returned(called, Act::Add(element), is_known);
        turn
    }

    async fn read(&self) -> Turn {
        let own = self.clone();
        let read = self
            .hatch
            .ask(move |core| async move { own.read_at(&own.account.at(core)).await });
        // A read without an answer says nothing; a failure was judged.
        match read.await {
            Ok(Ok(())) => Turn::Done,
            Ok(Err(failure)) => Turn::after(&failure),
            Err(_) => Turn::Later,
        }
    }

    async fn read_at(&self, home: &Home) -> Result<(), Failure> {
        let called = self.called();
        let listed = EntryRef::Id(self.folder);
        let listing = home
            .core
            .list(&home.caller, listed, ELEMENTS_MAX, None)
            .await
            .inspect_err(|failure| self.judge("read the set", failure))?;
        let number = |name: &str| name.strip_prefix("element-")?.parse::<u64>().ok();
        let found: Option<BTreeSet<u64>> = listing.entries.iter().map(|entry| number(&entry.name)).collect();
        match found {
            Some(found) if listing.next_page_token.is_none() => self.returned(called, Act::Read(found), true),
            found => self.history.accuse(format!("the set is read as {found:?} and more")),
        }
        Ok(())
    }

    /// What no fault explains.
    fn judge(&self, what: &str, failure: &Failure) {
        if Turn::after(failure) == Turn::Done {
            self.history
                .accuse(format!("{what} is answered {}: {}", failure.code, failure.detail));
        }
    }

    /// Reads it once more when faults have ended, and tells the history what is violated.
    ///
    /// Errors: it cannot be read; nothing was added or read before.
    pub async fn take_stock(&self) -> Result<(), String> {
        let own = self.clone();
        let read = self.hatch.ask_in_peace(move |core| async move {
            let home = own.account.at(core);
            patiently(async || own.read_at(&home).await).await
        });
        read.await.map_err(|why| format!("the set cannot be read: {why}"))?;
        let inner = self.inner();
        let is_read = |event: &&Event<Act>| matches!(event.operation, Act::Read(_));
        let reads = inner.done.iter().filter(is_read).count();
        let added = inner
            .done
            .iter()
            .filter(|event| !is_read(event) && event.returned.is_some());
        if reads < 2 || added.count() == 0 {
            return Err("nothing was added to the set, or it was read only in the end".to_owned());
        }
        for violation in violations(&inner.done) {
            self.history.accuse(format!("set: {violation}"));
        }
        Ok(())
    }
}

/// Makes the folder, or finds that an earlier try without an answer did.
async fn make(home: &Home) -> Result<EntryId, String> {
    let path = DrivePath::parse("/set").expect("a short word is a path");
    let made = patiently(async || {
        let place = Place::Path(path.clone());
        match home.core.create_folder(&home.caller, place, false, None).await {
            Err(failure) if codes::NAME_TAKEN.is(&failure) => {
                home.core.entry(&home.caller, EntryRef::Path(path.clone())).await
            }
            made => made,
        }
    });
    Ok(made.await?.entry.id)
}
