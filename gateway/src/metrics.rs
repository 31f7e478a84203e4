//! The metrics of a gateway, each with its help; docs/metrics.md is written from these.

use daemon::metrics::Definition;

/// Requests by route, method and status.
pub const HTTP_REQUESTS: Definition = Definition::counter(
    "gateway_http_requests_total",
    "HTTP requests answered.",
    &["route", "method", "status"],
);
/// Time from the request's head to the answer's head.
pub const HTTP_LATENCY: Definition = Definition::latency(
    "gateway_http_latency_seconds",
    "Time until the head of an answer.",
    &["route"],
);
/// Plain bytes taken in by uploads.
pub const UPLOADED_BYTES: Definition = Definition::counter(
    "gateway_uploaded_bytes_total",
    "Plain bytes of committed uploads and of blocks sent singly.",
    &[],
);
/// Plain bytes given out by downloads.
pub const DOWNLOADED_BYTES: Definition =
    Definition::counter("gateway_downloaded_bytes_total", "Plain bytes sent by downloads.", &[]);
/// Stripes written, by how well.
pub const STRIPES_WRITTEN: Definition =
    Definition::counter("gateway_stripes_written_total", "Stripes acknowledged.", &["degraded"]);
/// Fragments that went to a hand-off.
pub const HAND_OFFS: Definition =
    Definition::counter("gateway_hand_offs_total", "Fragments stored outside of their row.", &[]);
/// Writes that stayed below the floor.
pub const WRITES_REFUSED: Definition = Definition::counter(
    "gateway_writes_below_floor_total",
    "Stripes that too few disks took.",
    &[],
);
/// Reads that had to be rebuilt from other fragments.
pub const REBUILT_READS: Definition = Definition::counter(
    "gateway_rebuilt_reads_total",
    "Reads rebuilt from other fragments.",
    &[],
);
/// Wrong bytes met while reading.
pub const CORRUPT_READS: Definition = Definition::counter(
    "gateway_corrupt_fragments_total",
    "Fragments whose bytes were wrong when read.",
    &[],
);
/// Blocks that the drive had already.
pub const BLOCKS_KNOWN: Definition = Definition::counter(
    "gateway_blocks_known_total",
    "Blocks of uploads that the drive had already.",
    &[],
);
/// Blocks that were sealed and written.
pub const BLOCKS_NEW: Definition = Definition::counter(
    "gateway_blocks_new_total",
    "Blocks of uploads that were sealed and written.",
    &[],
);
/// The byte budget.
pub const BUDGET_BYTES: Definition = Definition::gauge("gateway_budget_bytes", "Bytes that uploads may hold.", &[]);
/// What is left of it.
pub const BUDGET_FREE_BYTES: Definition = Definition::gauge(
    "gateway_budget_free_bytes",
    "Bytes of the budget that are not promised.",
    &[],
);
/// Uploads refused for want of budget.
pub const BUDGET_REFUSED: Definition = Definition::counter(
    "gateway_budget_refused_total",
    "Uploads refused before their body, for want of budget.",
    &[],
);
/// What a gate let in.
pub const REQUESTS_ADMITTED: Definition =
    Definition::counter("gateway_requests_admitted_total", "Let in by a gate.", &["gate"]);
/// What a gate sent away, and why.
pub const REQUESTS_REFUSED: Definition = Definition::counter(
    "gateway_requests_refused_total",
    "Sent away by a gate, before anything was done.",
    &["gate", "why"],
);
/// What is worked on behind a gate.
pub const REQUESTS_IN_SERVICE: Definition =
    Definition::gauge("gateway_requests_in_service", "Worked on behind a gate.", &["gate"]);
