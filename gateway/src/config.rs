//! The `[gateway]` section: what the file may say, and the checked form that travels.
//!
//! Invariants: outside of loopback plain HTTP is served only behind a proxy that was named; secrets come from files only.

use crate::connections;
use crate::drive::notices::PollLimits;
use codec::keys::{Kek, KeyError};
use daemon::config::Problem;
use daemon::resources;
use daemon::secret::{self, SecretError};
use model::limits::{BODY_PATIENCE, FILE_BYTES_MAX, HEAD_PATIENCE};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One stripe in flight takes 12 MiB and a little; with less no upload of unknown length moves.
const BUDGET_BYTES_MIN: u64 = 16 << 20;
/// Used where the kernel does not tell how much memory there is.
const BUDGET_BYTES_UNKNOWN: u64 = 512 << 20;
/// Uploads may hold one part in this many of the memory that the process has: the rest is for downloads, connections and sign-ins,
/// which have bounds of their own.
const MEMORY_PARTS: u64 = 4;

/// What answers and opened blocks may take in memory when nothing else was said. A guess: what a thousand people have open in a minute.
pub const CACHE_BYTES_DEFAULT: u64 = 64 << 20;
/// One part in this many of it is for answers, which are small; the rest is for opened blocks.
const CACHE_PARTS: u64 = 4;

/// What uploads may hold when nothing else was said: a quarter of the memory, and never less than one upload needs.
pub fn upload_budget_default() -> u64 {
    resources::memory_bytes().map_or(BUDGET_BYTES_UNKNOWN, |bytes| {
        (bytes / MEMORY_PARTS).max(BUDGET_BYTES_MIN)
    })
}

/// Short requests in service when nothing else was said: measured in decision 0032.
pub const REQUESTS_IN_SERVICE_MAX: usize = 128;
/// Held ones: four times as many, so one user alone has half of the above in service and three times as many waiting.
pub const REQUESTS_HELD_MAX: usize = 512;
/// Longest wait for service. A guess: people try again after that, and programs give up.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(1);
/// Service aimed at: with a fresh wait before it most of QAS-006's half second is left to chance.
pub const REQUEST_TARGET: Duration = Duration::from_millis(300);
const REQUEST_WAIT_LONGEST: Duration = Duration::from_secs(60);
/// Transfers at once, however small the budget.
const TRANSFERS_MIN: usize = 64;
const TRANSFERS_MAX: usize = 1024;
/// A download reads three stripes ahead at most, which is what one third of an upload's first share is.
const BYTES_A_TRANSFER: u64 = 4 << 20;

/// Transfers at once when nothing else was said.
fn transfers_default(upload_budget_bytes: u64) -> usize {
    let count = usize::try_from(upload_budget_bytes / BYTES_A_TRANSFER).unwrap_or(TRANSFERS_MAX);
    count.clamp(TRANSFERS_MIN, TRANSFERS_MAX)
}

/// The section as the file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGateway {
    listen: String,
    kek_file: PathBuf,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    #[serde(default)]
    behind_proxy: bool,
    functions: Option<Vec<String>>,
    upload_budget_bytes: Option<u64>,
    requests_in_service_max: Option<usize>,
    requests_held_max: Option<usize>,
    request_wait_ms_max: Option<u64>,
    request_target_ms: Option<u64>,
    transfers_max: Option<usize>,
    #[serde(default)]
    metadata_reads: MetadataReads,
    cache_bytes: Option<u64>,
    #[serde(default)]
    browser_origins: Vec<String>,
}

/// Which replica of a group a gateway asks; each answers from a state that holds everything acknowledged before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataReads {
    /// The leader: one hop less, since a follower asks it. Where all stand near each other that is what counts, so it is the default.
    #[default]
    Leader,
    /// The replica that stands nearest to the gateway: spares the leader, and long answers stay in their region.
    Nearest,
}

/// What a gateway serves; all on by default, so that API, block and notification servers can scale and fail apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Tree, accounts, sign-in, administration.
    pub api: bool,
    /// Contents.
    pub block: bool,
    /// Change notices.
    pub notify: bool,
}

/// How much a gateway takes on at once (decision 0032).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Short requests that are worked on at once, at most.
    pub requests_in_service_max: usize,
    /// Short requests that are held in all: worked on, waiting for that, or waiting for their client.
    pub requests_held_max: usize,
    /// How long a request waits at most until it is worked on.
    pub wait_max: Duration,
    /// How long a short request should take in the mean once it is worked on; fewer are worked on at once where it is longer.
    pub service_target: Duration,
    /// Contents under way that are long or of unknown length.
    pub transfers_max: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            requests_in_service_max: REQUESTS_IN_SERVICE_MAX,
            requests_held_max: REQUESTS_HELD_MAX,
            wait_max: REQUEST_WAIT_MAX,
            service_target: REQUEST_TARGET,
            transfers_max: TRANSFERS_MIN,
        }
    }
}

