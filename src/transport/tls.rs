//! TLS 1.3 with raw Ed25519 keys (RFC 7250) on both sides.
//!
//! There are no certificates: each side shows the 44-byte SubjectPublicKeyInfo of its key (RFC 8410) and signs the handshake with it.
//! The side that dials may expect a key; another one fails the handshake inside the verifier, so that nothing of the application
//! ever reaches the wrong party. No tickets, no early data: a connection always proves both keys afresh.

use std::fmt;
use std::sync::{Arc, OnceLock};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::identity::{Identity, PublicKey};

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What stands before the 32 bytes of an Ed25519 seed in PKCS#8 version 1 (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Why TLS could not be set up.
#[derive(Debug)]
pub(super) struct TlsSetupError(pub(super) String);

impl fmt::Display for TlsSetupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TLS cannot be set up: {}", self.0)
    }
}

fn setup_error(error: impl fmt::Display) -> TlsSetupError {
    TlsSetupError(error.to_string())
}

/// The key in a SubjectPublicKeyInfo, if it is an Ed25519 one.
pub(super) fn key_of_spki(spki: &[u8]) -> Option<PublicKey> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    Some(PublicKey(key.try_into().ok()?))
}

fn spki_of_key(key: &PublicKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], &key.0[..]].concat()
}

/// Where a verifier leaves a key that it turned down, for the link to report.
pub(super) type TurnedDownKey = Arc<OnceLock<PublicKey>>;

/// What all handshakes of an endpoint share.
pub(super) struct TlsSetup {
    provider: Arc<CryptoProvider>,
    certified_key: Arc<CertifiedKey>,
}

impl TlsSetup {
    pub(super) fn new(identity: &Identity, provider: &CryptoProvider) -> Result<Self, TlsSetupError> {
        let pkcs8 = [&PKCS8_PREFIX[..], &identity.seed()[..]].concat();
        let signing_key =
            rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).map_err(setup_error)?;
        let spki = CertificateDer::from(spki_of_key(&identity.public()));
        Ok(Self {
            provider: Arc::new(with_our_suites(provider)),
            certified_key: Arc::new(CertifiedKey::new(vec![spki], signing_key)),
        })
    }

    /// This side's key.
    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified_key.clone()
    }

    /// For one outgoing connection. A key that is not the expected one fails the handshake and is left in `turned_down`.
    pub(super) fn client(
        &self,
        alpn: &[u8],
        expected: Option<PublicKey>,
        turned_down: TurnedDownKey,
    ) -> Result<QuicClientConfig, TlsSetupError> {
        let verifier = RawKeyVerifier {
            algorithms: self.provider.signature_verification_algorithms,
            expected,
            turned_down,
        };
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup_error)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                self.certified_key.clone(),
            )));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_sni = false;
        config.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(setup_error)
    }

    /// For all incoming connections. Any key is accepted and reported.
    pub(super) fn server(&self, alpn: Vec<Vec<u8>>) -> Result<QuicServerConfig, TlsSetupError> {
        let verifier = RawKeyVerifier {
            algorithms: self.provider.signature_verification_algorithms,
            expected: None,
            turned_down: TurnedDownKey::default(),
        };
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(setup_error)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                self.certified_key.clone(),
            )));
        config.alpn_protocols = alpn;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        QuicServerConfig::try_from(config).map_err(setup_error)
    }
}

/// The provider with the cipher suites that are used here.
pub(super) fn with_our_suites(provider: &CryptoProvider) -> CryptoProvider {
    let mut provider = provider.clone();
    // AES-128-GCM first: with AES instructions it is half again as fast as ChaCha20, and QUIC needs it for its first packets anyway.
    provider
        .cipher_suites
        .retain(|suite| suite.tls13().is_some_and(|suite| suite.quic.is_some()));
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// Turns down servers that do not prove the expected key.
pub(super) fn server_verifier(
    provider: &CryptoProvider,
    expected: Option<PublicKey>,
    turned_down: TurnedDownKey,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(RawKeyVerifier {
        algorithms: provider.signature_verification_algorithms,
        expected,
        turned_down,
    })
}

/// Checks raw keys, for both directions.
struct RawKeyVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    expected: Option<PublicKey>,
    turned_down: TurnedDownKey,
}

impl fmt::Debug for RawKeyVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RawKeyVerifier({:?})", self.expected)
    }
}

impl RawKeyVerifier {
    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        let valid = verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)?;
        // Only now is it known that the other side holds this key, so that the report cannot be forged.
        match (self.expected, key_of_spki(spki.as_ref())) {
            (Some(expected), Some(actual)) if expected != actual => {
                let _ = self.turned_down.set(actual);
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(valid),
        }
    }

    fn check_form(spki: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        key_of_spki(spki)
            .map(|_| ())
            .ok_or_else(|| CertificateError::BadEncoding.into())
    }
}

const NO_TLS_1_2: &str = "TLS 1.2 is not offered";

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check_form(spki)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(NO_TLS_1_2.into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check_form(spki)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(NO_TLS_1_2.into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_spki_and_other_forms_are_turned_down() {
        let key = Identity::from_seed([3; 32]).public();
        let mut spki = spki_of_key(&key);
        assert_eq!(spki.len(), 44);
        assert_eq!(key_of_spki(&spki), Some(key));
        spki.push(0);
        assert_eq!(key_of_spki(&spki), None);
        assert_eq!(key_of_spki(&spki[..43]), None);
        assert_eq!(key_of_spki(&[]), None);
    }
}
