//! One gateway on a loopback port over a cluster in memory: one metadata process without Raft, six shelves instead of nodes. Where one of
//! these is to be a hole, all of them are reached by QUIC on sockets instead.
//!
//! Not here: what stands for the metadata (`replica`), disks, other gateways.

pub(super) mod age;

use super::replica::{CLUSTER, NOW, Replica, furnish, process};
use super::wire::{Reply, exchange};
use crate::auth::token;
use crate::config::{
    AdmissionLimits, CACHE_BYTES_DEFAULT, CacheLimits, Functions, GatewayConfig, Limits, MetadataReads, create_kek,
};
use crate::drive::account::NewUser;
use crate::drive::{Caller, Core};
use crate::seams::Seams;
use crate::serve::{Gateway, Place, start};
use async_trait::async_trait;
use codec::cipher::Aes256Gcm;
use daemon::clock::ManualClock;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use metadata_raft::feed_watch::FeedWatch;
use model::authorize::Principal;
use model::id::GroupId;
use model::name::Username;
use model::process::{ProcessId, Role};
use model::stripe::{FragmentName, StripeId};
use model::time::WallTime;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::Command;
use protocol::metadata::query::Usage;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::user::{NewToken, UserCommand};
use protocol::node::{FragmentRead, ReadFragment, StoreAnswer, StoreFragment, Stored};
use protocol::wire_error::Failure;
use rpc::authority::ClusterAuthority;
use rpc::identity::{Identity, Revocations};
use rpc::limits::RpcLimits;
use rpc::memory::{Fault, MemoryNetwork};
use rpc::quic::{QuicOptions, QuicTransport};
use rpc::transport::{Handler, Peer, Transport};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockWriteGuard};

/// Far above what any of these tests needs; a hang ends here.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Of certificates.
const LIFETIME: Duration = Duration::from_secs(86_400);

/// Takes every fragment and reads it back.
struct Shelf(Arc<Shelves>);

/// What all shelves together are asked to take.
#[derive(Default)]
struct Shelves {
    /// Whoever may read answers.
    gate: RwLock<()>,
    kept: Mutex<BTreeMap<FragmentName, (FragmentRead, bytes::Bytes)>>,
    under_way: Mutex<UnderWay>,
}

/// Fragments that are sent and not yet answered.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay {
    /// How many of each stripe.
    pub(super) stripes: BTreeMap<StripeId, usize>,
    /// Bytes of all of them.
    pub(super) bytes: usize,
    /// The most stripes at once so far.
    pub(super) stripes_most: usize,
}

/// One of them; it is under way until this is dropped, whether it was answered or given up.
struct Sent<'a> {
    shelves: &'a Shelves,
    stripe: StripeId,
    bytes: usize,
}

impl<'a> Sent<'a> {
    fn begin(shelves: &'a Shelves, stripe: StripeId, bytes: usize) -> Self {
        let mut under_way = shelves.under_way.lock().unwrap();
        *under_way.stripes.entry(stripe).or_default() += 1;
        under_way.bytes += bytes;
        under_way.stripes_most = under_way.stripes_most.max(under_way.stripes.len());
        Self { shelves, stripe, bytes }
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let mut under_way = self.shelves.under_way.lock().unwrap();
        under_way.bytes -= self.bytes;
        let left = under_way.stripes.get(&self.stripe).map_or(0, |fragments| fragments - 1);
        if left == 0 {
            under_way.stripes.remove(&self.stripe);
        } else {
            under_way.stripes.insert(self.stripe, left);
        }
    }
}

impl Shelf {
    fn read(&self, request: &ReadFragment) -> Result<Answer, Failure> {
        let kept = self.0.kept.lock().unwrap();
        let (facts, payload) = kept.get(&request.name).expect("nobody reads what was not stored");
        let mut read = Vec::new();
        for range in &request.ranges {
            read.extend_from_slice(&payload[range.offset as usize..][..range.len as usize]);
        }
        Ok(Answer {
            message: encode(facts)?,
            payload: read.into(),
        })
    }
}

