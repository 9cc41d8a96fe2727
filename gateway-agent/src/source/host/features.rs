//! Which NICs take frames from XDP: the kernel's netdev family of generic netlink
//! (Documentation/netlink/specs/netdev.yaml, Linux ≥ 6.3).

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use genetlink::{GenetlinkHandle, new_connection};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlaBuffer,
    NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

use crate::snapshot::Takes;

/// `NETDEV_CMD_DEV_GET`.
const DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`: u32.
const IFINDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`: u64 of `NETDEV_XDP_ACT_*`.
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`: the driver sends frames that XDP redirects to it.
const NDO_XMIT: u64 = 4;
/// `NETDEV_XDP_ACT_NDO_XMIT_SG`: also frames of several buffers.
const NDO_XMIT_SG: u64 = 64;

/// Asks the kernel what each of `candidates` (ifindexes) takes from XDP; `None` where it does not tell (before 6.3).
///
/// One by one: the kernel's dump of this family does not mark its messages as parts of one answer.
pub(super) async fn redirect_targets(candidates: &[u32]) -> Option<BTreeMap<u32, Takes>> {
    let (connection, mut handle, _messages) = new_connection().ok()?;
    let connection = tokio::spawn(connection);
    let mut targets = BTreeMap::new();
    for &ifindex in candidates {
        if let Some(features) = features(&mut handle, ifindex).await {
            targets.insert(ifindex, takes(features));
        }
    }
    connection.abort();
    (!targets.is_empty()).then_some(targets)
}

const fn takes(features: u64) -> Takes {
    match (features & NDO_XMIT != 0, features & NDO_XMIT_SG != 0) {
        (false, _) => Takes::Nothing,
        (true, false) => Takes::OneBuffer,
        (true, true) => Takes::Everything,
    }
}

async fn features(handle: &mut GenetlinkHandle, ifindex: u32) -> Option<u64> {
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(Device { ifindex, xdp_features: 0 }));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.request(request).await.ok()?;
    let answer = answers.try_next().await.ok()??;
    if let NetlinkPayload::InnerMessage(message) = answer.payload {
        Some(message.payload.xdp_features)
    } else {
        None
    }
}

/// A request about a device, or the answer.
#[derive(Clone, Debug, Default)]
struct Device {
    ifindex: u32,
    xdp_features: u64,
}

impl Device {
    /// What a request says: the interface.
    fn attribute(&self) -> DefaultNla {
        DefaultNla::new(IFINDEX, self.ifindex.to_ne_bytes().to_vec())
    }
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        self.attribute().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attribute().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(bytes: &[u8], _header: GenlHeader) -> Result<Self, DecodeError> {
        let mut device = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute: NlaBuffer<&[u8]> = attribute?;
            match (attribute.kind(), attribute.value()) {
                (IFINDEX, value) => device.ifindex = u32::from_ne_bytes(sized(value)?),
                (XDP_FEATURES, value) => device.xdp_features = u64::from_ne_bytes(sized(value)?),
                _ => {}
            }
        }
        Ok(device)
    }
}

fn sized<const N: usize>(value: &[u8]) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| DecodeError::from(format!("{} bytes where {N} were expected", value.len())))
}
