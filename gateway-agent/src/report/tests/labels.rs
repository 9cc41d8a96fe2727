//! The label `eip-bound`: which EIP is bound, or that it was refused.

use super::*;

#[test]
fn the_label_names_the_eip_or_says_that_it_was_refused() {
    type Change = fn(&mut State);
    let cases: [(&str, Change, &[&str]); 4] = [
        (
            "labelled with another EIP, or by an older gateway",
            |s| {
                pod(s, "web").routed = true;
                pod(s, "web").bound_label = BoundLabel::Other;
            },
            &["+label web"],
        ),
        (
            "the external network has another owner of the address",
            |s| {
                release(s, EIP);
                s.desired.refused.insert(name("web"));
            },
            &["-refused web"],
        ),
        (
            "the same, told",
            |s| {
                release(s, EIP);
                s.desired.refused.insert(name("web"));
                pod(s, "web").bound_label = BoundLabel::Refused;
            },
            &[],
        ),
        (
            "it asks for another",
            |s| {
                release(s, EIP);
                pod(s, "web").bound_label = BoundLabel::Refused;
            },
            &["-label web"],
        ),
    ];
    for (case, change, expected) in cases {
        let (mut state, mut memory) = (state(), Memory::default());
        change(&mut state);
        assert_eq!(round(&mut state, &mut memory, Instant::now(), false), expected, "{case}");
    }
}