#[async_trait]
impl Handler for Shelf {
    async fn handle(&self, _: ProcessId, call: Call) -> Result<Answer, Failure> {
        if call.method == Method::ReadFragment {
            return self.read(&decode(&call.message)?);
        }
        assert_eq!(call.method, Method::StoreFragment);
        let request: StoreFragment = decode(&call.message)?;
        let _sent = Sent::begin(&self.0, request.name.stripe, call.payload.len());
        drop(self.0.gate.read().await);
        let facts = FragmentRead {
            form: request.form,
            payload_hash: request.payload_hash,
        };
        self.0.kept.lock().unwrap().insert(request.name, (facts, call.payload));
        let stored = Stored {
            disk: request.disk,
            row_version: request.row_version,
        };
        Ok(Answer {
            message: encode(&StoreAnswer::Stored(stored))?,
            payload: bytes::Bytes::new(),
        })
    }
}

/// Accepts every call and never answers.
#[derive(Default)]
pub(super) struct Hole(AtomicUsize);

impl Hole {
    /// Calls that it has taken.
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Handler for Hole {
    async fn handle(&self, _: ProcessId, _: Call) -> Result<Answer, Failure> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

/// How the processes reach each other.
enum Wires {
    Memory(MemoryNetwork),
    Sockets(Box<ClusterAuthority>),
}

impl Wires {
    fn attach(
        &self,
        process: ProcessId,
        handler: Arc<dyn Handler>,
        clock: &ManualClock,
    ) -> (Arc<dyn Transport>, SocketAddr) {
        match self {
            Self::Memory(network) => {
                let (transport, address) = network.attach(process, CLUSTER, handler);
                (transport, address)
            }
            Self::Sockets(authority) => {
                let pem = authority.issue(process, NOW, LIFETIME).unwrap();
                let options = QuicOptions {
                    identity: Identity::from_pem(&pem).unwrap(),
                    listen: ([127, 0, 0, 1], 0).into(),
                    clock: Arc::new(clock.clone()),
                    limits: RpcLimits::default(),
                    revocations: Revocations::default(),
                    has_jumbo_frames: false,
                };
                let (transport, address) = QuicTransport::bind(options, handler).unwrap();
                (transport, address)
            }
        }
    }
}

/// A gateway with one user, `ada`.
pub(super) struct World {
    pub(super) clock: ManualClock,
    pub(super) caller: Caller,
    pub(super) token: String,
    replica: Arc<Replica>,
    shelves: Arc<Shelves>,
    wires: Wires,
    gateway: Gateway,
    shutdown: Shutdown,
    _transports: Vec<Arc<dyn Transport>>,
    _directory: TempDir,
}

/// What a test may want otherwise.
pub(super) struct Wishes {
    pub(super) limits: Limits,
    pub(super) admission: AdmissionLimits,
    pub(super) upload_budget_bytes: u64,
    pub(super) quota_bytes: u64,
    /// Stands in the place of the third node.
    pub(super) hole: Option<Arc<Hole>>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            admission: AdmissionLimits::default(),
            upload_budget_bytes: 256 << 20,
            quota_bytes: 1 << 40,
            hole: None,
        }
    }
}

