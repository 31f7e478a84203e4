//! A dev cluster in the test's own process, on the cipher or the disks of metadata logs and nodes that the test gives, which no command
//! line can choose.
//!
//! The same assembly as `holdfast dev` (QUIC on loopback, real files), so what is planted is that and nothing else.
//! Not here: expectations; what a child process can show as well (`world`).

use clap::Parser;
use client_sdk::client::Client;
use codec::cipher::{Aes256Gcm, Cipher, NONCE_BYTES, TAG_BYTES};
use gateway::drive::{Caller, Core};
use holdfast::cli::{Command, CommandLine};
use holdfast::dev::cluster::{DevCluster, base};
use holdfast::roles::Base;
use model::authorize::Principal;
use model::id::{Slot, UploadId};
use model::name::{DrivePath, Username};
use model::stripe::StripeId;
use model::time::BirthEpoch;
use protocol::metadata::drive::Place;
use protocol::metadata::query::DriveFacts;
use protocol::metadata::upload::{NewStripe, Tail, UploadCommand, UploadTarget};
use protocol::metadata::{Command as GroupCommand, Query, QueryAnswer};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What a stop may take on a loaded machine.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A running cluster with its data directory.
pub(crate) struct Inside {
    cluster: DevCluster,
    pub(crate) client: Client,
    directory: TempDir,
}

impl Inside {
    /// Starts a cluster whose gateway seals with `cipher`.
    pub(crate) async fn start(cipher: Arc<dyn Cipher>) -> Self {
        Self::start_on(|base| base.cipher = cipher).await
    }

    /// Starts a cluster with further arguments.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::begin(options, |_| ()).await
    }

    /// Starts a cluster on a base in which `plant` has changed something.
    pub(crate) async fn start_on(plant: impl FnOnce(&mut Base)) -> Self {
        Self::begin(&[], plant).await
    }

    /// Starts a cluster with further arguments, on a base in which `plant` has changed something.
    pub(crate) async fn begin(options: &[&str], plant: impl FnOnce(&mut Base)) -> Self {
        let directory = TempDir::new().unwrap();
        let data_dir = directory.path().join("data");
        let line = ["holdfast", "dev", "--listen", "127.0.0.1:0", "--disk-capacity", "4G"];
        let line = line.into_iter().chain(options.iter().copied()).chain(["--data-dir"]);
        let line = line.map(OsString::from).chain([data_dir.into_os_string()]);
        let Command::Dev(arguments) = CommandLine::parse_from(line).command else {
            panic!("the command is `dev`");
        };
        let mut base = base().unwrap();
        plant(&mut base);
        let cluster = DevCluster::start_on(&arguments, base).await.unwrap();
        let facts = cluster.facts();
        let client = Client::new(&facts.url).unwrap();
        let client = client.login(&facts.user, &facts.password).await.unwrap();
        Self {
            cluster,
            client,
            directory,
        }
    }

    /// Where the cluster keeps everything.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What it wrote about itself.
    pub(crate) fn facts(&self) -> &holdfast::dev::facts::DevFacts {
        self.cluster.facts()
    }

    /// Stops the cluster; what it wrote stays until the answer is dropped.
    pub(crate) async fn stop(self) -> TempDir {
        let stopped = tokio::time::timeout(STOP_DEADLINE, self.cluster.stop()).await;
        assert!(stopped.is_ok(), "the cluster did not stop within {STOP_DEADLINE:?}");
        self.directory
    }

    /// The gateway's use cases.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.cluster.gateways().next().unwrap().app().core
    }

    /// The demo user as the gateway knows it, and its home drive.
    pub(crate) async fn demo(&self) -> (Caller, DriveFacts) {
        let name = Username::new(&self.facts().user).unwrap();
        let user = self.core().login_facts(name, 1).await.unwrap().unwrap().user;
        let principal = Principal {
            user: user.user,
            device: None,
            is_admin: false,
        };
        let caller = Caller {
            principal,
            home: user.home,
            trace: 1,
        };
        let facts = self.core().drive_facts(&caller, user.home).await.unwrap();
        (caller, facts)
    }

    /// The epoch in which a stripe of the slot would be born now.
    pub(crate) async fn epoch(&self, slot: Slot) -> BirthEpoch {
        match self.core().metadata.query(&Query::Slot(slot), 1).await.unwrap().0 {
            QueryAnswer::Time(time) => time.birth_epoch,
            other => panic!("asked for the time, was answered {other:?}"),
        }
    }

    /// Keeps `plain` as the tail of an upload that was cut off: sealed by the gateway's own seal of the drive, written by its
    /// own fan-out, set by a command. Resumable uploads will do the same at each cut.
    pub(crate) async fn keep_tail(&self, plain: &[u8]) {
        let core = self.core();
        let (caller, facts) = self.demo().await;
        let upload = UploadId {
            drive: facts.drive,
            number: core.seams.random.u64(),
        };
        let open = UploadCommand::OpenSession {
            principal: caller.principal,
            upload,
            target: UploadTarget::Place {
                place: Place::Path(DrivePath::parse("/cut off").unwrap()),
                with_parents: false,
            },
            base_version: None,
            declared_bytes: None,
            is_resumable: true,
            content_type: None,
        };
        core.command(&caller, GroupCommand::Upload(open), None).await.unwrap();
        let seal = core.seals.of(&facts).unwrap();
        let (record, sealed) = seal.seal_tail(plain, &mut |bytes| core.seams.random.fill(bytes));
        let sealed_bytes = u32::try_from(sealed.len()).unwrap();
        let coded = core.code_stripe(sealed, facts.profile).await.unwrap();
        let slot = facts.drive.slot();
        let id = StripeId::new(core.seams.random.u128(), slot, self.epoch(slot).await);
        let durable = core.write_stripe(id, &coded, 1).await.unwrap().unwrap();
        let tail = Tail {
            stripe: id,
            record: u128::from_be_bytes(record.0),
            sealed_bytes,
            plain_bytes: u32::try_from(plain.len()).unwrap(),
        };
        let stripe = NewStripe {
            id,
            profile: coded.profile,
            form: coded.form,
            row_version: durable.row_version,
            astray: durable.astray,
            blocks: Vec::new(),
        };
        let set = UploadCommand::SetTail {
            upload,
            tail: Some((tail, stripe)),
        };
        core.command(&caller, GroupCommand::Upload(set), None).await.unwrap();
    }
}

