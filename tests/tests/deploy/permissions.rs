//! The roles: exactly what the agents use, and what each verb is for.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Options, PodSpec, User};
use gateway_lab::Job;
use gateway_tests::scene::{EIP1, agent, eventually};
use serde_json::{Value, json};

use crate::bootstrap::worker;
use crate::cluster::{ACCOUNTS, Deployed, NAMESPACE};

const CONFIG_MAP: &str = "configmaps/ovn-external-gw-config";

/// Who may what, and the feature that uses it: `B`oth roles, `G`ateway, `W`orker. Everything else is refused.
const NEEDED: [(char, &str, &str, &str); 15] = [
    ('B', "list", "pods", "which pods ask for an EIP, and where they run"),
    ('B', "watch", "pods", "an annotation takes effect within a second"),
    ('G', "patch", "pods", "routed and the label eip-bound, once an EIP is programmed"),
    ('B', "list", "nodes", "tunnel endpoints, pod CIDRs, which gateway is Ready"),
    ('B', "watch", "nodes", "a gateway that goes, a node that comes"),
    // A worker: the first gateway has no label yet.
    ('B', "patch", "nodes", "the label external-gw on nodes named in the ConfigMap"),
    ('B', "get", CONFIG_MAP, "its uid, by which `kubectl describe` finds the Events about it"),
    ('B', "list", CONFIG_MAP, "the configuration"),
    ('B', "watch", CONFIG_MAP, "an edit takes effect live"),
    ('B', "list", "virtualmachineinstances.kubevirt.io", "where the guest of a VM runs"),
    ('B', "watch", "virtualmachineinstances.kubevirt.io", "an EIP follows a live migration"),
    ('B', "list", "servicecidrs.networking.k8s.io", "Services never go by the gateway"),
    ('B', "watch", "servicecidrs.networking.k8s.io", "a Service network that is added"),
    ('G', "create", "events.events.k8s.io", "EipBound, EipRefused, … on pods"),
    ('W', "create", "events.events.k8s.io in kube-system", "a ConfigMap from which no gateway follows"),
];

fn user(account: &str) -> String {
    format!("--as=system:serviceaccount:{NAMESPACE}:{account}")
}

/// What the API server says the account may do in a namespace, as `verb resource[/name]`, without what everybody may.
fn allowed(deployed: &Deployed, account: &str, namespace: &str) -> Result<BTreeSet<String>> {
    let (user, namespace) = (user(account), format!("--namespace={namespace}"));
    let list = deployed.cluster.kubectl(&["auth", "can-i", "--list", "--no-headers", &user, &namespace])?;
    let mut allowed = BTreeSet::new();
    for line in list.lines() {
        let lists: Vec<_> = line.split(['[', ']']).map(str::trim).collect();
        // resource [urls] [names] [verbs]
        let &[resource, urls, _, names, _, verbs, ..] = lists.as_slice() else { continue };
        if !urls.is_empty() || resource.starts_with("selfsubject") {
            continue;
        }
        let name = if names.is_empty() { String::new() } else { format!("/{names}") };
        allowed.extend(verbs.split_whitespace().map(|verb| format!("{verb} {resource}{name}")));
    }
    Ok(allowed)
}

/// What the table says.
fn needed(role: char, namespace: &str) -> BTreeSet<String> {
    let here = |resource: &str| match resource.split_once(" in ") {
        Some((resource, only)) => (only == namespace).then(|| resource.to_owned()),
        None if resource.contains('/') => (namespace == NAMESPACE).then(|| resource.to_owned()),
        None => Some(resource.to_owned()),
    };
    let rows = NEEDED.iter().filter(|(who, ..)| *who == 'B' || *who == role);
    rows.filter_map(|(_, verb, resource, _)| Some(format!("{verb} {}", here(resource)?))).collect()
}

