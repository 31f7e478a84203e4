//! What the samples were spent on, by kinds of work: the largest shares of a phase as a table.
//!
//! A sample is of the first kind that one of its frames belongs to, from the innermost outwards; so what a copy costs is a copy's share
//! whoever asked for it, and who asked most stands beside.
//! Pure. Invariant: each sample is of exactly one kind, so the shares of all kinds are 100 percent.

use super::fold::{Folded, package};
use std::collections::BTreeMap;

const ROWS: usize = 10;
/// Packages of ours, for who asked.
const OURS: [&str; 11] = [
    "gateway",
    "node",
    "metadata_raft",
    "codec",
    "disk",
    "rpc",
    "kv",
    "protocol",
    "daemon",
    "placement",
    "model",
];

/// A kind of work.
struct Work {
    name: &'static str,
    /// What it is, for the table.
    says: &'static str,
    /// What the names of its frames begin with.
    beginnings: &'static [&'static str],
}

const fn work(name: &'static str, says: &'static str, beginnings: &'static [&'static str]) -> Work {
    Work { name, says, beginnings }
}

/// Of two that fit, the upper one.
const KINDS: [Work; 24] = [
    work(
        "page faults",
        "Fresh memory from the kernel, cleared page by page, for buffers as long as blocks and stripes.",
        &[
            "kernel: page fault",
            "kernel: madvise",
            "kernel: munmap",
            "kernel: mmap",
            "kernel: brk",
            "kernel: mprotect",
        ],
    ),
    // Before the writes, since names are compared by their beginnings.
    work(
        "TCP",
        "The client's connection, read and written.",
        &["kernel: recvfrom", "kernel: sendto", "kernel: writev"],
    ),
    work(
        "file writes",
        "Copies into the page cache; a page that is new to it must be found first.",
        &[
            "kernel: pwrite",
            "kernel: write",
            "kernel: fallocate",
            "kernel: ftruncate",
        ],
    ),
    work(
        "syncs",
        "fdatasync of journals; the waiting itself is not seen.",
        &["kernel: fdatasync", "kernel: fsync", "kernel: sync_file_range"],
    ),
    work(
        "file reads",
        "Copies out of the page cache.",
        &["kernel: pread", "kernel: read"],
    ),
    work(
        "UDP out",
        "Sending packets, and their way through the loopback up to the receiver's queue.",
        &["kernel: sendmsg", "kernel: sendmmsg"],
    ),
    work("UDP in", "Receiving packets.", &["kernel: recvmsg", "kernel: recvmmsg"]),
    work(
        "waiting and waking",
        "Threads that go to sleep or wake others.",
        &[
            "kernel: epoll",
            "kernel: futex",
            "kernel: sched_yield",
            "kernel: clock_nanosleep",
            "kernel: ppoll",
        ],
    ),
    work(
        "interrupts and the rest of the kernel",
        "Timers, devices, and calls of no kind above.",
        &["kernel"],
    ),
    work(
        "copies and clearing of memory",
        "memmove and memset; the code says at each copy why it is made.",
        &["__memmove", "__memcpy", "__memset", "memcpy", "memmove", "memset"],
    ),
    work(
        "allocator",
        "glibc's malloc and free.",
        &[
            "malloc",
            "_int_malloc",
            "free",
            "cfree",
            "_int_free",
            "unlink_chunk",
            "realloc",
            "_int_realloc",
            "calloc",
            "__libc_calloc",
            "sysmalloc",
            "systrim",
            "operator new",
            "operator delete",
        ],
    ),
    work(
        "sealing and opening of blocks",
        "AES-256-GCM of what users put in.",
        &[
            "aes",
            "ring::aead",
            "polyval",
            "ghash",
            "codec::seal",
            "codec::cipher",
            "universal_hash",
            "ctr::",
            "cipher::",
            "hybrid_array",
        ],
    ),
    work(
        "BLAKE3",
        "Digests of blocks, stripes and fragments.",
        &["_blake3", "blake3"],
    ),
    work(
        "CRC32C",
        "Checksums of fragments and journal records.",
        &["crc32c", "codec::fragment"],
    ),
    work(
        "comparing of memory",
        "memcmp, mostly of keys.",
        &["__memcmp", "memcmp", "bcmp"],
    ),
    work("cutting", "Where blocks begin and end.", &["codec::cut", "fastcdc"]),
    work(
        "Reed-Solomon",
        "Parity of stripes.",
        &["reedsolomon", "reed_solomon", "codec::erasure"],
    ),
    work(
        "protection of QUIC packets",
        "TLS between processes.",
        &["ring", "rustls", "quinn_proto::crypto"],
    ),
    work(
        "QUIC without packets' protection",
        "Streams, acknowledgements and timers of connections, and our calls on them.",
        &["quinn", "quinn_proto", "quinn_udp", "rpc"],
    ),
    work(
        "RocksDB",
        "Reads and writes of a replica's state and of place indexes.",
        &["rocksdb", "kv"],
    ),
    work(
        "state machine",
        "Commands applied and queries answered, without what they read and write.",
        &["metadata_raft::state", "metadata_raft::raft::read_once"],
    ),
    work(
        "Raft",
        "openraft and what connects it to journal and network.",
        &["openraft", "metadata_raft"],
    ),
    work(
        "HTTP",
        "hyper, axum and the gateway's fronts.",
        &["hyper", "axum", "http", "gateway::http", "gateway::serve"],
    ),
    work(
        "runtime",
        "tokio's own work.",
        &["tokio", "mio", "std::sys", "std::sync"],
    ),
];
const OTHER: Work = work("other", "Of no kind above.", &[]);
const THE_LOAD: Work = work(
    "the load itself",
    "The client in the same machine, which makes and checks the bytes.",
    &[],
);
const LOAD: &str = "load";

