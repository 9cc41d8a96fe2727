mod labels;

use std::time::{Duration, Instant};

use gateway_common::addr::Prefix;

use super::event::Reason;
use super::memory::{CONTESTS, ECHO, Memory, STALE, YIELD};
use super::plan::{Duty, duty, writes};
use super::*;
use crate::config::tests::example;
use crate::desired::claim::Claim;
use crate::desired::ownership::Gateways;
use crate::desired::problem::Problem;
use crate::desired::{Datapath, State as Wanted};
use crate::snapshot::{BoundLabel, Configured, Node, Pod};

const EIP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 101);
const POD_IP: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn bind(state: &mut State, pod: &str, eip: Ipv4Addr) {
    let (pod, node, vtep) = (name(pod), "worker1".to_owned(), [10, 0, 0, 2].into());
    let claim = Claim { pod, pod_ip: POD_IP, node, vtep, accepted: true };
    state.desired.bound = true;
    state.desired.served.insert(eip, claim);
    state.programmed.insert(eip, POD_IP);
}

fn release(state: &mut State, eip: Ipv4Addr) {
    state.desired.served.remove(&eip);
    state.programmed.remove(&eip);
}

/// gw1 owns, serves [`EIP`] for pod `web`, and the API shows nothing of it yet.
fn state() -> State {
    let mut state = State::default();
    state.snapshot.node_name = "gw1".to_owned();
    state.snapshot.config = Configured::Enabled(crate::config::GatewayConfig {
        gateway_nodes: vec!["gw1".to_owned()],
        ..example()
    });
    for (node, labelled) in [("gw1", true), ("gw2", false), ("worker1", false)] {
        let node_state =
            Node { ready: true, gateway_label: labelled, pod_cidrs: Vec::<Prefix>::new(), ..Node::default() };
        state.snapshot.nodes.insert(node.to_owned(), node_state);
    }
    let pod = Pod { uid: "u1".to_owned(), eip: Some(EIP.to_string()), ip: Some(POD_IP), ..Pod::default() };
    state.snapshot.pods.insert(name("web"), pod);
    state.desired.state = Wanted::Datapath(Box::<Datapath>::default());
    state.desired.gateways = Gateways { members: vec!["gw1".to_owned()], owner: Some("gw1".to_owned()) };
    bind(&mut state, "web", EIP);
    state
}

fn pod<'a>(state: &'a mut State, pod: &str) -> &'a mut Pod {
    state.snapshot.pods.get_mut(&name(pod)).unwrap()
}

/// The pod shows that it is bound.
fn mark(state: &mut State) {
    let pod = pod(state, "web");
    (pod.routed, pod.bound_label) = (true, BoundLabel::Bound(EIP));
}

/// A short form of writes.
fn said(writes: &[Write]) -> Vec<String> {
    let say = |write: &Write| match write {
        Write::Pod { pod, set, routed, label, .. } => {
            let what = match (routed, label) {
                (_, Some(BoundLabel::Refused)) => "refused",
                (true, Some(_)) => "routed+label",
                (true, None) => "routed",
                (false, _) => "label",
            };
            format!("{}{what} {}", if *set { "+" } else { "-" }, pod.name)
        }
        Write::Node { node } => format!("+gateway {node}"),
        Write::Event(event) => format!("{} {}", event.reason.name(), event.object.name),
    };
    writes.iter().map(say).collect()
}

/// One round in which all goes well; the API shows the patches if `echo`.
fn round(state: &mut State, memory: &mut Memory, now: Instant, echo: bool) -> Vec<String> {
    memory.observe(state, now);
    let writes = writes(state, memory, now);
    for write in &writes {
        memory.note(write, &Sent::Done, now);
        match write {
            Write::Pod { pod, set, routed, label, .. } if echo => {
                let pod = state.snapshot.pods.get_mut(pod).unwrap();
                pod.routed = if *routed { *set } else { pod.routed };
                pod.bound_label = label.unwrap_or(pod.bound_label);
            }
            Write::Node { node } if echo => state.snapshot.nodes.get_mut(node).unwrap().gateway_label = true,
            Write::Pod { .. } | Write::Node { .. } | Write::Event(_) => {}
        }
    }
    said(&writes)
}

