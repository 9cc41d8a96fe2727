//! What a source of objects knows, whichever it is.

use std::collections::{BTreeMap, BTreeSet};

use gateway_common::addr::Prefix;
use imbl::OrdMap;

use crate::config;
use crate::desired::problem::{Kind, Problem};
use crate::snapshot::{Configured, Node, ObjectName, Pod, Vmi};

/// What a source knows: its part of a [`Snapshot`](crate::snapshot::Snapshot).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inputs {
    /// Pods by namespace and name.
    pub pods: OrdMap<ObjectName, Pod>,
    /// Not all pods are known.
    pub partial: bool,
    /// VirtualMachineInstances by namespace and name.
    pub vmis: OrdMap<ObjectName, Vmi>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Service CIDRs.
    pub service_cidrs: BTreeSet<Prefix>,
    /// The configuration in force.
    pub configured: Configured,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// The last good configuration.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct LastGood {
    configured: Configured,
}

impl LastGood {
    /// Takes over what the ConfigMap says now: how problems name it, and its `data`. Returns the problems; a
    /// configuration that is refused leaves the last good one in force.
    pub(super) fn update(&mut self, config_map: Option<(&str, &BTreeMap<String, String>)>) -> Vec<Problem> {
        let Some((object, data)) = config_map else {
            // A ConfigMap that was never seen may still come; one that was good once and is gone was deleted.
            if self.configured != Configured::Unknown {
                self.configured = Configured::Disabled;
            }
            return Vec::new();
        };
        match config::parse(data, object) {
            Ok(parsed) => {
                self.configured = parsed.config.map_or(Configured::Disabled, Configured::Enabled);
                parsed.warnings
            }
            Err(mut problems) => {
                for problem in problems.iter_mut().filter(|problem| problem.kind == Kind::Refused) {
                    problem.remedy.push_str("; until then the last good configuration stays in force");
                }
                problems
            }
        }
    }

    /// The configuration in force.
    pub(super) fn configured(&self) -> &Configured {
        &self.configured
    }
}
