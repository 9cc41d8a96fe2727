//! The annotations and the label users write, and what makes an EIP acceptable.

use std::net::Ipv4Addr;

use crate::config::GatewayConfig;

/// Prefix of annotations and label unless configured otherwise: that of Kube-OVN, so that its users change nothing.
pub const PREFIX: &str = "ovn.kubernetes.io";

/// Checks a prefix: a DNS subdomain (RFC 1123), as the API server wants it before the slash.
///
/// # Errors
/// What is wrong with it.
pub fn parse_prefix(text: &str) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.starts_with(letter) && label.ends_with(letter) && label.chars().all(|c| letter(c) || c == '-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("write a domain in lower-case letters, digits, '-' and '.', without a slash".to_owned())
    }
}

/// Names of the annotations and labels under one prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    /// Pod annotation: the EIP.
    pub eip: String,
    /// Pod annotation: `"true"` once the EIP is programmed.
    pub routed: String,
    /// Pod label: the EIP while a gateway has it bound, `"false"` when it was refused. Workers find EIP pods of other
    /// nodes by it.
    pub eip_bound: String,
    /// Node label: `"true"` on a gateway.
    pub external_gw: String,
}

impl Keys {
    /// The names under `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self {
            eip: format!("{prefix}/eip"),
            routed: format!("{prefix}/routed"),
            eip_bound: format!("{prefix}/eip-bound"),
            external_gw: format!("{prefix}/external-gw"),
        }
    }

    /// Name of the EIP annotation's field in a Pod.
    pub fn eip_field(&self) -> String {
        format!("metadata.annotations[{}]", self.eip)
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(PREFIX)
    }
}

/// Why a text is no EIP.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EipError {
    /// Not four decimal numbers.
    #[error("{text:?} is not an IPv4 address")]
    NotIpv4 {
        /// As written.
        text: String,
    },
    /// An address with a prefix length.
    #[error("{text:?} is a prefix, not an address")]
    Cidr {
        /// As written.
        text: String,
    },
    /// Not on the external network.
    #[error("{eip} is outside the external subnet {subnet}")]
    OutsideSubnet {
        /// The address.
        eip: Ipv4Addr,
        /// The external subnet.
        subnet: String,
    },
    /// The router port's address.
    #[error("{eip} is the router port's own address (nic-ip)")]
    NicIp {
        /// The address.
        eip: Ipv4Addr,
    },
    /// The physical gateway's address.
    #[error("{eip} is the physical gateway (external-gw-addr)")]
    PhysicalGateway {
        /// The address.
        eip: Ipv4Addr,
    },
    /// The all-zeros host address of the subnet.
    #[error("{eip} is the network address of {subnet}")]
    Network {
        /// The address.
        eip: Ipv4Addr,
        /// The external subnet.
        subnet: String,
    },
    /// The all-ones host address of the subnet.
    #[error("{eip} is the broadcast address of {subnet}")]
    Broadcast {
        /// The address.
        eip: Ipv4Addr,
        /// The external subnet.
        subnet: String,
    },
}

impl EipError {
    /// What to write instead.
    pub fn remedy(&self, config: &GatewayConfig) -> String {
        let subnet = config.external_gateway.trunc();
        match self {
            Self::Cidr { text } => {
                let address = text.split('/').next().unwrap_or_default();
                format!("write the address alone: {address:?}")
            }
            Self::NotIpv4 { .. }
            | Self::OutsideSubnet { .. }
            | Self::NicIp { .. }
            | Self::PhysicalGateway { .. }
            | Self::Network { .. }
            | Self::Broadcast { .. } => format!("choose a free address of {subnet}"),
        }
    }
}

/// The EIP an annotation asks for; `None` when it is empty. Surrounding white space is ignored.
///
/// # Errors
/// The first reason why the text is no EIP on this external network.
pub fn parse_eip(text: &str, config: &GatewayConfig) -> Result<Option<Ipv4Addr>, EipError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let Ok(eip) = text.parse::<Ipv4Addr>() else {
        let text = text.to_owned();
        let is_cidr = text.split_once('/').is_some_and(|(addr, _)| addr.parse::<Ipv4Addr>().is_ok());
        return Err(if is_cidr { EipError::Cidr { text } } else { EipError::NotIpv4 { text } });
    };
    let gateway = config.external_gateway;
    let subnet = || gateway.trunc().to_string();
    if !gateway.contains(eip) {
        Err(EipError::OutsideSubnet { eip, subnet: subnet() })
    } else if eip == config.nic_ip.addr {
        Err(EipError::NicIp { eip })
    } else if eip == gateway.addr {
        Err(EipError::PhysicalGateway { eip })
    } else if eip == gateway.network() {
        Err(EipError::Network { eip, subnet: subnet() })
    } else if Some(eip) == gateway.broadcast() {
        Err(EipError::Broadcast { eip, subnet: subnet() })
    } else {
        Ok(Some(eip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;

    #[test]
    fn an_address_of_the_external_subnet_is_taken() {
        let config = example();
        for text in ["192.168.100.101", " 192.168.100.101\n"] {
            assert_eq!(parse_eip(text, &config), Ok(Some(Ipv4Addr::new(192, 168, 100, 101))), "{text:?}");
        }
        for text in ["", "  "] {
            assert_eq!(parse_eip(text, &config), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let config = example();
        for (text, message) in [
            ("x", "\"x\" is not an IPv4 address"),
            ("192.168.100", "\"192.168.100\" is not an IPv4 address"),
            ("192.168.100.256", "\"192.168.100.256\" is not an IPv4 address"),
            ("fd00::1", "\"fd00::1\" is not an IPv4 address"),
            ("192.168.100.101,192.168.100.102", "\"192.168.100.101,192.168.100.102\" is not an IPv4 address"),
            ("192.168.100.101/24", "\"192.168.100.101/24\" is a prefix, not an address"),
            ("192.168.101.101", "192.168.101.101 is outside the external subnet 192.168.100.0/24"),
            ("192.168.100.254", "192.168.100.254 is the router port's own address (nic-ip)"),
            ("192.168.100.1", "192.168.100.1 is the physical gateway (external-gw-addr)"),
            ("192.168.100.0", "192.168.100.0 is the network address of 192.168.100.0/24"),
            ("192.168.100.255", "192.168.100.255 is the broadcast address of 192.168.100.0/24"),
        ] {
            let error = parse_eip(text, &config).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(!error.remedy(&config).is_empty());
        }
        let cidr = parse_eip("192.168.100.101/24", &config).unwrap_err();
        assert_eq!(cidr.remedy(&config), "write the address alone: \"192.168.100.101\"");
    }

    #[test]
    fn names_follow_the_prefix() {
        assert_eq!(Keys::default().eip_field(), "metadata.annotations[ovn.kubernetes.io/eip]");
        let keys = Keys::new("eip.example");
        assert_eq!(
            (&keys.external_gw[..], &keys.eip_bound[..]),
            ("eip.example/external-gw", "eip.example/eip-bound")
        );
    }
}
