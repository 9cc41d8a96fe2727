//! Open vSwitch's userspace datapath as the gateway: stateless flows, Geneve as OVN has it.
//!
//! As Kube-OVN's nodes look: the underlay NIC in `br-phy`, which has the tunnel's address; the external NIC and the tunnel
//! on `br-int`, with a flow for each EIP and each pod.

use std::{
    fmt::Write,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use gateway_common::addr::Mac;
use gateway_tests::fixture::{CLIENT_MAC, GATEWAY, GATEWAY_MAC, NIC_MAC, VNI, WORKER1_MAC};
use nix::sys::signal::Signal;

use super::{
    clock::on_cpu,
    daemon::{Daemon, GO_FIRST},
    flow::EIPS,
    namespace::Namespace,
    stack::{dotted, nodes},
};
use crate::packets::population::Population;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Of a network that gateway and nodes are in: Open vSwitch knows no other routes than those by its own address's.
const UNDERLAY_PREFIX: u32 = 12;
const PATIENCE: Duration = Duration::from_secs(10);

/// How it reads from NICs and writes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// AF_XDP sockets, and a thread that polls all the time.
    Xdp,
    /// AF_PACKET sockets, and the main thread.
    Packet,
}

/// A running Open vSwitch; ended, and its folder removed, when dropped.
#[derive(Debug)]
pub(crate) struct Ovs {
    gateway: Namespace,
    port: Port,
    // In this order: the database last.
    switch: Option<Daemon>,
    _database: Daemon,
    folder: Folder,
}

/// Where a measurement began.
#[derive(Debug)]
pub(crate) struct Meter {
    on_cpu: Duration,
}

#[derive(Debug)]
struct Folder(String);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: removing {}: {error}", self.0);
        }
    }
}

impl Ovs {
    /// Starts one in a gateway's namespace, its polling threads on this CPU.
    pub(crate) fn start(gateway: Namespace, port: Port, cpu: usize) -> Result<Self> {
        let folder = Folder(format!("/run/eip-gateway-bench-{port:?}"));
        fs::create_dir(&folder.0).with_context(|| format!("making {}", folder.0))?;
        let path = |name: &str| format!("{}/{name}", folder.0);
        gateway
            .run(&["ovsdb-tool", "create", &path("conf.db"), SCHEMA], "")
            .context("is openvswitch-switch installed? `cargo xtask setup`")?;
        let remote = format!("--remote=punix:{}", path("db.sock"));
        let control = |name: &str| format!("--unixctl={}", path(name));
        let run = format!("OVS_RUNDIR={}", folder.0);
        let quiet = "-vconsole:off";
        let words = ["env", &run, "ovsdb-server", &path("conf.db"), &remote, &control("db.ctl"), quiet];
        let database = Daemon::start(&gateway, &words)?;
        let mut ovs = Self { gateway, port, switch: None, _database: database, folder };
        ovs.wait_for("db.sock")?;
        ovs.vsctl(&format!("--no-wait init -- set open . other_config:pmd-cpu-mask={:x}", 1u64 << cpu))?;
        let socket = format!("unix:{}", ovs.path("db.sock"));
        let (log, control) =
            (format!("--log-file={}", ovs.path("log")), format!("--unixctl={}", ovs.path("vs.ctl")));
        let cpu = cpu.to_string();
        let words = ["env", &run, "taskset", "-c", &cpu, "ovs-vswitchd", &socket, &control, &log, quiet];
        ovs.switch = Some(Daemon::start(&ovs.gateway, &[GO_FIRST.as_slice(), &words].concat())?);
        ovs.wait_for("vs.ctl")?;
        ovs.connect().with_context(|| ovs.complaints())?;
        Ok(ovs)
    }

    /// Stops all its threads, of which one polls all the time, until it is to go on; or has them go on.
    pub(crate) fn pause(&self, pause: bool) -> Result<()> {
        let switch = self.switch.as_ref().context("it does not run")?;
        switch.signal(if pause { Signal::SIGSTOP } else { Signal::SIGCONT })
    }

    /// Starts to measure how long its threads work.
    pub(crate) fn meter(&self) -> Result<Meter> {
        self.appctl(&["dpif-netdev/pmd-stats-clear"])?;
        Ok(Meter { on_cpu: self.on_cpu()? })
    }

    /// Processor time since then, without the part that a polling thread found nothing to do in.
    pub(crate) fn busy_since(&self, meter: &Meter) -> Result<Duration> {
        let taken = self.on_cpu()?.saturating_sub(meter.on_cpu);
        Ok(match self.port {
            Port::Xdp => taken.mul_f64(busy_share(&self.appctl(&["dpif-netdev/pmd-stats-show"])?)?),
            Port::Packet => taken,
        })
    }

