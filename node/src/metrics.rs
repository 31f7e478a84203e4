//! The metrics of a node, as constants; docs/metrics.md lists them.
//!
//! Not here: the registry and its endpoint (daemon, the process's status port).

use daemon::metrics::Definition;

/// Fragments stored.
pub const STORES: Definition = Definition::counter(
    "node_fragments_stored_total",
    "Fragments made durable on a disk.",
    &["disk"],
);
/// Bytes of fragments stored.
pub const STORED_BYTES: Definition = Definition::counter(
    "node_stored_bytes_total",
    "Payload bytes of fragments made durable on a disk.",
    &["disk"],
);
/// Stores refused, by code.
pub const REFUSALS: Definition = Definition::counter("node_refusals_total", "Calls refused, by code.", &["code"]);
/// Reads answered.
pub const READS: Definition = Definition::counter("node_reads_total", "Reads of fragments answered.", &["disk"]);
/// Damage found.
pub const CORRUPT: Definition = Definition::counter(
    "node_corrupt_fragments_total",
    "Damaged fragments met by reads, confirmations and scrubs.",
    &["disk"],
);
/// Damaged fragments on the list.
pub const DAMAGED: Definition = Definition::gauge(
    "node_damaged_fragments",
    "Fragments on a disk's list of damaged ones.",
    &["disk"],
);
/// Fragments removed.
pub const REMOVES: Definition = Definition::counter(
    "node_fragments_removed_total",
    "Fragments removed by tombstones.",
    &["disk"],
);
/// Segments compacted.
pub const COMPACTIONS: Definition = Definition::counter(
    "node_compactions_total",
    "Segments compacted and put into limbo.",
    &["disk"],
);
/// Fragments checked by a scrub.
pub const SCRUBBED: Definition = Definition::counter(
    "node_fragments_scrubbed_total",
    "Fragments that a scrub read and checked.",
    &["disk"],
);
/// Living fragments.
pub const FRAGMENTS: Definition = Definition::gauge("node_fragments", "Living fragments on a disk.", &["disk"]);
/// Free bytes.
pub const FREE_BYTES: Definition = Definition::gauge(
    "node_disk_free_bytes",
    "Bytes of a disk that may still be written.",
    &["disk"],
);
/// Used bytes.
pub const USED_BYTES: Definition = Definition::gauge(
    "node_disk_used_bytes",
    "Bytes of all segments of a disk, dead ones too.",
    &["disk"],
);
/// Whether a disk stores.
pub const IS_WRITABLE: Definition = Definition::gauge(
    "node_disk_is_writable",
    "1 while a disk takes fragments, 0 when read-only, full or missing.",
    &["disk"],
);

/// Whether a disk is missing.
pub const IS_MISSING: Definition = Definition::gauge(
    "node_disk_is_missing",
    "1 while a configured disk could not be opened or is not the disk that it should be.",
    &["disk"],
);

/// Every metric of this package, for the documents.
pub const ALL: [Definition; 14] = [
    STORES,
    STORED_BYTES,
    REFUSALS,
    READS,
    CORRUPT,
    DAMAGED,
    REMOVES,
    COMPACTIONS,
    SCRUBBED,
    FRAGMENTS,
    FREE_BYTES,
    USED_BYTES,
    IS_WRITABLE,
    IS_MISSING,
];
