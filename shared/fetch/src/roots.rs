//! Which certificate authorities are believed.

use std::sync::LazyLock;

use ureq::tls::{Certificate, RootCerts};

/// Certificates that a server's own must lead up to.
#[derive(Clone)]
pub struct Roots(Authorities);

#[derive(Clone)]
enum Authorities {
    OfTheMachine,
    These(RootCerts),
}

/// Read with the first fetch over TLS: most builds fetch nothing, and no start should wait for it.
static OF_THE_MACHINE: LazyLock<RootCerts> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate authority of the machine is left out");
    }
    in_der(found.certs.iter().map(AsRef::as_ref))
});

fn in_der<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> RootCerts {
    let owned = certificates.into_iter().map(|der| Certificate::from_der(der).to_owned());
    owned.collect::<Vec<_>>().into()
}

impl Roots {
    /// The machine's own, or those of the files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name: how an operator adds a
    /// private authority. None at all where there are none, so that no server is believed.
    #[must_use]
    pub fn of_the_machine() -> Self {
        Self(Authorities::OfTheMachine)
    }

    /// These and no others, in DER.
    pub fn of<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(Authorities::These(in_der(certificates)))
    }

    pub(crate) fn for_tls(&self) -> RootCerts {
        match &self.0 {
            Authorities::OfTheMachine => OF_THE_MACHINE.clone(),
            Authorities::These(certificates) => certificates.clone(),
        }
    }
}
