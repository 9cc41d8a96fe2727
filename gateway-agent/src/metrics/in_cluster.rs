//! Packets of this node's own clients to EIPs, counted by nftables.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::time::timeout;

use crate::apply::nft::{self, InCluster};

/// Time for `nft` to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The counter as it was read last; `None` where there is none.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<Option<InCluster>>);

impl Counted {
    /// Reads it anew.
    pub(super) async fn read(&self) {
        let counted = timeout(TIMEOUT, nft::in_cluster()).await.ok().and_then(Result::ok).flatten();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counted) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        for (name, help, value) in [
            (
                "cluster_dnat_packets",
                "Packets from clients on this node to EIPs, sent straight to the pod.",
                counted.packets,
            ),
            (
                "cluster_dnat_bytes",
                "Bytes from clients on this node to EIPs, sent straight to the pod.",
                counted.bytes,
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
    use crate::metrics::{Exposition, Metrics};

    #[test]
    fn shown_when_there_is_one() {
        let exposition = Exposition::new(&Metrics::default(), Path::new("/nonexistent"));
        assert!(!exposition.text().unwrap().contains("cluster_dnat"));
        *exposition.in_cluster.0.lock().unwrap() = Some(InCluster { packets: 7, bytes: 588 });
        let text = exposition.text().unwrap();
        assert!(text.contains("eip_gateway_cluster_dnat_packets_total 7\n"), "{text}");
    }
}
