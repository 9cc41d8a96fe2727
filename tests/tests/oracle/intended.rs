//! The differences we intend, each with its reason. A difference that is not here fails the run, and so does one that is
//! here and no longer shows.

use std::collections::BTreeSet;

use crate::compare::Difference;

mod list;

pub(crate) use list::ALL;

/// End, field, ours, OVN's.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Stimuli, and the differences that each of them shows.
type Case = (&'static [&'static str], &'static [Row]);

/// Differences of one reason.
pub(crate) struct Intended {
    pub(crate) reason: &'static str,
    cases: &'static [Case],
}

impl Intended {
    /// The differences that a stimulus is to show.
    fn of(&self, stimulus: &str) -> Vec<Difference> {
        let rows =
            self.cases.iter().filter(|(stimuli, _)| stimuli.contains(&stimulus)).flat_map(|(_, rows)| *rows);
        // A row whose sides are equal is none.
        rows.filter(|(_, _, ours, ovn)| ours != ovn)
            .map(|(at, field, ours, ovn)| Difference {
                at: (*at).to_owned(),
                field: (*field).to_owned(),
                ours: (*ours).to_owned(),
                ovn: (*ovn).to_owned(),
            })
            .collect()
    }
}

/// What a comparison came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Places in [`ALL`] of the reasons for what differs.
    pub(crate) reasons: Vec<usize>,
    /// What differs and is not to.
    pub(crate) unexpected: Vec<Difference>,
    /// What is to differ and does not.
    pub(crate) gone: Vec<Difference>,
}

impl Judgement {
    /// Whether everything is as it is to be.
    pub(crate) fn is_good(&self) -> bool {
        self.unexpected.is_empty() && self.gone.is_empty()
    }
}

/// Judges what was found of a stimulus by `intended`, which is [`ALL`] but for tests.
pub(crate) fn judge(stimulus: &str, found: &[Difference], intended: &[Intended]) -> Judgement {
    let found: BTreeSet<_> = found.iter().cloned().collect();
    let wanted: Vec<_> = intended.iter().map(|group| group.of(stimulus)).collect();
    let reasons =
        wanted.iter().enumerate().filter(|(_, rows)| !rows.is_empty()).map(|(index, _)| index).collect();
    let wanted: BTreeSet<_> = wanted.into_iter().flatten().collect();
    Judgement {
        reasons,
        unexpected: found.difference(&wanted).cloned().collect(),
        gone: wanted.difference(&found).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stimuli;

    const LIST: [Intended; 1] =
        [Intended { reason: "we answer", cases: &[(&["a"], &[("client", "packets", "ICMP", "none")])] }];

    fn difference(ours: &str) -> Difference {
        let word = ToOwned::to_owned;
        Difference { at: word("client"), field: word("packets"), ours: word(ours), ovn: word("none") }
    }

    #[test]
    fn only_what_is_listed_is_good() {
        let judged = judge("a", &[difference("ICMP")], &LIST);
        assert!(judged.is_good());
        assert_eq!(judged.reasons, [0]);
        assert_eq!(judge("b", &[difference("ICMP")], &LIST).unexpected, [difference("ICMP")]);
        assert_eq!(judge("a", &[], &LIST).gone, [difference("ICMP")]);
        let other = judge("a", &[difference("UDP")], &LIST);
        assert_eq!((other.unexpected, other.gone), (vec![difference("UDP")], vec![difference("ICMP")]));
    }

    #[test]
    fn the_list_is_about_what_is_sent() {
        let names: Vec<_> =
            stimuli::all(stimuli::Round::First).into_iter().map(|stimulus| stimulus.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two stimuli have one name");
        let listed = ALL.iter().flat_map(|group| group.cases).flat_map(|(stimuli, _)| *stimuli);
        for stimulus in listed {
            assert!(names.iter().any(|name| name == stimulus), "nothing is sent that is called {stimulus:?}");
        }
    }
}
