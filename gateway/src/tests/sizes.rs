//! The largest file, to the byte, with a small limit in place of 10 GiB.

use super::wire::{Line, Reply, chunk, noise};
use super::world::{Wishes, World};
use crate::config::Limits;
use model::limits::FILE_BYTES_MAX;

const MAX: usize = 3 << 20;

async fn world() -> World {
    let limits = Limits {
        file_bytes_max: MAX as u64,
        ..Limits::default()
    };
    World::start_with(Wishes {
        limits,
        ..Wishes::default()
    })
    .await
}

fn line(path: &str) -> String {
    format!("POST /api/v1/files/upload?uploadType=media&path={path}")
}

#[test]
fn production_takes_ten_gibibytes_and_nothing_else_is_configured() {
    assert_eq!(FILE_BYTES_MAX, 10 * 2_u64.pow(30));
    assert_eq!(Limits::default().file_bytes_max, FILE_BYTES_MAX);
}

/// shows: C-4 scale=1/2
#[tokio::test]
async fn a_declared_length_is_refused_before_the_body_when_it_is_one_byte_too_many() {
    let world = world().await;
    let body = noise(1, MAX + 1);
    // Only the head is sent: the refusal does not wait for a single byte.
    let mut refused = Line::open(world.address()).await;
    let declared = format!("Content-Length: {}\r\n", body.len());
    refused.send(&world.with_token(&line("/f"), &declared, b"")).await;
    Reply::read(&refused.some().await).refused(413, "file_too_large");
    assert_eq!(world.commands(), [""; 0]);
    let declared = format!("Content-Length: {MAX}\r\n");
    let taken = world.request(&line("/f"), &declared, &body[..MAX]).await;
    assert_eq!(taken.status, 201);
}

/// shows: C-4 scale=1/2
#[tokio::test]
async fn an_undeclared_length_is_refused_at_the_byte_that_is_too_many() {
    let world = world().await;
    let body = noise(2, MAX + 1);
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let mut sender = Line::open(world.address()).await;
    sender
        .send(&world.with_token(&line("/f"), CHUNKED, &chunk(&body[..MAX])))
        .await;
    // The stripes of what came so far are written, and nothing is refused yet.
    sender.send(&chunk(&body[MAX..])).await;
    Reply::read(&sender.some().await).refused(413, "file_too_large");
    assert!(!world.commands().contains(&"CommitUpload"), "{:?}", world.commands());
    assert!(!world.has("/f").await);
    assert_eq!(world.usage().await.charged_bytes, 0);
    let whole = [chunk(&body[..MAX]), chunk(b"")].concat();
    assert_eq!(world.request(&line("/f"), CHUNKED, &whole).await.status, 201);
    assert_eq!(world.usage().await.charged_bytes, MAX as u64);
}

const BEFORE: &str = "--cut\r\nContent-Type: application/json\r\n\r\n{\"path\":\"/f\"}\r\n--cut\r\n\r\n";
const BEHIND: &str = "\r\n--cut--\r\n";

fn parts(content: &[u8]) -> Vec<u8> {
    [BEFORE.as_bytes(), content, BEHIND.as_bytes()].concat()
}

/// The length of the content follows from that of the body once the first part was read.
#[tokio::test]
async fn a_multipart_content_is_refused_before_its_first_byte_or_at_the_byte() {
    const LINE: &str = "POST /api/v1/files/upload?uploadType=multipart";
    const MEDIA: &str = "Content-Type: multipart/related; boundary=cut\r\n";
    let world = world().await;
    let content = noise(3, MAX + 1);
    let (fits, passes) = (parts(&content[..MAX]), parts(&content));
    let declared = |bytes: usize| format!("{MEDIA}Content-Length: {bytes}\r\n");

    // So long that no first part can explain it: nothing at all is read.
    let mut sender = Line::open(world.address()).await;
    sender.send(&world.with_token(LINE, &declared(MAX * 2), b"")).await;
    Reply::read(&sender.some().await).refused(413, "file_too_large");
    // One byte: the first part and the head of the second are read.
    let mut sender = Line::open(world.address()).await;
    sender
        .send(&world.with_token(LINE, &declared(passes.len()), BEFORE.as_bytes()))
        .await;
    Reply::read(&sender.some().await).refused(413, "file_too_large");

    let chunked = format!("{MEDIA}Transfer-Encoding: chunked\r\n");
    let mut sender = Line::open(world.address()).await;
    sender.send(&world.with_token(LINE, &chunked, &chunk(&passes))).await;
    Reply::read(&sender.some().await).refused(413, "file_too_large");

    assert_eq!(world.commands(), [""; 0]);
    assert!(!world.has("/f").await);
    assert_eq!(world.request(LINE, &declared(fits.len()), &fits).await.status, 201);
}
