//! Metrics of a metadata process.

use daemon::metrics::Definition;

/// Time from a command's arrival to its answer.
pub const PROPOSE_SECONDS: Definition = Definition::latency(
    "metadata_propose_seconds",
    "Time from a command's arrival to its answer.",
    &["group"],
);
/// Time from a query's arrival to its answer, read-index included.
pub const QUERY_SECONDS: Definition = Definition::latency(
    "metadata_query_seconds",
    "Time from a query's arrival to its answer, read-index included.",
    &["group"],
);
/// Index of the last applied entry.
pub const APPLIED_INDEX: Definition =
    Definition::gauge("metadata_applied_index", "Index of the last applied entry.", &["group"]);
/// 1 where this replica leads.
pub const LEADING: Definition =
    Definition::gauge("metadata_leading", "1 where this replica leads the group.", &["group"]);
/// Entries removed by sweeps.
pub const SWEPT: Definition = Definition::counter(
    "metadata_swept_total",
    "Sub-operations done by sweeps of leaders.",
    &["sweep"],
);
