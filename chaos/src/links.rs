//! Whether a single transfer is limited by its user's link and nothing else (NF-net): contents put and fetched over links of a known
//! rate and delay, by both versions of HTTP.
//!
//! Passes when each transfer keeps its link busy for at least four fifths of the time that it takes, and every byte comes back.
//! Not here: several transfers at once, links that lose or break (tests/clients), what the machine could do without a link (`bench`).

pub mod link;

use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::table;
use anyhow::{Context, ensure};
use api::upload::Uploaded;
use clap::Parser;
use client_sdk::http::{Authorities, builder};
use futures_util::StreamExt;
use link::{Link, Shape};
use reqwest::{Method, RequestBuilder, Version, header};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// NF-net: of the time that a transfer takes.
const BUSY_PERCENT_MIN: f64 = 80.0;
/// NF-net asks for both.
const NEAR: Shape = Shape {
    bits_per_s: 1_000_000_000,
    delay: Duration::ZERO,
};
const FAR: Shape = Shape {
    bits_per_s: 100_000_000,
    delay: Duration::from_millis(50),
};
/// Some seconds each, so that beginnings and ends are a small part.
const NEAR_BYTES: u64 = 1 << 30;
const FAR_BYTES: u64 = 128 << 20;

/// Arguments of the check.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success. Takes four GiB.
    #[arg(long, default_value = "target/links")]
    data_dir: PathBuf,
    /// Length of a content that goes over the near link.
    #[arg(long, default_value_t = NEAR_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    near_bytes: u64,
    /// Length of a content that goes over the far link.
    #[arg(long, default_value_t = FAR_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    far_bytes: u64,
    /// Seed of the contents.
    #[arg(long, default_value_t = 20_261_122)]
    seed: u64,
}

/// One content that went one way.
#[derive(Clone, Debug)]
struct Transfer {
    what: String,
    bytes: u64,
    took: Duration,
    busy_percent: f64,
}

impl Transfer {
    fn new(what: String, shape: Shape, bytes: u64, took: Duration) -> Self {
        Self {
            what,
            bytes,
            took,
            busy_percent: shape.busy(bytes).as_secs_f64() * 100.0 / took.as_secs_f64(),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.what.clone(),
            table::bytes(self.bytes),
            format!("{:.2} s", self.took.as_secs_f64()),
            format!("{:.1} %", self.busy_percent),
        ]
    }
}

/// Puts and fetches over all links; an error when a link was idle for too long or a byte differs.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    wipe(&arguments.data_dir)?;
    let mut cluster = DevCluster::start(&arguments.holdfast, &arguments.data_dir, &["--processes"]).await?;
    let outcome = measure(&cluster, &arguments).await;
    let stopped = cluster.stop();
    let transfers = outcome?;
    stopped?;
    let mut rows = vec![
        ["over a link", "bytes", "took", "link busy"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(transfers.iter().map(Transfer::row));
    println!("{}", table::render(&rows));
    judge(&transfers)?;
    println!("passed");
    // After a failure the data and the log stay for whoever looks.
    wipe(&arguments.data_dir)
}

fn wipe(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("wipe {}", folder.display()))?;
    }
    Ok(())
}

async fn measure(cluster: &DevCluster, arguments: &Arguments) -> anyhow::Result<Vec<Transfer>> {
    let client = cluster.client().await?;
    let token = client.token().context("who has signed in has a token")?;
    let mut transfers = Vec::new();
    let links = [
        ("1 Gbit/s", NEAR, arguments.near_bytes),
        ("100 Mbit/s, 50 ms each way", FAR, arguments.far_bytes),
    ];
    for (number, (name, shape, bytes)) in links.into_iter().enumerate() {
        let link = Link::to(&cluster.facts.url, shape).await?;
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let far_end = FarEnd::over(&link, version, token).await?;
            // Two contents of one seed would be one: the second would not be written.
            let seed = arguments.seed + 2 * number as u64 + u64::from(version == Version::HTTP_2);
            let (id, took) = far_end.put(seed, bytes).await?;
            transfers.push(Transfer::new(format!("put, {name}, {version:?}"), shape, bytes, took));
            let took = far_end.get(&id, seed, bytes).await?;
            transfers.push(Transfer::new(format!("get, {name}, {version:?}"), shape, bytes, took));
            for transfer in &transfers[transfers.len() - 2..] {
                println!("{}: {:.1} % busy", transfer.what, transfer.busy_percent);
            }
        }
    }
    Ok(transfers)
}