impl AdmissionLimits {
    /// What is wrong with them.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |is_wrong: bool, key, what, remedy| {
            if is_wrong {
                problems.push(Problem::new(key, what, remedy));
            }
        };
        let none = "lets nobody in";
        check(
            self.requests_in_service_max == 0,
            "gateway.requests_in_service_max",
            none,
            "set it to at least 1",
        );
        check(
            self.requests_held_max < self.requests_in_service_max,
            "gateway.requests_held_max",
            "is less than requests_in_service_max, which are held too",
            "set it to at least requests_in_service_max",
        );
        check(
            self.wait_max.is_zero() || self.wait_max > REQUEST_WAIT_LONGEST,
            "gateway.request_wait_ms_max",
            "is no time that a client would wait",
            "set it to 1 to 60000",
        );
        check(
            self.service_target.is_zero() || self.service_target > REQUEST_WAIT_LONGEST,
            "gateway.request_target_ms",
            "is no time that a client would wait",
            "set it to 1 to 60000",
        );
        check(
            self.transfers_max < 2,
            "gateway.transfers_max",
            none,
            "set it to at least 2",
        );
        problems
    }
}

/// What is kept in memory to be used again (decision 0043); nothing where it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of answers about drives.
    pub answers_bytes: u64,
    /// Bytes of opened blocks.
    pub blocks_bytes: u64,
}

impl CacheLimits {
    /// Both together take `bytes`.
    pub fn of(bytes: u64) -> Self {
        let answers_bytes = bytes / CACHE_PARTS;
        Self {
            answers_bytes,
            blocks_bytes: bytes - answers_bytes,
        }
    }
}

/// What a client may do to a gateway. No configuration reaches these: the API promises them, and only tests are in more of a hurry.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes_max: u64,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections of HTTP/2 at once whose clients may send much ahead; those beyond may send little.
    pub wide_windows_max: usize,
    /// A request's head comes within this, or its connection is closed.
    pub head_patience: Duration,
    /// A body's sender is silent for less than this, or its request is refused.
    pub body_patience: Duration,
    /// Polls that wait.
    pub polls: PollLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes_max: FILE_BYTES_MAX,
            connections_max: connections::connections_max(),
            wide_windows_max: connections::wide_windows_max(),
            head_patience: HEAD_PATIENCE,
            body_patience: BODY_PATIENCE,
            polls: PollLimits::default(),
        }
    }
}

/// The checked section.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where HTTP is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The cluster's key-encryption key.
    pub kek_file: PathBuf,
    /// Certificate chain and key in PEM; plain HTTP without.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What is served.
    pub functions: Functions,
    /// What all uploads together may hold in memory.
    pub upload_budget_bytes: u64,
    /// How much is taken on at once.
    pub admission: AdmissionLimits,
    /// Which replicas answer queries.
    pub metadata_reads: MetadataReads,
    /// What is kept to be used again.
    pub cache: CacheLimits,
    /// What clients may do.
    pub limits: Limits,
    /// Origins whose pages may call from a browser.
    pub browser_origins: Vec<String>,
}

impl RawGateway {
    fn admission(&self, upload_budget_bytes: u64) -> AdmissionLimits {
        let fallback = AdmissionLimits::default();
        AdmissionLimits {
            requests_in_service_max: self.requests_in_service_max.unwrap_or(fallback.requests_in_service_max),
            requests_held_max: self.requests_held_max.unwrap_or(fallback.requests_held_max),
            wait_max: self
                .request_wait_ms_max
                .map_or(fallback.wait_max, Duration::from_millis),
            service_target: self
                .request_target_ms
                .map_or(fallback.service_target, Duration::from_millis),
            transfers_max: self
                .transfers_max
                .unwrap_or_else(|| transfers_default(upload_budget_bytes)),
        }
    }

