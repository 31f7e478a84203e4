//! Integration tests of the whole: a cluster on loopback as a user starts it, spoken to over HTTP and by signals.
//!
//! Each test starts its own cluster in a temporary directory on ports given by the system and ends it by its process id.
//! Not here: what a cheaper harness can show (docs/testing.md says which comes first).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the whole crate is a test: what cannot be set up fails it, and real clusters are timed by the real clock"
)]

mod accounts;
mod bursts;
mod caches;
mod cancels;
mod capacity;
mod child_processes;
mod collection;
mod conflicts;
mod content_calls;
mod content_counts;
mod contract;
mod copies;
mod crashes;
mod crowd;
mod cut_leader;
mod cuts;
mod degraded;
mod delta;
mod delta_refusals;
mod delta_work;
mod devices;
mod doors;
mod downloads;
mod entries;
mod feed;
mod file_batches;
mod followers;
mod foreign_bytes;
mod handover;
mod in_flight;
mod inside;
mod insider;
mod inventories;
mod lifetime;
mod links;
mod listing;
mod log_lines;
mod long_upload;
mod made_up;
mod majority;
mod many_groups;
mod metadata_full;
mod misplaced;
mod name_corpus;
mod names;
mod new_disks;
mod notifiers;
mod opaque;
mod other_groups;
mod outside;
mod overload;
mod packing;
mod paused_uploads;
mod pauses;
mod permissions;
mod pings;
mod pushes;
mod put_back;
mod quiet_log;
mod quota;
mod ratios;
mod refusals;
mod repacking;
mod repeats;
mod resumable;
mod rewind;
mod search;
mod secrecy;
mod separate_processes;
mod served;
mod short_writes;
mod stale_routes;
mod startup;
mod strangers;
mod tamper;
mod tokens;
mod tour;
mod traversal;
mod tus;
mod upload_ends;
mod uploads;
mod versions;
mod wire;
mod world;
mod writers;
mod wrong_clocks;
