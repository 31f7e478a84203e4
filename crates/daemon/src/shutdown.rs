//! The request to stop, handed to every service and worker of a process.
//!
//! Invariant: once requested it stays requested, for this token and all made from it.
//! Not here: how long stopping may take; each service bounds that itself.

use std::io;
use tokio_util::sync::CancellationToken;

/// A token by which a process, or a part of it, is asked to stop; clones are the same token.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A token that nobody has used yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A token for a part: stops with this one, and can be stopped alone.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            token: self.token.child_token(),
        }
    }

    /// Asks everything that holds this token, or one made from it, to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether stopping was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns once stopping was asked for. May be dropped midway.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Requests this token's shutdown on the first SIGTERM or SIGINT; returns after that, or once stopped otherwise.
    ///
    /// Errors: the signal handlers cannot be installed.
    pub async fn request_on_signals(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping"),
            _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping"),
            () = self.requested() => {}
        }
        self.request();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Shutdown;

    #[tokio::test]
    async fn a_part_stops_with_the_whole_and_also_alone() {
        let whole = Shutdown::new();
        let (first, second) = (whole.part(), whole.part());
        first.request();
        first.requested().await;
        assert!(first.is_requested() && !second.is_requested() && !whole.is_requested());
        whole.clone().request();
        second.requested().await;
        assert!(whole.is_requested());
    }
}