    /// Checks the section and gives every problem found.
    pub fn check(self) -> Result<GatewayConfig, Vec<Problem>> {
        let upload_budget_bytes = self.upload_budget_bytes.unwrap_or_else(upload_budget_default);
        let admission = self.admission(upload_budget_bytes);
        let mut problems = Vec::new();
        let listen = self.listen.parse::<SocketAddr>().ok();
        if listen.is_none() {
            problems.push(Problem::new(
                "gateway.listen",
                "is no address",
                "write it as 127.0.0.1:8080",
            ));
        }
        let tls = match (self.tls_certificate, self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                problems.push(Problem::new(
                    "gateway.tls_key",
                    "stands alone",
                    "give tls_certificate and tls_key together",
                ));
                None
            }
        };
        if listen.is_some_and(|listen| !listen.ip().is_loopback()) && tls.is_none() && !self.behind_proxy {
            let what = "is not loopback and has no certificate";
            problems.push(Problem::new(
                "gateway.listen",
                what,
                "give tls_certificate and tls_key, or set behind_proxy = true",
            ));
        }
        let functions = match self.functions.as_deref().map(Functions::of) {
            None => Functions::ALL,
            Some(Ok(functions)) => functions,
            Some(Err(problem)) => {
                problems.push(problem);
                Functions::ALL
            }
        };
        if upload_budget_bytes < BUDGET_BYTES_MIN {
            problems.push(Problem::new(
                "gateway.upload_budget_bytes",
                "is below one stripe",
                "set it to at least 16777216",
            ));
        }
        problems.extend(admission.problems());
        problems.extend(origin_problem(&self.browser_origins));
        match listen {
            Some(listen) if problems.is_empty() => Ok(GatewayConfig {
                listen,
                kek_file: self.kek_file,
                tls,
                functions,
                upload_budget_bytes,
                admission,
                metadata_reads: self.metadata_reads,
                cache: CacheLimits::of(self.cache_bytes.unwrap_or(CACHE_BYTES_DEFAULT)),
                limits: Limits::default(),
                browser_origins: self.browser_origins,
            }),
            _ => Err(problems),
        }
    }
}

/// What is wrong with origins that are not as browsers write them: scheme, host and port in lower case, and no wildcard.
fn origin_problem(origins: &[String]) -> Option<Problem> {
    let is_of_host = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']');
    let is_origin = |text: &String| {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_of_host))
    };
    (!origins.iter().all(is_origin)).then(|| {
        Problem::new(
            "gateway.browser_origins",
            "names what is no origin",
            "write each as https://drive.example.org, with a port that is not the usual one, and nothing behind it",
        )
    })
}

impl Functions {
    /// What a gateway serves when nothing else was said.
    pub const ALL: Self = Self {
        api: true,
        block: true,
        notify: true,
    };

    /// The functions of these names, in any order.
    ///
    /// Errors: a name is none of a function, or there is none at all.
    pub fn of(names: &[String]) -> Result<Self, Problem> {
        let problem = |what, remedy| Err(Problem::new("gateway.functions", what, remedy));
        let mut functions = Self {
            api: false,
            block: false,
            notify: false,
        };
        for name in names {
            match name.as_str() {
                "api" => functions.api = true,
                "block" => functions.block = true,
                "notify" => functions.notify = true,
                _ => return problem("names no function", "use api, block, notify"),
            }
        }
        if names.is_empty() {
            return problem("is empty", "name at least one of api, block, notify");
        }
        Ok(functions)
    }

    /// The names of those that are on.
    pub fn names(self) -> Vec<String> {
        let all = [("api", self.api), ("block", self.block), ("notify", self.notify)];
        let on = all.into_iter().filter(|(_, is_on)| *is_on);
        on.map(|(name, _)| name.to_owned()).collect()
    }
}

/// Why the KEK cannot be used; its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The file is missing, open to others, or unreadable.
    #[error("kek: {0}")]
    File(#[from] SecretError),
    /// The file holds no KEK, or one whose check value differs.
    #[error("kek file {0}: {1}; restore the file from where you keep it, without it no content can be opened")]
    Content(PathBuf, KeyError),
}

/// Reads the KEK; answers its file's text too, from which the receipt key is derived.
pub fn read_kek(path: &Path) -> Result<(Kek, zeroize::Zeroizing<Vec<u8>>), KekError> {
    let secret = secret::read(path)?;
    let content = |error| KekError::Content(path.to_owned(), error);
    let text = std::str::from_utf8(secret.expose()).map_err(|_| content(KeyError::Malformed))?;
    let kek = Kek::from_file_text(text).map_err(content)?;
    Ok((kek, zeroize::Zeroizing::new(secret.expose().to_vec())))
}

