//! A real OVN in a lab's namespaces, set up as Kube-OVN does: it takes the place of our agents on gw1 and worker1, with the
//! same addresses and MACs, so that the same frame can be sent into both.
//!
//! ```text
//!  external (localnet on gw1) ── ovn-cluster ── ovn-default ── pod1a
//!     192.168.100.254, 16:52:f3:13:6a:25 ┘  └ 10.244.1.1
//! ```
//!
//! Datapaths are OVS's in userspace. Databases, sockets and logs are in a folder of the lab, which goes with it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway_lab::plan::{API_SERVER as CENTRAL, Pod};
use gateway_lab::{CLIENT, EIP, EIP_POD, EXTERNAL_NIC, Job, Lab, Mac, NIC_IP, NIC_MAC};

use crate::scene::{eventually, reaches};

/// The chassis: name, tunnel endpoint.
const CHASSIS: [(&str, &str); 2] = [("gw1", "172.18.0.11"), ("worker1", "172.18.0.21")];
/// Where the schemas are.
const OVS_SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// The daemons of an OVN; they end on drop.
#[derive(Debug)]
pub struct Ovn<'a> {
    lab: &'a Lab,
    dir: PathBuf,
    daemons: Vec<Job>,
}

impl<'a> Ovn<'a> {
    /// Sets up an OVN in a lab without agents; when this returns, client and pod reach each other through it.
    ///
    /// # Errors
    /// When a program is missing or does not start, or no packet passes within 20 s.
    pub fn start(lab: &'a Lab) -> Result<Self> {
        let mut ovn = Self { lab, dir: lab.dir().join("ovn"), daemons: Vec::new() };
        ovn.central()?;
        for (chassis, address) in CHASSIS {
            ovn.chassis(chassis, address)?;
        }
        ovn.connect_pod()?;
        ovn.topology()?;
        let (client, eip) = (CLIENT.to_string(), EIP.to_string());
        eventually(Duration::from_secs(20), "OVN forwards both ways", || {
            Ok(reaches(lab, "client", &eip, 1).is_ok() && reaches(lab, EIP_POD, &client, 1).is_ok())
        })?;
        Ok(ovn)
    }

    /// The first lines of `ovn-controller --version`, for example `ovn-controller 23.03.1, Open vSwitch Library 3.1.0`.
    pub fn version(&self) -> Result<String> {
        let text = self.lab.read(CENTRAL, &["ovn-controller", "--version"])?;
        Ok(text.lines().take(2).collect::<Vec<_>>().join(", "))
    }

    fn path(&self, place: &str, file: &str) -> String {
        self.dir.join(place).join(file).display().to_string()
    }

    /// A daemon, with its sockets in the folder of `place`.
    fn daemon(&mut self, namespace: &str, place: &str, words: &[&str]) -> Result<()> {
        let dir = self.dir.join(place);
        let variables = ["OVS_RUNDIR", "OVN_RUNDIR"].map(|name| format!("{name}={}", dir.display()));
        let words = [&["env", &variables[0], &variables[1]], words, &["-vconsole:warn"]].concat();
        self.daemons.push(self.lab.spawn(namespace, &words)?);
        Ok(())
    }

    /// A database and its server on a socket of the same name.
    fn database(&mut self, namespace: &str, place: &str, name: &str, schema: &str) -> Result<()> {
        fs::create_dir_all(self.dir.join(place))?;
        let file = self.path(place, &format!("{name}.db"));
        self.lab
            .read(namespace, &["ovsdb-tool", "create", &file, schema])
            .context("are OVN and Open vSwitch installed? `cargo xtask setup`")?;
        let remote = format!("--remote=punix:{}", self.path(place, &format!("{name}.sock")));
        let control = format!("--unixctl={}", self.path(place, &format!("{name}.ctl")));
        self.daemon(namespace, place, &["ovsdb-server", &file, &remote, &control])
    }

    fn central(&mut self) -> Result<()> {
        for name in ["nb", "sb"] {
            let schema = format!("/usr/share/ovn/ovn-{name}.ovsschema");
            self.database(CENTRAL, "central", name, &schema)?;
        }
        self.nbctl("init")?;
        let north = format!("--ovnnb-db=unix:{}", self.path("central", "nb.sock"));
        let south = format!("--ovnsb-db=unix:{}", self.path("central", "sb.sock"));
        let control = format!("--unixctl={}", self.path("central", "northd.ctl"));
        self.daemon(CENTRAL, "central", &["ovn-northd", &north, &south, &control])
    }

    fn nbctl(&self, words: &str) -> Result<String> {
        self.control(CENTRAL, "ovn-nbctl", "central", "nb.sock", words)
    }

    fn vsctl(&self, chassis: &str, words: &str) -> Result<String> {
        self.control(chassis, "ovs-vsctl", chassis, "conf.sock", words)
    }

    fn control(&self, namespace: &str, tool: &str, place: &str, socket: &str, words: &str) -> Result<String> {
        let socket = self.dir.join(place).join(socket);
        // The server that was just started may not listen yet.
        eventually(
            Duration::from_secs(5),
            &format!("{} is there", socket.display()),
            || Ok(socket.exists()),
        )?;
        let database = format!("--db=unix:{}", socket.display());
        let words: Vec<_> =
            [tool, "--timeout=20", &database].into_iter().chain(words.split_whitespace()).collect();
        self.lab.read(namespace, &words)
    }

