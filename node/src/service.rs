//! What a node does for each call: one handler, a table from method to function.
//!
//! Invariants: a fragment is stored or confirmed only under the newest row version known; a request under a newer one than known
//! makes the node ask for rows before it answers; nothing is removed but by `RemoveStripe`.
//! Not here: who may call what (rpc, `Method::is_allowed`), how fragments lie on a disk (`store`).

use crate::metrics;
use crate::read_room::{READ_BYTES_MAX, ReadRoom};
use crate::rows::{KnownRows, RowSource, Standing};
use crate::store::{FragmentStore, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use codec::fragment::FragmentHeader;
use daemon::metrics::{Definition, Metrics};
use daemon::pool::{Pool, Urgency};
use model::error_kind::ErrorKind;
use model::id::{DiskId, NodeId, RowVersion};
use model::process::ProcessId;
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::node::{
    CellFragments, ConfirmAnswer, ConfirmFragment, DiskState, DiskStatus, FRAGMENTS_LISTED_MAX, FragmentNames,
    FragmentRead, FragmentSums, KnownRow, ListCells, ListFragments, NodeStatus, NodeStatusAnswer, PUSH_ROWS_MAX,
    PushRows, READ_RANGES_MAX, ReadFragment, RemoveStripe, RowsTaken, RowsUpdate, StoreAnswer, StoreFragment, Stored,
    StripeRemoved, SumFragments, code,
};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A disk of the configuration: working, or why not.
#[derive(Clone)]
pub enum DiskSlot {
    /// Its store is open.
    Open(FragmentStore),
    /// It could not be opened; holds the reason.
    Missing(String),
}

/// The storage node's side of its calls; clones are the same node.
#[derive(Clone)]
pub struct NodeService {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    disks: BTreeMap<DiskId, DiskSlot>,
    rows: Mutex<KnownRows>,
    /// Held while rows are asked for or taken, so that what disks keep and what memory knows change in one order.
    taking: tokio::sync::Mutex<()>,
    source: Arc<dyn RowSource>,
    pool: Pool,
    reads: ReadRoom,
    metrics: Metrics,
}

/// How a row version of a request is answered.
enum Counted {
    /// It is the newest.
    Yes,
    /// The node knows a newer one.
    Stale(KnownRow),
}

impl NodeService {
    /// A node of these disks, which knows the rows that its disks kept.
    ///
    /// Rows that do not read are not known: they are asked for before anything is counted under them.
    #[must_use]
    pub fn new(
        node: NodeId,
        disks: BTreeMap<DiskId, DiskSlot>,
        source: Arc<dyn RowSource>,
        pool: Pool,
        metrics: Metrics,
    ) -> Self {
        let mut rows = KnownRows::default();
        for (disk, slot) in &disks {
            let DiskSlot::Open(store) = slot else { continue };
            let kept = store.kept_rows().unwrap_or_else(|error| {
                tracing::warn!(%disk, %error, "kept rows do not read and are asked for again");
                Vec::new()
            });
            for update in kept {
                // Disks differ when one was away: of each row the newest counts, and a malformed table is asked for again.
                if let Err(bad) = rows.take(&update) {
                    tracing::warn!(profile = %update.profile, reason = bad.0, "kept rows not taken");
                }
            }
        }
        let inner = Inner {
            node,
            disks,
            rows: Mutex::new(rows),
            taking: tokio::sync::Mutex::new(()),
            source,
            pool,
            reads: ReadRoom::new(READ_BYTES_MAX),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The stores of the working disks, by id.
    pub fn stores(&self) -> impl Iterator<Item = (DiskId, &FragmentStore)> {
        self.inner.disks.iter().filter_map(|(disk, slot)| match slot {
            DiskSlot::Open(store) => Some((*disk, store)),
            DiskSlot::Missing(_) => None,
        })
    }

    /// Disks of the configuration that could not be opened, with the reason.
    #[must_use]
    pub fn missing(&self) -> Vec<(DiskId, String)> {
        let reason = |(disk, slot): (&DiskId, &DiskSlot)| match slot {
            DiskSlot::Missing(reason) => Some((*disk, reason.clone())),
            DiskSlot::Open(_) => None,
        };
        self.inner.disks.iter().filter_map(reason).collect()
    }

    /// Takes rows where they are newer; durable on every working disk on return.
    ///
    /// Errors: malformed rows (`bad_rows`), nothing is taken then.
    pub async fn take_rows(&self, updates: &[RowsUpdate]) -> Result<RowsTaken, Failure> {
        let _order = self.inner.taking.lock().await;
        self.take_in_order(updates).await
    }

    async fn take_in_order(&self, updates: &[RowsUpdate]) -> Result<RowsTaken, Failure> {
        let mut next = self.rows().clone();
        let mut taken = Vec::new();
        for update in updates {
            let rows = next
                .take(update)
                .map_err(|bad| Failure::new(ErrorKind::Invalid, code::BAD_ROWS, format!("take rows: {}", bad.0)))?;
            taken.push((update.profile, update.pg_bits, rows));
        }
        let mut disks = Vec::new();
        for (disk, store) in self.stores() {
            let mut is_kept = true;
            for (profile, pg_bits, rows) in taken.iter().filter(|(_, _, rows)| !rows.is_empty()) {
                is_kept &= store.keep_rows(*profile, *pg_bits, rows).await.is_ok();
            }
            if is_kept {
                disks.push(disk);
            }
        }
        // Disk first, then memory: what is refused after this stays refused after a restart.
        *self.rows_mut() = next;
        let rows_taken = taken.iter().map(|(_, _, rows)| rows.len()).sum::<usize>();
        Ok(RowsTaken {
            rows_taken: u32::try_from(rows_taken).unwrap_or(u32::MAX),
            disks,
        })
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, KnownRows> {
        // The value is replaced whole, so a panic elsewhere leaves the last one.
        self.inner.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows_mut(&self) -> std::sync::MutexGuard<'_, KnownRows> {
        self.rows()
    }

    /// Compares a request's row version with the newest known, after asking for rows when the request knows a newer one.
    async fn count(&self, profile: ProfileId, stripe: StripeId, version: RowVersion) -> Result<Counted, Failure> {
        let standing = self.rows().standing(profile, stripe, version);
        match standing {
            Standing::Newest => return Ok(Counted::Yes),
            Standing::Older(known) => return Ok(Counted::Stale(known)),
            Standing::Newer => {}
        }
        let _order = self.inner.taking.lock().await;
        // Whoever held the lock before perhaps brought the row; asking once for many requests is the point of the lock.
        let mut standing = self.rows().standing(profile, stripe, version);
        if standing == Standing::Newer {
            let update = self
                .inner
                .source
                .fetch(profile)
                .await
                .map_err(|failure| row_unknown(&failure.to_string()))?;
            self.take_in_order(std::slice::from_ref(&update)).await?;
            standing = self.rows().standing(profile, stripe, version);
        }
        match standing {
            Standing::Newest => Ok(Counted::Yes),
            Standing::Older(known) => Ok(Counted::Stale(known)),
            Standing::Newer => Err(row_unknown("the control group does not know it either")),
        }
    }

    fn store_of(&self, disk: DiskId) -> Result<&FragmentStore, Failure> {
        match self.inner.disks.get(&disk) {
            Some(DiskSlot::Open(store)) => Ok(store),
            Some(DiskSlot::Missing(reason)) => Err(Failure::new(
                ErrorKind::Unavailable,
                code::DISK_MISSING,
                format!("disk {disk} is missing: {reason}"),
            )),
            None => {
                let node = self.inner.node;
                Err(Failure::new(
                    ErrorKind::NotFound,
                    code::UNKNOWN_DISK,
                    format!("node {node} has no disk {disk}"),
                ))
            }
        }
    }

    async fn store_fragment(&self, request: StoreFragment, payload: Bytes) -> Result<StoreAnswer, Failure> {
        let StoreFragment {
            name,
            form,
            payload_hash,
            disk,
            row_version,
        } = request;
        let store = self.store_of(disk)?;
        if let Counted::Stale(known) = self.count(name.profile, name.stripe, row_version).await? {
            return Ok(StoreAnswer::StaleRow(known));
        }
        check_form(&name, &form)?;
        let described = payload.clone();
        let describe = move || FragmentHeader::describe(name, form, &described);
        let header = self
            .inner
            .pool
            .run_by_length(Urgency::Foreground, payload.len(), describe)
            .await
            .map_err(|error| {
                Failure::new(
                    ErrorKind::Invalid,
                    code::MALFORMED_FRAGMENT,
                    format!("store fragment: {error}"),
                )
            })?;
        if header.payload_hash() != &payload_hash.0 {
            let detail = "the payload does not have the hash that the request names; send it again";
            return Err(Failure::new(ErrorKind::Corrupt, code::PAYLOAD_MISMATCH, detail));
        }
        store.store(header, payload).await.map_err(|error| error.failure())?;
        // The row may have changed while the disk wrote: the caller counts only what is durable under the newest row.
        if let Standing::Older(known) = self.rows().standing(name.profile, name.stripe, row_version) {
            return Ok(StoreAnswer::StaleRow(known));
        }
        Ok(StoreAnswer::Stored(Stored { disk, row_version }))
    }

    async fn confirm_fragment(&self, request: ConfirmFragment) -> Result<ConfirmAnswer, Failure> {
        let ConfirmFragment {
            name,
            form,
            disk,
            row_version,
        } = request;
        let store = self.store_of(disk)?;
        if let Counted::Stale(known) = self.count(name.profile, name.stripe, row_version).await? {
            return Ok(ConfirmAnswer::StaleRow(known));
        }
        match store.confirm(&name).map_err(|error| error.failure())? {
            Some(held) if held == form => Ok(ConfirmAnswer::Held(Stored { disk, row_version })),
            Some(_) => Err(StoreError::OtherContent.failure()),
            None => Ok(ConfirmAnswer::Absent),
        }
    }

    async fn read_fragment(&self, request: ReadFragment) -> Result<(FragmentRead, Bytes), Failure> {
        if request.ranges.len() > READ_RANGES_MAX {
            let detail = format!("read {} ranges: at most {READ_RANGES_MAX}", request.ranges.len());
            return Err(Failure::new(ErrorKind::Invalid, code::BAD_RANGE, detail));
        }
        let wanted: u64 = request.ranges.iter().map(|range| u64::from(range.len)).sum();
        if wanted > protocol::frame::PAYLOAD_BYTES_MAX as u64 {
            return Err(Failure::new(
                ErrorKind::Invalid,
                code::BAD_RANGE,
                "read ranges: longer than a payload may be",
            ));
        }
        let store = self.store_of(request.disk)?;
        let room = self.inner.reads.enter(wanted).await;
        let room = room.ok_or_else(|| StoreError::Stopped.failure())?;
        let read = store.read(request.name, request.ranges).await;
        let read = read.map_err(|error| error.failure())?;
        let facts = FragmentRead {
            form: read.form,
            payload_hash: read.payload_hash,
        };
        Ok((facts, room.keep(read.payload)))
    }

    async fn remove_stripe(&self, request: RemoveStripe) -> StripeRemoved {
        let mut removed = StripeRemoved {
            fragments: 0,
            disks_failed: Vec::new(),
        };
        removed
            .disks_failed
            .extend(self.missing().into_iter().map(|(disk, _)| disk));
        for (disk, store) in self.stores() {
            match remove_from(store, request).await {
                Ok(fragments) => removed.fragments += fragments,
                Err(error) => {
                    tracing::warn!(%disk, stripe = %request.stripe, %error, "stripe not removed from disk");
                    removed.disks_failed.push(disk);
                }
            }
        }
        removed.disks_failed.sort_unstable();
        removed
    }

    fn list_fragments(&self, request: &ListFragments) -> Result<FragmentNames, Failure> {
        let store = self.store_of(request.disk)?;
        let names = store.names_after(request.after.as_ref(), FRAGMENTS_LISTED_MAX);
        let names = names.map_err(|error| error.failure())?;
        Ok(FragmentNames { names })
    }

    async fn sum_fragments(&self, request: SumFragments) -> Result<FragmentSums, Failure> {
        let store = self.store_of(request.disk)?;
        let slots = request.slots.into_iter().collect();
        let told = store.cell_sums(slots, request.after).await;
        told.map_err(|error| error.failure())
    }

    async fn list_cells(&self, request: ListCells) -> Result<CellFragments, Failure> {
        let store = self.store_of(request.disk)?;
        store.list_cells(request).await.map_err(|error| error.failure())
    }

    /// The state of the node, as the status call answers it.
    #[must_use]
    pub fn status(&self) -> NodeStatusAnswer {
        let status = |(disk, slot): (&DiskId, &DiskSlot)| match slot {
            DiskSlot::Open(store) => store.status(),
            DiskSlot::Missing(reason) => missing_status(*disk, reason),
        };
        NodeStatusAnswer {
            node: self.inner.node,
            disks: self.inner.disks.iter().map(status).collect(),
            tables: self.rows().summary(),
        }
    }

    /// Has the metrics brought up to date from the disks whenever they are read.
    pub(crate) fn show_in_metrics(&self) {
        self.inner.metrics.define(&metrics::ALL);
        let inner = Arc::downgrade(&self.inner);
        self.inner.metrics.before_reading(move || {
            if let Some(inner) = inner.upgrade() {
                let service = Self { inner };
                service.status().disks.iter().for_each(|disk| service.show(disk));
                for (disk, store) in service.stores() {
                    service.show_counter(disk, &metrics::STORED_BYTES, store.stored_bytes());
                }
            }
        });
    }

    fn show(&self, status: &DiskStatus) {
        let label = status.disk.to_string();
        let set = |definition, value: u64| {
            let gauge = self.inner.metrics.gauge(definition).with_label_values(&[&label]);
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics::FRAGMENTS, status.fragments);
        set(&metrics::DAMAGED, status.damaged_total);
        set(&metrics::FREE_BYTES, status.free_bytes);
        set(&metrics::USED_BYTES, status.used_bytes);
        set(&metrics::IS_WRITABLE, u64::from(status.state == DiskState::Ready));
        set(
            &metrics::IS_MISSING,
            u64::from(matches!(status.state, DiskState::Missing(_))),
        );
        let counters = &status.counters;
        for (definition, value) in [
            (&metrics::STORES, counters.stores),
            (&metrics::READS, counters.reads),
            (&metrics::CORRUPT, counters.corrupt),
            (&metrics::REMOVES, counters.removes),
            (&metrics::COMPACTIONS, counters.compactions),
            (&metrics::SCRUBBED, counters.scrubbed),
        ] {
            self.show_counter(status.disk, definition, value);
        }
    }

    /// The disks count; the page follows, so that no request waits for it.
    fn show_counter(&self, disk: DiskId, definition: &Definition, value: u64) {
        let counter = self.inner.metrics.counter(definition);
        let counter = counter.with_label_values(&[&disk.to_string()]);
        counter.inc_by(value.saturating_sub(counter.get()));
    }
}

async fn remove_from(store: &FragmentStore, request: RemoveStripe) -> Result<u32, StoreError> {
    let mut fragments = 0;
    for name in store.fragments_of(request.profile, request.stripe)? {
        fragments += u32::from(store.remove(name).await?);
    }
    Ok(fragments)
}

fn missing_status(disk: DiskId, reason: &str) -> DiskStatus {
    DiskStatus {
        disk,
        state: DiskState::Missing(reason.to_owned()),
        total_bytes: 0,
        free_bytes: 0,
        used_bytes: 0,
        living_bytes: 0,
        fragments: 0,
        damaged_total: 0,
        damaged: Vec::new(),
        counters: protocol::node::DiskCounters::default(),
    }
}

/// A stripe is cut by its profile's k and m and nothing else.
fn check_form(name: &model::stripe::FragmentName, form: &model::stripe::StripeForm) -> Result<(), Failure> {
    let profile = name.profile.profile();
    if (form.k, form.m) == (profile.k, profile.m) && usize::from(name.index) < profile.fragments() {
        return Ok(());
    }
    let detail = format!(
        "store fragment: {}+{} index {} is not of profile {}",
        form.k, form.m, name.index, name.profile
    );
    Err(Failure::new(ErrorKind::Invalid, code::MALFORMED_FRAGMENT, detail))
}

fn row_unknown(cause: &str) -> Failure {
    Failure::new(
        ErrorKind::Unavailable,
        code::ROW_UNKNOWN,
        format!("no row as new as the request's: {cause}; try again"),
    )
}

fn answer<T: Serialize>(message: &T) -> Result<Answer, Failure> {
    Ok(Answer {
        message: encode(message)?,
        payload: Bytes::new(),
    })
}

#[async_trait]
impl Handler for NodeService {
    async fn handle(&self, _caller: ProcessId, call: Call) -> Result<Answer, Failure> {
        let result = match call.method {
            Method::StoreFragment => match self.store_fragment(decode(&call.message)?, call.payload).await {
                Ok(stored) => answer(&stored),
                Err(failure) => Err(failure),
            },
            Method::ConfirmFragment => match self.confirm_fragment(decode(&call.message)?).await {
                Ok(confirmed) => answer(&confirmed),
                Err(failure) => Err(failure),
            },
            Method::ReadFragment => match self.read_fragment(decode(&call.message)?).await {
                Ok((facts, payload)) => Ok(Answer {
                    message: encode(&facts)?,
                    payload,
                }),
                Err(failure) => Err(failure),
            },
            Method::RemoveStripe => answer(&self.remove_stripe(decode(&call.message)?).await),
            Method::PushRows => match self.push_rows(&decode(&call.message)?).await {
                Ok(taken) => answer(&taken),
                Err(failure) => Err(failure),
            },
            Method::ListFragments => match self.list_fragments(&decode(&call.message)?) {
                Ok(listed) => answer(&listed),
                Err(failure) => Err(failure),
            },
            Method::SumFragments => match self.sum_fragments(decode(&call.message)?).await {
                Ok(sums) => answer(&sums),
                Err(failure) => Err(failure),
            },
            Method::ListCells => match self.list_cells(decode(&call.message)?).await {
                Ok(listed) => answer(&listed),
                Err(failure) => Err(failure),
            },
            Method::NodeStatus => {
                let NodeStatus {} = decode(&call.message)?;
                answer(&self.status())
            }
            other => Err(Failure::new(
                ErrorKind::Invalid,
                "unknown_method",
                format!("a node does not answer {other:?}"),
            )),
        };
        if let Err(failure) = &result {
            self.inner
                .metrics
                .counter(&metrics::REFUSALS)
                .with_label_values(&[&failure.code])
                .inc();
        }
        result
    }
}

impl NodeService {
    async fn push_rows(&self, request: &PushRows) -> Result<RowsTaken, Failure> {
        let is_difference = |update: &&RowsUpdate| update.rows.len() < 1 << update.pg_bits.min(31);
        let rows: usize = request
            .updates
            .iter()
            .filter(is_difference)
            .map(|update| update.rows.len())
            .sum();
        if rows > PUSH_ROWS_MAX {
            let detail = format!("push {rows} rows: at most {PUSH_ROWS_MAX}, or whole tables");
            return Err(Failure::new(ErrorKind::Invalid, code::BAD_ROWS, detail));
        }
        self.take_rows(&request.updates).await
    }
}