    fn on_cpu(&self) -> Result<Duration> {
        let Some(switch) = &self.switch else { bail!("it does not run") };
        let tasks = fs::read_dir(switch.proc().join("task"))?.flatten();
        tasks.map(|task| on_cpu(&task.path().join("schedstat"))).sum()
    }

    fn connect(&self) -> Result<()> {
        let kind = match self.port {
            Port::Xdp => "type=afxdp options:n_rxq=1",
            Port::Packet => "type=system",
        };
        self.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev other-config:hwaddr={GATEWAY_MAC} \
             -- add-port br-phy g1 -- set interface g1 {kind} \
             -- add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=secure \
             -- add-port br-int g0 -- set interface g0 {kind} ofport_request=1 \
             -- add-port br-int gnv0 -- set interface gnv0 type=geneve ofport_request=2 options:remote_ip=flow \
             options:key={VNI} options:csum=true"
        ))?;
        let gateway_ip = dotted(GATEWAY);
        self.gateway
            .ip(&format!("addr add {gateway_ip}/{UNDERLAY_PREFIX} dev br-phy\nlink set br-phy up\n"))?;
        for (node, ..) in nodes() {
            self.appctl(&["tnl/neigh/set", "br-phy", &dotted(node), &WORKER1_MAC.to_string()])?;
        }
        let errors = self.vsctl("--bare --columns=error find interface error!=[]")?;
        if !errors.trim().is_empty() {
            bail!("Open vSwitch: {}", errors.trim());
        }
        let run = format!("OVS_RUNDIR={}", self.folder.0);
        self.gateway.run(&["env", &run, "ovs-ofctl", "add-flows", "br-int", "-"], &flows()?).map(drop)
    }

    /// How the NICs are read and written, as it says itself.
    pub(crate) fn mode(&self) -> Result<String> {
        let mode = match self.port {
            Port::Xdp => {
                let ports = self.appctl(&["dpctl/show"])?;
                let (_, mode) = ports.split_once("xdp-mode-in-use=").with_context(|| ports.clone())?;
                format!("AF_XDP, {}", mode.split([',', ')', ' ']).next().unwrap_or_default())
            }
            Port::Packet => "AF_PACKET".to_owned(),
        };
        let version = self.gateway.run(&["ovs-vswitchd", "--version"], "")?;
        Ok(format!("{} ({mode})", version.lines().next().unwrap_or_default()))
    }

    fn vsctl(&self, words: &str) -> Result<String> {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        let words: Vec<_> =
            ["ovs-vsctl", "--timeout=10", &database].into_iter().chain(words.split_whitespace()).collect();
        self.gateway.run(&words, "")
    }

    fn appctl(&self, words: &[&str]) -> Result<String> {
        let target = format!("--target={}", self.path("vs.ctl"));
        self.gateway.run(&[&["ovs-appctl", &target], words].concat(), "")
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.0)
    }

    fn wait_for(&self, socket: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(self.path(socket)).is_err() {
            if Instant::now() > deadline {
                bail!("Open vSwitch does not start: no {socket} within {PATIENCE:?}; {}", self.complaints());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What it logged that is worse than news.
    fn complaints(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| ["|WARN|", "|ERR|"].iter().any(|level| line.contains(level))).collect()
    }
}

/// Of the first polling thread: cycles it processed packets in, of all. The threads that poll come after the main thread.
fn busy_share(stats: &str) -> Result<f64> {
    let cycles = |what: &str| -> Result<f64> {
        let mut lines = stats.lines().skip_while(|line| !line.starts_with("pmd thread"));
        let line = lines
            .find_map(|line| line.trim().strip_prefix(what))
            .with_context(|| format!("no {what} in {stats}"))?;
        let number = line.split_whitespace().next().context("no number of cycles")?;
        number.parse().with_context(|| format!("{number} is no number of cycles"))
    };
    let (idle, busy) = (cycles("idle cycles:")?, cycles("processing cycles:")?);
    Ok(busy / (idle + busy))
}

fn flows() -> Result<String> {
    let (to_worker, from_gateway) = (Mac::TUNNEL_WORKER, Mac::TUNNEL_GATEWAY);
    let mut flows = String::new();
    for member in Population::new(EIPS)?.members() {
        let [eip, pod, node] = [member.eip(), member.pod(), member.node()].map(dotted);
        writeln!(
            flows,
            "in_port=1,ip,nw_dst={eip},actions=dec_ttl,mod_nw_dst:{pod},mod_dl_src:{from_gateway},\
             mod_dl_dst:{to_worker},set_field:{node}->tun_dst,output:2"
        )?;
        writeln!(
            flows,
            "in_port=2,ip,tun_src={node},nw_src={pod},actions=dec_ttl,mod_nw_src:{eip},mod_dl_src:{NIC_MAC},\
             mod_dl_dst:{CLIENT_MAC},output:1"
        )?;
    }
    Ok(flows)
}