/// How many may be worked on behind a gate: it follows how long that takes.
pub const REQUESTS_IN_SERVICE_MAX: Definition = Definition::gauge(
    "gateway_requests_in_service_max",
    "May be worked on behind a gate at present.",
    &["gate"],
);
/// What waits at a gate.
pub const REQUESTS_WAITING: Definition = Definition::gauge("gateway_requests_waiting", "Waiting at a gate.", &["gate"]);
/// How long it waited.
pub const REQUEST_WAIT: Definition = Definition::latency(
    "gateway_request_wait_seconds",
    "Wait at a gate of what it let in.",
    &["gate"],
);
/// Sign-ins by outcome.
pub const SIGN_INS: Definition = Definition::counter("gateway_sign_ins_total", "Sign-ins by outcome.", &["outcome"]);
/// Calls to metadata groups that had to be repeated.
pub const METADATA_RETRIES: Definition = Definition::counter(
    "gateway_metadata_retries_total",
    "Calls to metadata groups sent again.",
    &["reason"],
);
/// Groups that have long been silent.
pub const SILENT_GROUPS: Definition = Definition::gauge(
    "gateway_silent_groups",
    "Groups of drives that answered none of the requests under way to them for 5 s, and nothing since.",
    &[],
);
/// Requests that were not sent to such groups.
pub const SILENT_GROUP_REFUSED: Definition = Definition::counter(
    "gateway_silent_group_refused_total",
    "Requests refused at once since their group is silent and another one asks it already.",
    &[],
);

/// Connections of clients.
pub const CONNECTIONS: Definition =
    Definition::gauge("gateway_connections", "Connections of clients that are open.", &[]);
/// Connections that take no buffers of HTTP/1.1 at present.
pub const CONNECTIONS_PARKED: Definition = Definition::gauge(
    "gateway_connections_parked",
    "Connections of HTTP/1.1 without buffers, since the request on them waits.",
    &[],
);
/// Connections closed because there are too many.
pub const CONNECTIONS_TURNED_AWAY: Definition = Definition::counter(
    "gateway_connections_turned_away_total",
    "Connections closed because there are too many: silent ones, and new ones where none is silent.",
    &["kind"],
);

/// Stripes whose fragments were removed.
pub const STRIPES_REMOVED: Definition = Definition::counter(
    "gateway_stripes_removed_total",
    "Stripes without a living byte removed from the nodes that could be told.",
    &[],
);
/// What could not be told at once.
pub const REMOVALS_UNTOLD: Definition = Definition::counter(
    "gateway_removals_untold_total",
    "Disks that could not be told of a removed stripe at once.",
    &[],
);
/// Fragments that no group knows or ever will.
pub const ORPHANS_REMOVED: Definition = Definition::counter(
    "gateway_orphans_removed_total",
    "Stripes removed from a node that no group knows and no command can name any more.",
    &[],
);
/// Inventories that came to their end.
pub const INVENTORIES: Definition = Definition::counter(
    "gateway_inventories_total",
    "Times that this gateway compared what all groups count on with what the disks hold.",
    &[],
);
/// What inventories compared.
pub const INVENTORY_CELLS: Definition = Definition::counter(
    "gateway_inventory_cells_total",
    "Cells of disks that inventories compared, by whether the sums were equal.",
    &["outcome"],
);
/// Disks that the last inventory could not ask.
pub const INVENTORY_SILENT_DISKS: Definition = Definition::gauge(
    "gateway_inventory_silent_disks",
    "Disks in use that did not answer at this gateway's last inventory; what they lack is not counted.",
    &[],
);
/// What repair has to make anew.
pub const MISSING_FRAGMENTS: Definition = Definition::gauge(
    "gateway_missing_fragments",
    "Fragments that groups count on and that lay on no disk where they may, at least; only an inventory of all of them lets it fall.",
    &[],
);
/// Stripes whose living blocks were moved.
pub const STRIPES_REPACKED: Definition = Definition::counter(
    "gateway_stripes_repacked_total",
    "Stripes less than half alive whose blocks were switched to a new stripe.",
    &[],
);
/// What was moved of them.
pub const REPACKED_BYTES: Definition = Definition::counter(
    "gateway_repacked_bytes_total",
    "Sealed bytes of blocks that were switched to a new stripe.",
    &[],
);
/// Small contents that left the metadata.
pub const CONTENTS_PACKED: Definition = Definition::counter(
    "gateway_contents_packed_total",
    "Small contents moved from the metadata into stripes.",
    &[],
);
/// Packing and repacking that were put off.
pub const STRIPES_PUT_OFF: Definition = Definition::counter(
    "gateway_stripes_put_off_total",
    "Stripes of packing and repacking that were not named, since fewer disks took them than their profile asks for.",
    &[],
);
/// Polls that wait.
pub const POLLS_WAITING: Definition = Definition::gauge("gateway_polls_waiting", "Polls that wait for a change.", &[]);
/// Polls by what came of them.
pub const POLLS: Definition = Definition::counter("gateway_polls_total", "Polls by what came of them.", &["outcome"]);
/// Polls that were woken.
pub const POLLS_WOKEN: Definition = Definition::counter(
    "gateway_polls_woken_total",
    "Waiting polls woken by a change of their scopes.",
    &[],
);
/// From the news of a change to the answer of a poll that waited for it.
pub const POLL_LAG: Definition = Definition::latency(
    "gateway_poll_lag_seconds",
    "Time from the news of a change at this gateway to the answer of a poll that waited for it.",
    &[],
);
/// Scopes that polls wait for, or waited for lately.
pub const WATCHED_SCOPES: Definition = Definition::gauge(
    "gateway_watched_scopes",
    "Scopes that polls wait for, or waited for lately.",
    &[],
);
/// Standing calls to groups.
pub const FEED_WATCH_CALLS: Definition = Definition::counter(
    "gateway_feed_watch_calls_total",
    "Calls to metadata groups that wait until a feed goes on.",
    &[],
);
/// Reads of feeds.
pub const FEED_READS: Definition = Definition::counter(
    "gateway_feed_reads_total",
    "Pages of feeds read for polls and lists, by whether a group was asked or another poll's page was shared.",
    &["kind"],
);
/// What is kept in memory to be used again.
pub const KEPT_BYTES: Definition = Definition::gauge(
    "gateway_kept_bytes",
    "Bytes of answers about drives and of opened blocks that are kept in memory.",
    &["what"],
);
/// Uses of what is kept.
pub const KEPT_HITS: Definition = Definition::counter(
    "gateway_kept_hits_total",
    "Reads served from what is kept: answers that the group said hold, runs of blocks that were all there.",
    &["what"],
);
/// Looks in vain.
pub const KEPT_MISSES: Definition = Definition::counter(
    "gateway_kept_misses_total",
    "Reads for which nothing was kept that holds.",
    &["what"],
);

