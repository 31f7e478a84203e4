//! The cluster's certificate authority: makes itself, and issues certificates that say which process somebody is.
//!
//! A certificate's identity is one URI among its alternative names: `holdfast://<cluster>/<role>/<number>`.
//! Invariants: keys are made here from the operating system's randomness and leave only as PEM for the caller to store in a
//! file of mode 0600 (daemon's `secret`); a certificate carries exactly one identity.
//! Not here: who may have a certificate (admission by the operator), and their check (trust.rs).

use crate::identity::{IdentityError, IdentityPem, identity_uri, read_identity};
use model::id::ClusterId;
use model::process::ProcessId;
use model::time::WallTime;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;

/// The word in place of a role in the authority's own identity.
const AUTHORITY_WORD: &str = "authority";

/// A clock that lags by less than this still accepts a certificate that was issued just now.
pub const BACKDATED_BY: Duration = Duration::from_secs(3_600);

/// The certificate authority of one cluster. Whoever holds it can be any process: keep it off the cluster's machines.
pub struct ClusterAuthority {
    cluster: ClusterId,
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for ClusterAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterAuthority({})", self.cluster)
    }
}

impl ClusterAuthority {
    /// Makes the authority of `cluster`, valid from an hour before `now` for `lifetime` after it.
    ///
    /// Errors: the machine's cryptography fails.
    pub fn create(cluster: ClusterId, now: WallTime, lifetime: Duration) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(issue_error)?;
        let mut params = authority_params(cluster)?;
        set_validity(&mut params, now, lifetime);
        let certificate = params.self_signed(&key).map_err(issue_error)?;
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        Ok(Self {
            cluster,
            certificate_pem,
            key_pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority from its two PEM texts.
    ///
    /// Errors: they are no PEM, do not belong together, or are no authority of a cluster.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key_pem).map_err(issue_error)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| IdentityError::Malformed(format!("read authority certificate: {error}")))?;
        let cluster = read_authority(&certificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| IdentityError::Malformed(format!("parse authority certificate: {error}")))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(IdentityError::Malformed(
                "the authority's key is not that of its certificate".to_owned(),
            ));
        }
        // The issuer's name follows from the cluster, as in `create`, so certificates chain to the loaded one.
        let issuer = Issuer::new(authority_params(cluster)?, key);
        Ok(Self {
            cluster,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer,
        })
    }

    /// Whose authority it is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its certificate, which every process of the cluster has.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its key: a secret.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a certificate with a new key for `process`, valid from an hour before `now` for `lifetime` after it.
    ///
    /// Errors: the machine's cryptography fails.
    pub fn issue(&self, process: ProcessId, now: WallTime, lifetime: Duration) -> Result<IdentityPem, IdentityError> {
        let key = KeyPair::generate().map_err(issue_error)?;
        let certificate = self.sign(&key, process, now, lifetime)?;
        Ok(IdentityPem {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            authority: self.certificate_pem.clone(),
        })
    }

    fn sign(
        &self,
        key: &KeyPair,
        process: ProcessId,
        now: WallTime,
        lifetime: Duration,
    ) -> Result<Certificate, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject_named(&process.to_string());
        let identity = identity_uri(self.cluster, process.role.as_str(), process.number);
        params.subject_alt_names = vec![SanType::URI(identity.try_into().map_err(issue_error)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Every process both listens and dials.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, now, lifetime);
        params.signed_by(key, &self.issuer).map_err(issue_error)
    }
}

fn authority_params(cluster: ClusterId) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject_named(&format!("holdfast {cluster}"));
    let identity = identity_uri(cluster, AUTHORITY_WORD, 0);
    params.subject_alt_names = vec![SanType::URI(identity.try_into().map_err(issue_error)?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn read_authority(certificate: &CertificateDer<'_>) -> Result<ClusterId, IdentityError> {
    let found = read_identity(certificate)?;
    if found.role_word == AUTHORITY_WORD {
        return Ok(found.cluster);
    }
    Err(IdentityError::Malformed(
        "the certificate is not that of a cluster's authority".to_owned(),
    ))
}

fn subject_named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn set_validity(params: &mut CertificateParams, now: WallTime, lifetime: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    // The year 9000 bounds what a calendar can show; nobody means a certificate beyond it.
    let last = date_time_ymd(9_000, 1, 1);
    let now = epoch + Duration::from_millis(now.0.min(221_845_392_000_000));
    params.not_before = (now - BACKDATED_BY).max(epoch);
    params.not_after = if lifetime > Duration::from_secs(100 * 366 * 86_400) {
        last
    } else {
        now + lifetime
    };
}

fn issue_error(error: rcgen::Error) -> IdentityError {
    IdentityError::Issue(error.to_string())
}
