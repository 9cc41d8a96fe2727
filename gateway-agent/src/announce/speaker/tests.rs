use super::*;
use crate::announce::Uplink;
use crate::snapshot::Link;

const MAC: Mac = Mac([2; 6]);
const OTHER: Mac = Mac([4; 6]);
const NIC_IP: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

fn addresses(from: u32, count: u32) -> BTreeSet<Ipv4Addr> {
    (from..from + count).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n)).collect()
}

fn link(carrier_ups: u32) -> Option<Uplink> {
    let link = Link { ifindex: 7, up: true, carrier: true, carrier_ups, ..Link::default() };
    Uplink::of(Some(&link), Some(&link))
}

fn order(owned: u32, probe: u32) -> Order {
    let owned = addresses(0, owned).into_iter().chain([NIC_IP]).collect();
    let probe = addresses(100_000, probe);
    Order { mac: MAC, nic_ip: NIC_IP, owned, probe, rate: 100, link: link(1), epoch: 1, ..Order::default() }
}

/// Plays the task for so many milliseconds: what was sent, and when.
fn play(speaker: &mut Speaker, start: Instant, from: u64, to: u64) -> Vec<(u64, Frame)> {
    let mut said = Vec::new();
    for milliseconds in from..to {
        let now = start + Duration::from_millis(milliseconds);
        speaker.settle(now, || true);
        while let Some(frame) = speaker.next(now) {
            speaker.sent(now, frame);
            said.push((milliseconds, frame));
        }
    }
    said
}

fn announced(said: &[(u64, Frame)], address: Ipv4Addr) -> usize {
    said.iter().filter(|(_, frame)| *frame == Frame::Announcement(address)).count()
}

#[test]
fn the_rate_holds_for_all_that_is_said() {
    let (start, mut speaker) = (Instant::now(), Speaker::new(Instant::now(), None));
    speaker.order(start, Some(order(2_000, 2_000)));
    let said = play(&mut speaker, start, 0, 90_000);
    let in_a_second = |from: u64| said.iter().filter(|(at, _)| (from..from + 1000).contains(at)).count();
    let most = (0..89_000).step_by(100).map(in_a_second).max().unwrap();
    assert!((95..=111).contains(&most), "{most}");
    assert!(addresses(0, 2_000).into_iter().all(|address| announced(&said, address) > 0));
    let external = speaker.report(start + Duration::from_secs(90)).unwrap();
    assert_eq!(external.free.len(), 2_000);
}

/// Ten thousand EIPs at once, for instance after a reboot without a label: the owner serves what was found to be free.
#[test]
fn ten_thousand_new_eips_take_two_hundred_seconds() {
    let (start, mut speaker) = (Instant::now(), Speaker::new(Instant::now(), None));
    let mut orders = order(0, 10_000);
    speaker.order(start, Some(orders.clone()));
    let (mut announced, mut second) = (BTreeSet::new(), 0);
    while announced.len() < 10_001 {
        for milliseconds in (second * 1000..(second + 1) * 1000).step_by(10) {
            let now = start + Duration::from_millis(milliseconds);
            speaker.settle(now, || true);
            while let Some(frame) = speaker.next(now) {
                speaker.sent(now, frame);
                if let Frame::Announcement(address) = frame {
                    announced.insert(address);
                }
            }
            if let Some(external) = speaker.report(now) {
                orders.probe.retain(|address| !external.free.contains(address));
                orders.owned.extend(external.free);
                speaker.order(now, Some(orders.clone()));
            }
        }
        second += 1;
    }
    assert!((195..=210).contains(&second), "{second} s");
}

#[test]
fn one_new_eip_needs_a_hundred_milliseconds_beside_ten_thousand_old_ones() {
    let (start, mut speaker) =
        (Instant::now(), Speaker::new(Instant::now(), Some((MAC, order(10_000, 0).owned))));
    speaker.order(start, Some(order(10_000, 1)));
    let said = play(&mut speaker, start, 0, 150);
    assert_eq!(said[0], (0, Frame::Announcement(NIC_IP)), "the switch learns at once where we are");
    assert_eq!(speaker.report(start + Duration::from_millis(150)).unwrap().free, addresses(100_000, 1));
}

#[test]
fn all_is_announced_anew_when_the_switch_may_have_forgotten() {
    type Change = fn(&mut Order);
    let cases: [(&str, Change, bool); 7] = [
        ("nothing", |_| {}, false),
        ("the cable was out", |o| o.link = link(2), true),
        ("not owned for a while", |o| o.epoch = 2, true),
        ("not ready for a while", |o| o.ready_since = Some(1), true),
        ("another MAC", |o| o.mac = OTHER, true),
        ("another rate", |o| o.rate = 50, false),
        ("asks for an address", |o| _ = o.probe.insert(Ipv4Addr::new(10, 9, 9, 9)), false),
    ];
    for (case, change, anew) in cases {
        let (start, mut speaker) = (Instant::now(), Speaker::new(Instant::now(), None));
        speaker.order(start, Some(order(3, 0)));
        play(&mut speaker, start, 0, 5_000);
        let mut next = order(3, 0);
        change(&mut next);
        speaker.order(start + Duration::from_secs(5), Some(next));
        let said = play(&mut speaker, start, 5_000, 5_500);
        let all = order(3, 0).owned.into_iter().all(|address| announced(&said, address) == 1);
        assert_eq!(all, anew, "{case}: {said:?}");
    }
}

