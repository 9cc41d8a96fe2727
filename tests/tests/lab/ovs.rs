//! A peer without code of ours: OVS terminates and originates the tunnel in worker1's place, in userspace or by the
//! kernel's module, which the machines that run these tests may lack.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_common::addr::Mac;
use gateway_lab::{Job, Lab};

use crate::scene::{eventually, scene};

const WORKER: &str = "worker1";
/// How long ovsdb-server may take; emulated machines are slow.
const START: Duration = Duration::from_secs(20);

/// Which of OVS's datapaths carries the packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Datapath {
    /// AF_PACKET and threads of ovs-vswitchd.
    Userspace,
    /// The module openvswitch, and the kernel's geneve below it.
    Kernel,
}

impl Datapath {
    /// `datapath_type` of a bridge.
    const fn name(self) -> &'static str {
        match self {
            Self::Userspace => "netdev",
            Self::Kernel => "system",
        }
    }
}

/// OVS's daemons, with their sockets and database in a folder of their own; both end on drop.
struct Ovs<'a> {
    lab: &'a Lab,
    dir: tempfile::TempDir,
    _daemons: [Job; 2],
}

impl<'a> Ovs<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (database, socket) = (path("conf.db"), format!("unix:{}", path("db.sock")));
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        lab.read(WORKER, &["ovsdb-tool", "create", &database, schema])
            .context("is openvswitch-switch installed?")?;
        let run = format!("OVS_RUNDIR={}", dir.path().display());
        let server = format!("--remote=punix:{}", path("db.sock"));
        let (control, log) = (|name: &str| format!("--unixctl={}", path(name)), "-vconsole:warn");
        let database =
            lab.spawn(WORKER, &["env", &run, "ovsdb-server", &database, &server, &control("db.ctl"), log])?;
        let listens = || Ok(dir.path().join("db.sock").exists());
        eventually(START, "ovsdb-server listens", listens)?;
        let ovs = Self {
            lab,
            _daemons: [
                database,
                lab.spawn(WORKER, &["env", &run, "ovs-vswitchd", &socket, &control("vs.ctl"), log])?,
            ],
            dir,
        };
        ovs.vsctl("--no-wait init")?;
        Ok(ovs)
    }

    fn vsctl(&self, words: &str) -> Result<String> {
        let db = format!("--db=unix:{}", self.dir.path().join("db.sock").display());
        let words: Vec<_> = ["ovs-vsctl", "--timeout=30", &db].into_iter().chain(words.split(' ')).collect();
        self.lab.read(WORKER, &words)
    }

    fn flow(&self, flow: &str) -> Result<String> {
        let run = format!("OVS_RUNDIR={}", self.dir.path().display());
        self.lab.read(WORKER, &["env", &run, "ovs-ofctl", "add-flow", "br-int", flow])
    }

    /// What Kube-OVN's node looks like: the NIC in br-phy, which has the tunnel's address; the pod on br-int.
    fn connect(&self, datapath: Datapath, vni: u32) -> Result<()> {
        let (lab, kind) = (self.lab, datapath.name());
        let link = lab.read(WORKER, &["cat", "/proc/net/dev"])?;
        ensure!(link.contains("eth0"), "{link}");
        let mac = lab.read(WORKER, &["ip", "-br", "link", "show", "eth0"])?;
        let mac = mac.split_whitespace().nth(2).context("eth0 has a MAC")?.to_owned();
        // OVS drops what is longer than the bridge's own port, which starts at 1500, without a counter of ours.
        self.vsctl(&format!("add-br br-phy -- set bridge br-phy datapath_type={kind} other-config:hwaddr={mac} -- set interface br-phy mtu_request=9000 -- add-port br-phy eth0"))?;
        lab.read(WORKER, &["ip", "addr", "flush", "dev", "eth0"])?;
        lab.read(WORKER, &["ip", "addr", "add", "172.18.0.21/24", "dev", "br-phy"])?;
        lab.read(WORKER, &["ip", "link", "set", "br-phy", "up"])?;
        lab.read(WORKER, &["ip", "link", "set", "veth-pod1a", "nomaster"])?;
        self.vsctl(&format!("add-br br-int -- set bridge br-int datapath_type={kind} fail_mode=secure -- add-port br-int veth-pod1a -- set interface veth-pod1a ofport_request=1"))?;
        self.vsctl(&format!(
            "add-port br-int gnv0 -- set interface gnv0 type=geneve ofport_request=2 options:remote_ip=172.18.0.11 options:key={vni} options:csum=true"
        ))?;
        if datapath == Datapath::Userspace {
            // It takes what the pod's veth gives: whole frames, checksums filled in.
            lab.read("pod1a", &["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"])?;
        }
        let pod_mac = lab.read("pod1a", &["ip", "-br", "link", "show", "eth0"])?;
        let pod_mac = pod_mac.split_whitespace().nth(2).context("the pod has a MAC")?.to_owned();
        lab.read(
            "pod1a",
            &["ip", "neigh", "replace", "10.244.1.1", "lladdr", "02:00:00:00:00:01", "dev", "eth0"],
        )?;
        self.flow(&format!("in_port=2,ip,nw_dst=10.244.1.10,actions=mod_dl_dst:{pod_mac},output:1"))?;
        self.flow(&format!(
            "in_port=1,ip,nw_src=10.244.1.10,actions=mod_dl_dst:{},output:2",
            Mac::TUNNEL_GATEWAY
        ))?;
        Ok(())
    }
}

fn stands_in_for_a_worker(prefix: &str, datapath: Datapath) -> Result<()> {
    let lab = scene(prefix, 9000)?;
    crate::peers::retire(&lab, WORKER)?;
    let ovs = Ovs::start(&lab)?;
    ovs.connect(datapath, crate::forged::vni(&lab)?)?;
    crate::peers::exchange(&lab)?;
    crate::peers::transfer(&lab)
}

#[test]
fn userspace_stands_in_for_a_worker() -> Result<()> {
    stands_in_for_a_worker("o1-", Datapath::Userspace)
}

#[test]
#[ignore = "needs the kernel's module openvswitch: `cargo xtask test kernels`"]
fn kernel_stands_in_for_a_worker() -> Result<()> {
    crate::peers::module("openvswitch")?;
    stands_in_for_a_worker("o2-", Datapath::Kernel)
}
