//! The authority and the identities of a cluster as files: who may talk to whom.
//!
//! A directory of an identity holds `certificate.pem`, `key.pem` (0600) and `authority.pem`, that of a metadata replica also the
//! mark of `first_start`. The authority's directory holds its certificate and key, the identities, `issued` (every certificate ever
//! issued: name and serial number) and `revoked` (`revocation_file`).
//! Invariants: keys are written once, readable by their owner alone, and synced before anything uses them; a number stands in
//! `issued` before its certificate exists, so that none is ever issued to a second process.

use crate::first_start;
use anyhow::{Context, bail, ensure};
use daemon::random::Random;
use daemon::secret::{self, Secret};
use model::id::ClusterId;
use model::process::{ProcessId, Role};
use model::time::WallTime;
use rpc::authority::ClusterAuthority;
use rpc::identity::{Identity, IdentityError, IdentityPem};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ten years: an authority outlives the disks.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Two years, after which `holdfast identity renew` issues the next.
const IDENTITY_LIFE: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
const ISSUED_FILE: &str = "issued";
const REVOKED_FILE: &str = "revoked";

/// The authority of a cluster, in its directory.
pub(crate) struct AuthorityFiles {
    directory: PathBuf,
    authority: ClusterAuthority,
}

impl AuthorityFiles {
    /// Opens the authority in `directory`; `None` when there is none.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Option<Self>> {
        let (certificate, key) = (directory.join("authority.pem"), directory.join("authority.key"));
        if !certificate.exists() {
            ensure!(
                !key.exists(),
                "{} is there without its certificate; restore {}",
                key.display(),
                certificate.display()
            );
            return Ok(None);
        }
        let pem = fs::read_to_string(&certificate).with_context(|| format!("read {}", certificate.display()))?;
        let key = secret::read(&key)?;
        let key = std::str::from_utf8(key.expose()).context("the authority's key is no text")?;
        let authority = ClusterAuthority::load(&pem, key)?;
        Ok(Some(Self {
            directory: directory.to_owned(),
            authority,
        }))
    }

    /// Opens the authority in `directory`, or makes one for a new random cluster.
    pub(crate) fn open_or_create(directory: &Path, now: WallTime, random: &Random) -> anyhow::Result<Self> {
        if let Some(known) = Self::open(directory)? {
            return Ok(known);
        }
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let authority = ClusterAuthority::create(ClusterId(random.u128()), now, AUTHORITY_LIFE)?;
        // 1. The key, synced: a crash behind it leaves a key without certificate, which the next start names.
        // 2. The certificate: from then on the cluster exists.
        let (key, certificate) = (directory.join("authority.key"), directory.join("authority.pem"));
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
            self.issue(process, now, random)?;
        }
        let identity = load_identity(&directory, now)?;
        ensure!(
            identity.process() == process && identity.cluster() == self.cluster(),
            "{} holds the identity of {} of cluster {}, not of {process}; put the right files back",
            directory.display(),
            identity.process(),
            identity.cluster()
        );
        Ok(identity)
    }

    /// Issues a certificate with a new key for `process` into its directory, in place of what is there.
    pub(crate) fn issue(&self, process: ProcessId, now: WallTime, random: &Random) -> anyhow::Result<PathBuf> {
        let directory = self.identity_directory(process);
        let is_first = !self.issued()?.iter().any(|(known, _)| *known == process);
        let pem = self.authority.issue(process, now, IDENTITY_LIFE)?;
        let serial = Identity::from_pem(&pem)?.serial()?;
        append_line(
            &self.directory.join(ISSUED_FILE),
            &format!("{process} {}", hex(&serial)),
        )?;
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        // Only the first identity of a replica may begin an empty directory; a renewed one has its log already.
        if is_first && process.role == Role::Metadata {
            first_start::allow(&directory)?;
        }
        write_identity(&directory, &pem, random)?;
        Ok(directory)
    }

    /// Every certificate ever issued: whose, and its serial number in hex.
    pub(crate) fn issued(&self) -> anyhow::Result<Vec<(ProcessId, String)>> {
        let path = self.directory.join(ISSUED_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        text.lines()
            .map(|line| {
                let read = line.split_once(' ').and_then(|(name, serial)| {
                    let process = parse_process(name)?;
                    Some((process, serial.to_owned()))
                });
                read.with_context(|| format!("{}: `{line}` is no issued identity; restore the file", path.display()))
            })
            .collect()
    }

    /// Refuses every certificate that `process` has had; answers the file to carry to every host.
    pub(crate) fn revoke(&self, process: ProcessId) -> anyhow::Result<PathBuf> {
        let path = self.revocations();
        let issued = self.issued()?;
        let serials: Vec<&String> = issued
            .iter()
            .filter(|(known, _)| *known == process)
            .map(|(_, serial)| serial)
            .collect();
        if serials.is_empty() {
            bail!("{process} was never issued an identity here; see {ISSUED_FILE} for those that were");
        }
        for serial in serials {
            append_line(&path, &format!("{serial} # {process}"))?;
        }
        Ok(path)
    }

    /// Where revoked certificates are listed.
    pub(crate) fn revocations(&self) -> PathBuf {
        self.directory.join(REVOKED_FILE)
    }

    /// Where the identity of `process` lies.
    pub(crate) fn identity_directory(&self, process: ProcessId) -> PathBuf {
        self.directory.join("identities").join(process.to_string())
    }
}

