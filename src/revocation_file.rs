//! The list of certificates that are refused, as a file that is read again when it changes.
//!
//! A line has a certificate's serial number in hex, then anything behind a `#`; empty lines are skipped. `holdfast identity revoke`
//! writes it, the operator carries it to every host.
//! Invariant: what was revoked stays revoked while the process runs, also when the file goes or is damaged later.

use crate::one_line::one_line;
use anyhow::{Context, ensure};
use daemon::clock::{Clock, until_multiple};
use daemon::shutdown::Shutdown;
use rpc::identity::Revocations;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A revoked certificate is refused this long after the file was changed, at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A list of a hundred thousand certificates is below it.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Reads `path` into `revocations`; answers the text. A file that is not there yet revokes nothing.
fn read(path: &PathBuf, revocations: &Revocations) -> anyhow::Result<String> {
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        Ok(facts) => {
            ensure!(
                facts.len() <= FILE_BYTES_MAX,
                "{} is longer than 8 MiB; check the path",
                path.display()
            );
            fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
        }
    };
    for (number, line) in text.lines().enumerate() {
        let serial = line.split('#').next().unwrap_or("").trim();
        if serial.is_empty() {
            continue;
        }
        let bytes = unhex(serial).with_context(|| {
            format!(
                "{}:{}: `{serial}` is no serial number in hex; correct the line",
                path.display(),
                number + 1
            )
        })?;
        revocations.revoke(bytes);
    }
    Ok(text)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    bytes
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))
        })
        .collect()
}

/// Reads `path` now, and again whenever it has changed, until `shutdown`.
///
/// Errors: the file is there and cannot be read or has a line that is no serial number.
pub(crate) fn follow(
    path: PathBuf,
    revocations: Revocations,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut seen = read(&path, &revocations)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = clock.sleep(until_multiple(clock.wall(), LOOK_EVERY)) => {}
            }
            match read(&path, &revocations) {
                Ok(text) if text == seen => {}
                Ok(text) => {
                    tracing::info!(file = %path.display(), "revoked certificates read again");
                    seen = text;
                }
                Err(error) => tracing::error!(error = one_line(&error), "revoked certificates are not read"),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::unhex;

    #[test]
    fn serial_numbers_read_from_hex_and_nothing_else() {
        assert_eq!(unhex("00ffA1"), Some(vec![0, 255, 0xa1]));
        for text in ["", "0", "0g", "+1", "é1"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
