//! A proxy of TCP on loopback in front of a server: it takes in connections, and how the bytes of each travel is its caller's to say.
//!
//! Invariant: it and its connections end when the value is dropped.
//! Not here: what is done to the bytes on their way (`delta::wire` counts them, `links::link` holds them up).

use anyhow::Context;
use std::io;
use std::net::SocketAddr;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The proxy.
pub struct Carrier {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

/// Both ends of a connection, each way: what is read from one is written to the other.
pub struct Ends {
    /// Requests come in here.
    pub from_client: OwnedReadHalf,
    /// And go out here.
    pub to_server: OwnedWriteHalf,
    /// Answers come in here.
    pub from_server: OwnedReadHalf,
    /// And go out here.
    pub to_client: OwnedWriteHalf,
}

impl Ends {
    /// Goes on to the server at `host`, a name or address with a port.
    ///
    /// Errors: nobody listens there, or an end has broken off.
    pub async fn of(client: TcpStream, host: &str) -> io::Result<Self> {
        let server = TcpStream::connect(host).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        Ok(Self {
            from_client,
            to_server,
            from_server,
            to_client,
        })
    }
}

impl Carrier {
    /// Begins to give each connection that comes in to `carry`, with the host and port of `url`, which speaks plain HTTP.
    ///
    /// Errors: another scheme, no free port.
    pub async fn to<F>(url: &str, carry: impl Fn(TcpStream, String) -> F + Send + 'static) -> anyhow::Result<Self>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let host = url.strip_prefix("http://").context("a dev cluster speaks plain HTTP")?;
        let host = host.to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            // When the listener fails the clients are told by their connections.
            while let Ok((client, _)) = listener.accept().await {
                let carried = carry(client, host.clone());
                connections.spawn(async move {
                    // A connection that broke is seen by its client.
                    drop(carried.await);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
