//! Strangers at a cluster's doors: without a certificate, with a wrong one, with plain text, with old TLS.
//!
//! They trust every door, so that the door alone can refuse. Not here: which doors there are and who may come in (`doors`).

use crate::doors::ANSWER_DEADLINE;
use quinn::crypto::rustls::QuicClientConfig;
use rpc::identity::IdentityPem;
use rpc::transport::Peer;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

const PROTOCOL_VERSION: u8 = 70;

/// What a check of a signature says.
type Signed = Result<HandshakeSignatureValid, rustls::Error>;

/// Trusts every server: what a stranger would do.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Signed {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Signed {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS that trusts everybody, with `own` certificate or with none.
fn stranger(version: &'static SupportedProtocolVersion, own: Option<&IdentityPem>) -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let Some(own) = own else {
        return builder.with_no_client_auth();
    };
    let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    builder.with_client_auth_cert(vec![certificate], key).unwrap()
}

/// Somebody who speaks the right protocol and trusts the door is refused by `alert` with `own` certificate, or with none.
pub(crate) async fn assert_stranger_is_refused(door: &Peer, own: Option<&IdentityPem>, alert: u8) {
    let mut tls = stranger(&rustls::version::TLS13, own);
    tls.alpn_protocols = vec![b"holdfast/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, door.address, "holdfast").unwrap();
    let error = match connecting.await {
        // A client of TLS 1.3 is done before the server has judged it.
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    let quinn::ConnectionError::ConnectionClosed(close) = &error else {
        panic!("{}: {error:?}", door.process);
    };
    let code = u64::from(close.error_code);
    assert_eq!(code, 0x100 + u64::from(alert), "{}", door.process);
}

/// Plain HTTP in a datagram is dropped: the first that comes back answers the packet of an unknown QUIC version sent behind it.
pub(crate) async fn assert_no_plain_text(door: &Peer) {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(door.address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: holdfast\r\n\r\n";
    socket.send(request).await.unwrap();
    let mut probe = vec![0xc0, 0x0a, 0x1a, 0x2a, 0x3a, 8];
    probe.extend([7; 8]);
    probe.push(8);
    probe.extend([9; 8]);
    probe.resize(1_200, 0);
    socket.send(&probe).await.unwrap();
    let mut back = [0; 2_000];
    let received = tokio::time::timeout(ANSWER_DEADLINE, socket.recv(&mut back)).await;
    let length = received.unwrap().unwrap();
    assert!(
        length > 5 && back[0] & 0x80 != 0 && back[1..5] == [0; 4],
        "{}: {:?}",
        door.process,
        &back[..length]
    );
}

/// Everything that comes back over TCP until the end.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut back = Vec::new();
    let mut part = [0; 4_096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return back,
            Ok(length) => back.extend(&part[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return back,
            Err(error) => panic!("no end of the answer: {error}"),
        }
    }
}

/// The first message of a client that knows nothing newer than `minor` of TLS 1.x (2 is TLS 1.1).
fn old_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([5; 32]);
    // No session; two ciphers; no compression; groups and signatures as any client names them.
    body.extend([0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    let extensions = [
        0x00, 0x0a, 0, 4, 0, 2, 0, 0x17, 0x00, 0x0b, 0, 2, 1, 0, 0x00, 0x0d, 0, 4, 0, 2, 4, 3,
    ];
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

/// What a server says over TLS of this version to a request for its readiness.
fn readyz(address: SocketAddr, version: &'static SupportedProtocolVersion) -> String {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(stranger(version, None)), name).unwrap();
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    String::from_utf8(back).unwrap()
}

/// The clients' port: TLS 1.2 and 1.3 are answered, what is older and plain HTTP are not.
pub(crate) fn assert_https(address: SocketAddr) {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let answer = readyz(address, version);
        assert!(answer.starts_with("HTTP/1.1 200"), "{version:?}: {answer}");
    }
    for minor in [0, 1, 2] {
        let back = exchange(address, &old_hello(minor));
        // A fatal alert.
        assert!(back.first() == Some(&21) && back.len() == 7, "TLS 1.{minor}: {back:?}");
        assert_eq!(back[5..], [2, PROTOCOL_VERSION], "TLS 1.{minor}");
    }
    let plain = exchange(address, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let shown = String::from_utf8_lossy(&plain);
    assert!(!shown.contains("HTTP/") && plain.len() <= 7, "{shown}");
}
