//! Connections that say nothing, or begin and do not go on.

use super::wire::Line;
use super::world::{DEADLINE, Wishes, World};
use crate::config::Limits;
use model::limits::{HTTP2_NARROW_WINDOW_BYTES, HTTP2_WINDOW_BYTES};
use std::time::Duration;

/// In a hurry, since a connection's patience is the machine's own time.
async fn world() -> World {
    world_with(Duration::from_millis(300)).await
}

async fn world_with(head_patience: Duration) -> World {
    let limits = Limits {
        head_patience,
        ..Limits::default()
    };
    World::start_with(Wishes {
        limits,
        ..Wishes::default()
    })
    .await
}

#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed_wherever_it_stopped() {
    let world = world().await;
    // Nothing; the beginning of a request; all but its last byte; the beginning of what HTTP/2 begins with; all of that.
    let beginnings: [&[u8]; 5] = [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r",
        b"PRI * HTTP/2.0\r\n\r",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for beginning in beginnings {
        let mut line = Line::open(world.address()).await;
        line.send(beginning).await;
        // An HTTP/2 connection says goodbye; nobody gets an answer.
        let last = line.rest().await;
        assert!(!last.starts_with(b"HTTP/1.1 2"), "{beginning:?} was answered {last:?}");
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_given_no_more_time_for_it() {
    let world = world().await;
    let mut line = Line::open(world.address()).await;
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX: "
            .iter()
            .chain(std::iter::repeat(&b'y'))
        {
            line.send_what_goes(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Ok(end) = tokio::time::timeout(Duration::from_millis(1), line.some()).await {
                return end;
            }
        }
        unreachable!("the drip has no end")
    };
    let end = tokio::time::timeout(DEADLINE, drip).await.unwrap();
    assert!(!end.starts_with(b"HTTP/1.1 2"));
}

#[tokio::test]
async fn at_the_bound_a_newcomer_takes_the_place_of_who_said_nothing_and_of_nobody_else() {
    let limits = Limits {
        connections_max: 3,
        ..Limits::default()
    };
    let world = World::start_with(Wishes {
        limits,
        ..Wishes::default()
    })
    .await;
    let silent = Line::open(world.address()).await;
    let mut asking = Vec::new();
    for _ in 0..3 {
        let mut line = Line::open(world.address()).await;
        line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(line.some().await.starts_with(b"HTTP/1.1 200 "));
        asking.push(line);
    }
    assert_eq!(silent.rest().await, b"", "the third took its place");
    // All have asked, so nobody else comes in until one of them goes.
    assert_eq!(Line::open(world.address()).await.rest().await, b"");
    for line in &mut asking {
        line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(line.some().await.starts_with(b"HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_connection_in_use_is_kept_and_then_closed_when_it_is_idle() {
    let patience = Duration::from_secs(2);
    let world = world_with(patience).await;
    let mut line = Line::open(world.address()).await;
    for _ in 0..4 {
        line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = line.some().await;
        assert!(
            answer.starts_with(b"HTTP/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        // Together longer than the patience, each far shorter.
        tokio::time::sleep(patience / 3).await;
    }
    let end = line.rest().await;
    assert_eq!(end, b"");
}

/// Begins HTTP/2 and answers how much may be sent ahead on a stream, as the gateway's first frame says (RFC 9113, 6.5).
async fn window(line: &mut Line) -> u32 {
    const SETTINGS: u8 = 4;
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    line.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    line.send(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await;
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let more = line.some().await;
        assert!(!more.is_empty(), "closed behind {bytes:?}");
        bytes.extend(more);
        let Some((head, rest)) = bytes.split_first_chunk::<9>() else {
            continue;
        };
        assert_eq!(head[3], SETTINGS, "{bytes:?}");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(settings) = rest.get(..length) else {
            continue;
        };
        let mut windows = settings.chunks_exact(6).filter(|pair| pair[..2] == INITIAL_WINDOW_SIZE);
        let value = windows.next().expect("the gateway says how wide a window is");
        return u32::from_be_bytes([value[2], value[3], value[4], value[5]]);
    }
}

#[tokio::test]
async fn only_so_many_connections_of_http2_have_wide_windows_and_give_them_back() {
    let limits = Limits {
        wide_windows_max: 1,
        ..Limits::default()
    };
    let world = World::start_with(Wishes {
        limits,
        ..Wishes::default()
    })
    .await;
    let mut first = Line::open(world.address()).await;
    assert_eq!(window(&mut first).await, HTTP2_WINDOW_BYTES);
    let mut second = Line::open(world.address()).await;
    assert_eq!(window(&mut second).await, HTTP2_NARROW_WINDOW_BYTES);
    drop(first);
    // When the gateway has seen that end is nothing that a client is told.
    let another = async {
        loop {
            let mut line = Line::open(world.address()).await;
            match window(&mut line).await {
                HTTP2_WINDOW_BYTES => return,
                other => assert_eq!(other, HTTP2_NARROW_WINDOW_BYTES),
            }
        }
    };
    tokio::time::timeout(DEADLINE, another)
        .await
        .expect("its window is free again");
}
