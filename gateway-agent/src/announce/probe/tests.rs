use super::*;

const EIP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 53);
const OTHER: Mac = Mac([2; 6]);
const RATE: u32 = 100;

fn at(start: Instant, milliseconds: u64) -> Instant {
    start + Duration::from_millis(milliseconds)
}

fn probes(start: Instant) -> Probes {
    let mut probes = Probes::default();
    probes.want(start, &BTreeSet::from([EIP]));
    probes
}

/// What is sent and decided, millisecond by millisecond; somebody answers at `answer`.
fn run(probes: &mut Probes, start: Instant, from: u64, to: u64, answer: Option<u64>) -> Vec<String> {
    let mut said = Vec::new();
    for milliseconds in from..=to {
        let now = at(start, milliseconds);
        if answer == Some(milliseconds) && probes.heard(now, EIP, OTHER) {
            said.push(format!("{milliseconds} in use"));
        }
        if probes.settle(now) {
            said.push(format!("{milliseconds} free"));
        }
        while let Some(address) = probes.due(now, RATE) {
            probes.sent(now, address);
            said.push(format!("{milliseconds} probe"));
        }
    }
    said
}

#[test]
fn three_probes_and_a_decision_after_a_hundred_milliseconds() {
    let start = Instant::now();
    for (answer, expected) in [
        (None, &["0 probe", "30 probe", "60 probe", "100 free"][..]),
        (Some(1), &["0 probe", "1 in use"]),
        (Some(45), &["0 probe", "30 probe", "45 in use"]),
        (Some(99), &["0 probe", "30 probe", "60 probe", "99 in use"]),
        // Not programmed yet perhaps: it is still in time.
        (Some(120), &["0 probe", "30 probe", "60 probe", "100 free", "120 in use"]),
    ] {
        assert_eq!(run(&mut probes(start), start, 0, 1000, answer), expected, "{answer:?}");
    }
}

#[test]
fn an_address_in_use_is_asked_for_again_ever_more_rarely() {
    let (start, mut probes) = (Instant::now(), probes(Instant::now()));
    let (mut now, mut pauses) = (at(start, 1), Vec::new());
    for _ in 0..6 {
        assert!(probes.due(now, RATE).is_some());
        probes.sent(now, EIP);
        probes.heard(now, EIP, OTHER);
        let next = probes.next().unwrap();
        pauses.push((next - now).as_secs());
        // Heard meanwhile, without having been asked: the time stays.
        assert!(!probes.heard(now + Duration::from_secs(1), EIP, OTHER));
        assert_eq!(probes.next(), Some(next));
        now = next;
    }
    assert_eq!(pauses, [60, 120, 240, 480, 600, 600]);
    // Meanwhile it stays refused, and is free when nobody answers any more.
    let mut milliseconds = 0;
    while probes.findings().next() == Some((EIP, Finding::InUse(OTHER))) {
        probes.settle(now);
        if let Some(address) = probes.due(now, RATE) {
            probes.sent(now, address);
        }
        (now, milliseconds) = (now + Duration::from_millis(10), milliseconds + 10);
        assert!(milliseconds < 1000);
    }
    assert_eq!(probes.findings().collect::<Vec<_>>(), [(EIP, Finding::Free)]);
}

#[test]
fn an_address_that_is_wanted_no_more_is_forgotten() {
    let start = Instant::now();
    let mut probes = probes(start);
    probes.sent(start, EIP);
    probes.heard(start, EIP, OTHER);
    probes.want(start, &BTreeSet::new());
    assert_eq!((probes.findings().count(), probes.next(), probes.next_decision()), (0, None, None));
    probes.want(start, &BTreeSet::from([EIP]));
    assert_eq!(probes.due(start, RATE), Some(EIP), "at once when it is wanted again");
}

#[test]
fn a_link_that_was_lost_starts_all_over() {
    let start = Instant::now();
    let mut probes = probes(start);
    run(&mut probes, start, 0, 60, None);
    probes.restart(at(start, 70));
    assert_eq!(run(&mut probes, start, 70, 1000, None), ["70 probe", "100 probe", "130 probe", "170 free"]);
    probes.restart(at(start, 2000));
    assert_eq!(probes.findings().count(), 0, "free on the link before");
}

#[test]
fn ten_thousand_are_asked_for_once_each() {
    let start = Instant::now();
    let wanted: BTreeSet<_> = (0..10_000).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n)).collect();
    let (mut probes, mut sent) = (Probes::default(), 0);
    probes.want(start, &wanted);
    for tick in 0..11_000 {
        let now = at(start, tick * 10);
        probes.settle(now);
        if let Some(address) = probes.due(now, RATE) {
            probes.sent(now, address);
            sent += 1;
        }
    }
    assert_eq!(probes.findings().filter(|(_, finding)| *finding == Finding::Free).count(), 10_000);
    assert!(sent <= 10_100, "{sent}");
}
