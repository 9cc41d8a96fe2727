//! The pinned tables as metrics, read at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use gateway_common::tables::{
    EipCounter, MAX_EIPS, MAX_INTERNAL, MAX_NEIGHBORS, MAX_TX_PORTS, MAX_VTEPS, VTEP_RESOLVED,
    VerdictCounter, name,
};
use gateway_common::verdict::Verdict;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tracing::debug;

use crate::apply::bpf::{BpfError, Maps};
use crate::tables::Tables;

/// The tables pinned in a directory.
#[derive(Debug)]
pub(super) struct Pinned {
    pin: PathBuf,
}

/// What one scrape sees.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    pub(super) tables: Tables,
    pub(super) eips: BTreeMap<Ipv4Addr, EipCounter>,
    pub(super) verdicts: Vec<VerdictCounter>,
}

impl Pinned {
    pub(super) fn new(pin: &Path) -> Self {
        Self { pin: pin.to_owned() }
    }

    fn scrape(&self) -> Result<Scrape, BpfError> {
        let maps = Maps::open(&self.pin)?;
        let tables = maps.read_sources()?;
        // A gateway has a row of each EIP in `eips`, a worker those of its own pods in `pods`.
        let of_pods = tables.pods.values().map(|pod| (Ipv4Addr::from(pod.eip), pod.slot));
        let of_eips = tables.eips.iter().map(|(key, eip)| (Ipv4Addr::from(key.eip), eip.slot));
        let slots: BTreeMap<Ipv4Addr, u32> = of_pods.chain(of_eips).collect();
        let counters = maps.eip_counters(slots.values().copied())?;
        let counter = |slot| counters.get(slot).copied().unwrap_or_default();
        let eips = slots.iter().map(|(eip, slot)| (*eip, counter(slot))).collect();
        Ok(Scrape { eips, verdicts: maps.verdict_counters()?, tables })
    }
}

impl Collector for Pinned {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match self.scrape() {
            Ok(scrape) => scrape.encode(encoder),
            // Nothing is served: there is nothing to say, and the other metrics are good.
            Err(error) => {
                debug!(%error, "the tables are not among the metrics");
                Ok(())
            }
        }
    }
}

impl Scrape {
    pub(super) fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let verdicts = || {
            let named = |(verdict, counter): (&Verdict, &VerdictCounter)| (verdict.name(), *counter);
            Verdict::ALL.iter().zip(&self.verdicts).map(named)
        };
        counters(
            &mut encoder,
            ("packets", "Packets by what became of them (the words of `show verdicts`)."),
            verdicts().map(|(reason, counter)| ([("reason", reason)], counter.packets)),
        )?;
        counters(
            &mut encoder,
            ("bytes", "Bytes of frames by what became of them (the words of `show verdicts`)."),
            verdicts().map(|(reason, counter)| ([("reason", reason)], counter.bytes)),
        )?;
        self.encode_eips(&mut encoder)?;
        self.encode_fill(encoder)
    }

    fn encode_eips(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let both = |pick: fn(&EipCounter) -> (u64, u64)| {
            self.eips.iter().flat_map(move |(eip, counter)| {
                let (to_pod, from_pod) = pick(counter);
                [("in", to_pod), ("out", from_pod)].map(|(direction, value)| {
                    ([("eip", eip.to_string()), ("direction", direction.to_owned())], value)
                })
            })
        };
        counters(
            encoder,
            ("eip_packets", "Packets of an EIP: in to its pod, out from it."),
            both(|counter| (counter.in_packets, counter.out_packets)),
        )?;
        counters(
            encoder,
            ("eip_bytes", "Bytes of an EIP, Ethernet header included: in to its pod, out from it."),
            both(|counter| (counter.in_bytes, counter.out_bytes)),
        )
    }

    fn encode_fill(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tables = &self.tables;
        let fill = [
            (name::EIPS, tables.eips.len(), MAX_EIPS),
            (name::PODS, tables.pods.len(), MAX_EIPS),
            (name::VTEPS, tables.vteps.len(), MAX_VTEPS),
            (name::NEIGHBORS, tables.neighbors.len(), MAX_NEIGHBORS),
            (name::INTERNAL, tables.internal.len(), MAX_INTERNAL),
            (name::TX_PORTS, tables.tx_ports.len(), MAX_TX_PORTS),
        ];
        gauges(
            &mut encoder,
            ("map_entries", "Rows a table holds."),
            fill.iter().map(|(map, rows, _)| ([("map", *map)], number(*rows))),
        )?;
        gauges(
            &mut encoder,
            ("map_capacity", "Rows a table takes."),
            fill.iter().map(|(map, _, capacity)| ([("map", *map)], i64::from(*capacity))),
        )?;
        let unresolved = tables.vteps.values().filter(|vtep| vtep.flags & VTEP_RESOLVED == 0).count();
        let help = "Other nodes whose next hop is not known; the kernel resolves it with the first packet.";
        let gauge = ConstGauge::new(number(unresolved));
        gauge.encode(encoder.encode_descriptor("next_hops_unresolved", help, None, MetricType::Gauge)?)
    }
}

fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl Iterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl Iterator<Item = (L, i64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
