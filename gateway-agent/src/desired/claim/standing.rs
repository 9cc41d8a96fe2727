//! Whether an address may be an EIP at all: nobody else may have it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gateway_common::addr::Mac;

use super::{Claim, Claimant, Claims, Round};
use crate::desired::RouterPort;
use crate::desired::problem::Problem;
use crate::snapshot::{BoundLabel, Host};

/// How this node learns whether an EIP may be one: nobody else on the external network has the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judge {
    /// It owns the external network, and asks there.
    Owner,
    /// The owner says so in the pod's label.
    Label,
    /// The owner knows, and has no place to say so: no API.
    Nobody,
}

/// The addresses of this host's interfaces, but for those of the router port, which follow the ConfigMap.
pub(super) fn nics(host: &Host) -> BTreeMap<Ipv4Addr, &str> {
    let links = host.links.iter().filter(|(name, _)| *name != RouterPort::NAME);
    let all = links.flat_map(|(name, link)| link.addresses.iter().map(|prefix| (prefix.addr, name.as_str())));
    all.collect()
}

/// What becomes of the pod that comes first for an EIP.
enum Standing {
    /// It is served; the owner has accepted the EIP, or not yet as far as this node knows.
    Served { accepted: bool },
    /// The owner asks the external network.
    Asked,
    /// Somebody else has the address.
    Taken(Problem),
    /// The owner has refused it, and tells why.
    Left,
}

impl Round<'_> {
    /// Takes over the claimant that comes first for its EIP.
    pub(super) fn settle(&self, claimant: Claimant<'_>, claims: &mut Claims) {
        let standing = self.standing(&claimant);
        let Claimant { eip, claim, vm, idle, rank, .. } = claimant;
        if claim.is_none() && vm.is_none() {
            claims.waiting.insert(rank.name);
        }
        // A VM that had the EIP before a restart still has it while that is asked for once more.
        if claim.is_none() || matches!(standing, Standing::Served { .. } | Standing::Asked) {
            claims.vms.extend(vm.map(|vm| (eip, vm)));
            claims.idle.extend(Some((eip, idle)).filter(|(_, idle)| !idle.is_empty()));
        }
        let Some(claim) = claim else { return };
        match standing {
            Standing::Served { accepted } => _ = claims.served.insert(eip, Claim { accepted, ..claim }),
            Standing::Asked => _ = claims.asked.insert(eip, claim.pod),
            Standing::Taken(problem) => {
                claims.problems.push(problem);
                if self.judge == Judge::Owner {
                    claims.refused.insert(claim.pod.clone());
                    claims.asked.insert(eip, claim.pod);
                }
            }
            Standing::Left => {}
        }
    }

    /// Whether the address may be an EIP. What was accepted once stays so while it is served, whoever claims it then.
    fn standing(&self, claimant: &Claimant<'_>) -> Standing {
        let (eip, external) = (claimant.eip, &self.snapshot.external);
        if let Some(nic) = self.nics.get(&eip) {
            return self.taken(
                claimant,
                format!("the address of interface {nic} of node {}", self.snapshot.node_name),
            );
        }
        let bound = claimant.label == BoundLabel::Bound(eip);
        match self.judge {
            Judge::Nobody => Standing::Served { accepted: true },
            Judge::Label if claimant.label == BoundLabel::Refused => Standing::Left,
            Judge::Label => Standing::Served { accepted: bound },
            Judge::Owner if bound || self.snapshot.held.accepted.contains(&eip) => {
                Standing::Served { accepted: true }
            }
            Judge::Owner => match external.in_use.get(&eip).copied().or_else(|| self.neighbor(eip)) {
                Some(mac) => self.taken(claimant, format!("in use by MAC {mac} on the external network")),
                None if external.free.contains(&eip) => Standing::Served { accepted: true },
                None => Standing::Asked,
            },
        }
    }

    fn taken(&self, claimant: &Claimant<'_>, by: String) -> Standing {
        Standing::Taken(Problem::refused(
            claimant.object(),
            self.snapshot.keys.eip_field(),
            format!("{} is {by}", claimant.eip),
            format!(
                "choose a free address of {}; this one is tried again within ten minutes, and at once when the \
                 annotation changes",
                self.config.external_gateway.trunc()
            ),
        ))
    }

    /// Who has an address as the kernel knows it. At the router port stale entries are confirmed, so they mean something.
    fn neighbor(&self, eip: Ipv4Addr) -> Option<Mac> {
        let host = &self.snapshot.host;
        let port = host.links.get(RouterPort::NAME)?.ifindex;
        host.neighbors.get(&(port, eip)).copied().filter(|mac| *mac != self.config.nic_mac)
    }
}
