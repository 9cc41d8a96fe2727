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
use netlink_packet_route::route::RouteProtocol;
use nix::errno::Errno;
use rtnetlink::Handle;

use super::NetlinkError;
use crate::desired::NEIGHBOR_PROTOCOL;

/// Interface and address.
pub type Pair = (u32, Ipv4Addr);

/// What the kernel says of its neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Those with a usable MAC.
    pub resolved: &'a BTreeMap<Pair, Mac>,
    /// Those it keeps fresh by itself.
    pub managed: &'a BTreeSet<Pair>,
    /// Of these, those that we asked it for, this agent or one before.
    pub ours: &'a BTreeSet<Pair>,
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
            release: self.asked.union(observed.ours).filter(|pair| !wanted.contains(pair)).copied().collect(),
        }
    }

    /// Asks. A pair whose interface is gone is passed over. Returns how many requests were made.
    ///
    /// # Errors
    /// The kernel refused; the rest was asked all the same.
    pub async fn apply(&mut self, handle: &Handle, plan: &Plan) -> Result<usize, NetlinkError> {
        let mut failed = None;
        let requests = (plan.manage.iter().map(|pair| (pair, Care::Begins)))
            .chain(plan.confirm.difference(&plan.manage).map(|pair| (pair, Care::Once)))
            .chain(plan.release.iter().map(|pair| (pair, Care::Ends)));
        for (pair, care) in requests {
            match ask(handle, *pair, care).await {
                Err(error) if !NetlinkError::is(&error, Errno::ENODEV) => {
                    let action = format!("resolve {} on interface {}", pair.1, pair.0);
                    failed = Some(NetlinkError::of(action)(error));
                }
                _ if care == Care::Begins => drop(self.asked.insert(*pair)),
                _ => {}
            }
        }
        self.asked.retain(|pair| !plan.release.contains(pair));
        let made = plan.manage.len() + plan.confirm.difference(&plan.manage).count() + plan.release.len();
        failed.map_or(Ok(made), Err)
    }
}

/// For how long the kernel is to keep a neighbour fresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Care {
    /// From now on.
    Begins,
    /// Now.
    Once,
    /// No longer.
    Ends,
}

/// `ip neigh replace ADDR dev IFINDEX [managed] use [protocol NUMBER]`.
async fn ask(handle: &Handle, (ifindex, addr): Pair, care: Care) -> Result<(), rtnetlink::Error> {
    let mut request = handle
        .neighbours()
        .add(ifindex, IpAddr::V4(addr))
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    let attributes = &mut request.message_mut().attributes;
    match care {
        Care::Begins => attributes.extend([
            NeighbourAttribute::Protocol(RouteProtocol::from(NEIGHBOR_PROTOCOL)),
            NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
        ]),
        Care::Once => {}
        // A mark stays until there is another one.
        Care::Ends => attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Kernel)),
    }
    request.execute().await
}

/// Has the kernel keep none of `ours` fresh any more. Returns how many there were.
///
/// # Errors
/// The kernel refused; the rest was asked all the same.
pub async fn release(handle: &Handle, ours: BTreeSet<Pair>) -> Result<usize, NetlinkError> {
    let plan = Plan { release: ours, ..Plan::default() };
    Keeper::default().apply(handle, &plan).await
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
        let unknown = Observed { resolved: &nothing, managed: &none, ours: &none, stale: &none };
        assert_eq!(keeper.plan(&set(&[A]), unknown).manage, set(&[A]));
        keeper.asked.insert(A);
        assert_eq!(keeper.plan(&set(&[A]), unknown).manage, set(&[A]), "an old kernel that has lost it");
        let resolved = BTreeMap::from([(A, Mac([2; 6]))]);
        let old = Observed { resolved: &resolved, managed: &none, ours: &none, stale: &none };
        assert_eq!(keeper.plan(&set(&[A]), old), Plan::default());
        let managed = set(&[A]);
        let new = Observed { resolved: &nothing, managed: &managed, ours: &none, stale: &managed };
        assert_eq!(keeper.plan(&set(&[A]), new), Plan::default(), "the kernel does it by itself");
    }

    #[test]
    fn confirms_what_goes_stale_and_releases_what_is_not_wanted() {
        let keeper = Keeper { asked: set(&[A]) };
        let (none, nothing, stale) = (BTreeSet::new(), BTreeMap::new(), set(&[B]));
        let observed = Observed { resolved: &nothing, managed: &none, ours: &none, stale: &stale };
        let plan = keeper.plan(&none, observed);
        assert_eq!(plan, Plan { manage: none, confirm: set(&[B]), release: set(&[A]) });
    }

    #[test]
    fn releases_what_an_earlier_agent_asked_for() {
        let (none, nothing, both) = (BTreeSet::new(), BTreeMap::new(), set(&[A, B]));
        let observed = Observed { resolved: &nothing, managed: &both, ours: &both, stale: &none };
        let plan = Keeper::default().plan(&set(&[B]), observed);
        assert_eq!(plan, Plan { release: set(&[A]), ..Plan::default() });
        let not_ours = Observed { ours: &none, ..observed };
        assert_eq!(Keeper::default().plan(&none, not_ours), Plan::default(), "somebody else's");
    }
}
