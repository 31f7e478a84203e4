//! Where every HTTP client of ours begins: TLS by the one provider of the whole project.
//!
//! Invariants: certificates are always checked, against the machine's authorities or those of a file; a plain `http://` client trusts
//! none, so that a redirect to `https://` fails instead of meeting whoever answers.

use crate::error::ClientError;
use reqwest::{Certificate, ClientBuilder};
use std::sync::Once;

static PROVIDER: Once = Once::new();

/// Who may have signed a gateway's certificate.
#[derive(Clone, Debug, Default)]
pub enum Authorities {
    /// Nobody: for `http://`.
    #[default]
    Nobody,
    /// Those that the machine trusts.
    OfMachine,
    /// Those of a PEM text.
    Pem(Vec<u8>),
}

impl Authorities {
    /// The machine's for an `https://` address, nobody for another.
    #[must_use]
    pub fn for_url(url: &str) -> Self {
        if url.starts_with("https://") {
            Self::OfMachine
        } else {
            Self::Nobody
        }
    }
}

/// A client in the making that trusts `authorities`.
///
/// Errors: the PEM text holds no certificate.
pub fn builder(authorities: &Authorities) -> Result<ClientBuilder, ClientError> {
    PROVIDER.call_once(|| {
        // Another part of the process may have installed it already, and it is the same one.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    let builder = reqwest::Client::builder();
    Ok(match authorities {
        Authorities::Nobody => builder.tls_certs_only([]),
        Authorities::OfMachine => builder,
        Authorities::Pem(pem) => builder.tls_certs_only(Certificate::from_pem_bundle(pem)?),
    })
}