/// All of them, for docs and tests.
pub const ALL: &[Definition] = &[
    HTTP_REQUESTS,
    HTTP_LATENCY,
    UPLOADED_BYTES,
    DOWNLOADED_BYTES,
    STRIPES_WRITTEN,
    HAND_OFFS,
    WRITES_REFUSED,
    REBUILT_READS,
    CORRUPT_READS,
    BLOCKS_KNOWN,
    BLOCKS_NEW,
    BUDGET_BYTES,
    BUDGET_FREE_BYTES,
    BUDGET_REFUSED,
    REQUESTS_ADMITTED,
    REQUESTS_REFUSED,
    REQUESTS_IN_SERVICE,
    REQUESTS_IN_SERVICE_MAX,
    REQUESTS_WAITING,
    REQUEST_WAIT,
    SIGN_INS,
    METADATA_RETRIES,
    SILENT_GROUPS,
    SILENT_GROUP_REFUSED,
    CONNECTIONS,
    CONNECTIONS_PARKED,
    CONNECTIONS_TURNED_AWAY,
    STRIPES_REMOVED,
    REMOVALS_UNTOLD,
    ORPHANS_REMOVED,
    INVENTORIES,
    INVENTORY_CELLS,
    INVENTORY_SILENT_DISKS,
    MISSING_FRAGMENTS,
    STRIPES_REPACKED,
    REPACKED_BYTES,
    CONTENTS_PACKED,
    STRIPES_PUT_OFF,
    POLLS_WAITING,
    POLLS,
    POLLS_WOKEN,
    POLL_LAG,
    WATCHED_SCOPES,
    FEED_WATCH_CALLS,
    FEED_READS,
    KEPT_BYTES,
    KEPT_HITS,
    KEPT_MISSES,
];
