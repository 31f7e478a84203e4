//! One long upload across cuts and deaths of gateways, and one through a bad line.
//!
//! `HOLDFAST_UPLOAD=10240x20x3` sets MiB, cuts and deaths; `make long-upload` runs that size. `HOLDFAST_BAD_LINE=10240x20` sets MiB and
//! resets of the bad line, and `make bad-line` runs that one. Nothing is held whole: every part of the content follows from its place.
//! The line carries a stream of TCP, so no segment of it is truly lost: whatever comes behind one that would be waits as long as its
//! repeat would take. Windows that shrink meanwhile are not acted.
//! Not here: chunks of every length (`resumable`), the other protocol (`tus`), clients that others wrote (`make clients`).

use crate::child_processes::url;
use crate::served::eventually;
use crate::wire::{Sender, taken_at};
use crate::world::{Answer, World, answer, noise};
use api::upload::Uploaded;
use chaos::process_attack;
use client_sdk::client::Client;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
/// The least that a chunk must be long to count.
const CHUNK: u64 = 256 << 10;
/// What may have to be sent again after a gateway's death.
const AGAIN_MAX: u64 = 16 * MIB;

/// The numbers that a variable names, or these.
fn sizes<const COUNT: usize>(variable: &str, otherwise: [u64; COUNT]) -> [u64; COUNT] {
    let Ok(text) = std::env::var(variable) else {
        return otherwise;
    };
    let sizes: Vec<u64> = text.split('x').map(|part| part.parse().unwrap()).collect();
    sizes
        .try_into()
        .unwrap_or_else(|_| panic!("{variable} is {COUNT} numbers with an x between"))
}

fn drawn(seed: u64) -> u64 {
    u64::from_le_bytes(noise(seed, 8).try_into().unwrap())
}

/// The content from `at` on.
fn part(at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    let mut reader = blake3::Hasher::new().update(b"a long upload").finalize_xof();
    reader.set_position(at);
    reader.fill(&mut bytes);
    bytes
}

/// What comes in at least before a gateway dies: more than may be lost.
const BEFORE_DEATH: u64 = AGAIN_MAX + 4 * MIB;

/// How a connection is cut, once the gateway has taken all that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// In order.
    Closed,
    /// By a reset.
    Reset,
    /// For the client alone: the gateway sees a connection on which nothing comes any more.
    LeftOpen,
    /// As left open, and the client goes on by the other gateway.
    Moved,
}

impl Cut {
    /// In turn.
    fn of(number: usize) -> Self {
        [Self::Moved, Self::Reset, Self::LeftOpen, Self::Closed][number % 4]
    }

    /// Carries it out; answers a connection that stays.
    async fn carry_out(self, sender: Sender, port: u16) -> Option<Sender> {
        taken_at(port).await;
        match self {
            Self::Closed => drop(sender.cut_silently().await),
            Self::Reset => sender.reset(),
            Self::LeftOpen | Self::Moved => return Some(sender),
        }
        None
    }
}

/// Where connections break, and whether a gateway dies there; every place is drawn.
fn breaks(total: u64, cuts: usize, deaths: usize) -> BTreeMap<u64, bool> {
    let deaths_room = BEFORE_DEATH * (2 * deaths as u64).saturating_sub(1);
    assert!(total > deaths_room + MIB, "too little for so many deaths");
    let mut places: BTreeMap<u64, bool> = BTreeMap::new();
    let mut seed = 0;
    while places.len() < cuts + deaths {
        seed += 1;
        let is_death = places.len() < deaths;
        let place = 1 + drawn(seed) % (total - 1);
        let mut others = places.iter();
        let fits = match is_death {
            true => place > BEFORE_DEATH && others.all(|(death, _)| place.abs_diff(*death) > BEFORE_DEATH),
            false => !others.any(|(at, is_death)| *is_death && (*at - BEFORE_DEATH..=*at).contains(&place)),
        };
        if fits {
            places.insert(place, is_death);
        }
    }
    places
}

