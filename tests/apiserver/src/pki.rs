//! The cluster's certificate authority, what it signs, and the kubeconfigs that use it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use gateway_lab::plan::API_SERVER_IP;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

/// Where clients find the API server.
pub(crate) const SERVER: &str = "https://172.18.0.10:6443";
/// First address of the Service network: the Service `kubernetes`.
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// An authority whose files are in one folder.
pub(crate) struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority (`ca.crt`), the server's certificate (`server.crt`, `.key`) and the key that signs
    /// ServiceAccount tokens (`sa.key`, `.pub`).
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "eip-gateway-lab");
        let key = KeyPair::generate()?;
        let pki = Self { dir: dir.to_owned(), issuer: Issuer::new(params.clone(), key) };
        pki.write("ca.crt", &params.self_signed(pki.issuer.key())?.pem())?;
        // The controller-manager signs certificate requests with it.
        pki.write("ca.key", &pki.issuer.key().serialize_pem())?;
        pki.server()?;
        let tokens = KeyPair::generate()?;
        pki.write("sa.key", &tokens.serialize_pem())?;
        pki.write("sa.pub", &tokens.public_key_pem())?;
        Ok(pki)
    }

    /// The path of one of the files.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn server(&self) -> Result<()> {
        let mut params =
            CertificateParams::new(["kubernetes.default.svc".to_owned(), "localhost".to_owned()])?;
        let ips = [API_SERVER_IP, Ipv4Addr::LOCALHOST, SERVICE_IP];
        params.subject_alt_names.extend(ips.map(|ip| SanType::IpAddress(IpAddr::V4(ip))));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        self.sign(params, "server")
    }

    /// A kubeconfig whose user is told by a certificate: its common name the user, its organization the group.
    pub(crate) fn certificate_kubeconfig(&self, user: &str, group: &str) -> Result<PathBuf> {
        let stem = file_name(&[user]);
        let kubeconfig = self.path(&format!("{stem}.kubeconfig"));
        if kubeconfig.exists() {
            return Ok(kubeconfig);
        }
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        self.sign(params, &stem)?;
        let (certificate, key) = (self.path(&format!("{stem}.crt")), self.path(&format!("{stem}.key")));
        self.kubeconfig(&stem, &json!({ "client-certificate": certificate, "client-key": key }))
    }

    /// A kubeconfig whose user is told by a token.
    pub(crate) fn token_kubeconfig(&self, namespace: &str, account: &str, token: &str) -> Result<PathBuf> {
        self.kubeconfig(&file_name(&["sa", namespace, account]), &json!({ "token": token.trim() }))
    }

    fn kubeconfig(&self, stem: &str, user: &Value) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "lab", "cluster": {
                "server": SERVER, "certificate-authority": self.path("ca.crt"),
            }}],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "user" }}],
            "current-context": "lab",
        });
        let file = format!("{stem}.kubeconfig");
        self.write(&file, &serde_json::to_string_pretty(&config)?)?;
        Ok(self.path(&file))
    }

    fn sign(&self, params: CertificateParams, stem: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.write(&format!("{stem}.crt"), &certificate.pem())?;
        self.write(&format!("{stem}.key"), &key.serialize_pem())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path(file);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// A file name from names that Kubernetes allows, `system:node:worker1` among them.
fn file_name(parts: &[&str]) -> String {
    parts.join("-").replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_kubeconfigs_is_the_labs() {
        assert_eq!(SERVER, format!("https://{API_SERVER_IP}:6443"));
    }

    #[test]
    fn a_users_name_becomes_a_file_name() {
        assert_eq!(file_name(&["system:node:worker1"]), "system_node_worker1");
        assert_eq!(file_name(&["sa", "kube-system", "../x"]), "sa-kube-system-.._x");
    }
}
