//! Which certificate authorities are believed.

use ureq::tls::{Certificate, RootCerts};

/// Certificates that a server's own must lead up to.
#[derive(Clone)]
pub struct Roots(RootCerts);

impl Roots {
    /// The machine's own, or those of the files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name: how an operator adds a
    /// private authority. None at all where there are none, so that no server is believed.
    #[must_use]
    pub fn of_the_machine() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate authority of the machine is left out");
        }
        Self::of(found.certs.iter().map(AsRef::as_ref))
    }

    /// These and no others, in DER.
    pub fn of<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let owned = certificates.into_iter().map(|der| Certificate::from_der(der).to_owned());
        Self(owned.collect::<Vec<_>>().into())
    }

    pub(crate) fn for_tls(&self) -> RootCerts {
        self.0.clone()
    }
}
