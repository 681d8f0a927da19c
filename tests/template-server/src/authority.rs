//! A certificate authority of the test's own: a root, one below it that issues, and what it issues.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub struct Authority {
    root: CertificateDer<'static>,
    below: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    pub fn create() -> Self {
        let (root_key, below_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (root, below) = (authority("root"), authority("below"));
        let root_der = root.self_signed(&root_key).unwrap().der().clone();
        let root_issuer = Issuer::new(root, root_key);
        let below_der = below.signed_by(&below_key, &root_issuer).unwrap().der().clone();
        Self { root: root_der, below: below_der, issuer: Issuer::new(below, below_key) }
    }

    pub fn root_der(&self) -> &[u8] {
        &self.root
    }

    /// The root as a file of certificates has it.
    pub fn root_pem(&self) -> String {
        let text = STANDARD.encode(&self.root);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// A server with a certificate for these names.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.signed(params(names))
    }

    /// A server whose certificate was valid once.
    pub fn expired_server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.signed(params)
    }

    fn signed(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        config(vec![leaf, self.below.clone()], &key)
    }
}

/// A server that vouches for itself.
pub fn self_signed_server(names: &[&str]) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    config(vec![params(names).self_signed(&key).unwrap().der().clone()], &key)
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn config(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}
