//! The nftables table `ip eip_gateway`: SNAT of each EIP pod of this node to its own address, and DNAT of EIPs for
//! clients on this node, so that inside the cluster nobody goes by way of the gateway.
//!
//! `nft` is given whole transactions; elements are written by difference, and the table is rebuilt, atomically, only
//! when its form is not ours. What it looks like is in [`table`].

mod table;

use std::io;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::{debug, info};

use super::conntrack;

pub use table::{Elements, IN_CLUSTER, TABLE};

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

/// What went directly from this node to EIPs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InCluster {
    /// Packets.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

/// What the kernel holds.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Held {
    Nothing,
    Ours(Box<Elements>),
    OtherForm,
}

/// Makes the table hold `wanted`; without EIPs there is no table. `known` is what it holds for certain: then the kernel
/// is not asked, and a change costs the same however many EIPs there are. Returns whether anything was written.
///
/// # Errors
/// [`NftError`].
pub async fn apply(wanted: &Elements, known: Option<&Elements>) -> Result<bool, NftError> {
    if wanted.is_empty() {
        return remove().await;
    }
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        match change(known, wanted).await {
            Ok(changed) => return Ok(changed),
            Err(error) => debug!(%error, "elements refused, reading the table"),
        }
    }
    if let Held::Ours(held) = held().await? {
        match change(&held, wanted).await {
            Ok(changed) => return Ok(changed),
            Err(error) => debug!(%error, "elements refused, rebuilding the table"),
        }
    }
    run(&table::rebuild(wanted)).await?;
    info!(table = TABLE, elements = %wanted, "nftables table written");
    Ok(true)
}

/// Writes the elements that differ.
async fn change(held: &Elements, wanted: &Elements) -> Result<bool, NftError> {
    let script = table::difference(held, wanted);
    if script.is_empty() {
        return Ok(false);
    }
    run(&script).await?;
    conntrack::forget(held.moved(wanted));
    debug!(table = TABLE, elements = %wanted, "nftables elements written");
    Ok(true)
}

/// Deletes the table. Returns whether there was one.
///
/// # Errors
/// [`NftError`].
pub async fn remove() -> Result<bool, NftError> {
    let held = held().await?;
    if held == Held::Nothing {
        return Ok(false);
    }
    run(&format!("delete table {TABLE}\n")).await?;
    if let Held::Ours(held) = held {
        conntrack::forget(held.moved(&Elements::default()));
    }
    info!(table = TABLE, "nftables table removed");
    Ok(true)
}

/// Packets that clients on this node sent to EIPs without a detour; `None` without a table. Starts anew when the table
/// is made anew.
///
/// # Errors
/// [`NftError`].
pub async fn in_cluster() -> Result<Option<InCluster>, NftError> {
    let listing = list(&["counter", "ip", "eip_gateway", IN_CLUSTER]).await?;
    Ok(listing.as_ref().and_then(table::counter))
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
