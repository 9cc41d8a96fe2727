use super::*;
use crate::desired::claim::Claim;
use crate::desired::ownership::Gateways;
use crate::snapshot::ObjectName;

const EIP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 101);
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);

/// A decision that gives [`EIP`] to a pod on worker1; gw1 owns the external network, gw2 stands by.
fn decided() -> Desired {
    let claim = Claim {
        pod: ObjectName::new("default", "web"),
        pod_ip: POD,
        node: "worker1".to_owned(),
        vtep: Ipv4Addr::new(10, 0, 0, 11),
        accepted: true,
    };
    Desired {
        state: State::Datapath(Box::default()),
        served: BTreeMap::from([(EIP, claim)]),
        gateways: Gateways {
            members: vec!["gw1".to_owned(), "gw2".to_owned()],
            owner: Some("gw1".to_owned()),
        },
        ..Desired::default()
    }
}

fn problems() -> Vec<Problem> {
    vec![Problem::conflict("pod default/b", "f", "m", "r"), Problem::refused("pod default/a", "f", "m", "r")]
}

fn publish(file: &mut StatusFile, problems: &[Problem]) -> Result<bool, StatusError> {
    file.publish(problems);
    file.flush()
}

#[test]
fn pauses_are_in_proportion_to_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = StatusFile::open(dir.path(), "gw1");
    assert_eq!(file.due(), None);
    file.publish(&[]);
    let due = file.due().unwrap();
    assert!(due <= Instant::now(), "the first one at once");
    file.flush().unwrap();
    let ended = Instant::now();
    assert_eq!(file.due(), None);
    file.publish(&[]);
    assert!(file.due().unwrap() <= due + (ended - due) * SHARE + (ended.elapsed()), "no longer than that");
    assert!(file.due().unwrap() >= due);
}

#[test]
fn the_file_holds_what_was_decided_and_is_written_only_when_that_changes() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("not/there/yet");
    for (node, role) in [("gw1", Role::Owner), ("gw2", Role::Gateway), ("worker1", Role::Worker)] {
        let mut file = StatusFile::open(&dir, node);
        file.note(&decided());
        assert!(publish(&mut file, &problems()).unwrap());
        assert!(!publish(&mut file, &problems()).unwrap());
        let status = read(&dir).unwrap();
        assert_eq!((status.node.as_str(), status.role), (node, Some(role)));
        assert_eq!(status.owner.as_deref(), Some("gw1"));
        assert_eq!(
            status.binding(EIP, POD).map(|found| found.pod.to_string()).as_deref(),
            Some("default/web")
        );
        assert_eq!(status.binding(EIP, Ipv4Addr::LOCALHOST), None);
        assert_eq!(status.problems, [problems()[1].clone(), problems()[0].clone()]);
    }
}

#[test]
fn what_changes_nothing_leaves_the_bindings_and_a_withdrawal_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = StatusFile::open(dir.path(), "gw1");
    file.note(&decided());
    publish(&mut file, &[]).unwrap();
    let mut restarted = StatusFile::open(dir.path(), "gw1");
    assert_eq!(restarted.held().pods, BTreeMap::from([(EIP, POD)]));
    restarted.note(&Desired::default());
    publish(&mut restarted, &problems()).unwrap();
    let status = read(dir.path()).unwrap();
    assert_eq!((status.bindings.len(), status.problems.len(), status.role), (1, 2, Some(Role::Owner)));
    restarted.note(&Desired { state: State::Withdrawn, ..Desired::default() });
    publish(&mut restarted, &[]).unwrap();
    assert_eq!(read(dir.path()), Some(Status { node: "gw1".to_owned(), ..Status::default() }));
}

#[test]
fn another_nodes_file_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = StatusFile::open(dir.path(), "gw1");
    file.note(&decided());
    publish(&mut file, &[]).unwrap();
    assert_eq!(StatusFile::open(dir.path(), "worker1").held(), Held::default());
    publish(&mut StatusFile::open(dir.path(), "worker1"), &[]).unwrap();
    assert_eq!(read(dir.path()).unwrap().bindings, []);
}

#[test]
fn a_file_that_is_missing_or_not_ours_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(dir.path()), None);
    for text in ["", "{", "[]", r#"{"role":"king"}"#, r#"{"bindings":[{"eip":"x"}]}"#] {
        fs::write(dir.path().join(FILE), text).unwrap();
        assert_eq!(read(dir.path()), None, "{text}");
    }
    fs::write(dir.path().join(FILE), r#"{"node":"gw1","of a later version":1}"#).unwrap();
    assert_eq!(read(dir.path()).unwrap().node, "gw1");
}

#[test]
fn it_comes_back_when_somebody_removes_it_and_goes_at_teardown() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let mut file = StatusFile::open(&dir, "gw1");
    publish(&mut file, &[]).unwrap();
    fs::remove_file(dir.join(FILE)).unwrap();
    assert!(publish(&mut file, &[]).unwrap());
    assert!(remove(&dir).unwrap());
    assert!(!dir.exists());
    assert!(!remove(&dir).unwrap());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_a_remedy() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = publish(&mut StatusFile::open(&file, "gw1"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot write ") && error.contains("; check --state-dir"), "{error}");
}