#[test]
fn the_roles_allow_what_the_table_says_and_nothing_else() -> Result<()> {
    let deployed = Deployed::new("d3-", Options::default())?;
    deployed.cluster.install_kubevirt()?;
    for (role, account) in ['G', 'W'].into_iter().zip(ACCOUNTS) {
        for namespace in [NAMESPACE, "default"] {
            let (is, should) = (allowed(&deployed, account, namespace)?, needed(role, namespace));
            ensure!(is == should, "{account} in {namespace}: {is:#?}, not {should:#?}");
        }
        for row in needed(role, NAMESPACE) {
            let (verb, resource) = row.split_once(' ').context("verb and resource")?;
            let answer = can_i(&deployed, account, &[verb, resource, "-n", NAMESPACE])?;
            ensure!(answer, "{account} may not {row}");
        }
        for refused in [
            "get secrets",
            "list secrets",
            "delete pods",
            "create pods",
            "update pods",
            "patch pods --subresource=status",
            "create pods --subresource=exec",
            "create pods --subresource=eviction",
            "delete nodes",
            "update nodes",
            "patch nodes --subresource=status",
            "get nodes --subresource=proxy",
            "list configmaps",
            "get configmaps/kube-root-ca.crt",
            "update configmaps/ovn-external-gw-config",
            "delete events.events.k8s.io",
            "patch virtualmachineinstances.kubevirt.io",
            "create serviceaccounts --subresource=token",
            "impersonate users",
            "escalate clusterroles.rbac.authorization.k8s.io",
            "*  *",
        ] {
            let words: Vec<_> = refused.split_whitespace().chain(["-n", NAMESPACE]).collect();
            ensure!(!can_i(&deployed, account, &words)?, "{account} may {refused}");
        }
    }
    // A list of one by its name is not a list of all.
    let worker = User::ServiceAccount { namespace: NAMESPACE, name: ACCOUNTS[1] };
    let one = "--field-selector=metadata.name=ovn-external-gw-config";
    deployed.cluster.kubectl_as(worker, &["get", "configmaps", one, "-n", NAMESPACE])?;
    for refused in [&["get", "configmaps", "-n", NAMESPACE][..], &["get", "configmaps", one, "-n", "default"]]
    {
        ensure!(deployed.cluster.kubectl_as(worker, refused).is_err(), "{refused:?}");
    }
    Ok(())
}

fn can_i(deployed: &Deployed, account: &str, words: &[&str]) -> Result<bool> {
    // `no` is exit code 1.
    let user = user(account);
    let answer = deployed.cluster.kubectl(&[&["auth", "can-i", "--quiet", &user], words].concat());
    match answer {
        Ok(_) => Ok(true),
        Err(error) => {
            let text = format!("{error:#}");
            let said = text.split_once("failed: ").map(|(_, said)| said);
            let no = said.is_some_and(|said| said.is_empty() || said.starts_with("Warning: resource "));
            if no { Ok(false) } else { Err(error) }
        }
    }
}

/// Starts the agent of gw1 as the gateway's account.
fn gateway(deployed: &Deployed) -> Result<Job> {
    let account = User::ServiceAccount { namespace: NAMESPACE, name: ACCOUNTS[0] };
    let kubeconfig = deployed.cluster.kubeconfig(account)?.display().to_string();
    let agent = agent()?.display().to_string();
    let words = [&agent, "run", "--node", "gw1", "--source", "kube", "--kubeconfig", &kubeconfig];
    deployed.lab.spawn("gw1", &words)
}

/// Everything a gateway does once: binds, labels, tells, and refuses a bad configuration.
fn provoke(deployed: &Deployed) -> Result<()> {
    let cluster = &deployed.cluster;
    cluster.kubectl(&["label", "node", "gw1", "ovn.kubernetes.io/external-gw-"])?;
    cluster.kubectl(&["delete", "events.v1.events.k8s.io", "--all", "--all-namespaces"])?;
    let none = json!({ "metadata": {
        "annotations": { "ovn.kubernetes.io/routed": null }, "labels": { "ovn.kubernetes.io/eip-bound": null } } });
    cluster.patch(&["pod", "pod1a"], &none)?;
    Ok(())
}

