//! Undoes all an agent made on this node. Works with the agent dead and from any half state; doing it twice is fine.

use std::io;
use std::path::{Path, PathBuf};

use rtnetlink::Handle;
use tracing::info;

use crate::alive;
use crate::apply::NetlinkError;
use crate::apply::bpf::{BpfError, remove_dir, remove_maps};
use crate::apply::link::{self, RouterPortError};
use crate::apply::nft::{self, NftError};
use crate::apply::{errors, neighbor, route, shortcut};
use crate::attach::{self, AttachError};
use crate::desired::{ROUTING_TABLE, RouterPort};
use crate::source::host::{self, HostError};
use crate::status::{self, StatusError};

/// Why something was not removed.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// The host could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Programs.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Policy rules and routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The nftables table.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The router port.
    #[error(transparent)]
    RouterPort(#[from] RouterPortError),
    /// The pinned tables.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The status file.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The file that says that an agent runs.
    #[error("cannot remove {} in {dir}: {source}; check --state-dir", alive::FILE)]
    Alive {
        /// The state directory.
        dir: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// What was removed, and what could not be.
#[derive(Debug, Default)]
pub struct Report {
    /// One line per kind of thing.
    pub removed: Vec<String>,
    /// What is still there, and why.
    pub errors: Vec<TeardownError>,
}

impl Report {
    /// Removes the status file in `dir`: once all is gone there is nothing left to say.
    pub fn remove_status(&mut self, dir: &Path) {
        if let Err(source) = alive::remove(dir) {
            self.errors.push(TeardownError::Alive { dir: dir.to_owned(), source });
        }
        let removed = status::remove(dir).map_err(TeardownError::from);
        self.step(removed.map(|removed| removed.then(|| format!("{} in {}", status::FILE, dir.display()))));
    }

    fn step(&mut self, result: Result<Option<String>, TeardownError>) {
        match result {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.errors.push(error),
        }
    }
}

/// Undoes it in the reverse order of its making: what leads packets to the programs, the programs,
/// then all they need. So no packet leaves by a pod's own address meanwhile, and nothing is open
/// for a moment that was closed. One failing step does not keep the others from being done.
pub async fn teardown(handle: &Handle, pin: &Path) -> Report {
    let mut report = Report::default();
    let links = match host::links(handle).await {
        Ok(links) => links,
        Err(error) => {
            report.errors.push(error.into());
            return report;
        }
    };
    let released = nft::release().await.map_err(TeardownError::from);
    report.step(released.map(|()| None));
    remove_routes(handle, &mut report).await;
    let nics: Vec<String> = links.keys().cloned().collect();
    let detached = attach::detach_all(pin, &nics).map_err(TeardownError::from);
    report.step(detached.map(|names| (!names.is_empty()).then(|| format!("programs {}", names.join(", ")))));
    let port = link::apply(handle, &links, None).await.map_err(TeardownError::from);
    report.step(port.map(|removed| removed.then(|| format!("router port {}", RouterPort::NAME))));
    report.step(release_neighbors(handle).await);
    let table = nft::remove().await.map_err(TeardownError::from);
    report.step(table.map(|removed| removed.then(|| format!("nftables table {}", nft::TABLE))));
    let maps = remove_maps(pin).map_err(TeardownError::from);
    report.step(maps.map(|count| (count > 0).then(|| format!("{count} pinned tables in {}", pin.display()))));
    remove_dir(pin);
    for removed in &report.removed {
        info!("removed: {removed}");
    }
    report
}

async fn remove_routes(handle: &Handle, report: &mut Report) {
    let routes =
        route::apply(handle, &Default::default(), &Default::default()).await.map_err(TeardownError::from);
    report.step(routes.map(|changes| {
        let what = || format!("{} policy rules and routes of table {ROUTING_TABLE}", changes.deleted);
        (!changes.is_empty()).then(what)
    }));
    let shortcut = shortcut::apply(handle, None).await.map_err(TeardownError::from);
    report.step(shortcut.map(|count| {
        (count > 0).then(|| format!("{count} policy rules and routes of table {}", shortcut::TABLE))
    }));
    let errors = errors::apply(handle, false).await.map_err(TeardownError::from);
    report.step(errors.map(|count| (count > 0).then(|| format!("{count} policy rules for ICMP errors"))));
}

/// The kernel keeps no neighbour fresh for us any more; what it has of them ages as any other.
async fn release_neighbors(handle: &Handle) -> Result<Option<String>, TeardownError> {
    let neighbors = host::neighbors(handle).await?;
    let ours = neighbors.iter().filter(|neighbor| neighbor.ours).map(|found| (found.ifindex, found.addr));
    let count = neighbor::release(handle, ours.collect()).await?;
    Ok((count > 0).then(|| format!("{count} neighbours from the kernel's care")))
}
