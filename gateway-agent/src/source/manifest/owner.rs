//! The workload a pod belongs to.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::snapshot::Owner;

/// What makes ReplicaSets, and the label of their pods whose value ends the ReplicaSet's name: so
/// the name before it is known without reading ReplicaSets.
const MAKERS: [(&str, &str); 2] =
    [("pod-template-hash", "Deployment"), ("rollouts-pod-template-hash", "Rollout")];

/// The controller of a pod; of a ReplicaSet that a Deployment made, the Deployment.
pub(super) fn owner(metadata: &ObjectMeta) -> Option<Owner> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    let maker = metadata.labels.as_ref().and_then(|labels| maker(controller, labels));
    Some(maker.unwrap_or_else(|| Owner { kind: controller.kind.clone(), name: controller.name.clone() }))
}

/// What made a ReplicaSet; `None` where nothing did.
fn maker(controller: &OwnerReference, labels: &BTreeMap<String, String>) -> Option<Owner> {
    if controller.kind != "ReplicaSet" {
        return None;
    }
    MAKERS.iter().find_map(|(label, kind)| {
        let name = controller.name.strip_suffix(labels.get(*label)?.as_str())?.strip_suffix('-')?;
        Some(Owner { kind: (*kind).to_owned(), name: name.to_owned() }).filter(|owner| !owner.name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_the_controller_or_the_deployment_behind_it() {
        for (case, owners, label, expected) in [
            ("none", "", "", ""),
            ("a StatefulSet", "StatefulSet/db*", "", "StatefulSet/db"),
            ("a Deployment", "ReplicaSet/web-5d4f8c7b9*", "pod-template-hash=5d4f8c7b9", "Deployment/web"),
            ("a dash in its name", "ReplicaSet/a-b-5d*", "pod-template-hash=5d", "Deployment/a-b"),
            ("a Rollout", "ReplicaSet/web-5d*", "rollouts-pod-template-hash=5d", "Rollout/web"),
            ("a ReplicaSet by hand", "ReplicaSet/web*", "", "ReplicaSet/web"),
            ("another hash", "ReplicaSet/web-5d*", "pod-template-hash=6e", "ReplicaSet/web-5d"),
            ("an empty hash", "ReplicaSet/web-*", "pod-template-hash=", "Deployment/web"),
            ("nothing before the hash", "ReplicaSet/-5d*", "pod-template-hash=5d", "ReplicaSet/-5d"),
            ("no dash before it", "ReplicaSet/web5d*", "pod-template-hash=5d", "ReplicaSet/web5d"),
            ("the label alone", "StatefulSet/db-5d*", "pod-template-hash=5d", "StatefulSet/db-5d"),
            ("an owner that does not control", "StatefulSet/db", "", ""),
            ("the second controls", "Foo/x StatefulSet/db*", "", "StatefulSet/db"),
        ] {
            let reference = |text: &str| {
                let (kind, name) = text.split_once('/').unwrap();
                OwnerReference {
                    kind: kind.to_owned(),
                    name: name.trim_end_matches('*').to_owned(),
                    controller: Some(name.ends_with('*')),
                    ..OwnerReference::default()
                }
            };
            let labels = label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            let metadata = ObjectMeta {
                owner_references: Some(owners.split_whitespace().map(reference).collect()),
                labels: Some(labels.into_iter().collect()),
                ..ObjectMeta::default()
            };
            let got = owner(&metadata).map(|owner| format!("{}/{}", owner.kind, owner.name));
            assert_eq!(got.unwrap_or_default(), expected, "{case}");
        }
    }
}
