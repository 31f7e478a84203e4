//! A folder with very many children: the state machine of one group on RocksDB, without Raft and network.
//!
//! `cargo run --release -p metadata-raft --example children -- [children]`, by default 1,000,000. Prints what making one costs and
//! how long a page of 1,000 takes, from the beginning and from random places (SC-in-3: at most 100 ms); fails when one takes longer.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement that cannot be set up ends, and it measures by the real clock"
)]

#[path = "../tests/shared/founding.rs"]
mod founding;

use founding::{founding, user};
use kv::overlay::Overlay;
use kv::rocks::{RocksBudget, RocksKv};
use kv::seam::Kv;
use metadata_raft::state::State;
use model::authorize::Principal;
use model::id::{DriveId, GroupId};
use model::name::EntryName;
use model::time::WallTime;
use protocol::frame::encode;
use protocol::metadata::drive::{DriveCommand, EntryRef, Place};
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::{Command, CommandAnswer, Envelope, Query, QueryAnswer, Reply, RequestKey, RequestLife};
use std::time::{Duration, Instant};

const PAGE_TIME_MAX: Duration = Duration::from_millis(100);
/// As many commands as a group applies in one batch.
const BATCH: u64 = 64;

struct Group {
    state: State,
    kv: RocksKv,
    index: u64,
}

impl Group {
    fn apply(&mut self, commands: impl IntoIterator<Item = (Option<RequestKey>, Command)>) {
        let mut overlay = Overlay::new(&self.kv);
        for (request_id, command) in commands {
            self.index += 1;
            let envelope = Envelope {
                request_id,
                wall: WallTime(self.index),
                command,
            };
            let bytes = encode(&envelope).unwrap();
            let reply = self.state.apply(&mut overlay, self.index, &bytes).unwrap();
            Reply::<CommandAnswer>::from_bytes(&reply).unwrap().result.unwrap();
        }
        self.kv.write(overlay.into_batch()).unwrap();
    }

    fn page(&self, principal: Principal, drive: DriveId, page_token: Option<String>) -> (Duration, usize) {
        let ask = DriveAsk::List {
            folder: EntryRef::Id(drive.root()),
            limit: 1000,
            page_token,
        };
        let query = Query::Drive(DriveQuery {
            drive,
            principal: Some(principal),
            ask,
        });
        let query = encode(&query).unwrap();
        let begun = Instant::now();
        let answer = self.state.query(&self.kv, &query).unwrap();
        let took = begun.elapsed();
        match Reply::<QueryAnswer>::from_bytes(&answer).unwrap().result.unwrap() {
            QueryAnswer::Listing(listing) => (took, listing.entries.len()),
            other => panic!("{other:?}"),
        }
    }
}

fn folder(principal: Principal, drive: DriveId, number: u64) -> (Option<RequestKey>, Command) {
    let key = RequestKey {
        source: 1,
        id: u128::from(number),
        asked: [7; 32],
        life: RequestLife::Hour,
        made_hour: None,
    };
    let place = Place::In {
        parent: drive.root(),
        name: EntryName::new(&format!("child {:016x}", mixed(number))).unwrap(),
    };
    let command = DriveCommand::CreateFolder {
        principal,
        drive,
        place,
        with_parents: false,
        fresh: vec![mixed(number) | 2],
    };
    (Some(key), Command::Drive(command))
}

/// Spreads names and numbers over their whole range, as random ones would be.
fn mixed(number: u64) -> u64 {
    model::hash::stable_hash(&number.to_be_bytes())
}

fn main() {
    let children: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let budget = RocksBudget::new(64 << 20, 64 << 20).unwrap();
    let mut group = Group {
        state: State::new(GroupId(1)),
        kv: RocksKv::open(dir.path(), &budget).unwrap(),
        index: 0,
    };
    let (principal, drive) = user("ada");
    group.apply(founding("ada").map(|command| (None, command)));
    let begun = Instant::now();
    let mut made = 0;
    while made < children {
        let until = (made + BATCH).min(children);
        group.apply((made..until).map(|number| folder(principal, drive, number)));
        made = until;
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / children as f64;
    println!("{children} children, {each:.1} us each to apply");
    let mut times = Vec::new();
    for place in 0..201 {
        // A page token is the last name shown, which need not be there any more.
        let token = (place > 0).then(|| format!("child {:016x}", mixed(place)));
        let (took, rows) = group.page(principal, drive, token);
        assert!(rows == 1000 || place > 0, "the first page is full");
        times.push(took);
    }
    println!("first page {:.2} ms", times[0].as_secs_f64() * 1e3);
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!(
        "pages of 1000: p50 {:.2} ms, p99 {:.2} ms, slowest {:.2} ms",
        p50.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3
    );
    assert!(p99 <= PAGE_TIME_MAX, "a page took longer than {PAGE_TIME_MAX:?}");
}
