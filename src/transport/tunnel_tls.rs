//! TLS 1.3 for the streams of [`crate::wire::tunnel`]: the server proves its Ed25519 key as a raw public key, the client proves nothing.
//!
//! What a stream carries is proven end to end by the QUIC connection inside. The stream's own TLS keeps middleboxes out, and ends a try at a
//! server that is another one before anything is sent through it. As for QUIC: no certificates, no tickets, no early data.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::AlwaysResolvesServerRawPublicKeys;

use super::identity::{Identity, PublicKey};
use super::tls::{self, TlsSetup, TurnedDownKey};
use crate::wire::tunnel::ALPN_TUNNEL;

/// What one outgoing stream needs.
pub struct Client {
    /// For rustls.
    pub config: Arc<rustls::ClientConfig>,
    turned_down: TurnedDownKey,
}

impl Client {
    /// The key of the server, if the handshake failed because it is another one than was expected.
    pub fn turned_down_key(&self) -> Option<PublicKey> {
        self.turned_down.get().copied()
    }
}

/// For one outgoing stream. `expected`: the key that the server must prove; `None`: any.
///
/// # Errors
/// In words: the provider lacks TLS 1.3.
pub fn client(provider: &CryptoProvider, expected: Option<PublicKey>) -> Result<Client, String> {
    let provider = tls::with_our_suites(provider);
    let turned_down = TurnedDownKey::default();
    let verifier = tls::server_verifier(&provider, expected, turned_down.clone());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    Ok(Client { config, turned_down })
}

/// For all streams that a server accepts.
///
/// # Errors
/// In words: the provider lacks TLS 1.3 or Ed25519.
pub fn server(identity: &Identity, provider: &CryptoProvider) -> Result<Arc<rustls::ServerConfig>, String> {
    let setup = TlsSetup::new(identity, provider).map_err(|error| error.to_string())?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(tls::with_our_suites(provider)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(setup.certified_key())));
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}
