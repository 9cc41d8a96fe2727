//! Who asks for a VM's EIP, and what is told of it.

use super::*;

const OTHER_EIP: &str = "192.168.100.150";

#[test]
fn who_asks_for_a_vms_eip_is_told_how_long_that_lasts() {
    let with = |change: &dyn Fn(&mut Cluster)| {
        let mut cluster = Cluster::run_by(PLAIN);
        change(&mut cluster);
        let decided = cluster.decide();
        let eips: Vec<_> = decided.served.keys().map(Ipv4Addr::to_string).collect();
        let warnings =
            decided.problems.iter().map(|problem| format!("{}: {}", problem.object, problem.message));
        (eips.join(" "), warnings.collect::<Vec<_>>().join("\n"))
    };
    let eip = EIP.to_string();
    assert_eq!(with(&|_| {}), (eip.clone(), String::new()));
    assert_eq!(with(&|cluster| cluster.pod_mut("A").eip = None), (eip.clone(), String::new()), "the VMI's");
    assert_eq!(with(&|cluster| cluster.pod_mut("A").eip = Some(String::new())).0, "", "given up");
    let (served, warning) = with(&|cluster| cluster.pod_mut("A").eip = Some(OTHER_EIP.to_owned()));
    assert_eq!(served, OTHER_EIP);
    assert!(warning.starts_with("pod default/A: the pod asks for EIP 192.168.100.150"), "{warning}");
    let (served, warning) = with(&|cluster| cluster.vmi_mut().eip = None);
    assert_eq!(served, eip);
    assert!(warning.contains("by this pod alone"), "{warning}");
    // Asked for by nobody any more: released at once, also by an agent that remembers.
    let nobody = with(&|cluster| {
        cluster.vmi_mut().eip = None;
        cluster.pod_mut("A").eip = None;
    });
    assert_eq!(nobody, (String::new(), String::new()));
}

#[test]
fn an_eip_of_the_source_pod_alone_is_kept_by_memory_and_can_be_given_up() {
    let mut cluster = Cluster::migrated_by(Agent { on_vmi: false, ..PLAIN });
    cluster.switch();
    cluster.complete();
    let warning = |cluster: &mut Cluster| cluster.decide().problems[0].message.clone();
    assert!(warning(&mut cluster).contains("because pod A of the same VM asks for it"));
    cluster.snapshot.pods.remove(&name("A"));
    assert!(warning(&mut cluster).contains("before a migration"));
    cluster.serves("kept", "B");
    cluster.pod_mut("B").eip = Some(String::new());
    cluster.serves("given up", "");
    cluster.pod_mut("B").eip = None;
    cluster.serves("and forgotten", "");
}

#[test]
fn a_bad_annotation_of_a_vm_is_told_at_its_pod_and_only_there() {
    let mut cluster = Cluster::migrated_by(PLAIN);
    for pod in ["A", "B"] {
        cluster.pod_mut(pod).eip = Some("x".to_owned());
    }
    let decided = cluster.decide();
    let refused: Vec<_> =
        complaints(&decided).into_iter().filter(|text| text.starts_with("Refused")).collect();
    assert_eq!(refused, ["Refused pod default/A metadata.annotations[ovn.kubernetes.io/eip]"]);
    assert!(decided.served.is_empty());
}