/// The uid that an Event about the ConfigMap names, once there is one.
fn told(deployed: &Deployed) -> Result<Option<String>> {
    let events = deployed.cluster.get(&["events.v1.events.k8s.io", "-n", NAMESPACE])?;
    let events = events["items"].as_array().into_iter().flatten();
    let mut about = events.filter(|event| event["regarding"]["kind"] == "ConfigMap");
    Ok(about.next().map(|event| event["regarding"]["uid"].as_str().unwrap_or_default().to_owned()))
}

/// The rules of an account's role, without one verb of one resource.
fn without(kind: &str, account: &str, deployed: &Deployed, verb: &str, resource: &str) -> Result<Value> {
    let role = deployed.cluster.get(&[kind, account, "-n", NAMESPACE])?;
    let mut rules = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for of in rule["resources"].as_array().into_iter().flatten() {
            let mut rule = rule.clone();
            rule["resources"] = json!([of]);
            if of == resource {
                let verbs = rule["verbs"].as_array().into_iter().flatten().filter(|other| **other != verb);
                rule["verbs"] = verbs.cloned().collect();
            }
            if rule["verbs"].as_array().is_some_and(|verbs| !verbs.is_empty()) {
                rules.push(rule);
            }
        }
    }
    Ok(json!({ "rules": rules }))
}

#[test]
fn the_gateway_uses_every_verb_and_needs_no_other() -> Result<()> {
    let deployed = Deployed::new("d4-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.install_kubevirt()?;
    cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip(EIP1))?;
    // The good configuration stays; a bad value beside it is told.
    let bad = json!({ "data": { "geneve-port": "many" } });
    let config_map = ["configmap", "ovn-external-gw-config", "-n", NAMESPACE];

    provoke(&deployed)?;
    let mut whole = gateway(&deployed)?;
    whole.wait_for("in sync", Duration::from_secs(20))?;
    eventually(Duration::from_secs(10), "bound, labelled and told", || {
        let pod = cluster.get(&["pod", "pod1a"])?;
        let node = cluster.get(&["node", "gw1"])?;
        let events = cluster.kubectl(&["get", "events.v1.events.k8s.io", "-o", "name"])?;
        Ok(pod["metadata"]["annotations"]["ovn.kubernetes.io/routed"] == "true"
            && pod["metadata"]["labels"]["ovn.kubernetes.io/eip-bound"].is_string()
            && node["metadata"]["labels"]["ovn.kubernetes.io/external-gw"] == "true"
            && !events.is_empty())
    })?;
    cluster.patch(&config_map, &bad)?;
    eventually(Duration::from_secs(10), "the bad value is told, with the uid", || {
        Ok(told(&deployed)?.is_some_and(|uid| !uid.is_empty()))
    })?;
    let log = whole.stderr();
    ensure!(!log.contains("forbidden") && !log.contains("not allowed"), "{log}");
    drop(whole);
    cluster.patch(&config_map, &json!({ "data": { "geneve-port": null } }))?;

    for (_, verb, of, feature) in NEEDED.iter().filter(|(who, ..)| *who != 'W') {
        let resource = of.split(['.', '/']).next().unwrap_or(of);
        let kind = if resource == "configmaps" { "role" } else { "clusterrole" };
        let rules = |verb, resource| without(kind, ACCOUNTS[0], &deployed, verb, resource);
        let (all, less) = (rules("", "")?, rules(verb, resource)?);
        ensure!(all != less, "{verb} {resource} is in the {kind}");
        cluster.patch(&[kind, ACCOUNTS[0], "-n", NAMESPACE], &less)?;
        provoke(&deployed)?;
        let mut agent = gateway(&deployed)?;
        if (*verb, resource) == ("get", "configmaps") {
            agent.wait_for("in sync", Duration::from_secs(20))?;
            cluster.patch(&config_map, &bad)?;
            eventually(Duration::from_secs(10), "told without the uid", || {
                Ok(told(&deployed)?.is_some_and(|uid| uid.is_empty()))
            })?;
            cluster.patch(&config_map, &json!({ "data": { "geneve-port": null } }))?;
        } else {
            let refusal = format!("cannot {verb} resource \"{resource}\"");
            let missed = agent.wait_for(&refusal, Duration::from_secs(20));
            missed.with_context(|| format!("{verb} {of} ({feature}) was not missed: {}", agent.stderr()))?;
        }
        println!("{verb} {of}: {feature}");
        drop(agent);
        cluster.patch(&[kind, ACCOUNTS[0], "-n", NAMESPACE], &all)?;
    }
    Ok(())
}

