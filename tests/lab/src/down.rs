//! Takes a lab down from whatever state it is in. The caller holds the lock.

use std::{thread, time::Duration};

use anyhow::Result;

use crate::{
    agent, network,
    plan::{self, NODES},
    process,
    state::State,
    status,
};

/// How long an agent may take to end when asked to.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// False when there was nothing to take down.
pub(crate) fn down(state: &State, prefix: &str) -> Result<bool> {
    if !state.exists() {
        return Ok(false);
    }
    let agents: Vec<_> = NODES.iter().filter_map(|node| state.agent(node.name)).collect();
    process::stop(&agents, GRACE)?;
    // The record may be missing or half written after a crash; then there is no binary to ask.
    let config = state.record().map(|record| record.config);
    if let Some(binary) = config.filter(|config| config.agents).and_then(|config| agent::binary(&config).ok())
    {
        let pinned = NODES.iter().filter(|node| state.pin_dir(node.name).exists());
        thread::scope(|scope| {
            for node in pinned.filter(|node| status::netns_path(prefix, node.name).exists()) {
                scope.spawn(|| agent::teardown(state, &binary, prefix, node.name));
            }
        });
    }
    // A process left inside would keep a deleted namespace, and its wires, alive unseen.
    let paths: Vec<_> = plan::namespaces().iter().map(|name| status::netns_path(prefix, name)).collect();
    process::stop(&process::in_namespaces(&paths), Duration::from_secs(1))?;
    network::delete(prefix)?;
    state.remove(&NODES.map(|node| node.name))?;
    Ok(true)
}
