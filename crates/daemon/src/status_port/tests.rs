//! The status port over a real connection: the three pages, a role that starts, is ready, is not, or does not tell.

use super::{Life, Page, Readiness, Roles, StatusPort, answer_of};
use crate::metrics::{Definition, Metrics};
use crate::shutdown::Shutdown;
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CALLS: Definition = Definition::counter("test_calls_total", "Calls made.", &[]);

struct Says(Option<Result<&'static str, &'static str>>);

#[async_trait]
impl Readiness for Says {
    async fn ready(&self) -> Result<String, String> {
        match self.0 {
            Some(answer) => answer.map(str::to_owned).map_err(str::to_owned),
            None => std::future::pending().await,
        }
    }
}

async fn ask(address: SocketAddr, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

async fn opened(page: Page) -> (StatusPort, Roles, Metrics, Shutdown) {
    let (roles, metrics, shutdown) = (Roles::default(), Metrics::new(), Shutdown::new());
    let own = metrics.of_role("node-3");
    let listen = "127.0.0.1:0".parse().unwrap();
    let port = StatusPort::open(listen, roles.clone(), own.clone(), page, shutdown.clone());
    own.define(&[CALLS]);
    (port.unwrap(), roles, metrics, shutdown)
}

#[tokio::test]
async fn a_role_is_starting_then_ready_or_not_and_says_why() {
    let (port, roles, _metrics, shutdown) = opened(Page::Role).await;
    let address = port.address();
    assert_eq!(ask(address, "GET /healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(
        ask(address, "GET /readyz").await.0,
        503,
        "nothing runs behind the port yet"
    );
    roles.announce("node-3");
    let (status, body) = ask(address, "GET /readyz").await;
    assert_eq!((status, body.as_str()), (503, "node-3: not ready: starting\n"));
    roles.stands("node-3", Arc::new(Says(Some(Ok("")))));
    assert_eq!(ask(address, "GET /readyz").await, (200, "node-3: ready\n".to_owned()));
    roles.stands("node-3", Arc::new(Says(Some(Ok("disk 7 is read-only")))));
    roles.stands("metadata-1", Arc::new(Says(Some(Err("no quorum")))));
    let (status, body) = ask(address, "GET /readyz").await;
    let lines = "metadata-1: not ready: no quorum\nnode-3: ready; disk 7 is read-only\n";
    assert_eq!((status, body.as_str()), (503, lines));
    roles.stops("metadata-1");
    assert!(
        ask(address, "GET /readyz")
            .await
            .1
            .contains("metadata-1: not ready: stopping")
    );
    shutdown.request();
    assert_eq!(ask(address, "GET /readyz").await, (503, "stopping\n".to_owned()));
}

#[tokio::test]
async fn a_role_that_does_not_tell_in_time_is_not_ready() {
    let answer = answer_of(
        Life::Standing(Arc::new(Says(None))),
        std::time::Duration::from_millis(20),
    )
    .await;
    assert_eq!(answer, Err("it did not tell within 20 ms".to_owned()));
}

#[tokio::test]
async fn metrics_are_the_roles_or_the_processs_and_other_paths_and_methods_are_refused() {
    let (port, _roles, metrics, shutdown) = opened(Page::Role).await;
    let address = port.address();
    let other = metrics.of_role("node-4");
    other.define(&[CALLS]);
    let (status, page) = ask(address, "GET /metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("test_calls_total{process=\"node-3\"} 0"), "{page}");
    assert!(!page.contains("node-4"), "{page}");
    let listen = "127.0.0.1:0".parse().unwrap();
    let whole = StatusPort::open(listen, Roles::default(), metrics, Page::Process, shutdown);
    let whole = whole.unwrap();
    let (_, page) = ask(whole.address(), "GET /metrics").await;
    assert!(page.contains("node-3") && page.contains("node-4"), "{page}");
    assert_eq!(ask(address, "GET /").await.0, 404);
    assert_eq!(ask(address, "POST /metrics").await.0, 405);
    drop(port);
    let is_gone = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), is_gone)
        .await
        .expect("the port ends with its role");
}

#[tokio::test]
async fn an_address_in_use_is_refused_with_what_to_do() {
    let (port, ..) = opened(Page::Role).await;
    let again = StatusPort::open(
        port.address(),
        Roles::default(),
        Metrics::new(),
        Page::Role,
        Shutdown::new(),
    );
    let refused = again.err().unwrap();
    assert!(refused.to_string().contains("choose another status.listen"));
}
