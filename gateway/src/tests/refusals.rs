//! What is refused before anything is done, and with which words.

use super::wire::{Line, Reply, exchange};
use super::world::{Wishes, World};
use std::time::Duration;

#[tokio::test]
async fn a_token_ends_with_its_time_and_says_so() {
    let world = World::start().await;
    let short = world.token_for(Duration::from_secs(10)).await;
    let ask =
        format!("GET /api/v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {short}\r\n\r\n");
    assert_eq!(exchange(world.address(), ask.as_bytes()).await.status, 200);
    world.clock.advance(Duration::from_millis(9_999));
    assert_eq!(exchange(world.address(), ask.as_bytes()).await.status, 200);
    world.clock.advance(Duration::from_millis(1));
    let refused = exchange(world.address(), ask.as_bytes()).await;
    refused.refused(401, "token_expired");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn a_length_over_the_whole_quota_is_refused_before_the_body() {
    let world = World::start_with(Wishes {
        quota_bytes: 1000,
        ..Wishes::default()
    })
    .await;
    const LINE: &str = "POST /api/v1/files/upload?uploadType=media&path=/f";
    let mut sender = Line::open(world.address()).await;
    sender
        .send(&world.with_token(LINE, "Content-Length: 1001\r\n", b""))
        .await;
    let problem = Reply::read(&sender.some().await).refused(507, "quota_exceeded");
    assert_eq!(problem.fields["quota_bytes"], "1000");
    assert_eq!(world.commands(), [""; 0]);
    let full = world.request(LINE, "Content-Length: 1000\r\n", &[7; 1000]).await;
    assert_eq!(full.status, 201);
    assert_eq!(world.usage().await.charged_bytes, 1000);
}

/// A version that has passed is refused before any data is written, unless the length leaves it open whether the content is the same.
///
/// shows: D-2.7 scale=1/2
#[tokio::test]
async fn a_stale_version_is_refused_before_any_data_is_written() {
    let world = World::start().await;
    let put = async |query: &str, length: usize, fill: u8| {
        let line = format!("POST /api/v1/files/upload?uploadType=media&path=/f{query}");
        world
            .request(&line, &format!("Content-Length: {length}\r\n"), &vec![fill; length])
            .await
    };
    assert_eq!(put("", 100_000, 1).await.status, 201);
    assert_eq!(put("&base_version=1", 200_000, 2).await.status, 200);
    let stripes = || {
        let written = world.core().seams.metrics.counter(&crate::metrics::STRIPES_WRITTEN);
        written.with_label_values(&["false"]).get() + written.with_label_values(&["true"]).get()
    };
    let (commands, written) = (world.commands().len(), stripes());
    assert!(written >= 2);
    let problem = put("&base_version=1", 100_000, 3)
        .await
        .refused(409, "version_conflict");
    assert_eq!(problem.fields["current"]["version"], 2);
    assert_eq!(
        (world.commands().len(), stripes()),
        (commands, written),
        "nothing was written or proposed"
    );
    // The same length: only the content tells. The same content is no conflict, another one is.
    let same = put("&base_version=1", 200_000, 2).await;
    assert_eq!(same.status, 200);
    let problem = put("&base_version=1", 200_000, 4)
        .await
        .refused(409, "version_conflict");
    assert_eq!(problem.fields["current"]["version"], 2);
    assert_eq!(world.usage().await.charged_bytes, 300_000);
}