#[test]
fn a_worker_uses_every_verb_and_tells_of_each_that_it_misses_once() -> Result<()> {
    let deployed = Deployed::new("b14-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.install_kubevirt()?;
    cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip(EIP1))?;
    let config_map = ["configmap", "ovn-external-gw-config", "-n", NAMESPACE];
    let good = json!({ "data": { "external-gw-addr": "192.168.100.1/24" } });
    let bad = json!({ "data": { "external-gw-addr": "nowhere" } });
    for (_, verb, of, feature) in NEEDED.iter().filter(|(who, ..)| *who != 'G') {
        let resource = of.split(['.', '/', ' ']).next().unwrap_or(of);
        let kind = if ["configmaps", "events"].contains(&resource) { "role" } else { "clusterrole" };
        let rules = |verb, resource| without(kind, ACCOUNTS[1], &deployed, verb, resource);
        let (all, less) = (rules("", "")?, rules(verb, resource)?);
        ensure!(all != less, "{verb} {resource} is in the {kind}");
        cluster.patch(&[kind, ACCOUNTS[1], "-n", NAMESPACE], &less)?;
        // Reading is every worker's; writing that of the first gateway, of whose ConfigMap nothing follows.
        let writes = !["list", "watch"].contains(verb);
        let node = if writes { "gw1" } else { "worker1" };
        cluster.kubectl(&["label", "node", "gw1", "ovn.kubernetes.io/external-gw-"])?;
        if writes && resource != "nodes" {
            cluster.kubectl(&["delete", "events.v1.events.k8s.io", "--all", "-n", NAMESPACE])?;
            cluster.patch(&config_map, &bad)?;
        }
        let mut agent = worker(&deployed, node, node)?;
        if (*verb, resource) == ("get", "configmaps") {
            eventually(Duration::from_secs(10), "told without the uid", || {
                Ok(told(&deployed)?.is_some_and(|uid| uid.is_empty()))
            })?;
        } else {
            misses(&mut agent, verb, resource).with_context(|| format!("{verb} {of} ({feature})"))?;
        }
        println!("{verb} {of}: {feature}");
        drop(agent);
        cluster.patch(&config_map, &good)?;
        cluster.patch(&[kind, ACCOUNTS[1], "-n", NAMESPACE], &all)?;
    }
    Ok(())
}

/// An agent says what it may not do, in one line for each of the things it wants it for, and takes nothing back.
fn misses(agent: &mut Job, verb: &str, resource: &str) -> Result<()> {
    let refusal = format!("cannot {verb} resource \"{resource}\"");
    agent.wait_for(&refusal, Duration::from_secs(20)).with_context(|| agent.stderr())?;
    // Within this time it has tried again.
    std::thread::sleep(Duration::from_millis(500));
    let log = agent.stderr();
    let without_time =
        |line: &'_ str| line.split_once(' ').map_or(String::new(), |(_, text)| text.to_owned());
    let told: Vec<_> = log.lines().filter(|line| line.contains(&refusal)).map(without_time).collect();
    let distinct: BTreeSet<_> = told.iter().collect();
    ensure!(distinct.len() == told.len() && !log.contains("no longer"), "told again and again: {log}");
    Ok(())
}
