//! `tx_ports`, by which XDP sends: filled by the agent, and nothing depends on it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use aya::maps::{DevMapHash, Map, MapData};
use gateway_common::tables::name;
use gateway_lab::{EXTERNAL_NIC, Lab, PRIMARY_NIC, Signal};

use crate::programs::Runs;
use crate::scene::{EIP1, reaches, scene};

fn ports(lab: &Lab) -> Result<DevMapHash<MapData>> {
    let map = MapData::from_pin(lab.pin_dir("gw1").join(name::TX_PORTS))?;
    Ok(DevMapHash::try_from(Map::from_map_data(map)?)?)
}

fn filled(lab: &Lab) -> Result<BTreeSet<u32>> {
    Ok(ports(lab)?.keys().collect::<Result<_, _>>()?)
}

/// The NICs of the gateway: external and underlay.
fn nics(lab: &Lab) -> Result<BTreeSet<u32>> {
    let index = |nic: &str| {
        let link = lab.read("gw1", &["ip", "-o", "link", "show", nic])?;
        let (index, _) = link.split_once(':').with_context(|| link.clone())?;
        Ok(index.parse()?)
    };
    [PRIMARY_NIC, EXTERNAL_NIC].into_iter().map(index).collect()
}

#[test]
fn xdp_sends_by_both_nics_and_as_well_without_their_rows() -> Result<()> {
    let lab = scene("tx-", 1500)?;
    let nics = nics(&lab)?;
    ensure!(filled(&lab)? == nics, "{:?} and not {nics:?}", filled(&lab)?);
    reaches(&lab, "client", EIP1, 2)?;
    lab.kill_agent("gw1", Signal::SIGKILL)?;
    let mut ports = ports(&lab)?;
    nics.iter().try_for_each(|nic| ports.remove(*nic))?;
    let before = Runs::of(&lab, "gw1")?;
    reaches(&lab, "client", EIP1, 2)?;
    let runs = Runs::of(&lab, "gw1")?.since(&before);
    ensure!(runs.of_program("xdp_external") >= 2, "{runs:?}");
    ensure!(runs.of_program("tc_external") == 0, "XDP sends by itself: {runs:?}");
    lab.start_agent("gw1")?;
    ensure!(filled(&lab)? == nics, "a new agent writes the rows that are missing");
    Ok(())
}
