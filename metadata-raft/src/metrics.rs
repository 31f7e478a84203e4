//! Metrics of a metadata process.

use daemon::metrics::Definition;

/// Time from a command's arrival to its answer.
pub const PROPOSE_SECONDS: Definition = Definition::latency(
    "metadata_propose_seconds",
    "Time from a command's arrival to its answer.",
    &["kind"],
);
/// Time from a query's arrival to its answer, read-index included.
pub const QUERY_SECONDS: Definition = Definition::latency(
    "metadata_query_seconds",
    "Time from a query's arrival to its answer, read-index included.",
    &["kind"],
);
/// Queries that a follower answered.
pub const FOLLOWER_READS: Definition = Definition::counter(
    "metadata_follower_reads_total",
    "Queries that this replica answered as a follower, after a read-index from the leader.",
    &["kind"],
);
/// Queries that a leader answered under its lease.
pub const LEASE_READS: Definition = Definition::counter(
    "metadata_lease_reads_total",
    "Queries that this replica answered as the leader under its lease, without asking the others.",
    &["kind"],
);
/// Index of the last applied entry.
pub const APPLIED_INDEX: Definition =
    Definition::gauge("metadata_applied_index", "Index of the last applied entry.", &["group"]);
/// 1 where this replica leads.
pub const LEADING: Definition =
    Definition::gauge("metadata_leading", "1 where this replica leads the group.", &["group"]);
/// Whether names lie on an encrypted volume.
pub const VOLUME_ENCRYPTED: Definition = Definition::gauge(
    "metadata_volume_encrypted",
    "1 where the replica's directory lies on an encrypted block device, 0 where not, -1 where the kernel does not tell.",
    &[],
);
/// Requests that wait.
pub const WAITING: Definition = Definition::gauge(
    "metadata_waiting_requests",
    "Commands and queries that wait for their answer.",
    &["kind"],
);
/// Requests that were refused at the door.
pub const REFUSED: Definition = Definition::counter(
    "metadata_refused_requests_total",
    "Commands and queries refused since too many wait, or the disk is nearly full.",
    &["kind"],
);
/// Entries removed by sweeps.
pub const SWEPT: Definition = Definition::counter(
    "metadata_swept_total",
    "Sub-operations done by sweeps of leaders.",
    &["sweep"],
);

/// What the disk under the log has left.
pub const DISK_FREE_BYTES: Definition = Definition::gauge(
    "metadata_disk_free_bytes",
    "Space left on the disk under the log or on the one under the state, the smaller; with little left the replica gives up leading.",
    &[],
);

/// Bytes of contents by what they are.
pub const CONTENT_BYTES: Definition = Definition::gauge(
    "metadata_content_bytes",
    "Bytes of contents in groups led here, by what they are.",
    &["group", "kind"],
);
/// Small contents that lie in the metadata.
pub const INLINE_CONTENTS: Definition = Definition::gauge(
    "metadata_inline_contents",
    "Small contents of groups led here that lie in the metadata and are held by somebody.",
    &["group"],
);
/// How much deduplication saves.
pub const DEDUPLICATION_PERCENT: Definition = Definition::gauge(
    "metadata_deduplication_percent",
    "Plain bytes of all versions, for each hundred that count against quotas.",
    &["group"],
);
/// How much compression saves.
pub const COMPRESSION_PERCENT: Definition = Definition::gauge(
    "metadata_compression_percent",
    "Sealed bytes of all blocks that live, for each hundred plain ones, rounded up.",
    &["group"],
);
/// Stripes that wait to be removed.
pub const DYING_STRIPES: Definition = Definition::gauge(
    "metadata_dying_stripes",
    "Stripes without a living byte that are not removed yet.",
    &["group"],
);
/// How long the oldest of them has waited.
pub const OLDEST_WAITING_SECONDS: Definition = Definition::gauge(
    "metadata_oldest_waiting_seconds",
    "For how long the oldest sweep or removal that is due has waited for its end, by the group's counter.",
    &["group"],
);

/// Gateways that wait for changes.
pub const FEED_WATCHES: Definition = Definition::gauge(
    "metadata_feed_watches",
    "Standing calls of gateways that wait until a feed of a group goes on.",
    &[],
);

/// Every metric of this package, for its page.
pub const ALL: [Definition; 18] = [
    PROPOSE_SECONDS,
    QUERY_SECONDS,
    FOLLOWER_READS,
    LEASE_READS,
    APPLIED_INDEX,
    LEADING,
    VOLUME_ENCRYPTED,
    WAITING,
    REFUSED,
    SWEPT,
    DISK_FREE_BYTES,
    CONTENT_BYTES,
    INLINE_CONTENTS,
    DEDUPLICATION_PERCENT,
    COMPRESSION_PERCENT,
    DYING_STRIPES,
    OLDEST_WAITING_SECONDS,
    FEED_WATCHES,
];