/// Run by `make links`.
fn judge(transfers: &[Transfer]) -> anyhow::Result<()> {
    ensure!(!transfers.is_empty(), "nothing was transferred");
    for transfer in transfers {
        ensure!(
            transfer.busy_percent >= BUSY_PERCENT_MIN,
            "{}: the link was busy for {:.1} %, {BUSY_PERCENT_MIN} are asked",
            transfer.what,
            transfer.busy_percent
        );
    }
    Ok(())
}

/// A client behind a link, on a connection that is there already.
struct FarEnd {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl FarEnd {
    async fn over(link: &Link, version: Version, token: &str) -> anyhow::Result<Self> {
        let http = builder(&Authorities::Nobody)?.tcp_nodelay(true);
        let http = match version {
            Version::HTTP_2 => http.http2_prior_knowledge(),
            _ => http.http1_only(),
        };
        let far_end = Self {
            http: http.build()?,
            url: link.url(),
            token: token.to_owned(),
        };
        let answer = far_end.request(Method::GET, "/api/v1/me").send().await?;
        ensure!(answer.version() == version, "{:?} is spoken", answer.version());
        // A connection is used again once its answer was read.
        answer.error_for_status()?.bytes().await?;
        Ok(far_end)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.bearer_auth(&self.token)
    }

    /// Puts a content; the file's id, and the time until it was acknowledged.
    async fn put(&self, seed: u64, bytes: u64) -> anyhow::Result<(String, Duration)> {
        let (content, path) = (SeededContent::new(seed, bytes).stream(|_| ()), format!("/{seed}.bin"));
        let request = self
            .request(Method::POST, "/api/v1/files/upload")
            .query(&[("uploadType", "media"), ("path", path.as_str())])
            .header(header::CONTENT_LENGTH, bytes)
            .body(reqwest::Body::wrap_stream(content));
        let begun = Instant::now();
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let took = begun.elapsed();
        let done: Uploaded = serde_json::from_slice(&answer)?;
        ensure!(
            done.entry.size == bytes,
            "{} of {bytes} bytes are there",
            done.entry.size
        );
        Ok((done.entry.id, took))
    }

    /// Fetches a content and compares it; the time until its last byte.
    async fn get(&self, id: &str, seed: u64, bytes: u64) -> anyhow::Result<Duration> {
        let request = self.request(Method::GET, &format!("/api/v1/files/{id}/content"));
        let begun = Instant::now();
        let mut stream = request.send().await?.error_for_status()?.bytes_stream();
        let mut found = blake3::Hasher::new();
        while let Some(part) = stream.next().await {
            found.update(&part.context("fetch a content")?);
        }
        let took = begun.elapsed();
        ensure!(found.count() == bytes, "{} of {bytes} bytes came back", found.count());
        let expected = tokio::task::spawn_blocking(move || SeededContent::new(seed, bytes).digest()).await?;
        ensure!(found.finalize() == expected, "a content came back different");
        Ok(took)
    }
}

#[cfg(test)]
mod tests {
    use super::{FAR, Transfer, judge};
    use std::time::Duration;

    #[test]
    fn a_link_that_was_idle_for_more_than_a_fifth_and_no_transfer_at_all_are_missed() {
        // A second of the link.
        let transfer = |took_ms| Transfer::new("put".to_owned(), FAR, 12_500_000, Duration::from_millis(took_ms));
        judge(&[transfer(1_000), transfer(1_250)]).unwrap();
        judge(&[transfer(1_000), transfer(1_251)]).unwrap_err();
        judge(&[]).unwrap_err();
        assert_eq!(transfer(2_000).row()[3], "50.0 %");
    }
}
