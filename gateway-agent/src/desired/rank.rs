//! Who of several that ask for one EIP has it.
//!
//! Who has it keeps it while it exists, ready or not. It hands it on to its kin alone: what one
//! workload made, or one VM. So a pod that fails a probe, or is drained, loses its address to its
//! own successor and never to a stranger.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::claim::Claimant;
use crate::snapshot::{ObjectName, Owner};

/// Those that hand an EIP on among themselves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Family<'a> {
    /// A pod of its own.
    Pod(&'a ObjectName),
    /// The pods of one owner in a namespace: an owner is what a pod's author wrote, so it says
    /// nothing in another one.
    Owner(&'a str, &'a Owner),
    /// The instances of a VM, one after the other.
    Vm(ObjectName),
}

/// The order within a family, smallest first: a pod that cannot be served, that ends, that is not
/// ready yields; then who is served stays, and only among newcomers does age decide.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank<'a> {
    pub(super) waits: bool,
    pub(super) ends: bool,
    pub(super) unready: bool,
    pub(super) bound: Reverse<bool>,
    pub(super) held: Reverse<bool>,
    pub(super) created: i64,
    pub(super) name: ObjectName,
    pub(super) family: Family<'a>,
}

/// The order among families, smallest first: that of the member with the best claim. Whether that
/// one is ready is its family's business; only where nobody has the EIP does one that does not end
/// go before one that does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Precedence {
    bound: Reverse<bool>,
    held: Reverse<bool>,
    ends: bool,
    created: i64,
    name: ObjectName,
}

impl Precedence {
    fn of(rank: &Rank<'_>) -> Self {
        let Rank { bound, held, ends, created, ref name, .. } = *rank;
        Self { bound, held, ends, created, name: name.clone() }
    }
}

/// Puts those that ask for one EIP in order, who has it first.
pub(super) fn order<'a>(claimants: &mut [Claimant<'a>]) {
    if claimants.len() < 2 {
        return;
    }
    let mut precedences = BTreeMap::new();
    for rank in claimants.iter().map(|claimant| &claimant.rank) {
        let precedence = Precedence::of(rank);
        let best = precedences.entry(rank.family.clone()).or_insert_with(|| precedence.clone());
        if precedence < *best {
            *best = precedence;
        }
    }
    claimants.sort_by(|a: &Claimant<'a>, b| {
        let (of_a, of_b) = (precedences.get(&a.rank.family), precedences.get(&b.rank.family));
        of_a.cmp(&of_b).then_with(|| a.rank.cmp(&b.rank))
    });
}
