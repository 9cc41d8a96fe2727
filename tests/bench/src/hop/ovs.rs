//! Open vSwitch in userspace next to ours: packets for each second of a CPU of its own.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::bench::Bench;
use crate::{
    chain::{flow::Way, gateway::Gateway, ovs::Port},
    report::{Figure, Statistic},
    say,
};

/// With what ours is to have more packets per second than it, at least (P10).
const CANDIDATES: [(Port, f64); 2] = [(Port::Xdp, 2.0), (Port::Packet, 10.0)];
/// It is sent so many times the packets, so that it gets its CPU often enough meanwhile.
const TIMES: u32 = 10;

/// Measures, and says how.
pub(super) fn run((its, ours): (usize, usize), rounds: u32, packets: u32) -> Result<(Vec<Figure>, String)> {
    ensure!(its != ours, "Open vSwitch is measured on a CPU of its own: there has to be a second one");
    let mut rates: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    let mut ratios: Vec<Figure> = Vec::new();
    let mut modes = Vec::new();
    for (port, least) in CANDIDATES {
        let ovs = Gateway::Ovs(port, its);
        say(&format!("setting up {}", ovs.name()));
        let mut bench = Bench::stand(ours, &[Gateway::Ours, ovs])?;
        modes.push(bench.ovs()?.mode()?);
        for way in Way::BOTH {
            let mut ratio = Vec::new();
            for round in 0..=rounds {
                let ours = 1e6 / bench.measure(Gateway::Ours, way, packets)?.whole;
                let its = bench.flood(ovs, way, packets * TIMES)?;
                if round > 0 {
                    rates.entry((ovs.name(), way.name())).or_default().push(its);
                    ratio.push(ours / its);
                }
            }
            let name = format!("{}, ours / {}: packets per second (P10)", way.name(), ovs.short());
            ratios.push(Figure::new(name, "×", ratio).at_least(Statistic::Median, least));
        }
    }
    let rates =
        rates.into_iter().map(|((name, way), rate)| Figure::new(format!("{way}, {name}"), "kpps", rate));
    let how = how(&modes.join("; "), its, ours);
    Ok((rates.chain(ratios).collect(), how))
}

fn how(modes: &str, its: usize, ours: usize) -> String {
    format!(
        "OVS: {modes}, on CPU {its}, sent more than it can take from CPU {ours}, where ours is measured as above. What it took \
         is the time of its threads by schedstat, without what the polling one found nothing to do in; the kernel's receiving \
         is done by whoever sends, and not counted. The underlay NIC is in br-phy, which has the tunnel's address; the external \
         NIC and a Geneve port (remote_ip=flow, csum=true) are on br-int, with a flow for each EIP and each pod: dec_ttl, \
         mod_nw_dst or mod_nw_src, MACs, output; no connection tracking."
    )
}
