//! The nftables table `ip eip_gateway`: SNAT of each EIP pod of this node to its own address.
//!
//! The chain runs right before the usual postrouting priority, so that the kernel keeps the identity binding and
//! passes over the CNI's masquerade. `nft` is given whole transactions; elements are written by difference, and the
//! table is rebuilt, atomically, only when its form is not ours.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Output, Stdio};

use gateway_common::addr::Prefix;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::{debug, info};

/// Family and name of the table.
pub const TABLE: &str = "ip eip_gateway";

/// Comments of the two rules; a change of a rule needs a new number.
const RULES: [(&str, &str); 2] = [
    ("ip daddr @internal return", "eip-gateway 1: to internal destinations as ever"),
    ("snat to ip saddr map @self", "eip-gateway 1: an EIP pod keeps its own address"),
];

/// Why the table is not as desired.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program cannot be run.
    #[error("cannot run nft: {source}; install the package nftables")]
    Run {
        /// Cause.
        source: io::Error,
    },
    /// The program refused.
    #[error(
        "nft refused to change table {TABLE}: {message}; check that the kernel has nf_tables and nft_nat"
    )]
    Refused {
        /// What it printed.
        message: String,
    },
}

/// What the table is to hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Elements {
    /// EIP pods of this node.
    pub pods: BTreeSet<Ipv4Addr>,
    /// Prefixes that never leave by the gateway; none inside another.
    pub internal: BTreeSet<Prefix>,
}

impl Elements {
    /// Pods and prefixes, without prefixes inside others: an interval set takes no overlaps.
    pub fn new(pods: &BTreeSet<Ipv4Addr>, internal: &BTreeSet<Prefix>) -> Self {
        let outermost = internal.iter().map(|prefix| prefix.trunc()).filter(|prefix| {
            !internal.iter().any(|other| other.len < prefix.len && other.contains(prefix.addr))
        });
        Self { pods: pods.clone(), internal: outermost.collect() }
    }
}

/// What the kernel holds.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Held {
    Nothing,
    Ours(Elements),
    OtherForm,
}

/// Makes the table hold `wanted`; without pods there is no table. Returns whether anything was written.
///
/// # Errors
/// [`NftError`].
pub async fn apply(wanted: &Elements) -> Result<bool, NftError> {
    if wanted.pods.is_empty() {
        return remove().await;
    }
    let held = held().await?;
    if let Held::Ours(elements) = &held {
        let script = difference(elements, wanted);
        if script.is_empty() {
            return Ok(false);
        }
        match run(&script).await {
            Ok(()) => {
                debug!(table = TABLE, pods = wanted.pods.len(), "nftables elements written");
                return Ok(true);
            }
            Err(error) => debug!(%error, "elements refused, rebuilding the table"),
        }
    }
    run(&rebuild(wanted)).await?;
    info!(
        table = TABLE,
        pods = wanted.pods.len(),
        internal = wanted.internal.len(),
        "nftables table written"
    );
    Ok(true)
}

/// Deletes the table. Returns whether there was one.
///
/// # Errors
/// [`NftError`].
pub async fn remove() -> Result<bool, NftError> {
    if held().await? == Held::Nothing {
        return Ok(false);
    }
    run(&format!("delete table {TABLE}\n")).await?;
    info!(table = TABLE, "nftables table removed");
    Ok(true)
}

async fn held() -> Result<Held, NftError> {
    let output = nft(&["-j", "list", "table", "ip", "eip_gateway"], "").await?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let absent = message.contains("No such file or directory");
        return if absent { Ok(Held::Nothing) } else { Err(NftError::Refused { message }) };
    }
    let listing = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ok(parse(&listing).map_or(Held::OtherForm, Held::Ours))
}