#[test]
fn what_is_missing_is_written_once() {
    let (mut state, mut memory, now) = (state(), Memory::default(), Instant::now());
    assert_eq!(round(&mut state, &mut memory, now, true), ["+routed+label web", "EipBound web"]);
    assert_eq!(round(&mut state, &mut memory, now, true), [""; 0]);
}

#[test]
fn a_state_says_what_is_written() {
    type Change = fn(&mut State);
    let cases: [(&str, Change, &[&str]); 13] = [
        ("another node owns", |s| s.desired.gateways.owner = Some("gw2".to_owned()), &[]),
        ("not programmed yet", |s| s.programmed.clear(), &[]),
        (
            "programmed for another pod",
            |s| *s.programmed.get_mut(&EIP).unwrap() = [10, 244, 1, 6].into(),
            &[],
        ),
        ("not decided", |s| s.desired.state = Wanted::Keep, &[]),
        ("all is there", mark, &[]),
        ("only the label", |s| pod(s, "web").bound_label = BoundLabel::Bound(EIP), &["+routed web"]),
        (
            "released",
            |s| {
                mark(s);
                release(s, EIP);
            },
            &["-routed+label web"],
        ),
        (
            "it waits for an address, and keeps its EIP",
            |s| {
                mark(s);
                release(s, EIP);
                s.desired.waiting.insert(name("web"));
            },
            &[],
        ),
        (
            "routed of somebody else",
            |s| {
                pod(s, "web").routed = true;
                release(s, EIP);
            },
            &[],
        ),
        (
            "refused",
            |s| {
                release(s, EIP);
                s.desired.problems.push(Problem::refused("pod default/web", "f", "m", "r"));
            },
            &["EipRefused web"],
        ),
        (
            "conflict",
            |s| {
                release(s, EIP);
                s.desired.problems.push(Problem::conflict("pod default/web", "f", "m", "r"));
            },
            &["EipConflict web"],
        ),
        (
            "problems without an object in the API",
            |s| {
                release(s, EIP);
                s.desired.problems.push(Problem::refused("file x.yaml", "f", "m", "r"));
                s.desired.problems.push(Problem::refused("pod default/gone", "f", "m", "r"));
            },
            &[],
        ),
        (
            "a gateway without label",
            |s| {
                release(s, EIP);
                let gateways = vec!["gw1".to_owned(), "gw2".to_owned(), "gone".to_owned()];
                s.snapshot.config = Configured::Enabled(crate::config::GatewayConfig {
                    gateway_nodes: gateways,
                    ..example()
                });
                s.desired.problems.push(Problem::warning("configmap kube-system/cm", "f", "m", "r"));
            },
            &["+gateway gw2", "ConfigWarning cm"],
        ),
    ];
    for (what, change, expected) in cases {
        let mut state = state();
        change(&mut state);
        let mut memory = Memory::default();
        assert_eq!(round(&mut state, &mut memory, Instant::now(), true), expected, "{what}");
        assert_eq!(round(&mut state, &mut memory, Instant::now(), true), [""; 0], "{what}, again");
    }
}

#[test]
fn routed_removed_is_set_again_without_an_event() {
    let (mut state, mut memory, now) = (state(), Memory::default(), Instant::now());
    round(&mut state, &mut memory, now, true);
    round(&mut state, &mut memory, now, true);
    pod(&mut state, "web").routed = false;
    assert_eq!(round(&mut state, &mut memory, now, true), ["+routed web"]);
    assert_eq!(round(&mut state, &mut memory, now, true), [""; 0]);
}

