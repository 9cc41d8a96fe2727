//! What the nftables table has counted.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::time::timeout;

use crate::apply::nft::{self, Counters};

/// Time for `nft` to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The counters as they were read last; `None` where there is no table.
#[derive(Debug, Default)]
pub(super) struct Firewall(Mutex<Option<Counters>>);

impl Firewall {
    /// Reads them anew.
    pub(super) async fn read(&self) {
        let counters = timeout(TIMEOUT, nft::counters()).await.ok().and_then(Result::ok).flatten();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }
}

impl Collector for Firewall {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counters) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        for (name, help, value) in [
            (
                "cluster_dnat_packets",
                "Packets from clients on this node to EIPs, sent straight to the pod.",
                counters.in_cluster.packets,
            ),
            (
                "cluster_dnat_bytes",
                "Bytes from clients on this node to EIPs, sent straight to the pod.",
                counters.in_cluster.bytes,
            ),
            (
                "drop_tunnel_port_packets",
                "Packets that pods sent to a node's tunnel port, dropped.",
                counters.drop_tunnel_port.packets,
            ),
            (
                "drop_router_port_packets",
                "Packets from the external network to this node or inwards, dropped since nic-ip is closed.",
                counters.drop_router_port.packets,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::apply::nft::Counted;
    use crate::metrics::{Exposition, Metrics};

    #[test]
    fn shown_when_there_are_some() {
        let exposition = Exposition::new(&Metrics::default(), Path::new("/nonexistent"));
        assert!(!exposition.text().unwrap().contains("cluster_dnat"));
        let counted = |packets| Counted { packets, bytes: 84 * packets };
        *exposition.firewall.0.lock().unwrap() = Some(Counters {
            in_cluster: counted(7),
            drop_tunnel_port: counted(8),
            drop_router_port: counted(9),
        });
        let text = exposition.text().unwrap();
        for line in [
            "eip_gateway_cluster_dnat_packets_total 7\n",
            "eip_gateway_cluster_dnat_bytes_total 588\n",
            "eip_gateway_drop_tunnel_port_packets_total 8\n",
            "eip_gateway_drop_router_port_packets_total 9\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