/// Makes a KEK file of mode 0600 with a fresh key, for the first start of a cluster. An existing file is left alone.
pub fn create_kek(path: &Path, random: &daemon::random::Random) -> Result<(), KekError> {
    let kek = Kek::generate(&mut |bytes| random.fill(bytes));
    secret::create(
        path,
        &secret::Secret::new(kek.to_file_text().as_bytes().to_vec()),
        random,
    )?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests damage the files that they made")]
mod tests {
    use super::{GatewayConfig, KekError, RawGateway, create_kek, read_kek};
    use daemon::config::Problem;
    use daemon::random::Random;
    use daemon::secret::SecretError;
    use std::os::unix::fs::PermissionsExt;

    fn check(json: &str) -> Result<GatewayConfig, Vec<Problem>> {
        serde_json::from_str::<RawGateway>(json).unwrap().check()
    }

    #[test]
    fn plain_http_outside_of_loopback_needs_a_proxy_or_a_certificate() {
        assert!(check(r#"{"listen":"127.0.0.1:0","kek_file":"k"}"#).is_ok());
        assert_eq!(
            check(r#"{"listen":"0.0.0.0:80","kek_file":"k"}"#).unwrap_err()[0].key,
            "gateway.listen"
        );
        assert!(check(r#"{"listen":"0.0.0.0:80","kek_file":"k","behind_proxy":true}"#).is_ok());
        assert!(check(r#"{"listen":"0.0.0.0:80","kek_file":"k","tls_certificate":"c","tls_key":"p"}"#).is_ok());
        assert!(check(r#"{"listen":"127.0.0.1:0","kek_file":"k","tls_key":"p"}"#).is_err());
        assert!(serde_json::from_str::<RawGateway>(r#"{"listen":"127.0.0.1:0","kek_file":"k","x":1}"#).is_err());
    }

    #[test]
    fn uploads_may_hold_a_quarter_of_the_memory_unless_something_else_is_said() {
        let memory = daemon::resources::memory_bytes().unwrap();
        let config = check(r#"{"listen":"127.0.0.1:0","kek_file":"k"}"#).unwrap();
        assert_eq!(config.upload_budget_bytes, (memory / 4).max(16 << 20));
        let said = check(r#"{"listen":"127.0.0.1:0","kek_file":"k","upload_budget_bytes":20000000}"#).unwrap();
        assert_eq!(said.upload_budget_bytes, 20_000_000);
        let small = check(r#"{"listen":"127.0.0.1:0","kek_file":"k","upload_budget_bytes":1000}"#).unwrap_err();
        assert_eq!(small[0].key, "gateway.upload_budget_bytes");
    }

    #[test]
    fn what_is_taken_on_at_once_may_be_said_and_must_let_somebody_in() {
        let config = check(
            r#"{"listen":"127.0.0.1:0","kek_file":"k","requests_in_service_max":3,"requests_held_max":6,
            "request_wait_ms_max":250,"request_target_ms":90,"transfers_max":4}"#,
        );
        let said = config.unwrap().admission;
        assert_eq!((said.requests_in_service_max, said.requests_held_max), (3, 6));
        assert_eq!(said.transfers_max, 4);
        assert_eq!(said.wait_max, std::time::Duration::from_millis(250));
        assert_eq!(said.service_target, std::time::Duration::from_millis(90));
        for (key, value) in [
            ("requests_in_service_max", "0"),
            ("requests_held_max", "127"),
            ("request_wait_ms_max", "0"),
            ("request_wait_ms_max", "60001"),
            ("request_target_ms", "0"),
            ("transfers_max", "1"),
        ] {
            let wrong = check(&format!(r#"{{"listen":"127.0.0.1:0","kek_file":"k","{key}":{value}}}"#)).unwrap_err();
            assert_eq!(
                (wrong.len(), wrong[0].key.as_str()),
                (1, format!("gateway.{key}").as_str()),
                "{value}"
            );
        }
        let large = r#"{"listen":"127.0.0.1:0","kek_file":"k","upload_budget_bytes":1073741824}"#;
        assert_eq!(check(large).unwrap().admission.transfers_max, 256);
    }

    #[test]
    fn no_origin_is_let_in_unless_it_is_named_whole() {
        let check = |origins: &str| {
            let json = format!(r#"{{"listen":"127.0.0.1:0","kek_file":"k","browser_origins":{origins}}}"#);
            check(&json).map(|config| config.browser_origins.len())
        };
        assert_eq!(check("[]").unwrap(), 0);
        assert_eq!(check(r#"["https://a.example","http://[::1]:8080"]"#).unwrap(), 2);
        for wrong in [
            "*",
            "null",
            "a.example",
            "https://",
            "https://*.example",
            "https://a.example/",
            "https://A.example",
        ] {
            let problems = check(&format!(r#"["https://a.example","{wrong}"]"#)).unwrap_err();
            assert_eq!(problems[0].key, "gateway.browser_origins", "{wrong}");
        }
    }

    /// shows: F39
    #[test]
    fn a_missing_open_or_altered_kek_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        assert!(matches!(read_kek(&path), Err(KekError::File(SecretError::Missing(_)))));
        create_kek(&path, &Random::seeded(1)).unwrap();
        assert!(read_kek(&path).is_ok());
        let text = std::fs::read_to_string(&path).unwrap();
        let altered = text.replacen('a', "b", 1);
        std::fs::write(&path, altered).unwrap();
        assert!(matches!(read_kek(&path), Err(KekError::Content(..))));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_kek(&path), Err(KekError::File(SecretError::TooOpen(..)))));
    }
}
