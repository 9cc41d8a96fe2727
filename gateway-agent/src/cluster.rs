//! The connection to the Kubernetes API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// How long the TCP and TLS handshakes may take; an API server that is away is noticed by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig cannot be read or names something that is not in it.
    #[error("cannot use kubeconfig {path}: {}; check --kubeconfig", first_line(source))]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: KubeconfigError,
    },
    /// No kubeconfig was named, and this is no pod with a ServiceAccount.
    #[error(
        "cannot use the ServiceAccount of this pod: {source}; outside a cluster name a kubeconfig with --kubeconfig"
    )]
    InCluster {
        /// Cause.
        source: InClusterError,
    },
    /// The configuration is refused by the client.
    #[error("cannot make a client for {url}: {source}; check the certificates and keys it names")]
    Client {
        /// URL of the API server.
        url: String,
        /// Cause.
        source: kube::Error,
    },
}

/// What is wrong with a kubeconfig: the lines that follow for YAML that cannot be parsed only draw where that is.
fn first_line(error: &KubeconfigError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A client by kubeconfig, or by this pod's ServiceAccount when none is named. Nothing is sent yet.
///
/// # Errors
/// [`ClusterError`].
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClusterError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ClusterError::Kubeconfig { path: path.to_owned(), source };
            let read = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster().map_err(|source| ClusterError::InCluster { source })?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ClusterError::Client { url, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let Err(error) = client(Some(Path::new("/nonexistent/kubeconfig"))).await else { panic!("no error") };
        assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
        assert!(error.to_string().contains("--kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_no_yaml_is_told_in_one_line() {
        let file = std::env::temp_dir().join(format!("eip-gateway-{}.kubeconfig", std::process::id()));
        std::fs::write(&file, "clusters: {\n").unwrap();
        let made = client(Some(&file)).await;
        std::fs::remove_file(&file).unwrap();
        let Err(error) = made else { panic!("no error") };
        let text = error.to_string();
        assert!(text.contains("YAML") && text.contains("line 1") && !text.contains('\n'), "{text}");
        assert!(text.ends_with("; check --kubeconfig"), "{text}");
    }
}