/// An upload of so many bytes, and the gateways that it may go to.
struct Upload {
    path: String,
    total: u64,
    gateways: Vec<Client>,
    urls: Vec<String>,
}

impl Upload {
    async fn begin(world: &World, urls: Vec<String>, total: u64) -> Self {
        let start = "/api/v1/files/upload?uploadType=resumable";
        let wanted = json!({"name": "long", "size": total});
        let begun = world.client.json(Method::POST, start, Some(&wanted)).await.unwrap();
        Self {
            path: format!("/upload/{}", begun["upload_id"].as_str().unwrap()),
            total,
            gateways: urls.iter().map(|url| Client::new(url).unwrap()).collect(),
            urls,
        }
    }

    /// Sends the content from `at` up to `end` in a request that promises all of it, and leaves the connection open.
    async fn send(&self, gateway: usize, mut at: u64, end: u64) -> Sender {
        let (path, total, last) = (&self.path, self.total, self.total - 1);
        let mut sender = Sender::to(&self.urls[gateway]).await;
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\ncontent-range: bytes {at}-{last}/{total}\r\n\r\n",
            total - at
        );
        sender.send(head.as_bytes()).await;
        while at < end {
            let length = (end - at).min(MIB);
            sender.send(&part(at, length)).await;
            at += length;
        }
        sender
    }

    fn port(&self, gateway: usize) -> u16 {
        let (_, port) = self.urls[gateway].rsplit_once(':').unwrap();
        port.parse().unwrap()
    }

    async fn put(&self, gateway: usize, range: &str, body: Vec<u8>) -> Answer {
        let request = self.gateways[gateway].request(Method::PUT, &self.path);
        answer(request.header("content-range", range).body(body)).await
    }

    /// The bytes that need not come again, as a gateway says.
    async fn stored(&self, gateway: usize) -> u64 {
        let asked = eventually("the upload", async || {
            let told = self.put(gateway, "bytes */*", Vec::new()).await;
            match told.status {
                StatusCode::PERMANENT_REDIRECT => Ok(told),
                _ => Err(format!("{told:?}")),
            }
        });
        asked.await.json()["size"].as_u64().unwrap()
    }

    /// The same, asked without disturbing whoever sends.
    async fn seen(&self, gateway: usize) -> u64 {
        let asked = answer(self.gateways[gateway].request(Method::GET, &self.path)).await;
        asked.json()["size"].as_u64().unwrap()
    }

    /// Waits until so much is stored, while somebody sends.
    async fn reaches(&self, gateway: usize, bytes: u64) {
        let reached = async || match self.seen(gateway).await {
            seen if seen >= bytes => Ok(()),
            seen => Err(format!("{seen} of {bytes}")),
        };
        eventually("too little is durable", reached).await;
    }

    /// Sends the least chunk from `at` on, if it ends before `before`; where the upload stands then.
    async fn advance(&self, gateway: usize, at: u64, before: u64) -> u64 {
        let end = at + CHUNK;
        if end >= before {
            return at;
        }
        let range = format!("bytes {at}-{}/{}", end - 1, self.total);
        let told = self.put(gateway, &range, part(at, CHUNK)).await;
        assert_eq!(told.status, StatusCode::PERMANENT_REDIRECT, "{told:?}");
        assert_eq!(told.header("range"), Some(format!("bytes=0-{}", end - 1).as_str()));
        end
    }

    /// Sends what is left from `at` on.
    async fn finish(&self, gateway: usize, at: u64) -> Uploaded {
        let mut sender = self.send(gateway, at, self.total).await;
        let done = sender.answer().await;
        assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
        serde_json::from_value(done.json()).unwrap()
    }

    /// Whoever finishes it once more, at whichever gateway, is told the same.
    async fn is_finished_once(&self, done: &Uploaded) {
        for gateway in 0..self.gateways.len() {
            for range in ["bytes */*".to_owned(), format!("bytes */{}", self.total)] {
                let again = self.put(gateway, &range, Vec::new()).await;
                let again: Uploaded = serde_json::from_value(again.json()).unwrap();
                assert_eq!(&again, done, "{range} at {gateway}");
            }
        }
    }
}

