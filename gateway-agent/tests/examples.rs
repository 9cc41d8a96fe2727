//! The examples under deploy/ say what they claim to.

use std::path::Path;

use gateway_agent::annotation::Keys;
use gateway_agent::desired::desired;
use gateway_agent::snapshot::{ConfigMapName, Link, Snapshot};
use gateway_agent::source::dir::DirSource;

#[test]
fn the_manifests_bind_the_pods_eip_without_a_complaint() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let inputs = DirSource::new(folder, Keys::default(), ConfigMapName::default()).scan().unwrap();
    assert_eq!(inputs.problems, []);
    let mut snapshot = Snapshot {
        node_name: "ubuntu-kube-1".to_owned(),
        config: inputs.configured,
        pods: inputs.pods,
        nodes: inputs.nodes,
        problems: inputs.problems,
        ..Snapshot::default()
    };
    for (ifindex, name, address) in [(2, "enp8s0", None), (3, "eth0", Some("172.18.0.11/24"))] {
        let addresses = address.and_then(|text| text.parse().ok()).into_iter().collect();
        let link = Link { ifindex, mtu: 1500, up: true, carrier: true, addresses, ..Link::default() };
        snapshot.host.links.insert(name.to_owned(), link);
    }
    // Nobody on the external network has the address.
    snapshot.external.free.insert([192, 168, 100, 101].into());
    let desired = desired(&snapshot);
    let bound: Vec<_> = desired.bindings().map(|(eip, pod)| (eip.to_string(), pod.to_string())).collect();
    assert_eq!(bound, [("192.168.100.101".to_owned(), "default/web".to_owned())]);
    assert_eq!(desired.problems, []);
}
