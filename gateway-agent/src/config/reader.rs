//! The keys of the ConfigMap, one by one: what each may be, and what to write instead.

use std::collections::BTreeMap;

use gateway_common::addr::{Mac, Prefix};
use gateway_common::wire::geneve;

use super::{
    DEFAULT_ERROR_RATE, DEFAULT_GARP_RATE, DEFAULT_SLOW_PATH_RATE, DEFAULT_VNI, GatewayConfig, Topology,
    derived_mac,
};
use crate::desired::RouterPort;
use crate::desired::problem::Problem;

/// As much as a CPU could send; more is a slip of the pen.
const MAX_RATE: u32 = 1_000_000;
/// As much as was ever seen to be of use; more is a broadcast storm.
const MAX_GARP_RATE: u32 = 10_000;

/// Every key this version understands.
const KEYS: [&str; 16] = [
    "cluster-cidrs",
    "enable-external-gw",
    "external-gw-addr",
    "external-gw-nic",
    "external-gw-nodes",
    "garp-rate",
    "geneve-port",
    "geneve-vni",
    "icmp-error-rate",
    "mss-clamp",
    "nic-ip",
    "nic-ip-open",
    "nic-mac",
    "slow-path-rate",
    "type",
    "underlay-nic",
];

/// Reads the values, and notes what is wrong with them.
pub(super) struct Reader<'a> {
    data: &'a BTreeMap<String, String>,
    object: &'a str,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Of the `data` of `object`.
    pub(super) fn new(data: &'a BTreeMap<String, String>, object: &'a str) -> Self {
        Self { data, object, problems: Vec::new() }
    }

    pub(super) fn refuse(&mut self, key: &str, message: impl Into<String>, remedy: &str) {
        self.problems.push(Problem::refused(self.object, format!("data[{key}]"), message, remedy));
    }

    pub(super) fn warn(&mut self, key: &str, message: &str, remedy: &str) {
        self.problems.push(Problem::warning(self.object, format!("data[{key}]"), message, remedy));
    }

    /// The value without surrounding white space; `None` when absent or empty.
    pub(super) fn value(&self, key: &str) -> Option<&'a str> {
        self.data.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn required(&mut self, key: &str, remedy: &str) -> Option<&'a str> {
        let value = self.value(key);
        if value.is_none() {
            self.refuse(key, "it is missing or empty", remedy);
        }
        value
    }

    /// The parsed value of an optional key, or `default` when absent.
    fn optional<T>(
        &mut self,
        key: &str,
        default: T,
        read: impl FnOnce(&mut Self, &'a str) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            None => Some(default),
            Some(text) => read(self, text),
        }
    }

    pub(super) fn config(&mut self) -> Option<GatewayConfig> {
        // Every key is read before the first `?`, so that all problems are reported at once.
        let topology = self.optional("type", Topology::Centralized, Self::topology);
        let gateway_nodes = self.list("external-gw-nodes").into_iter().map(str::to_owned).collect();
        let external_nic = self
            .required("external-gw-nic", "name the gateway nodes' NIC on the external network, like enp8s0")
            .and_then(|name| self.nic("external-gw-nic", name));
        let external_gateway = self.external_gateway();
        let nic_ip = self.nic_ip(external_gateway);
        let nic_mac = self.optional("nic-mac", nic_ip.map(|ip| derived_mac(ip.addr)), Self::nic_mac);
        let geneve_vni = self.optional("geneve-vni", DEFAULT_VNI, Self::vni);
        let geneve_port = self.optional("geneve-port", geneve::PORT, Self::port);
        let underlay_nic =
            self.optional("underlay-nic", None, |reader, name| Some(Some(reader.nic("underlay-nic", name)?)));
        let cluster_cidrs = self.cluster_cidrs();
        let nic_ip_open = self.optional("nic-ip-open", false, Self::nic_ip_open);
        let mss_clamp = self.optional("mss-clamp", true, Self::mss_clamp);
        let icmp_error_rate = self.optional("icmp-error-rate", DEFAULT_ERROR_RATE, |reader, text| {
            reader.rate("icmp-error-rate", text, "ICMP errors")
        });
        let slow_path_rate = self.optional("slow-path-rate", DEFAULT_SLOW_PATH_RATE, |reader, text| {
            reader.rate("slow-path-rate", text, "packets")
        });
        let garp_rate = self.optional("garp-rate", DEFAULT_GARP_RATE, Self::garp_rate);
        if let (Some(external), Some(Some(underlay))) = (&external_nic, &underlay_nic)
            && external == underlay
        {
            self.refuse(
                "underlay-nic",
                format!("{underlay:?} is also external-gw-nic"),
                "the external network needs a NIC of its own",
            );
        }
        Some(GatewayConfig {
            topology: topology?,
            gateway_nodes,
            external_nic: external_nic?,
            external_gateway: external_gateway?,
            nic_ip: nic_ip?,
            nic_mac: nic_mac??,
            nic_ip_open: nic_ip_open?,
            geneve_vni: geneve_vni?,
            geneve_port: geneve_port?,
            underlay_nic: underlay_nic?,
            cluster_cidrs,
            mss_clamp: mss_clamp?,
            icmp_error_rate: icmp_error_rate?,
            slow_path_rate: slow_path_rate?,
            garp_rate: garp_rate?,
        })
    }

    fn topology(&mut self, text: &str) -> Option<Topology> {
        match text {
            "centralized" => Some(Topology::Centralized),
            "distributed" => {
                self.refuse("type", "\"distributed\" is not built yet", "use \"centralized\"");
                Some(Topology::Distributed)
            }
            other => {
                self.refuse("type", format!("{other:?} is no type of gateway"), "use \"centralized\"");
                None
            }
        }
    }

    /// The entries of a comma-separated list.
    fn list(&self, key: &str) -> Vec<&'a str> {
        let entries = self.value(key).into_iter().flat_map(|value| value.split(','));
        entries.map(str::trim).filter(|entry| !entry.is_empty()).collect()
    }

    fn nic(&mut self, key: &str, name: &str) -> Option<String> {
        // dev_valid_name() of the kernel's net/core/dev.c, and IFNAMSIZ.
        let valid = name.len() <= 15
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
            // nftables takes the one for a string's end, the other for any letters.
            && !name.contains(['"', '*']);
        if !valid {
            self.refuse(
                key,
                format!("{name:?} cannot be an interface's name"),
                "an interface's name has at most 15 characters and no '/', ':', quote, '*' or space",
            );
            None
        } else if name == RouterPort::NAME {
            self.refuse(key, format!("{name:?} is the router port, which the agent makes"), "name a NIC");
            None
        } else {
            Some(name.to_owned())
        }
    }

    fn prefix(&mut self, key: &str, text: &str, remedy: &str) -> Option<Prefix> {
        let parsed = text.parse::<Prefix>();
        if let Err(error) = parsed {
            self.refuse(key, format!("{text:?}: {error}"), remedy);
        }
        parsed.ok()
    }

    /// A host's address in a subnet that has room for EIPs.
    fn host_address(&mut self, key: &str, text: &str, remedy: &str) -> Option<Prefix> {
        let prefix = self.prefix(key, text, remedy)?;
        let addr = prefix.addr;
        let wrong = if !(8..=30).contains(&prefix.len) {
            Some("the prefix length must be between 8 and 30")
        } else if addr == prefix.network() {
            Some("it is the network address")
        } else if Some(addr) == prefix.broadcast() {
            Some("it is the broadcast address")
        } else if addr.is_loopback()
            || addr.is_multicast()
            || addr.octets()[0] == 0
            || addr.octets()[0] >= 240
        {
            Some("it is no address a host can have")
        } else {
            None
        };
        match wrong {
            Some(wrong) => {
                self.refuse(key, format!("{text:?}: {wrong}"), remedy);
                None
            }
            None => Some(prefix),
        }
    }

    fn external_gateway(&mut self) -> Option<Prefix> {
        let remedy = "write the physical gateway and its subnet's length, like 192.168.100.1/24";
        let text = self.required("external-gw-addr", remedy)?;
        self.host_address("external-gw-addr", text, remedy)
    }

    fn nic_ip(&mut self, gateway: Option<Prefix>) -> Option<Prefix> {
        let remedy = "write a free address of the external subnet with its length, like 192.168.100.254/24";
        let text = self.required("nic-ip", remedy)?;
        let nic_ip = self.host_address("nic-ip", text, remedy)?;
        let Some(gateway) = gateway else { return Some(nic_ip) };
        let wrong = if nic_ip.len != gateway.len {
            format!("{text:?}: its length differs from that of external-gw-addr {gateway}")
        } else if !gateway.contains(nic_ip.addr) {
            format!("{text:?} is outside the external subnet {}", gateway.trunc())
        } else if nic_ip.addr == gateway.addr {
            format!("{text:?} is the physical gateway's address")
        } else {
            return Some(nic_ip);
        };
        self.refuse("nic-ip", wrong, remedy);
        None
    }

    /// `Some(Some(mac))`: it nests like the default, which hangs on `nic-ip`.
    fn nic_mac(&mut self, text: &str) -> Option<Option<Mac>> {
        let wrong = match text.parse::<Mac>() {
            Err(error) => format!("{text:?}: {error}"),
            Ok(mac) if mac.is_multicast() => format!("{text:?} is a multicast address"),
            Ok(mac) if mac == Mac::default() => format!("{text:?} is all zeros"),
            Ok(mac) => return Some(Some(mac)),
        };
        self.refuse("nic-mac", wrong, "write a unicast MAC address like 16:52:f3:13:6a:25, or leave it out");
        None
    }

    fn vni(&mut self, text: &str) -> Option<u32> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let vni = number.ok().filter(|vni| (1..=0xff_ffff).contains(vni));
        if vni.is_none() {
            self.refuse(
                "geneve-vni",
                format!("{text:?} is no VNI"),
                "write a number from 1 to 16777215 (0xffffff) that no other tunnel between these nodes uses",
            );
        }
        vni
    }

    fn port(&mut self, text: &str) -> Option<u16> {
        let port = text.parse().ok().filter(|port| *port != 0);
        if port.is_none() {
            self.refuse("geneve-port", format!("{text:?} is no UDP port"), "write a number from 1 to 65535");
        }
        port
    }

    fn nic_ip_open(&mut self, text: &str) -> Option<bool> {
        self.boolean(
            "nic-ip-open",
            text,
            "write \"true\" to open this node's own ports on nic-ip to the external network, \"false\" or nothing to keep \
             them closed",
        )
    }

    fn mss_clamp(&mut self, text: &str) -> Option<bool> {
        self.boolean(
            "mss-clamp",
            text,
            "write \"false\" to leave the MSS of TCP connections alone, \"true\" or nothing to lower it to what fits",
        )
    }

    fn boolean(&mut self, key: &str, text: &str, remedy: &str) -> Option<bool> {
        let parsed = text.to_ascii_lowercase().parse().ok();
        if parsed.is_none() {
            self.refuse(key, format!("{text:?} is neither \"true\" nor \"false\""), remedy);
        }
        parsed
    }

    fn rate(&mut self, key: &str, text: &str, what: &str) -> Option<u32> {
        let rate = text.parse().ok().filter(|rate| *rate <= MAX_RATE);
        if rate.is_none() {
            self.refuse(
                key,
                format!("{text:?} is no number of {what} a second"),
                "write a number from 1 to 1000000, or 0 for no limit",
            );
        }
        rate
    }

    fn garp_rate(&mut self, text: &str) -> Option<u32> {
        let rate = text.parse().ok().filter(|rate| (1..=MAX_GARP_RATE).contains(rate));
        if rate.is_none() {
            self.refuse(
                "garp-rate",
                format!("{text:?} is no number of ARP frames a second"),
                "write a number from 1 to 10000; 10 where the switch counts ARP (Dynamic ARP Inspection), or nothing for 100",
            );
        }
        rate
    }

    fn cluster_cidrs(&mut self) -> Vec<Prefix> {
        let mut prefixes = Vec::new();
        for text in self.list("cluster-cidrs") {
            match self.prefix("cluster-cidrs", text, "write prefixes separated by commas, like 10.96.0.0/12")
            {
                Some(prefix) if prefix.len == 0 => self.refuse(
                    "cluster-cidrs",
                    format!("{text:?} is every address, so nothing would leave by the gateway"),
                    "name the prefixes of the cluster only",
                ),
                Some(prefix) => prefixes.push(prefix.trunc()),
                None => {}
            }
        }
        prefixes
    }

    pub(super) fn warn_unknown_keys(&mut self) {
        for key in self.data.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            self.warn(key, "this version knows no such key", "remove it, or correct its name");
        }
    }
}