/// The content comes back as it was sent.
async fn comes_back(client: &Client, id: &str, total: u64) {
    let mut back = client.get(id, None).await.unwrap();
    let mut at = 0;
    while let Some(bytes) = back.chunk().await.unwrap() {
        let length = bytes.len() as u64;
        assert!(bytes == part(at, length), "altered between {at} and {}", at + length);
        at += length;
    }
    assert_eq!(at, total);
}

/// Of what a gateway took before a cut nothing is sent again, however the cut looks to it; of what a dead gateway held, or a living one
/// that the client left, 16 MiB at most, and none of it twice: the other one goes on beside it. A gateway dies, or is left, when it has
/// taken a byte, not when enough is durable.
///
/// shows: US-1.2 scale=32/10240, CMP-block side=another
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_after_every_cut_and_at_the_other_gateway_when_one_dies() {
    // MiB of the content, cuts of connections, deaths of gateways.
    let [mib, cuts, deaths] = sizes("HOLDFAST_UPLOAD", [32, 5, 1]);
    let total = mib * MIB;
    let world = World::start_with(&["--processes", "--groups", "1", "--gateways", "2"]).await;
    let upload = Upload::begin(&world, vec![url(&world, 1), url(&world, 2)], total).await;
    let (mut at, mut gateway, mut chunks) = (0, 0, 0);
    let (mut cuts_done, mut left_open) = (0, Vec::new());
    for (end, is_death) in breaks(total, cuts as usize, deaths as usize) {
        let begun = at;
        at = upload.advance(gateway, at, end).await;
        chunks += usize::from(at > begun);
        let sender = upload.send(gateway, at, end).await;
        if is_death {
            // It has taken that byte, and how much of what came before is durable by then is for it to see to.
            taken_at(upload.port(gateway)).await;
            let name = format!("gateway-{}", gateway + 1);
            process_attack::kill(&world.cluster, &name).await.unwrap();
            drop(sender);
            gateway = 1 - gateway;
            let stored = upload.stored(gateway).await;
            assert!(
                (at..=end).contains(&stored),
                "{stored} of {end} are stored, {at} were answered"
            );
            assert!(end - stored <= AGAIN_MAX, "{} come again", end - stored);
            at = stored;
            process_attack::start(&world.cluster, &name).await.unwrap();
        } else {
            // Of a short one nobody could tell whether its request has begun, unless it ends in order.
            let cut = if end - at < MIB {
                Cut::Closed
            } else {
                Cut::of(cuts_done)
            };
            cuts_done += usize::from(end - at >= MIB);
            left_open.extend(cut.carry_out(sender, upload.port(gateway)).await);
            let again_max = match cut {
                Cut::Moved => AGAIN_MAX,
                Cut::Closed | Cut::Reset | Cut::LeftOpen => 0,
            };
            if cut == Cut::Moved {
                gateway = 1 - gateway;
            }
            let stored = upload.stored(gateway).await;
            assert!(
                (at..=end).contains(&stored),
                "{cut:?}: {stored} of {end}, {at} answered"
            );
            assert!(end - stored <= again_max, "{cut:?}: {} come again", end - stored);
            at = stored;
        }
    }
    assert!(chunks > 0, "no chunk of 256 KiB stood alone");
    let done = upload.finish(gateway, at).await;
    drop(left_open);
    upload.is_finished_once(&done).await;
    assert_eq!((done.entry.size, done.entry.version), (total, 1));
    let held = world.client.me().await.unwrap().usage.bytes;
    assert_eq!(held, total, "nothing of a death or a cut is left");
    comes_back(&signed_in(&world, gateway), &done.entry.id, total).await;
}