#[test]
fn another_eip_and_another_pod_are_told() {
    let (mut state, mut memory, now) = (state(), Memory::default(), Instant::now());
    round(&mut state, &mut memory, now, true);
    let other = Ipv4Addr::new(192, 168, 100, 102);
    release(&mut state, EIP);
    bind(&mut state, "web", other);
    assert_eq!(round(&mut state, &mut memory, now, true), ["EipBound web", "EipReleased web"]);
    let next = Pod { uid: "u2".to_owned(), ..Pod::default() };
    state.snapshot.pods.insert(name("next"), next);
    bind(&mut state, "next", other);
    let moved = round(&mut state, &mut memory, now, true);
    assert_eq!(moved, ["+routed+label next", "-routed+label web", "EipBound next", "EipReleased web"]);
    // A pod that is gone needs nothing more.
    state.snapshot.pods.remove(&name("next"));
    release(&mut state, other);
    assert_eq!(round(&mut state, &mut memory, now, true), [""; 0]);
}

#[test]
fn an_event_that_failed_is_told_later_though_the_patch_is_there() {
    let (mut state, mut memory, now) = (state(), Memory::default(), Instant::now());
    memory.observe(&state, now);
    for write in writes(&state, &memory, now) {
        let sent = if write.kind() == Kind::Event { Sent::Forbidden(String::new()) } else { Sent::Done };
        memory.note(&write, &sent, now);
    }
    pod(&mut state, "web").routed = true;
    pod(&mut state, "web").bound_label = BoundLabel::Bound(EIP);
    assert_eq!(round(&mut state, &mut memory, now + ECHO, true), [""; 0]);
    assert_eq!(round(&mut state, &mut memory, now + memory::RETRY_MAX, true), ["EipBound web"]);
}

#[test]
fn a_patch_that_does_not_come_back_is_sent_again_after_a_while() {
    let (mut state, mut memory, now) = (state(), Memory::default(), Instant::now());
    round(&mut state, &mut memory, now, false);
    assert_eq!(round(&mut state, &mut memory, now + ECHO / 2, false), [""; 0]);
    assert_eq!(round(&mut state, &mut memory, now + ECHO, true), ["+routed+label web"]);
}

#[test]
fn a_restart_tells_nothing_again() {
    let mut state = state();
    pod(&mut state, "web").routed = true;
    pod(&mut state, "web").bound_label = BoundLabel::Bound(EIP);
    let mut memory = Memory::default();
    assert_eq!(round(&mut state, &mut memory, Instant::now(), true), [""; 0]);
    // What was adopted is released like anything else.
    release(&mut state, EIP);
    assert_eq!(
        round(&mut state, &mut memory, Instant::now(), true),
        ["-routed+label web", "EipReleased web"]
    );
}

#[test]
fn who_keeps_undoing_is_not_fought() {
    let (mut state, mut memory, mut now) = (state(), Memory::default(), Instant::now());
    round(&mut state, &mut memory, now, true);
    for _ in 1..CONTESTS {
        round(&mut state, &mut memory, now, true);
        pod(&mut state, "web").routed = false;
        now += Duration::from_millis(100);
        assert_eq!(round(&mut state, &mut memory, now, true), ["+routed web"]);
    }
    round(&mut state, &mut memory, now, true);
    pod(&mut state, "web").routed = false;
    assert_eq!(round(&mut state, &mut memory, now, true), ["EipContested web"]);
    assert_eq!(round(&mut state, &mut memory, now + YIELD / 2, true), [""; 0]);
    assert_eq!(round(&mut state, &mut memory, now + YIELD, true), ["+routed web"]);
    // At once again: twice as long.
    round(&mut state, &mut memory, now + YIELD, true);
    pod(&mut state, "web").routed = false;
    assert_eq!(round(&mut state, &mut memory, now + YIELD, true), [""; 0]);
    assert_eq!(round(&mut state, &mut memory, now + YIELD * 2, true), [""; 0]);
    assert_eq!(round(&mut state, &mut memory, now + YIELD * 3, true), ["+routed web"]);
}

