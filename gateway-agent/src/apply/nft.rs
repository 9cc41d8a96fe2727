//! The nftables table `ip eip_gateway`: SNAT of each EIP pod of this node to its own address, DNAT
//! of EIPs for clients on this node, so that inside the cluster nobody goes by way of the gateway,
//! and what may not be forwarded. It is there wherever the gateway is enabled, also without any
//! EIP.
//!
//! `nft` is given whole transactions; elements are written by difference, and the table is rebuilt,
//! atomically, only when its form is not ours. What it looks like is in [`table`].

mod table;

use std::io;
use std::process::{Output, Stdio};

use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::{debug, info};

use super::conntrack::{self, Forgetting};

pub use table::{DROP_ROUTER_PORT, DROP_TUNNEL_PORT, Elements, IN_CLUSTER, TABLE};

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
        "nft refused to change table {TABLE}: {message}; check that the kernel has nf_tables, nft_nat, nft_masq and \
         nft_fib_ipv4"
    )]
    Refused {
        /// What it printed.
        message: String,
    },
}

/// What a counter of the table has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

/// The table's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// What went directly from this node to EIPs.
    pub in_cluster: Counted,
    /// Dropped: was to be forwarded to a tunnel's end, as only a node's own tunnel code may send.
    pub drop_tunnel_port: Counted,
    /// Dropped: from the external network to this node or inwards, where `nic-ip` is closed.
    pub drop_router_port: Counted,
}

/// What the kernel holds.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Held {
    Nothing,
    Ours(Box<Elements>),
    OtherForm,
}

/// The first half of a change, before rows and rules: pods that lose their EIP are translated as
/// ever again, and their connections forgotten; what is closed is closed before there is a way in.
/// `known` is what the table holds for certain: then the kernel is not asked. Returns what it holds
/// now, and whether anything was written.
///
/// # Errors
/// [`NftError`].
pub async fn prepare(wanted: &Elements, known: Option<&Elements>) -> Result<(Elements, bool), NftError> {
    let held = match known {
        Some(known) => Held::Ours(Box::new(known.clone())),
        None => held().await?,
    };
    match held {
        Held::Ours(held) => {
            let first = wanted.before(&held);
            let written = change(&held, &first).await?;
            // Before a rule goes, or a running flow would leave by another NIC with the pod's own
            // address.
            Ok((first, written.forgotten().await))
        }
        Held::Nothing => {
            let first = wanted.before(&Elements::default());
            rebuild(&first).await?;
            Ok((first, true))
        }
        // Of an earlier version, which has served these pods: none is to be without for a moment.
        Held::OtherForm => {
            rebuild(wanted).await?;
            let _in_its_own_time = conntrack::forget(Elements::default().stale(wanted));
            Ok((wanted.clone(), true))
        }
    }
}

/// The second half: the table holds `held` and is to hold `wanted`. Returns whether anything was
/// written.
///
/// # Errors
/// [`NftError`].
pub async fn apply(wanted: &Elements, held: &Elements) -> Result<bool, NftError> {
    Ok(matches!(change(held, wanted).await?, Change::Written(_)))
}

/// What a change of the elements did.
enum Change {
    Nothing,
    /// Written; conntrack forgets in its own time.
    Written(Forgetting),
}

impl Change {
    /// Waits until conntrack has forgotten. Returns whether anything was written.
    async fn forgotten(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Written(forgetting) => {
                forgetting.done().await;
                true
            }
        }
    }
}

async fn rebuild(wanted: &Elements) -> Result<(), NftError> {
    run(&table::rebuild(wanted)).await?;
    info!(table = TABLE, elements = %wanted, "nftables table written");
    Ok(())
}

/// Writes the elements that differ, by rebuilding the table where it does not hold what was
/// thought.
async fn change(held: &Elements, wanted: &Elements) -> Result<Change, NftError> {
    let script = table::difference(held, wanted);
    if script.is_empty() {
        return Ok(Change::Nothing);
    }
    match run(&script).await {
        Ok(()) => debug!(table = TABLE, elements = %wanted, "nftables elements written"),
        Err(error) => {
            debug!(%error, "elements refused, rebuilding the table");
            rebuild(wanted).await?;
        }
    }
    Ok(Change::Written(conntrack::forget(held.stale(wanted))))
}

/// The first half of a withdrawal: no pod keeps its own address and no EIP is translated any more,
/// and conntrack has forgotten both. What may not be forwarded stays so until [`remove`].
///
/// # Errors
/// [`NftError`].
pub async fn release() -> Result<(), NftError> {
    match held().await? {
        Held::Ours(held) => _ = change(&held, &held.guards()).await?.forgotten().await,
        Held::Nothing | Held::OtherForm => {}
    }
    Ok(())
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

/// What the table has counted; `None` without a table. Starts anew when the table is made anew.
///
/// # Errors
/// [`NftError`].
pub async fn counters() -> Result<Option<Counters>, NftError> {
    let listing = list(&["counters", "table", "ip", "eip_gateway"]).await?;
    Ok(listing.as_ref().and_then(table::counters))
}

async fn held() -> Result<Held, NftError> {
    Ok(match list(&["table", "ip", "eip_gateway"]).await? {
        None => Held::Nothing,
        Some(listing) => {
            table::parse(&listing).map_or(Held::OtherForm, |elements| Held::Ours(Box::new(elements)))
        }
    })
}

/// What nft lists of an object; `None` when it does not exist.
async fn list(object: &[&str]) -> Result<Option<Value>, NftError> {
    let output = nft(&[&["-j", "list"], object].concat(), "").await?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let absent = message.contains("No such file or directory");
        return if absent { Ok(None) } else { Err(NftError::Refused { message }) };
    }
    Ok(Some(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)))
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