    /// OVS and ovn-controller on a node.
    fn chassis(&mut self, chassis: &str, address: &str) -> Result<()> {
        self.database(chassis, chassis, "conf", OVS_SCHEMA)?;
        let south = self.path("central", "sb.sock");
        self.vsctl(chassis, "--no-wait init")?;
        self.vsctl(
            chassis,
            &format!(
                "--no-wait set open . external-ids:system-id={chassis} external-ids:ovn-remote=unix:{south} \
                 external-ids:ovn-encap-type=geneve external-ids:ovn-encap-ip={address} \
                 external-ids:ovn-bridge-datapath-type=netdev external-ids:ovn-bridge-mappings=external:br-ex"
            ),
        )?;
        let socket = format!("unix:{}", self.path(chassis, "conf.sock"));
        let control = format!("--unixctl={}", self.path(chassis, "vs.ctl"));
        self.daemon(chassis, chassis, &["ovs-vswitchd", &socket, &control])?;
        self.bridges(chassis, address)?;
        self.daemon(chassis, chassis, &["ovn-controller", &socket])
    }

    /// The NIC in br-phy, which has the tunnel's address; the external NIC in br-ex.
    fn bridges(&self, chassis: &str, address: &str) -> Result<()> {
        let lab = self.lab;
        let mac = Mac::host(address.parse()?);
        self.vsctl(
            chassis,
            &format!(
                "add-br br-phy -- set bridge br-phy datapath_type=netdev other-config:hwaddr={mac} \
                 -- add-port br-phy eth0 -- add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=secure"
            ),
        )?;
        lab.read(chassis, &["ip", "addr", "flush", "dev", "eth0"])?;
        lab.read(chassis, &["ip", "addr", "add", &format!("{address}/24"), "dev", "br-phy"])?;
        lab.read(chassis, &["ip", "link", "set", "br-phy", "up"])?;
        if chassis == "gw1" {
            self.vsctl(
                chassis,
                &format!(
                    "add-br br-ex -- set bridge br-ex datapath_type=netdev -- add-port br-ex {EXTERNAL_NIC}"
                ),
            )?;
        }
        // The userspace datapath takes fragments below 1200 bytes for an attack; the kernel's does not.
        let target = format!("--target={}", self.path(chassis, "vs.ctl"));
        lab.read(chassis, &["ovs-appctl", &target, "dpctl/ipf-set-min-frag", "v4", "400"]).map(drop)
    }

    /// The pod's wire, from the CNI's bridge to OVN's.
    fn connect_pod(&self) -> Result<()> {
        let port = format!("veth-{EIP_POD}");
        self.lab.read("worker1", &["ip", "link", "set", &port, "nomaster"])?;
        // A userspace datapath takes what the pod's veth gives: whole frames, checksums filled in.
        self.lab.read(EIP_POD, &["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"])?;
        let words = format!("add-port br-int {port} -- set interface {port} external-ids:iface-id={EIP_POD}");
        self.vsctl("worker1", &words).map(drop)
    }

    /// What Kube-OVN creates for a centralized external gateway and one EIP.
    fn topology(&self) -> Result<()> {
        let pod = Pod::named(EIP_POD).context("the lab has the pod")?;
        let (pod_mac, router, router_mac) = (Mac::host(pod.ip), pod.gateway(), Mac::host(pod.gateway()));
        let external = "ovn-cluster-external";
        let default = "ovn-cluster-ovn-default";
        self.nbctl(&format!(
            "lr-add ovn-cluster -- lr-route-add ovn-cluster 0.0.0.0/0 {CLIENT} \
             -- ls-add external -- lsp-add external localnet.external -- lsp-set-type localnet.external localnet \
             -- lsp-set-addresses localnet.external unknown \
             -- lsp-set-options localnet.external network_name=external \
             -- lrp-add ovn-cluster {external} {NIC_MAC} {NIC_IP}/24 -- lrp-set-gateway-chassis {external} gw1 100 \
             -- lsp-add external external-ovn-cluster -- lsp-set-type external-ovn-cluster router \
             -- lsp-set-addresses external-ovn-cluster router \
             -- lsp-set-options external-ovn-cluster router-port={external} \
             -- ls-add ovn-default -- lrp-add ovn-cluster {default} {router_mac} {router}/24 \
             -- lsp-add ovn-default ovn-default-ovn-cluster -- lsp-set-type ovn-default-ovn-cluster router \
             -- lsp-set-addresses ovn-default-ovn-cluster router \
             -- lsp-set-options ovn-default-ovn-cluster router-port={default} \
             -- lsp-add ovn-default {EIP_POD} -- lr-nat-add ovn-cluster dnat_and_snat {EIP} {}",
            pod.ip
        ))?;
        // Two words in one argument.
        let addresses = format!("{pod_mac} {}", pod.ip);
        let database = format!("--db=unix:{}", self.path("central", "nb.sock"));
        let words = ["ovn-nbctl", "--timeout=20", &database, "lsp-set-addresses", EIP_POD, &addresses];
        self.lab.read(CENTRAL, &words)?;
        self.nbctl("--wait=hv sync").map(drop)
    }
}
