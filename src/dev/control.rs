//! The door by which `holdfast admin` has the parent of a dev cluster's processes stop one or start it again.
//!
//! A Unix socket in the data directory: one request and one reply, each a line of JSON.
//! Invariants: only the user whose cluster it is is listened to; a client that says nothing holds nobody up.
//! Not here: carrying requests out (`process_cluster`), waiting until the process is there (`process_switch`).

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

const SOCKET: &str = "control";
/// A request is a word and the name of a process.
const LINE_BYTES_MAX: u64 = 4096;
/// Both sides are on one machine, and the parent answers before anything has stopped or started.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that wait for the parent; a person gives one at a time.
const WAITING_MAX: usize = 16;

/// What may be asked of the parent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Start the process of this name, if it does not run.
    Start(String),
    /// Ask the process of this name to stop, if it runs.
    Stop(String),
}

/// What it answers: nothing more when it is under way, else why it cannot be done.
pub(crate) type Reply = Result<(), String>;

/// A request with the way back.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Reply>,
}

/// The open socket; its file goes with this value.
pub(crate) struct Control {
    path: PathBuf,
    asked: mpsc::Receiver<Asked>,
}

/// The name of the socket through an open directory: a socket's path has 107 bytes at most, and a data directory may lie deeper.
fn short_path(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

impl Control {
    /// Listens in `data_dir`, in place of a socket that a killed parent left.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        remove(data_dir);
        let path = data_dir.join(SOCKET);
        let directory = File::open(data_dir).with_context(|| format!("open {}", data_dir.display()))?;
        let listener =
            UnixListener::bind(short_path(&directory)).with_context(|| format!("listen on {}", path.display()))?;
        let (sender, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, sender.clone()));
            }
        });
        Ok(Self { path, asked })
    }

    /// The next request; never when there is none. May be dropped midway.
    pub(crate) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may be gone already; the next start removes one that is left.
        drop(fs::remove_file(&self.path));
    }
}

/// Removes the socket that a killed parent left, so that nobody takes a cluster in one process for one of processes.
pub(crate) fn remove(data_dir: &Path) {
    drop(fs::remove_file(data_dir.join(SOCKET)));
}

/// Whether a parent of processes listens in `data_dir`, or was killed there.
pub(crate) fn is_there(data_dir: &Path) -> bool {
    data_dir.join(SOCKET).exists()
}

async fn serve(stream: UnixStream, sender: mpsc::Sender<Asked>) {
    let own = rustix::process::getuid().as_raw();
    let is_own = stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0);
    if !is_own {
        return;
    }
    // Whoever is too slow or goes away gets no reply.
    let _ = tokio::time::timeout(PATIENCE, converse(stream, sender)).await;
}

async fn converse(stream: UnixStream, sender: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(read)
        .take(LINE_BYTES_MAX)
        .read_line(&mut line)
        .await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => {
            let (answer, answered) = oneshot::channel();
            drop(sender.send(Asked { request, answer }).await);
            answered
                .await
                .unwrap_or_else(|_| Err("the cluster is stopping".to_owned()))
        }
        Err(error) => Err(format!("this is no request: {error}")),
    };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

/// Asks the parent in `data_dir`; on return what was asked for is under way.
///
/// Errors: nobody listens, or it cannot be done.
pub(crate) fn ask(data_dir: &Path, request: &Request) -> anyhow::Result<()> {
    let shown = data_dir.join(SOCKET);
    let context = || format!("ask {}", shown.display());
    let directory = File::open(data_dir).with_context(|| format!("open {}", data_dir.display()))?;
    let mut stream = BlockingStream::connect(short_path(&directory)).with_context(context)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", serde_json::to_string(request)?).with_context(context)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).with_context(context)?;
    match serde_json::from_str::<Reply>(&line).with_context(context)? {
        Ok(()) => Ok(()),
        Err(why) => bail!(why),
    }
}

#[cfg(test)]
mod tests {
    use super::{Control, Request, ask, is_there};

    #[tokio::test]
    async fn a_request_is_carried_to_the_parent_and_its_answer_back_from_however_deep_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let mut control = Control::open(&deep).unwrap();
        for (request, reply) in [
            (Request::Stop("node-1".to_owned()), Ok(())),
            (Request::Start("node-9".to_owned()), Err("there is none".to_owned())),
        ] {
            let (asking, path) = (request.clone(), deep.clone());
            let asking = tokio::task::spawn_blocking(move || ask(&path, &asking).map_err(|error| error.to_string()));
            let asked = control.next().await;
            assert_eq!(asked.request, request);
            asked.answer.send(reply.clone()).unwrap();
            assert_eq!(asking.await.unwrap(), reply);
        }
        drop(control);
        assert!(!is_there(&deep));
        assert!(ask(&deep, &Request::Stop("node-1".to_owned())).is_err());
    }
}
