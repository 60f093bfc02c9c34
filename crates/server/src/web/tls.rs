//! TLS, for addresses that others can reach.

use anyhow::{Context, bail};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) type Acceptor = TlsAcceptor;

/// Reads certificate chain and key, and refuses a key that everybody can read.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<Acceptor> {
    let (chain, secret) = (certificate.display(), key.display());
    let mode = std::fs::metadata(key)
        .with_context(|| format!("the key `{secret}` cannot be read"))?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        bail!("everybody can read the key `{secret}`; `chmod o= {secret}` mends that");
    }
    let certificates = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("`{chain}` is no certificate in PEM"))?;
    if certificates.is_empty() {
        bail!("`{chain}` holds no certificate in PEM");
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("`{secret}` holds no key in PEM"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(|| format!("`{chain}` and `{secret}` do not belong together"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
