//! The authority and the identities of a cluster as files: who may talk to whom.
//!
//! A directory of an identity holds `certificate.pem`, `key.pem` (0600) and `authority.pem`; the authority's own directory also
//! its key. Invariant: keys are written once, readable by their owner alone, and synced before anything uses them.

use anyhow::{Context, ensure};
use daemon::random::Random;
use daemon::secret::{self, Secret};
use model::id::ClusterId;
use model::process::ProcessId;
use model::time::WallTime;
use rpc::authority::ClusterAuthority;
use rpc::identity::{Identity, IdentityPem};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ten years: an authority outlives the disks.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Two years; a process whose certificate ends says so in its log a month before.
const IDENTITY_LIFE: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// The authority of a cluster, in its directory.
pub(crate) struct AuthorityFiles {
    directory: PathBuf,
    authority: ClusterAuthority,
}

impl AuthorityFiles {
    /// Opens the authority in `directory`, or makes one for a new random cluster.
    pub(crate) fn open_or_create(directory: &Path, now: WallTime, random: &Random) -> anyhow::Result<Self> {
        let (certificate, key) = (directory.join("authority.pem"), directory.join("authority.key"));
        if certificate.exists() {
            let pem = fs::read_to_string(&certificate).with_context(|| format!("read {}", certificate.display()))?;
            let key = secret::read(&key)?;
            let key = std::str::from_utf8(key.expose()).context("the authority's key is no text")?;
            let authority = ClusterAuthority::load(&pem, key)?;
            return Ok(Self {
                directory: directory.to_owned(),
                authority,
            });
        }
        ensure!(
            !key.exists(),
            "{} is there without its certificate; restore {}",
            key.display(),
            certificate.display()
        );
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let authority = ClusterAuthority::create(ClusterId(random.u128()), now, AUTHORITY_LIFE)?;
        // 1. The key, synced: a crash behind it leaves a key without certificate, which the next start names.
        // 2. The certificate: from then on the cluster exists.
        secret::create(&key, &Secret::new(authority.key_pem().as_bytes().to_vec()), random)?;
        secret::create(
            &certificate,
            &Secret::new(authority.certificate_pem().as_bytes().to_vec()),
            random,
        )?;
        Ok(Self {
            directory: directory.to_owned(),
            authority,
        })
    }

    /// Whose authority it is.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.authority.cluster()
    }

    /// The identity of `process`, from its directory or newly issued into it.
    pub(crate) fn identity(&self, process: ProcessId, now: WallTime, random: &Random) -> anyhow::Result<Identity> {
        let directory = self.identity_directory(process);
        if !directory.join("certificate.pem").exists() {
            let pem = self.authority.issue(process, now, IDENTITY_LIFE)?;
            write_identity(&directory, &pem, random)?;
        }
        let identity = load_identity(&directory)?;
        ensure!(
            identity.process() == process && identity.cluster() == self.cluster(),
            "{} holds the identity of {} of cluster {}, not of {process}; put the right files back",
            directory.display(),
            identity.process(),
            identity.cluster()
        );
        Ok(identity)
    }

    /// Where the identity of `process` lies.
    pub(crate) fn identity_directory(&self, process: ProcessId) -> PathBuf {
        self.directory.join("identities").join(process.to_string())
    }
}

fn write_identity(directory: &Path, pem: &IdentityPem, random: &Random) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let parts = [
        ("authority.pem", pem.authority.as_bytes()),
        ("key.pem", pem.key.as_bytes()),
        ("certificate.pem", pem.certificate.as_bytes()),
    ];
    // The certificate comes last: an identity without it is issued anew, and a key left by a crash is then in the way.
    for (name, bytes) in parts {
        let path = directory.join(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        secret::create(&path, &Secret::new(bytes.to_vec()), random)?;
    }
    Ok(())
}

/// Loads the identity in `directory`.
pub(crate) fn load_identity(directory: &Path) -> anyhow::Result<Identity> {
    let text = |name: &str| -> anyhow::Result<String> {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let key = secret::read(&directory.join("key.pem"))?;
    let key = String::from_utf8(key.expose().to_vec()).context("the key is no text")?;
    let pem = IdentityPem {
        certificate: text("certificate.pem")?,
        key,
        authority: text("authority.pem")?,
    };
    Identity::from_pem(&pem).with_context(|| format!("load the identity in {}", directory.display()))
}
