//! Who a process is, as its certificate says.
//!
//! Invariant: a `ProcessId` of a peer comes out of a certificate that trust.rs has verified, never out of a message.
//! Not here: making certificates (authority.rs), verifying chains (trust.rs).

use model::id::ClusterId;
use model::process::{ProcessId, Role};
use model::time::WallTime;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use thiserror::Error;
use x509_parser::extensions::GeneralName;

/// Why an identity cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The machine's cryptography refused.
    #[error("issue certificate: {0}")]
    Issue(String),
    /// The bytes are no identity of a cluster; says which part.
    #[error("{0}")]
    Malformed(String),
    /// The certificate was not issued by the authority beside it, or names another cluster than that.
    #[error("the certificate is not of the authority beside it")]
    OtherAuthority,
    /// The certificate's time is over or has not come.
    #[error("the certificate {}: {}", if *is_over { "has expired" } else { "is not valid yet" }, date_of(*bound))]
    NotValidNow {
        /// Over, or not yet come.
        is_over: bool,
        /// When it ended or begins.
        bound: WallTime,
    },
    /// The key is not that of the certificate.
    #[error("the key does not belong to the certificate")]
    OtherKey,
}

fn date_of(time: WallTime) -> String {
    let seconds = i64::try_from(time.0 / 1000).unwrap_or(i64::MAX);
    x509_parser::time::ASN1Time::from_timestamp(seconds).map_or_else(|_| time.0.to_string(), |date| date.to_string())
}

/// A process's certificate, its key and its authority's certificate, as PEM. The key is a secret.
#[derive(Clone)]
pub struct IdentityPem {
    /// The process's certificate.
    pub certificate: String,
    /// Its key: store it with mode 0600.
    pub key: String,
    /// The certificate of the cluster's authority.
    pub authority: String,
}

impl std::fmt::Debug for IdentityPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdentityPem(..)")
    }
}

/// An identity that a transport can present.
#[derive(Debug)]
pub struct Identity {
    /// Whose cluster it belongs to.
    pub(crate) cluster: ClusterId,
    /// Who it is.
    pub(crate) process: ProcessId,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authority: CertificateDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            cluster: self.cluster,
            process: self.process,
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            authority: self.authority.clone(),
        }
    }
}

impl Identity {
    /// The identity from its PEM texts. Whether the certificate is valid now, peers check at each handshake.
    ///
    /// Errors: a text is no PEM of its kind, or the certificate names no process of a cluster.
    pub fn from_pem(pem: &IdentityPem) -> Result<Self, IdentityError> {
        let malformed = |what: &str, error| IdentityError::Malformed(format!("read {what}: {error}"));
        let certificate = CertificateDer::from_pem_slice(pem.certificate.as_bytes())
            .map_err(|error| malformed("certificate", error))?;
        let authority = CertificateDer::from_pem_slice(pem.authority.as_bytes())
            .map_err(|error| malformed("authority certificate", error))?;
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|error| malformed("key", error))?;
        let (cluster, process) = read_identity(&certificate)?.process()?;
        Ok(Self {
            cluster,
            process,
            certificate,
            key,
            authority,
        })
    }

    /// Who it is.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Whose cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The serial number of its certificate, by which it can be revoked.
    ///
    /// Errors: the certificate cannot be parsed.
    pub fn serial(&self) -> Result<Vec<u8>, IdentityError> {
        read_identity(&self.certificate).map(|found| found.serial)
    }
}

/// The serial numbers of certificates that are no longer accepted; clones share one set. Checked at each handshake and each call.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    serials: Arc<RwLock<BTreeSet<Vec<u8>>>>,
}

impl Revocations {
    /// Refuses the certificate of this serial number from now on, also on connections that are open.
    pub fn revoke(&self, serial: Vec<u8>) {
        self.serials
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(serial);
    }

    pub(crate) fn contains(&self, serial: &[u8]) -> bool {
        self.serials
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(serial)
    }
}

/// The identity in a certificate, not yet verified by anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundIdentity {
    pub(crate) cluster: ClusterId,
    pub(crate) role_word: String,
    pub(crate) number: u64,
    pub(crate) serial: Vec<u8>,
}

impl FoundIdentity {
    pub(crate) fn process(&self) -> Result<(ClusterId, ProcessId), IdentityError> {
        match Role::parse(&self.role_word) {
            Some(role) => Ok((
                self.cluster,
                ProcessId {
                    role,
                    number: self.number,
                },
            )),
            None => Err(IdentityError::Malformed(format!(
                "`{}` is no role of a process",
                self.role_word
            ))),
        }
    }
}

/// The text of an identity in a certificate.
pub(crate) fn identity_uri(cluster: ClusterId, role_word: &str, number: u64) -> String {
    format!("holdfast://{cluster}/{role_word}/{number}")
}

