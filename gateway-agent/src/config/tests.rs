use super::*;

/// The ConfigMap of the operator's session.
pub(crate) fn example_data() -> BTreeMap<String, String> {
    [
        ("type", "centralized"),
        ("enable-external-gw", "true"),
        ("external-gw-nodes", "gw1"),
        ("external-gw-nic", "enp8s0"),
        ("external-gw-addr", "192.168.100.1/24"),
        ("nic-ip", "192.168.100.254/24"),
        ("nic-mac", "16:52:f3:13:6a:25"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The same, parsed.
pub(crate) fn example() -> GatewayConfig {
    parse(&example_data(), "configmap x").unwrap().config.unwrap()
}

fn with(changes: &[(&str, &str)]) -> Result<Parsed, Vec<Problem>> {
    let mut data = example_data();
    for (key, value) in changes {
        data.insert((*key).to_owned(), (*value).to_owned());
    }
    parse(&data, "configmap kube-system/x")
}

#[test]
fn the_operators_configmap_is_taken_with_defaults() {
    let Parsed { config, warnings } = with(&[]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        config.unwrap(),
        GatewayConfig {
            topology: Topology::Centralized,
            gateway_nodes: vec!["gw1".to_owned()],
            external_nic: "enp8s0".to_owned(),
            external_gateway: "192.168.100.1/24".parse().unwrap(),
            nic_ip: "192.168.100.254/24".parse().unwrap(),
            nic_mac: "16:52:f3:13:6a:25".parse().unwrap(),
            geneve_vni: DEFAULT_VNI,
            geneve_port: 6081,
            underlay_nic: None,
            cluster_cidrs: vec![],
            nic_ip_open: false,
            mss_clamp: true,
            icmp_error_rate: 1_000,
            slow_path_rate: 10_000,
            garp_rate: 100,
        }
    );
}

#[test]
fn every_key_is_read() {
    let config = with(&[
        ("external-gw-nodes", " gw1 , gw2,,"),
        ("nic-mac", ""),
        ("geneve-vni", "0x10"),
        ("geneve-port", "7000"),
        ("underlay-nic", " eth0 "),
        ("cluster-cidrs", "10.96.0.1/12, 10.244.0.0/16"),
        ("mss-clamp", "False"),
        ("nic-ip-open", "True"),
        ("icmp-error-rate", "0"),
        ("garp-rate", " 10 "),
    ])
    .unwrap()
    .config
    .unwrap();
    assert!(!config.mss_clamp && config.nic_ip_open);
    assert_eq!((config.icmp_error_rate, config.garp_rate), (0, 10));
    assert_eq!(config.gateway_nodes, ["gw1", "gw2"]);
    assert_eq!(config.nic_mac, Mac([0x02, b'e', 192, 168, 100, 254]));
    assert_eq!((config.geneve_vni, config.geneve_port), (16, 7000));
    assert_eq!(config.underlay_nic.as_deref(), Some("eth0"));
    let cidrs: Vec<_> = config.cluster_cidrs.iter().map(Prefix::to_string).collect();
    assert_eq!(cidrs, ["10.96.0.0/12", "10.244.0.0/16"]);
}

#[test]
fn a_gateway_that_is_off_is_not_looked_at() {
    let parsed = with(&[("enable-external-gw", "false"), ("nic-ip", "x")]).unwrap();
    assert_eq!(parsed, Parsed { config: None, warnings: vec![] });
    let missing = parse(&BTreeMap::new(), "configmap x").unwrap_err();
    assert_eq!(
        missing[0].to_string().split(';').next(),
        Some("configmap x: data[enable-external-gw]: it is missing or empty")
    );
}

/// Key, bad value, message.
const BAD_VALUES: &[(&str, &str, &str)] = &[
    ("enable-external-gw", "", "it is missing or empty"),
    ("enable-external-gw", "ture", "\"ture\" is neither \"true\" nor \"false\""),
    ("type", "distributed", "\"distributed\" is not built yet"),
    ("type", "both", "\"both\" is no type of gateway"),
    ("external-gw-nic", "", "it is missing or empty"),
    ("external-gw-nic", "a-name-of-16-char", "\"a-name-of-16-char\" cannot be an interface's name"),
    ("external-gw-nic", "en/0", "\"en/0\" cannot be an interface's name"),
    ("external-gw-nic", "en 0", "\"en 0\" cannot be an interface's name"),
    ("external-gw-nic", "eth*", "\"eth*\" cannot be an interface's name"),
    ("external-gw-nic", "e\"}", "\"e\\\"}\" cannot be an interface's name"),
    ("nic-ip-open", "yes", "\"yes\" is neither \"true\" nor \"false\""),
    ("external-gw-nic", "eip-router", "\"eip-router\" is the router port, which the agent makes"),
    ("external-gw-addr", "192.168.100.1", "\"192.168.100.1\": not an IPv4 prefix like 192.168.100.1/24"),
    (
        "external-gw-addr",
        "192.168.100.1/33",
        "\"192.168.100.1/33\": the prefix length must be between 0 and 32",
    ),
    (
        "external-gw-addr",
        "192.168.100.1/31",
        "\"192.168.100.1/31\": the prefix length must be between 8 and 30",
    ),
    ("external-gw-addr", "192.168.100.0/24", "\"192.168.100.0/24\": it is the network address"),
    ("external-gw-addr", "192.168.100.255/24", "\"192.168.100.255/24\": it is the broadcast address"),
    ("external-gw-addr", "224.0.0.1/24", "\"224.0.0.1/24\": it is no address a host can have"),
    ("nic-ip", "", "it is missing or empty"),
    ("nic-ip", "192.168.100.254", "\"192.168.100.254\": not an IPv4 prefix like 192.168.100.1/24"),
    (
        "nic-ip",
        "192.168.101.254/24",
        "\"192.168.101.254/24\" is outside the external subnet 192.168.100.0/24",
    ),
    (
        "nic-ip",
        "192.168.100.254/25",
        "\"192.168.100.254/25\": its length differs from that of external-gw-addr 192.168.100.1/24",
    ),
    ("nic-ip", "192.168.100.1/24", "\"192.168.100.1/24\" is the physical gateway's address"),
    ("nic-ip", "192.168.100.0/24", "\"192.168.100.0/24\": it is the network address"),
    ("nic-ip", "192.168.100.255/24", "\"192.168.100.255/24\": it is the broadcast address"),
    ("nic-mac", "16:52", "\"16:52\": not a MAC address like 16:52:f3:13:6a:25"),
    ("nic-mac", "01:52:f3:13:6a:25", "\"01:52:f3:13:6a:25\" is a multicast address"),
    ("nic-mac", "00:00:00:00:00:00", "\"00:00:00:00:00:00\" is all zeros"),
    ("geneve-vni", "0", "\"0\" is no VNI"),
    ("geneve-vni", "16777216", "\"16777216\" is no VNI"),
    ("geneve-vni", "0xzz", "\"0xzz\" is no VNI"),
    ("geneve-port", "0", "\"0\" is no UDP port"),
    ("geneve-port", "65536", "\"65536\" is no UDP port"),
    ("underlay-nic", "en/0", "\"en/0\" cannot be an interface's name"),
    ("underlay-nic", "enp8s0", "\"enp8s0\" is also external-gw-nic"),
    ("mss-clamp", "no", "\"no\" is neither \"true\" nor \"false\""),
    ("icmp-error-rate", "-1", "\"-1\" is no number of ICMP errors a second"),
    ("icmp-error-rate", "1000001", "\"1000001\" is no number of ICMP errors a second"),
    ("garp-rate", "0", "\"0\" is no number of ARP frames a second"),
    ("garp-rate", "10001", "\"10001\" is no number of ARP frames a second"),
    ("garp-rate", "15/s", "\"15/s\" is no number of ARP frames a second"),
    ("cluster-cidrs", "10.0.0.0/8,x", "\"x\": not an IPv4 prefix like 192.168.100.1/24"),
    ("cluster-cidrs", "0.0.0.0/0", "\"0.0.0.0/0\" is every address, so nothing would leave by the gateway"),
];

#[test]
fn each_bad_value_is_refused_with_its_field() {
    for (key, value, message) in BAD_VALUES {
        let problems = with(&[(*key, *value)]).unwrap_err();
        let [problem] = &problems[..] else { panic!("{key}={value}: {problems:?}") };
        assert_eq!((problem.kind, &problem.message[..]), (Kind::Refused, *message));
        assert_eq!(problem.object, "configmap kube-system/x");
        assert_eq!(problem.field, format!("data[{key}]"));
        assert!(!problem.remedy.is_empty());
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems =
        with(&[("nic-ip", "x"), ("nic-mac", "x"), ("geneve-port", "x"), ("nic_ip", "x")]).unwrap_err();
    let fields: Vec<_> = problems.iter().map(|problem| &problem.field[..]).collect();
    assert_eq!(fields, ["data[nic-ip]", "data[nic-mac]", "data[geneve-port]", "data[nic_ip]"]);
}

#[test]
fn an_unknown_key_is_a_warning() {
    let parsed = with(&[("nic_ip", "x")]).unwrap();
    assert!(parsed.config.is_some());
    let [warning] = &parsed.warnings[..] else { panic!("{:?}", parsed.warnings) };
    assert_eq!((warning.kind, &warning.field[..]), (Kind::Warning, "data[nic_ip]"));
}