fn config(wishes: &Wishes, kek_file: PathBuf) -> GatewayConfig {
    GatewayConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        kek_file,
        tls: None,
        functions: Functions {
            api: true,
            block: true,
            notify: true,
        },
        upload_budget_bytes: wishes.upload_budget_bytes,
        admission: wishes.admission,
        metadata_reads: MetadataReads::Leader,
        cache: CacheLimits::of(CACHE_BYTES_DEFAULT),
        limits: wishes.limits,
        browser_origins: vec!["https://app.example".to_owned()],
    }
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(Wishes::default()).await
    }

    pub(super) async fn start_with(wishes: Wishes) -> Self {
        let clock = ManualClock::new(NOW);
        let wires = match &wishes.hole {
            None => Wires::Memory(MemoryNetwork::new(Arc::new(clock.clone()))),
            Some(_) => Wires::Sockets(Box::new(ClusterAuthority::create(CLUSTER, NOW, LIFETIME).unwrap())),
        };
        let replica = Arc::new(Replica::new(clock.clone()));
        let metadata = process(Role::Metadata, 1);
        let (first, address) = wires.attach(metadata, Arc::clone(&replica) as Arc<dyn Handler>, &clock);
        let mut transports = vec![first];
        let (shelves, mut addresses) = (Arc::new(Shelves::default()), Vec::new());
        let shelf = || Arc::new(Shelf(Arc::clone(&shelves)));
        for number in 1..=6 {
            let handler: Arc<dyn Handler> = match &wishes.hole {
                Some(hole) if number == 3 => Arc::clone(hole) as Arc<dyn Handler>,
                _ => shelf(),
            };
            let (transport, address) = wires.attach(process(Role::Node, number), handler, &clock);
            transports.push(transport);
            addresses.push(address);
        }
        furnish(&replica, address, &addresses);
        let (own, _) = wires.attach(process(Role::Gateway, 1), shelf(), &clock);
        let directory = TempDir::new().unwrap();
        let random = Random::seeded(7);
        let kek_file = directory.path().join("kek");
        create_kek(&kek_file, &random).unwrap();
        let seams = Seams {
            transport: own,
            clock: Arc::new(clock.clone()),
            pool: Pool::inline(),
            random: random.clone(),
            metrics: Metrics::new(),
            cipher: Arc::new(Aes256Gcm),
        };
        let config = config(&wishes, kek_file);
        let place = Place {
            number: 1,
            metadata: vec![Peer {
                process: metadata,
                address,
            }],
            nodes: None,
        };
        let shutdown = Shutdown::new();
        let gateway = start(config, place, seams, shutdown.clone()).await.unwrap();
        let core = Arc::clone(&gateway.app().core);
        core.directory.refresh(0).await.unwrap();
        let caller = user(&core, wishes.quota_bytes).await;
        let token = issue(&core, &caller, &random, Duration::from_secs(3600)).await;
        replica.commands.lock().unwrap().clear();
        Self {
            clock,
            caller,
            token,
            replica,
            shelves,
            wires,
            gateway,
            shutdown,
            _transports: transports,
            _directory: directory,
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.gateway.app().core
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Tells the gateway to stop.
    pub(super) fn stop(&self) {
        self.shutdown.request();
    }

    /// What the metadata process was asked so far.
    pub(super) fn asked(&self) -> Vec<Method> {
        self.replica.asked.lock().unwrap().clone()
    }

    /// Where feeds that go on are told.
    pub(super) fn feed(&self) -> &FeedWatch {
        &self.replica.feed
    }

    /// Cuts the gateway off from the metadata replica.
    pub(super) fn cut_metadata(&self) {
        let (own, metadata) = (process(Role::Gateway, 1), process(Role::Metadata, 1));
        let Wires::Memory(network) = &self.wires else {
            panic!("only wires in memory can be cut")
        };
        network.break_way(own, metadata, Fault::Cut);
    }

    /// Takes all cuts back.
    pub(super) fn mend(&self) {
        if let Wires::Memory(network) = &self.wires {
            network.mend_all();
        }
    }

    /// Lets no shelf answer until the guard is dropped.
    pub(super) async fn hold_shelves(&self) -> RwLockWriteGuard<'_, ()> {
        self.shelves.gate.write().await
    }

    /// What shelves have been sent and have not answered.
    pub(super) fn under_way(&self) -> UnderWay {
        self.shelves.under_way.lock().unwrap().clone()
    }

    /// Lets no session be opened until the guard is dropped.
    pub(super) async fn hold_opening(&self) -> RwLockWriteGuard<'_, ()> {
        self.replica.gate.write().await
    }

    /// Waits until a command that opens a session has arrived.
    pub(super) async fn opening(&self) {
        let arrived = tokio::time::timeout(DEADLINE, self.replica.opening.notified());
        arrived.await.expect("no session was opened");
    }

    /// What `work` gives, while the clock is moved on in small steps until then.
    pub(super) async fn while_time_passes<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(2), &mut work).await {
                return done;
            }
            self.clock.advance(Duration::from_millis(100));
        }
    }

    /// What `work` gives, while the clock is moved on in small steps, and in all by no more than `span`.
    pub(super) async fn within<T>(&self, span: Duration, work: impl Future<Output = T>) -> T {
        const STEP: Duration = Duration::from_millis(100);
        tokio::pin!(work);
        let mut left = span;
        while !left.is_zero() {
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(2), &mut work).await {
                return done;
            }
            let step = left.min(STEP);
            self.clock.advance(step);
            left -= step;
        }
        let done = tokio::time::timeout(DEADLINE, work).await;
        done.unwrap_or_else(|_| panic!("it takes longer than {span:?}"))
    }

    /// Upload commands so far, by name.
    pub(super) fn commands(&self) -> Vec<&'static str> {
        let commands = self.replica.commands.lock().unwrap();
        let names = commands.iter().map(|command| match command {
            Command::Upload(UploadCommand::CommitUpload { .. }) => "CommitUpload",
            Command::Upload(UploadCommand::OpenSession { .. }) => "OpenSession",
            Command::Upload(UploadCommand::AppendRows { .. }) => "AppendRows",
            Command::Upload(UploadCommand::CommitSession { .. }) => "CommitSession",
            Command::Upload(UploadCommand::AbortSession { .. }) => "AbortSession",
            Command::Upload(UploadCommand::CommitBatch(_)) => "CommitBatch",
            _ => "other",
        });
        names.collect()
    }

    /// Waits until `is_met` of what was proposed.
    pub(super) async fn until(&self, is_met: impl Fn(&[&'static str]) -> bool) {
        let wait = async {
            while !is_met(&self.commands()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        waited.unwrap_or_else(|_| panic!("never came: {:?}", self.commands()));
    }

    /// Sends a request with the token and these header lines, each ended by CR LF, and reads the whole answer.
    pub(super) async fn request(&self, line: &str, headers: &str, body: &[u8]) -> Reply {
        exchange(self.address(), &self.with_token(line, headers, body)).await
    }

    /// The bytes of such a request.
    pub(super) fn with_token(&self, line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{headers}\r\n",
            self.token
        );
        [head.as_bytes(), body].concat()
    }

    /// The drive's usage, after pages that nobody counts were reaped, as the sweeper of a group does.
    pub(super) async fn usage(&self) -> Usage {
        let reap = protocol::metadata::drive::DriveCommand::ReapPages {
            drive: self.caller.home,
        };
        self.replica.command(GroupId(1), Command::Drive(reap));
        self.core().usage(&self.caller).await.unwrap()
    }

    /// Whether something is at `path`.
    pub(super) async fn has(&self, path: &str) -> bool {
        let line = format!("GET /api/v1/metadata?path={path}");
        self.request(&line, "", b"").await.status == 200
    }

    /// A token of the user that lives `life` from now on.
    pub(super) async fn token_for(&self, life: Duration) -> String {
        issue(self.core(), &self.caller, &Random::system(), life).await
    }

    /// Ends a token, as by another gateway.
    pub(super) fn revoke(&self, token: &str) {
        let (user, hash) = token::read(token).unwrap();
        let revoke = UserCommand::RevokeToken { user, hash };
        self.replica.command(GroupId(1), Command::User(revoke));
    }

    /// As `revoke`, of which nobody is told.
    pub(super) fn revoke_unheard(&self, token: &str) {
        self.replica.is_mute.store(true, Ordering::Relaxed);
        self.revoke(token);
        self.replica.is_mute.store(false, Ordering::Relaxed);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

async fn user(core: &Arc<Core>, quota_bytes: u64) -> Caller {
    let new = NewUser {
        name: Username::new("ada").unwrap(),
        // No test here signs in by password: that is argon2's and the whole cluster's.
        password_hash: "$argon2id$".to_owned(),
        quota_bytes: Some(quota_bytes),
        is_admin: false,
    };
    let record = core.create_user(new, None, 0).await.unwrap();
    Caller {
        principal: Principal {
            user: record.user,
            device: None,
            is_admin: false,
        },
        home: record.home,
        trace: 0,
    }
}

async fn issue(core: &Arc<Core>, caller: &Caller, random: &Random, life: Duration) -> String {
    let user = caller.principal.user;
    let expires_at = WallTime(core.seams.clock.wall().0 + life.as_millis() as u64);
    let ((text, access), (_, refresh)) = (token::draw(user, random), token::draw(user, random));
    let token = |hash| NewToken { hash, expires_at };
    core.issue_tokens(user, token(access), token(refresh), 0).await.unwrap();
    text.to_string()
}