/// The demo user at one of the gateways.
fn signed_in(world: &World, gateway: usize) -> Client {
    let number = gateway as u64 + 1;
    let token = world.client.token().unwrap();
    Client::new(&url(world, number)).unwrap().with_token(token)
}

/// Half of what a round takes.
const WAY: Duration = Duration::from_millis(150);
/// What a lost segment costs those behind it: a round until it is missed, and one until it comes again.
const LOST: Duration = Duration::from_millis(600);
/// Of so many segments one is lost.
const LOST_OF: u64 = 20;
const SEGMENT: usize = 64 << 10;
/// Segments under way in a direction.
const UNDER_WAY: usize = 64;

/// Carries one direction: each segment comes later by the way, and those behind a lost one wait for it. A reset goes the same way.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seed: u64) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, std::io::Result<Vec<u8>>)>(UNDER_WAY);
    let reading = async move {
        for number in 0.. {
            let mut segment = vec![0; SEGMENT];
            let read = from.read(&mut segment).await;
            let is_end = !matches!(read, Ok(1..));
            let lost = match drawn(seed + number).is_multiple_of(LOST_OF) {
                true => LOST,
                false => Duration::ZERO,
            };
            let carried = read.map(|length| {
                segment.truncate(length);
                segment
            });
            if sender.send((Instant::now() + WAY + lost, carried)).await.is_err() || is_end {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((due, carried)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            let Ok(segment) = carried else {
                // Without the end of the stream that dropping this half would send before.
                let stream: &TcpStream = to.as_ref();
                drop(stream.set_zero_linger());
                to.forget();
                return;
            };
            if to.write_all(&segment).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

/// A line with a round of 300 ms on which one segment of twenty is lost. When one direction has ended, both have.
async fn bad_line(listener: TcpListener, gateway: String) {
    for number in 0_u64.. {
        let (client, _) = listener.accept().await.unwrap();
        let gateway = TcpStream::connect(gateway.trim_start_matches("http://")).await.unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_gateway, to_gateway) = gateway.into_split();
        let seed = number * 1_000_000;
        tokio::spawn(async move {
            tokio::select! {
                () = carry(from_client, to_gateway, seed) => {}
                () = carry(from_gateway, to_client, seed + 500_000) => {}
            }
        });
    }
}

/// Resets in the middle of it, too: of what the server said before to hold nothing is sent again.
///
/// shows: QAS-003 scale=4/10240
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_through_a_slow_line_that_loses_and_resets() {
    let [mib, resets] = sizes("HOLDFAST_BAD_LINE", [4, 2]);
    let total = mib * MIB;
    let world = World::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = format!("http://{}", listener.local_addr().unwrap());
    let carrying = tokio::spawn(bad_line(listener, world.cluster.facts.url.clone()));
    // The first way is the bad line, the second leads around it, for looks that disturb nobody.
    let upload = Upload::begin(&world, vec![line, world.cluster.facts.url.clone()], total).await;
    let (line, around) = (0, 1);
    let mut at = 0;
    for number in 1..=resets {
        // The last quarter comes through in one piece.
        let end = total * 3 * number / (4 * resets);
        let sender = upload.send(line, at, end).await;
        // Of a long way the line holds the last part alone.
        let least = end.saturating_sub(AGAIN_MAX).max(at + MIB / 2);
        upload.reaches(around, least).await;
        let seen = upload.seen(around).await;
        sender.reset();
        let stored = upload.stored(line).await;
        assert!(
            (seen..=end).contains(&stored),
            "{stored} of {end} are stored, {seen} were"
        );
        at = upload.advance(line, stored, total).await;
    }
    let done = upload.finish(line, at).await;
    upload.is_finished_once(&done).await;
    comes_back(&world.client, &done.entry.id, total).await;
    carrying.abort();
}
