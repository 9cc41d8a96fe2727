//! Neighbours the kernel is to resolve and keep fresh, so that the fast path always finds them.
//!
//! `NTF_EXT_MANAGED` (Linux 5.16) makes the kernel do it by itself. Older kernels ignore the flag; for them, and for
//! neighbours the kernel found for us, `NTF_USE` asks once more whenever the entry goes stale.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use gateway_common::addr::Mac;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState,
};
use nix::errno::Errno;
use rtnetlink::Handle;

use super::NetlinkError;

/// Interface and address.
pub type Pair = (u32, Ipv4Addr);

/// What the kernel says of its neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Those with a usable MAC.
    pub resolved: &'a BTreeMap<Pair, Mac>,
    /// Those it keeps fresh by itself.
    pub managed: &'a BTreeSet<Pair>,
    /// Those that went stale since the last time.
    pub stale: &'a BTreeSet<Pair>,
}

/// What is to be asked of the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// To resolve and keep fresh from now on.
    pub manage: BTreeSet<Pair>,
    /// To confirm once.
    pub confirm: BTreeSet<Pair>,
    /// No longer to be kept fresh.
    pub release: BTreeSet<Pair>,
}

/// Remembers what it asked for.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    asked: BTreeSet<Pair>,
}

impl Keeper {
    /// What to ask, given what is wanted and what the kernel says.
    pub fn plan(&self, wanted: &BTreeSet<Pair>, observed: Observed<'_>) -> Plan {
        let settled = |pair: &Pair| {
            observed.managed.contains(pair)
                || (self.asked.contains(pair) && observed.resolved.contains_key(pair))
        };
        Plan {
            manage: wanted.iter().filter(|pair| !settled(pair)).copied().collect(),
            confirm: observed.stale.iter().filter(|pair| !observed.managed.contains(pair)).copied().collect(),
            release: self.asked.difference(wanted).copied().collect(),
        }
    }

    /// Asks. A pair whose interface is gone is passed over. Returns how many requests were made.
    ///
    /// # Errors
    /// The kernel refused; the rest was asked all the same.
    pub async fn apply(&mut self, handle: &Handle, plan: &Plan) -> Result<usize, NetlinkError> {
        let mut failed = None;
        let requests = (plan.manage.iter().map(|pair| (pair, true)))
            .chain(plan.confirm.difference(&plan.manage).map(|pair| (pair, false)))
            .chain(plan.release.iter().map(|pair| (pair, false)));
        for (pair, manage) in requests {
            match ask(handle, *pair, manage).await {
                Err(error) if !NetlinkError::is(&error, Errno::ENODEV) => {
                    let action = format!("resolve {} on interface {}", pair.1, pair.0);
                    failed = Some(NetlinkError::of(action)(error));
                }
                _ if manage => drop(self.asked.insert(*pair)),
                _ => {}
            }
        }
        self.asked.retain(|pair| !plan.release.contains(pair));
        let made = plan.manage.len() + plan.confirm.difference(&plan.manage).count() + plan.release.len();
        failed.map_or(Ok(made), Err)
    }
}

/// `ip neigh replace ADDR dev IFINDEX [managed] use`.
async fn ask(handle: &Handle, (ifindex, addr): Pair, manage: bool) -> Result<(), rtnetlink::Error> {
    let mut request = handle
        .neighbours()
        .add(ifindex, IpAddr::V4(addr))
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    if manage {
        let flags = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        request.message_mut().attributes.push(flags);
    }
    request.execute().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Pair = (2, Ipv4Addr::new(10, 0, 0, 1));
    const B: Pair = (2, Ipv4Addr::new(10, 0, 0, 2));

    fn set(pairs: &[Pair]) -> BTreeSet<Pair> {
        pairs.iter().copied().collect()
    }

    #[test]
    fn asks_until_the_kernel_manages_or_resolved_it() {
        let mut keeper = Keeper::default();
        let (none, nothing) = (BTreeSet::new(), BTreeMap::new());
        let unknown = Observed { resolved: &nothing, managed: &none, stale: &none };
        assert_eq!(keeper.plan(&set(&[A]), unknown).manage, set(&[A]));
        keeper.asked.insert(A);
        assert_eq!(keeper.plan(&set(&[A]), unknown).manage, set(&[A]), "an old kernel that has lost it");
        let resolved = BTreeMap::from([(A, Mac([2; 6]))]);
        let old = Observed { resolved: &resolved, managed: &none, stale: &none };
        assert_eq!(keeper.plan(&set(&[A]), old), Plan::default());
        let managed = set(&[A]);
        let new = Observed { resolved: &nothing, managed: &managed, stale: &managed };
        assert_eq!(keeper.plan(&set(&[A]), new), Plan::default(), "the kernel does it by itself");
    }

    #[test]
    fn confirms_what_goes_stale_and_releases_what_is_not_wanted() {
        let keeper = Keeper { asked: set(&[A]) };
        let (none, nothing, stale) = (BTreeSet::new(), BTreeMap::new(), set(&[B]));
        let plan = keeper.plan(&none, Observed { resolved: &nothing, managed: &none, stale: &stale });
        assert_eq!(plan, Plan { manage: none, confirm: set(&[B]), release: set(&[A]) });
    }
}