/// The largest shares as a Markdown table.
pub(super) fn table(folded: &Folded) -> String {
    let total = folded.samples().max(1) as f64;
    let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
    for (stack, count) in &folded.stacks {
        let work = kind(stack);
        let kind = kinds.entry(work.name).or_default();
        kind.says = work.says;
        kind.samples += count;
        *kind.roles.entry(stack.first().map_or("", String::as_str)).or_default() += count;
        if let Some(asked) = stack
            .iter()
            .rev()
            .find(|name| OURS.contains(&package(name)) && name.contains("::"))
        {
            *kind.asked_by.entry(asked).or_default() += count;
        }
    }
    let mut sorted: Vec<(&str, Kind)> = kinds.into_iter().collect();
    sorted.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.samples));
    let mut text = "| share | of | what it is | roles | asked for most by |\n|---|---|---|---|---|\n".to_owned();
    for (name, kind) in sorted.iter().take(ROWS) {
        let percent = |count: u64| format!("{:.1} %", count as f64 * 100.0 / total);
        let list = |counts: &BTreeMap<&str, u64>, most: usize| {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by(|left, right| right.1.cmp(left.1));
            let counts = counts.into_iter().take(most);
            counts
                .map(|(name, count)| format!("{name} {}", percent(*count)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        text.push_str(&format!(
            "| {} | {name} | {} | {} | {} |\n",
            percent(kind.samples),
            kind.says,
            list(&kind.roles, 4),
            list(&kind.asked_by, 3)
        ));
    }
    text
}

#[derive(Default)]
struct Kind<'a> {
    says: &'static str,
    samples: u64,
    roles: BTreeMap<&'a str, u64>,
    asked_by: BTreeMap<&'a str, u64>,
}

/// What a sample was spent on.
fn kind(stack: &[String]) -> &'static Work {
    if stack.first().is_some_and(|role| role == LOAD) {
        return &THE_LOAD;
    }
    // The first two are role and thread.
    let mut frames = stack.iter().skip(2).rev();
    let fits = |work: &Work, name: &str| work.beginnings.iter().any(|beginning| name.starts_with(beginning));
    let found = frames.find_map(|name| KINDS.iter().find(|work| fits(work, name)));
    found.unwrap_or(&OTHER)
}

#[cfg(test)]
mod tests {
    use super::{kind, table};
    use crate::bench::profile::fold::Folded;

    fn stack(text: &str) -> Vec<String> {
        text.split(';').map(str::to_owned).collect()
    }

    #[test]
    fn the_innermost_frame_that_is_of_a_kind_decides() {
        for (frames, expected) in [
            (
                "node;disk;disk::journal::append;kernel: pwritev;copy (kernel)",
                "file writes",
            ),
            (
                "gateway;cpu;codec::seal::open;__memmove_avx512",
                "copies and clearing of memory",
            ),
            (
                "gateway;cpu;codec::seal::open;__memmove_avx512;kernel: page fault;clear (kernel)",
                "page faults",
            ),
            (
                "gateway;cpu;codec::seal::open;unheard_of",
                "sealing and opening of blocks",
            ),
            (
                "gateway;cpu;quinn_proto::send;ring_core__aes",
                "protection of QUIC packets",
            ),
            ("gateway;cpu;unheard_of", "other"),
            ("load;tokio-rt-worker;blake3::hash", "the load itself"),
            ("gateway;cpu", "other"),
        ] {
            assert_eq!(kind(&stack(frames)).name, expected, "{frames}");
        }
    }

    #[test]
    fn shares_are_sorted_and_say_who_asked() {
        let folded = Folded {
            stacks: [
                (stack("node;t;disk::journal::append;kernel: pwritev;copy (kernel)"), 6),
                (stack("node;t;node::store::read;malloc"), 1),
                (stack("gateway;t;rpc::call;malloc"), 3),
            ]
            .into(),
        };
        let table = table(&folded);
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 4);
        assert!(rows[2].starts_with("| 60.0 % | file writes | Copies "), "{}", rows[2]);
        assert!(
            rows[2].ends_with(" | node 60.0 % | disk::journal::append 60.0 % |"),
            "{}",
            rows[2]
        );
        let asked = "| gateway 30.0 %, node 10.0 % | rpc::call 30.0 %, node::store::read 10.0 % |";
        assert!(
            rows[3].starts_with("| 40.0 % | allocator | ") && rows[3].ends_with(asked),
            "{}",
            rows[3]
        );
    }
}