async fn run(script: &str) -> Result<(), NftError> {
    let output = nft(&["-f", "-"], script).await?;
    if output.status.success() {
        return Ok(());
    }
    Err(NftError::Refused { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

async fn nft(args: &[&str], stdin: &str) -> Result<Output, NftError> {
    let failed = |source| NftError::Run { source };
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(stdin.as_bytes()).await.map_err(failed)?;
    }
    child.wait_with_output().await.map_err(failed)
}

/// One transaction that replaces the table as a whole.
fn rebuild(wanted: &Elements) -> String {
    let mut script = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
    let _ = writeln!(script, "add map {TABLE} self {{ type ipv4_addr : ipv4_addr; }}");
    let _ = writeln!(script, "add set {TABLE} internal {{ type ipv4_addr; flags interval; }}");
    let _ = writeln!(
        script,
        "add chain {TABLE} postrouting {{ type nat hook postrouting priority 99; policy accept; }}"
    );
    for (rule, comment) in RULES {
        let _ = writeln!(script, "add rule {TABLE} postrouting {rule} comment \"{comment}\"");
    }
    script + &difference(&Elements::default(), wanted)
}

/// One transaction that turns `held` into `wanted`; empty when they are equal.
fn difference(held: &Elements, wanted: &Elements) -> String {
    let mut script = String::new();
    let mut element = |verb: &str, set: &str, elements: Vec<String>| {
        if !elements.is_empty() {
            let _ = writeln!(script, "{verb} element {TABLE} {set} {{ {} }}", elements.join(", "));
        }
    };
    let pods = |some: &BTreeSet<Ipv4Addr>, without: &BTreeSet<Ipv4Addr>| {
        some.difference(without).map(|pod| format!("{pod} : {pod}")).collect()
    };
    let prefixes = |some: &BTreeSet<Prefix>, without: &BTreeSet<Prefix>| {
        some.difference(without).map(ToString::to_string).collect()
    };
    element("delete", "self", pods(&held.pods, &wanted.pods));
    element("delete", "internal", prefixes(&held.internal, &wanted.internal));
    element("add", "self", pods(&wanted.pods, &held.pods));
    element("add", "internal", prefixes(&wanted.internal, &held.internal));
    script
}

/// The elements of a table in exactly our form.
fn parse(listing: &Value) -> Option<Elements> {
    let objects = listing.get("nftables")?.as_array()?;
    let (mut elements, mut chain, mut rules) = (Elements::default(), false, Vec::new());
    for object in objects {
        let (kind, body) = object.as_object()?.iter().next()?;
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
        match (kind.as_str(), name) {
            ("metainfo" | "table", _) => {}
            ("map", "self") => {
                for pair in elem(body)? {
                    let [from, to] = pair.as_array()?.as_slice() else { return None };
                    let pod: Ipv4Addr = from.as_str()?.parse().ok()?;
                    elements.pods.insert((to == from).then_some(pod)?);
                }
            }
            ("set", "internal") => {
                for value in elem(body)? {
                    elements.internal.insert(prefix(value)?);
                }
            }
            ("chain", "postrouting") => {
                chain = body["type"] == "nat" && body["hook"] == "postrouting" && body["prio"] == 99;
            }
            ("rule", _) => rules.push(body.get("comment")?.as_str()?),
            _ => return None,
        }
    }
    (chain && rules == RULES.map(|(_, comment)| comment)).then_some(elements)
}

fn elem(body: &Value) -> Option<&[Value]> {
    match body.get("elem") {
        None => Some(&[]),
        Some(elements) => elements.as_array().map(Vec::as_slice),
    }
}

fn prefix(value: &Value) -> Option<Prefix> {
    if let Some(text) = value.as_str() {
        return text.parse().ok().map(Prefix::host);
    }
    let prefix = value.get("prefix")?;
    let addr = prefix.get("addr")?.as_str()?.parse().ok()?;
    Some(Prefix::new(addr, u8::try_from(prefix.get("len")?.as_u64()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(pods: &[&str], internal: &[&str]) -> Elements {
        let pods = pods.iter().map(|pod| pod.parse().unwrap()).collect();
        let internal = internal.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Elements::new(&pods, &internal)
    }

    /// As `nft -j list table` of nftables 1.0.6 prints it.
    const LISTING: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "eip_gateway", "handle": 1}},
        {"map": {"family": "ip", "name": "self", "table": "eip_gateway", "type": "ipv4_addr", "handle": 1,
          "map": "ipv4_addr", "elem": [["10.244.1.2", "10.244.1.2"]]}},
        {"set": {"family": "ip", "name": "internal", "table": "eip_gateway", "type": "ipv4_addr", "handle": 2,
          "flags": ["interval"], "elem": [{"prefix": {"addr": "10.0.0.0", "len": 24}}, "10.1.2.3"]}},
        {"chain": {"family": "ip", "table": "eip_gateway", "name": "postrouting", "handle": 3, "type": "nat",
          "hook": "postrouting", "prio": 99, "policy": "accept"}},
        {"rule": {"chain": "postrouting", "comment": "eip-gateway 1: to internal destinations as ever"}},
        {"rule": {"chain": "postrouting", "comment": "eip-gateway 1: an EIP pod keeps its own address"}}]}"#;

    #[test]
    fn reads_back_its_own_table_and_nothing_else() {
        let listing: Value = serde_json::from_str(LISTING).unwrap();
        assert_eq!(parse(&listing), Some(elements(&["10.244.1.2"], &["10.0.0.0/24", "10.1.2.3/32"])));
        for (from, to) in [("99", "100"), ("as ever", "no longer"), ("\"self\"", "\"other\"")] {
            let changed: Value = serde_json::from_str(&LISTING.replace(from, to)).unwrap();
            assert_eq!(parse(&changed), None, "{from} → {to}");
        }
        assert_eq!(parse(&Value::Null), None);
    }

    #[test]
    fn writes_only_differences() {
        let held = elements(&["10.244.1.2", "10.244.1.3"], &["10.0.0.0/24"]);
        assert_eq!(difference(&held, &held), "");
        let wanted = elements(&["10.244.1.3", "10.244.1.4"], &["10.0.0.0/16"]);
        assert_eq!(
            difference(&held, &wanted),
            "delete element ip eip_gateway self { 10.244.1.2 : 10.244.1.2 }\n\
             delete element ip eip_gateway internal { 10.0.0.0/24 }\n\
             add element ip eip_gateway self { 10.244.1.4 : 10.244.1.4 }\n\
             add element ip eip_gateway internal { 10.0.0.0/16 }\n"
        );
    }

    #[test]
    fn keeps_the_outermost_prefixes() {
        let kept = elements(&[], &["10.0.0.0/8", "10.244.0.0/16", "10.1.2.3/32", "172.16.0.1/32"]).internal;
        assert_eq!(kept, elements(&[], &["10.0.0.0/8", "172.16.0.1/32"]).internal);
        assert_eq!(kept.len(), 2);
    }
}