/// The process of a name such as `node-7`.
pub(crate) fn parse_process(name: &str) -> Option<ProcessId> {
    let (role, number) = name.rsplit_once('-')?;
    Some(ProcessId {
        role: Role::parse(role)?,
        number: number.parse().ok().filter(|number| *number > 0)?,
    })
}

/// The bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn append_line(path: &Path, line: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("write {}", path.display()))
}

fn write_identity(directory: &Path, pem: &IdentityPem, random: &Random) -> anyhow::Result<()> {
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

/// Loads the identity in `directory` and checks what every peer would check at `now`.
pub(crate) fn load_identity(directory: &Path, now: WallTime) -> anyhow::Result<Identity> {
    let text = |name: &str| -> anyhow::Result<String> {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| {
            format!(
                "read {}; identity_dir must hold certificate.pem, key.pem and authority.pem",
                path.display()
            )
        })
    };
    let certificate = text("certificate.pem")?;
    let key = secret::read(&directory.join("key.pem"))?;
    let key = String::from_utf8(key.expose().to_vec()).context("the key is no text")?;
    let pem = IdentityPem {
        certificate,
        key,
        authority: text("authority.pem")?,
    };
    let identity = Identity::from_pem(&pem).with_context(|| format!("load the identity in {}", directory.display()))?;
    identity.check(now).map_err(|error| {
        let remedy = match error {
            IdentityError::OtherAuthority | IdentityError::OtherKey => {
                "put the files of one identity together, as the cluster's authority wrote them"
            }
            IdentityError::NotValidNow { is_over: true, .. } => {
                "issue the next with `holdfast identity renew`, and check this host's clock"
            }
            IdentityError::NotValidNow { is_over: false, .. } => "check this host's clock",
            IdentityError::Issue(_) | IdentityError::Malformed(_) => "issue it anew with `holdfast identity renew`",
        };
        anyhow::anyhow!(
            "the identity in {} cannot be used: {error}; {remedy}",
            directory.display()
        )
    })?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::{AuthorityFiles, load_identity, parse_process};
    use crate::first_start::{Begin, check, done};
    use daemon::random::Random;
    use model::process::{ProcessId, Role};
    use model::time::WallTime;

    #[test]
    fn names_of_processes_read_back_and_others_are_refused() {
        for role in [Role::Node, Role::Metadata, Role::Gateway, Role::Admin] {
            let process = ProcessId { role, number: 12 };
            assert_eq!(parse_process(&process.to_string()), Some(process));
        }
        for name in ["", "node", "node-", "node-0", "node-x", "clerk-1", "-1"] {
            assert_eq!(parse_process(name), None, "{name}");
        }
    }

    #[test]
    fn every_certificate_is_written_down_and_a_number_outlives_its_directory() {
        let folder = tempfile::tempdir().unwrap();
        let (now, random) = (WallTime(1_800_000_000_000), Random::seeded(1));
        let authority = AuthorityFiles::open_or_create(folder.path(), now, &random).unwrap();
        let process = ProcessId {
            role: Role::Node,
            number: 1,
        };
        let first = authority.identity(process, now, &random).unwrap();
        std::fs::remove_dir_all(authority.identity_directory(process)).unwrap();
        let again = AuthorityFiles::open(folder.path()).unwrap().unwrap();
        assert_eq!(again.issued().unwrap().len(), 1);
        again.issue(process, now, &random).unwrap();
        let second = load_identity(&again.identity_directory(process), now).unwrap();
        assert_ne!(first.serial().unwrap(), second.serial().unwrap());
        again.revoke(process).unwrap();
        let revoked = std::fs::read_to_string(again.revocations()).unwrap();
        assert_eq!(revoked.lines().count(), 2, "all that the process has had: {revoked}");
        let stranger = ProcessId {
            role: Role::Node,
            number: 9,
        };
        assert!(again.revoke(stranger).is_err());
    }

    /// A replica that was wiped could take part in elections anew: neither its renewed identity nor one that is issued again, after
    /// the directory with the first was lost, lets it.
    ///
    /// shows: F6 scale=1/3
    #[test]
    fn only_the_first_identity_of_a_replica_may_begin_an_empty_directory() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let (now, random) = (WallTime(1_800_000_000_000), Random::seeded(1));
        let authority = AuthorityFiles::open_or_create(&folder.path().join("authority"), now, &random).unwrap();
        let replica = |number| ProcessId {
            role: Role::Metadata,
            number,
        };
        let first = authority.issue(replica(1), now, &random).unwrap();
        assert_eq!(check(&first, &data).unwrap(), Begin::First);
        done(&first).unwrap();
        let renewed = authority.issue(replica(1), now, &random).unwrap();
        assert_eq!(renewed, first);
        assert!(check(&renewed, &data).is_err(), "renewed");
        std::fs::remove_dir_all(&renewed).unwrap();
        authority.identity(replica(1), now, &random).unwrap();
        assert!(check(&renewed, &data).is_err(), "issued again");
        let other = authority.issue(replica(2), now, &random).unwrap();
        assert_eq!(check(&other, &data).unwrap(), Begin::First, "another replica's first");
    }
}