/// Seals nothing: the planted bug that a search of all files must find.
pub(crate) struct Plain;

impl Cipher for Plain {
    fn encrypt(
        &self,
        _key: &[u8; 32],
        _nonce: &[u8; NONCE_BYTES],
        _associated: &[u8],
        _text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        [0; TAG_BYTES]
    }

    fn decrypt(
        &self,
        _key: &[u8; 32],
        _nonce: &[u8; NONCE_BYTES],
        _associated: &[u8],
        _text: &mut [u8],
        _tag: &[u8; TAG_BYTES],
    ) -> bool {
        true
    }
}

/// What must never seal two contents.
type KeyAndNonce = ([u8; 32], [u8; NONCE_BYTES]);

/// The cipher of production, with a note of each key and nonce that it sealed under.
#[derive(Default)]
pub(crate) struct Noting {
    sealed: Mutex<BTreeMap<KeyAndNonce, Vec<blake3::Hash>>>,
}

impl Noting {
    /// Every key that sealed something.
    pub(crate) fn keys(&self) -> Vec<[u8; 32]> {
        let mut keys: Vec<_> = self.sealed.lock().unwrap().keys().map(|(key, _)| *key).collect();
        keys.dedup();
        keys
    }

    /// Plaintexts sealed so far, and how many pairs of key and nonce covered more than one of them.
    pub(crate) fn pairs(&self) -> (usize, usize) {
        let sealed = self.sealed.lock().unwrap();
        let reused = sealed.values().filter(|plain| plain.len() > 1).count();
        (sealed.values().map(Vec::len).sum(), reused)
    }
}

impl Cipher for Noting {
    fn encrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        // Even the same plaintext under the same pair would be a nonce that was not drawn anew.
        let mut sealed = self.sealed.lock().unwrap();
        sealed.entry((*key, *nonce)).or_default().push(blake3::hash(text));
        drop(sealed);
        Aes256Gcm.encrypt(key, nonce, associated, text)
    }

    fn decrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        Aes256Gcm.decrypt(key, nonce, associated, text, tag)
    }
}