/// Reads the one identity of `certificate`. Any bytes are read or refused.
pub(crate) fn read_identity(certificate: &CertificateDer<'_>) -> Result<FoundIdentity, IdentityError> {
    let malformed = |what: &str| IdentityError::Malformed(format!("the certificate {what}"));
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| malformed("cannot be parsed"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| malformed("has malformed alternative names"))?
        .ok_or_else(|| malformed("has no alternative name"))?;
    let mut identities = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("holdfast://"),
        _ => None,
    });
    let (Some(identity), None) = (identities.next(), identities.next()) else {
        return Err(malformed(
            "does not name exactly one identity holdfast://cluster/role/number",
        ));
    };
    let mut parts = identity.split('/');
    let (Some(cluster), Some(role_word), Some(number), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("names an identity that is not cluster/role/number"));
    };
    let cluster = ClusterId::parse(cluster).ok_or_else(|| malformed("names no cluster"))?;
    let number = number.parse().map_err(|_| malformed("names no number"))?;
    Ok(FoundIdentity {
        cluster,
        role_word: role_word.to_owned(),
        number,
        serial: parsed.raw_serial().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Identity, IdentityError, IdentityPem, read_identity};
    use crate::authority::ClusterAuthority;
    use model::id::ClusterId;
    use model::process::{ProcessId, Role};
    use model::time::WallTime;
    use proptest::prelude::{any, prop, proptest};
    use rustls_pki_types::CertificateDer;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn an_issued_identity_reads_back_for_each_role() {
        let authority = ClusterAuthority::create(ClusterId(77), WallTime(1_800_000_000_000), DAY).unwrap();
        let again = ClusterAuthority::load(authority.certificate_pem(), authority.key_pem()).unwrap();
        for role in [Role::Node, Role::Metadata, Role::Gateway, Role::Admin] {
            let process = ProcessId { role, number: u64::MAX };
            let pem = again.issue(process, WallTime(1_800_000_000_000), DAY).unwrap();
            let identity = Identity::from_pem(&pem).unwrap();
            assert_eq!((identity.process(), identity.cluster()), (process, ClusterId(77)));
        }
    }

    #[test]
    fn an_authority_is_no_process_and_a_process_no_authority() {
        let authority = ClusterAuthority::create(ClusterId(77), WallTime(0), DAY).unwrap();
        let pem = authority
            .issue(
                ProcessId {
                    role: Role::Node,
                    number: 1,
                },
                WallTime(0),
                DAY,
            )
            .unwrap();
        assert!(ClusterAuthority::load(&pem.certificate, &pem.key).is_err());
        assert!(ClusterAuthority::load(authority.certificate_pem(), &pem.key).is_err());
        let own = IdentityPem {
            certificate: pem.authority.clone(),
            ..pem
        };
        assert!(Identity::from_pem(&own).is_err());
    }

    /// shows: QAS-017 scale=1/3
    #[test]
    fn a_process_finds_its_own_identity_wrong_before_others_do() {
        let now = WallTime(1_800_000_000_000);
        let own = |pem: &IdentityPem| Identity::from_pem(pem).unwrap().check(now);
        let ours = ClusterAuthority::create(ClusterId(77), now, DAY).unwrap();
        let process = ProcessId {
            role: Role::Node,
            number: 1,
        };
        let good = ours.issue(process, now, DAY).unwrap();
        assert_eq!(own(&good), Ok(()));
        // Another authority of the same cluster's name, and one of another cluster.
        for cluster in [77, 78] {
            let theirs = ClusterAuthority::create(ClusterId(cluster), now, DAY).unwrap();
            let authority = theirs.certificate_pem().to_owned();
            let mixed = IdentityPem {
                authority,
                ..good.clone()
            };
            assert_eq!(own(&mixed), Err(IdentityError::OtherAuthority), "{cluster}");
        }
        let other = ours.issue(process, now, DAY).unwrap();
        let mixed = IdentityPem { key: other.key, ..good };
        assert_eq!(own(&mixed), Err(IdentityError::OtherKey));
        for (issued, is_over) in [(now.0 - 10 * 86_400_000, true), (now.0 + 10 * 86_400_000, false)] {
            let pem = ours.issue(process, WallTime(issued), DAY).unwrap();
            let found = own(&pem);
            assert!(
                matches!(found, Err(IdentityError::NotValidNow { is_over: over, .. }) if over == is_over),
                "{found:?}"
            );
        }
    }

    proptest! {
        /// shows: F42 scale=1/2
        #[test]
        fn any_bytes_as_a_certificate_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            assert!(read_identity(&CertificateDer::from(bytes)).is_err());
        }
    }
}
