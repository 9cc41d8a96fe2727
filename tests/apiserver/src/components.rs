//! How each program of the cluster is told to run. All of them live in one network namespace of their own, so that
//! ports are the usual ones.

use std::{net::Ipv4Addr, path::Path};

use gateway_lab::plan::{API_SERVER_IP, POD_CIDR, SERVICE_CIDR};

use crate::pki::Pki;

const ETCD: &str = "http://127.0.0.1:2379";

/// Where a controller answers `/healthz`.
pub(crate) const CONTROLLER_MANAGER_HEALTH: &str = "https://127.0.0.1:10257";
/// As above.
pub(crate) const SCHEDULER_HEALTH: &str = "https://127.0.0.1:10259";

/// What etcd logs once it answers.
pub(crate) const ETCD_READY: &str = "ready to serve client requests";

/// kwok plays the kubelet of nodes that carry this annotation, and of no other.
pub const KWOK_ANNOTATION: &str = "kwok.x-k8s.io/node";

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn file(name: &str, path: &Path) -> String {
    flag(name, path.display())
}

pub(crate) fn etcd(data: &Path) -> Vec<String> {
    vec![
        file("data-dir", data),
        flag("listen-client-urls", ETCD),
        flag("advertise-client-urls", ETCD),
        flag("listen-peer-urls", "http://127.0.0.1:2380"),
        flag("log-outputs", "stderr"),
        // The data of a test need not survive the machine.
        "--unsafe-no-fsync".to_owned(),
        // The only member waits one election timeout for others before it serves; the default is a second.
        flag("heartbeat-interval", 20),
        flag("election-timeout", 200),
    ]
}

pub(crate) fn api_server(pki: &Pki) -> Vec<String> {
    vec![
        flag("etcd-servers", ETCD),
        flag("bind-address", Ipv4Addr::UNSPECIFIED),
        flag("advertise-address", API_SERVER_IP),
        flag("secure-port", 6443),
        file("tls-cert-file", &pki.path("server.crt")),
        file("tls-private-key-file", &pki.path("server.key")),
        file("client-ca-file", &pki.path("ca.crt")),
        flag("authorization-mode", "Node,RBAC"),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        file("service-account-key-file", &pki.path("sa.pub")),
        file("service-account-signing-key-file", &pki.path("sa.key")),
        flag("service-cluster-ip-range", SERVICE_CIDR),
        flag("allow-privileged", true),
        // Asked to end, it ends its watches within that time instead of waiting a minute for them.
        flag("shutdown-watch-termination-grace-period", "1s"),
    ]
}

pub(crate) fn controller_manager(pki: &Pki, kubeconfig: &Path) -> Vec<String> {
    vec![
        file("kubeconfig", kubeconfig),
        flag("bind-address", Ipv4Addr::LOCALHOST),
        flag("leader-elect", false),
        // With the default of 20 requests a second it takes 4 s until the last controller runs.
        flag("kube-api-qps", 500),
        flag("kube-api-burst", 500),
        flag("cluster-cidr", POD_CIDR),
        file("root-ca-file", &pki.path("ca.crt")),
        file("service-account-private-key-file", &pki.path("sa.key")),
        file("cluster-signing-cert-file", &pki.path("ca.crt")),
        file("cluster-signing-key-file", &pki.path("ca.key")),
        // Nobody renews the nodes' leases: only what a test writes into their status makes them NotReady.
        flag("node-monitor-grace-period", "24h"),
    ]
}

pub(crate) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    vec![
        file("kubeconfig", kubeconfig),
        flag("bind-address", Ipv4Addr::LOCALHOST),
        flag("leader-elect", false),
    ]
}

pub(crate) fn kwok(kubeconfig: &Path, stages: &Path) -> Vec<String> {
    vec![
        file("kubeconfig", kubeconfig),
        file("config", stages),
        flag("manage-all-nodes", false),
        flag("manage-nodes-with-annotation-selector", format!("{KWOK_ANNOTATION}=fake")),
    ]
}