#[test]
fn a_problem_is_told_each_time_it_comes() {
    let (mut state, mut memory, now) = (state(), Memory::default(), Instant::now());
    round(&mut state, &mut memory, now, true);
    let problem = Problem::refused("configmap kube-system/cm", "data[nic-ip]", "m", "r");
    let mut names = Vec::new();
    for _ in 0..2 {
        state.desired.problems = vec![problem.clone()];
        memory.observe(&state, now);
        let news = writes(&state, &memory, now);
        let [Write::Event(event)] = &news[..] else { panic!("{news:?}") };
        assert_eq!((event.reason, &*event.note), (Reason::ConfigRefused, "data[nic-ip]: m; r"));
        names.push((event.base_name(), event.anew));
        memory.note(&news[0], &Sent::Done, now);
        assert_eq!(round(&mut state, &mut memory, now, true), [""; 0]);
        state.desired.problems.clear();
        assert_eq!(round(&mut state, &mut memory, now, true), [""; 0]);
    }
    assert_eq!(names[0].0, names[1].0);
    assert_eq!((names[0].1, names[1].1), (false, true), "the second needs a name of its own");
}

#[test]
fn failures_are_tried_again_ever_later() {
    let (state, mut memory, mut now) = (state(), Memory::default(), Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..8 {
        memory.observe(&state, now);
        let first = writes(&state, &memory, now).remove(0);
        memory.note(&first, &Sent::Refused(String::new()), now);
        let later = (1..).find(|s| memory.is_due(&first.target(), now + Duration::from_secs(*s))).unwrap();
        pauses.push(later);
        now += Duration::from_secs(later);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn a_pod_that_has_changed_is_looked_at_again_soon() {
    let (mut state, mut memory, now) = (state(), Memory::default(), Instant::now());
    pod(&mut state, "web").version = "7".to_owned();
    memory.observe(&state, now);
    let patch = writes(&state, &memory, now).remove(0);
    assert!(matches!(&patch, Write::Pod { version, .. } if version == "7"), "{patch:?}");
    memory.note(&patch, &Sent::Conflict, now);
    assert_eq!(memory.due_in(now), Some(STALE));
    assert_eq!(round(&mut state, &mut memory, now + STALE / 2, true), ["EipBound web"]);
    assert_eq!(round(&mut state, &mut memory, now + STALE, true), ["+routed+label web"]);
}

#[test]
fn duties_without_an_owner() {
    type Change = fn(&mut State);
    let cases: [(&str, Change, Option<&str>, Duty); 9] = [
        ("the owner", |_| {}, None, Duty::Everything),
        ("the owner knows nothing", |s| s.desired.state = Wanted::Keep, None, Duty::Configuration),
        ("another owns", |s| s.desired.gateways.owner = Some("gw2".to_owned()), None, Duty::Nothing),
        ("nobody owns, first by label", |s| s.desired.gateways.owner = None, None, Duty::Configuration),
        (
            "nobody owns, another is first",
            |s| {
                s.desired.gateways.owner = None;
                s.snapshot
                    .nodes
                    .insert("a".to_owned(), Node { ready: true, gateway_label: true, ..Node::default() });
            },
            None,
            Duty::Nothing,
        ),
        (
            "nobody is labelled, first by name",
            |s| {
                s.desired.gateways.owner = None;
                s.snapshot.nodes.get_mut("gw1").unwrap().gateway_label = false;
            },
            None,
            Duty::Configuration,
        ),
        (
            "withdrawn, last owner unknown",
            |s| {
                s.desired.gateways.owner = None;
                s.desired.state = Wanted::Withdrawn;
            },
            None,
            Duty::Everything,
        ),
        (
            "withdrawn, another owned",
            |s| {
                s.desired.gateways.owner = None;
                s.desired.state = Wanted::Withdrawn;
            },
            Some("gw2"),
            Duty::Nothing,
        ),
        (
            "withdrawn, the owner is gone",
            |s| {
                s.desired.gateways.owner = None;
                s.desired.state = Wanted::Withdrawn;
            },
            Some("gone"),
            Duty::Everything,
        ),
    ];
    for (what, change, last_owner, expected) in cases {
        let mut state = state();
        change(&mut state);
        assert_eq!(duty(&state, last_owner), expected, "{what}");
    }
}