#[test]
fn what_could_not_be_sent_is_due_until_it_is() {
    let (start, mut speaker) = (Instant::now(), Speaker::new(Instant::now(), None));
    let down = Order { link: None, ..order(1, 1) };
    speaker.order(start, Some(down.clone()));
    assert_eq!((play(&mut speaker, start, 0, 1_000), speaker.wait(start)), (vec![], Some(Duration::ZERO)));
    assert_eq!(speaker.report(start).unwrap(), External::default(), "nothing was decided");
    assert_eq!(speaker.wait(start), None, "until the link is there");
    let back = start + Duration::from_secs(1);
    speaker.order(back, Some(order(1, 1)));
    let frame = speaker.next(back);
    assert!(frame.is_some());
    speaker.failed(back);
    assert_eq!(speaker.next(back), None);
    let said = play(&mut speaker, start, 1_200, 3_900);
    assert_eq!(announced(&said, Ipv4Addr::new(10, 0, 0, 0)), 3);
    assert_eq!(speaker.report(start + Duration::from_secs(4)).unwrap().free, addresses(100_000, 1));
}

#[test]
fn silence_without_a_cable_says_nothing() {
    let (start, mut speaker) = (Instant::now(), Speaker::new(Instant::now(), None));
    speaker.order(start, Some(order(0, 1)));
    play(&mut speaker, start, 0, 100);
    speaker.settle(start + Duration::from_millis(100), || false);
    assert!(speaker.report(start + Duration::from_millis(100)).unwrap().free.is_empty());
}

#[test]
fn who_answers_or_wants_the_same_has_it_and_we_are_not_others() {
    let wanted = Ipv4Addr::from_bits(0x0a00_0000 + 100_000);
    let own = Ipv4Addr::new(10, 0, 0, 0);
    let says = |mac: Mac, ip: Ipv4Addr| arp::Packet::announcement(mac, ip.octets());
    let to_us = |mac: Mac, ip: Ipv4Addr| arp::Packet::probe(MAC, ip.octets()).reply(mac);
    for (case, packet, in_use, contested) in [
        ("an answer", to_us(OTHER, wanted), true, false),
        ("an announcement", says(OTHER, wanted), true, false),
        ("a probe of somebody else", arp::Packet::probe(OTHER, wanted.octets()), true, false),
        ("another gateway's probe", arp::Packet::probe(MAC, wanted.octets()), false, false),
        ("another gateway's answer", to_us(MAC, wanted), false, false),
        ("our address announced", says(OTHER, own), false, true),
        (
            "our address probed: it is answered, and that is all",
            arp::Packet::probe(OTHER, own.octets()),
            false,
            false,
        ),
        ("nobody's", says(OTHER, Ipv4Addr::new(10, 9, 9, 9)), false, false),
    ] {
        let (start, mut speaker) = (Instant::now(), Speaker::new(Instant::now(), None));
        speaker.order(start, Some(order(1, 1)));
        play(&mut speaker, start, 0, 50);
        speaker.heard(start + Duration::from_millis(50), &packet);
        let said = play(&mut speaker, start, 50, 60);
        let external = speaker.report(start + Duration::from_millis(60)).unwrap();
        assert_eq!(external.in_use.contains_key(&wanted), in_use, "{case}");
        assert_eq!(external.contested.contains_key(&own), contested, "{case}");
        assert_eq!(
            (external.conflicts, announced(&said, own)),
            (u64::from(contested), usize::from(contested)),
            "{case}"
        );
    }
}

#[test]
fn disowned_and_owned_again_is_as_at_first() {
    let (start, mut speaker) = (Instant::now(), Speaker::new(Instant::now(), None));
    for round in 0..2 {
        let now = start + Duration::from_secs(10 * round);
        speaker.order(now, Some(Order { epoch: round, ..order(0, 1) }));
        let said = play(&mut speaker, now, 0, 200);
        assert_eq!(said.len(), 4, "{said:?}");
        let free = speaker.report(now + Duration::from_millis(200)).unwrap().free;
        assert_eq!(free, addresses(100_000, 1), "round {round}");
        speaker.order(now + Duration::from_secs(1), None);
        assert_eq!(speaker.wait(now + Duration::from_secs(1)), None);
        assert_eq!(speaker.report(now + Duration::from_secs(1)), Some(External::default()));
    }
}
