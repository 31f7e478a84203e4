//! What a handshake proves: that the peer holds a valid certificate of our cluster's authority.
//!
//! TLS 1.3 on both sides, one provider (ring), no resumption: each connection proves the certificate again.
//! Invariants: a chain, its validity now, its cluster, its role and its revocation are checked before a stream is accepted; the
//! name that TLS asks for is a constant, because the identity is the URI and is compared with the process that was called.

use crate::identity::{FoundIdentity, Identity, IdentityError, Revocations, read_identity};
use daemon::clock::Clock;
use model::id::ClusterId;
use model::process::ProcessId;
use model::time::WallTime;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The protocol's name in the handshake: a process of another protocol version does not connect at all.
const ALPN: &[u8] = b"holdfast/1";

/// The name that dialers ask TLS for; nobody checks it, see above.
pub(crate) const TLS_NAME: &str = "holdfast";

/// Checks certificates of peers.
pub(crate) struct Trust {
    cluster: ClusterId,
    authority: CertificateDer<'static>,
    revocations: Revocations,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({})", self.cluster)
    }
}

impl Trust {
    pub(crate) fn new(identity: &Identity, revocations: Revocations) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self {
            cluster: identity.cluster,
            authority: identity.authority.clone(),
            revocations,
            provider,
        }
    }

    /// TLS for connections that we accept.
    pub(crate) fn server_config(
        self: &Arc<Self>,
        identity: &Identity,
        clock: Arc<dyn Clock>,
    ) -> Result<QuicServerConfig, IdentityError> {
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(ClockOfTls(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(Arc::<Self>::clone(self))
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .map_err(tls_error)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map_err(|error| IdentityError::Malformed(format!("set up TLS: {error}")))
    }

    /// TLS for connections that we make.
    pub(crate) fn client_config(
        self: &Arc<Self>,
        identity: &Identity,
        clock: Arc<dyn Clock>,
    ) -> Result<QuicClientConfig, IdentityError> {
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(ClockOfTls(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Self>::clone(self))
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .map_err(tls_error)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        QuicClientConfig::try_from(config).map_err(|error| IdentityError::Malformed(format!("set up TLS: {error}")))
    }

    /// Who is at the other end of a connection whose handshake is done, and the serial of its certificate.
    pub(crate) fn peer_of(&self, connection: &quinn::Connection) -> Result<(ProcessId, Vec<u8>), IdentityError> {
        let none = || IdentityError::Malformed("the peer presented no certificate".to_owned());
        let chain = connection.peer_identity().ok_or_else(none)?;
        let chain = chain.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| none())?;
        let found = read_identity(chain.first().ok_or_else(none)?)?;
        let (_, process) = found.process()?;
        Ok((process, found.serial))
    }

    /// Whether the certificate of this serial number is refused by now.
    pub(crate) fn is_revoked(&self, serial: &[u8]) -> bool {
        self.revocations.contains(serial)
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        let refuse = |error: webpki::Error| {
            rustls::Error::InvalidCertificate(match error {
                webpki::Error::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
                webpki::Error::CertNotValidYet { time, not_before } => {
                    CertificateError::NotValidYetContext { time, not_before }
                }
                webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
                webpki::Error::BadDer => CertificateError::BadEncoding,
                other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
            })
        };
        let anchor = anchor_from_trusted_cert(&self.authority).map_err(refuse)?;
        let parsed = EndEntityCert::try_from(certificate).map_err(refuse)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        parsed
            .verify_for_usage(algorithms, &[anchor], intermediates, now, usage, None, None)
            .map_err(refuse)?;
        let found = read_identity(certificate).map_err(|error| {
            rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(error))))
        })?;
        self.verify_identity(&found)
    }

    fn verify_identity(&self, found: &FoundIdentity) -> Result<(), rustls::Error> {
        if found.cluster != self.cluster || found.process().is_err() {
            return Err(rustls::Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        if self.is_revoked(&found.serial) {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(())
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

fn tls12_refused() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

fn tls_error(error: rustls::Error) -> IdentityError {
    IdentityError::Malformed(format!("set up TLS: {error}"))
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Trust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Identity {
    /// Checks what every peer would check, so that a process with a wrong identity ends at its start and says why.
    ///
    /// Errors: `OtherAuthority`, `NotValidNow`, `OtherKey`; `Malformed` for what else makes it unusable.
    pub fn check(&self, now: WallTime) -> Result<(), IdentityError> {
        let trust = Trust::new(self, Revocations::default());
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
            trust.verify(&self.certificate, &[], at, usage).map_err(own_fault)?;
        }
        CertifiedKey::from_der(vec![self.certificate.clone()], self.key.clone_key(), &trust.provider)
            .map(drop)
            .map_err(own_fault)
    }
}

/// What a failed check of one's own certificate means.
fn own_fault(error: rustls::Error) -> IdentityError {
    use CertificateError::{
        ApplicationVerificationFailure, BadSignature, ExpiredContext, NotValidYetContext, UnknownIssuer,
    };
    let at = |time: UnixTime| WallTime(time.as_secs().saturating_mul(1000));
    match error {
        rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => IdentityError::NotValidNow {
            is_over: true,
            bound: at(not_after),
        },
        rustls::Error::InvalidCertificate(NotValidYetContext { not_before, .. }) => IdentityError::NotValidNow {
            is_over: false,
            bound: at(not_before),
        },
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature | ApplicationVerificationFailure) => {
            IdentityError::OtherAuthority
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref() {
            Some(webpki::Error::InvalidSignatureForPublicKey) => IdentityError::OtherAuthority,
            _ => tls_error(rustls::Error::InvalidCertificate(CertificateError::Other(other))),
        },
        rustls::Error::InconsistentKeys(_) => IdentityError::OtherKey,
        other => tls_error(other),
    }
}

/// Our clock as TLS wants it, so that a simulated clock decides what has expired.
struct ClockOfTls(Arc<dyn Clock>);

impl fmt::Debug for ClockOfTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockOfTls")
    }
}

impl TimeProvider for ClockOfTls {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall().0)))
    }
}
