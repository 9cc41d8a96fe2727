//! Makes the namespaces, wires, bridges, routes and rules of a plan. Few processes, namespaces in parallel.

use std::{
    fmt::Write,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    LabConfig, firewall,
    plan::{self, End, Kind, NODES, Node, Plan, SWITCH},
    status, tool, wire,
};

/// How long the kernel may take to report every interface up.
const CARRIER: Duration = Duration::from_secs(5);

/// Makes everything; expects none of it to exist. `wire_program` is where [`wire::object_file`] was put.
pub(crate) fn create(config: &LabConfig, wire_program: &Path) -> Result<()> {
    let plan = Plan::new(config);
    let names = plan::namespaces();
    let netns = |name: &str| format!("{}{name}", config.prefix);

    let add: String = names.iter().map(|name| format!("netns add {}\n", netns(name))).collect();
    batch(Command::new("ip").args(["-batch", "-"]), &add).context("making the network namespaces")?;
    // Before the interfaces: they take rp_filter and disable_ipv6 from `default` when they are made.
    each(&names, |name| sysctl(&netns(name), name))?;
    batch(Command::new("ip").args(["-batch", "-"]), &links_script(&plan, netns))
        .context("laying the wires")?;
    // Before the offloads, because attaching a program to a veth turns its GRO on.
    let programs = program_script(&plan, wire_program);
    batch(Command::new("ip").args(["-n", &netns(SWITCH), "-batch", "-"]), &programs)
        .context("attaching XDP programs to the switch's ports")?;
    each(&names, |name| {
        let mut offloads = tool::in_netns(&netns(name), "sh");
        tool::run(offloads.arg("-e"), &offload_script(&plan, name)).context("setting offloads")?;
        batch(Command::new("ip").args(["-n", &netns(name), "-batch", "-"]), &address_script(&plan, name))
            .with_context(|| format!("setting up {name}"))?;
        match Node::named(name) {
            Some(node) => {
                let mut nft = tool::in_netns(&netns(name), "nft");
                tool::run(nft.args(["-f", "-"]), &firewall::ruleset(node)).map(drop)
            }
            None => Ok(()),
        }
    })?;
    each(&names, |name| routes(&plan, name, &netns(name)))?;
    wait_for_carrier(config)
}

/// Deletes every namespace of that prefix that exists; the wires go with them.
pub(crate) fn delete(prefix: &str) -> Result<()> {
    let mut script = String::new();
    for name in plan::namespaces() {
        if status::netns_path(prefix, name).exists() {
            writeln!(script, "netns del {prefix}{name}")?;
        }
    }
    // -force: one namespace that cannot go must not keep the others.
    batch(Command::new("ip").args(["-force", "-batch", "-"]), &script)
        .context("deleting the network namespaces")
}

fn batch(command: &mut Command, script: &str) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    tool::run(command, script).map(drop)
}

fn each<F>(names: &[&'static str], work: F) -> Result<()>
where
    F: Fn(&'static str) -> Result<()> + Sync,
{
    thread::scope(|scope| {
        let workers: Vec<_> = names.iter().map(|&name| scope.spawn(|| work(name))).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a lab thread panicked; its message is above"),
        })
    })
}

fn sysctl(netns: &str, name: &str) -> Result<()> {
    // -e: a kernel without IPv6 or br_netfilter lacks some of these keys, which is as good.
    let mut command = tool::in_netns(netns, "sysctl");
    command.args(["-e", "-q", "-w"]).args(sysctls(name));
    tool::run(&mut command, "").map(drop).with_context(|| format!("setting sysctls of {name}"))
}

fn sysctls(name: &str) -> Vec<String> {
    let node = Node::named(name).is_some();
    let flag = |key: &str, on: bool| format!("{key}={}", u8::from(on));
    let mut settings = vec![flag("net.ipv4.ip_forward", node || name == "client")];
    for scope in ["all", "default"] {
        settings.push(flag(&format!("net.ipv6.conf.{scope}.disable_ipv6"), true));
        settings.push(flag(&format!("net.ipv4.conf.{scope}.rp_filter"), node));
    }
    settings.push(flag("net.bridge.bridge-nf-call-iptables", node));
    settings.push(flag("net.bridge.bridge-nf-call-arptables", false));
    settings
}

fn links_script(plan: &Plan, netns: impl Fn(&str) -> String) -> String {
    let mut script = String::new();
    for bridge in &plan.bridges {
        // forward_delay 0 without STP: a new port forwards its first frame.
        script += &format!(
            "link add name {} netns {} address {} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n",
            bridge.interface,
            netns(bridge.namespace),
            bridge.mac
        );
    }
    for link in &plan.links {
        let [a, b] = &link.ends;
        let end = |end: &End| {
            format!(
                "name {} netns {} address {} mtu {} numtxqueues 1 numrxqueues 1",
                end.interface,
                netns(end.namespace),
                end.mac,
                link.mtu
            )
        };
        script += &format!("link add {} type veth peer {}\n", end(a), end(b));
    }
    script
}

fn program_script(plan: &Plan, program: &Path) -> String {
    let ports = plan.links.iter().flat_map(|link| &link.ends).filter(|end| end.kind == Kind::Port);
    ports
        .map(|port| {
            let (interface, program) = (&port.interface, program.display());
            format!("link set dev {interface} xdpdrv object {program} section {}\n", wire::SECTION)
        })
        .collect()
}

fn offload_script(plan: &Plan, name: &str) -> String {
    let ends = plan.links.iter().flat_map(|link| &link.ends).filter(|end| end.namespace == name);
    let mut script = String::new();
    for end in ends {
        let gro = match end.kind {
            Kind::Nic => "on",
            Kind::Port | Kind::Plain => "off",
            Kind::Cni => continue,
        };
        script +=
            &format!("ethtool -K {} tx off sg off tso off gso off gro {gro} >/dev/null\n", end.interface);
    }
    script
}

fn address_script(plan: &Plan, name: &str) -> String {
    let mut script = String::from("link set lo up\n");
    for bridge in plan.bridges.iter().filter(|bridge| bridge.namespace == name) {
        script += &format!("link set {} mtu {} up\n", bridge.interface, bridge.mtu);
        if let Some(address) = &bridge.address {
            script += &format!("addr add {address} brd + dev {}\n", bridge.interface);
        }
    }
    for end in plan.links.iter().flat_map(|link| &link.ends).filter(|end| end.namespace == name) {
        let port = end.bridge.map(|bridge| format!("master {bridge} ")).unwrap_or_default();
        script += &format!("link set {} {port}up\n", end.interface);
        if let Some(address) = &end.address {
            script += &format!("addr add {address} brd + dev {}\n", end.interface);
        }
    }
    script
}

fn routes(plan: &Plan, name: &str, netns: &str) -> Result<()> {
    let script: String = plan
        .routes
        .iter()
        .filter(|route| route.namespace == name)
        .map(|route| format!("route add {}\n", route.words))
        .collect();
    batch(Command::new("ip").args(["-n", netns, "-batch", "-"]), &script)
        .with_context(|| format!("setting routes of {name}"))
}

/// A bridge forwards to a port only once the kernel has reported its carrier, which comes a moment after `up`.
fn wait_for_carrier(config: &LabConfig) -> Result<()> {
    let deadline = Instant::now() + CARRIER;
    let bridging = NODES.iter().map(|node| node.name).chain([SWITCH]);
    for name in bridging {
        loop {
            let interfaces = status::interfaces(&config.prefix, name)?;
            let down: Vec<_> =
                interfaces.iter().filter(|found| !found.up).map(|found| found.name.as_str()).collect();
            if down.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                bail!("still without carrier in {name} after {CARRIER:?}: {}", down.join(", "));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(&LabConfig::default())
    }

    #[test]
    fn wires_are_laid_between_namespaces_with_fixed_macs() {
        let script = links_script(&plan(), |name| format!("t-{name}"));
        assert!(script.contains(
            "link add name enp8s0 netns t-gw1 address 02:00:c0:a8:64:0b mtu 9000 numtxqueues 1 numrxqueues 1 \
             type veth peer name gw1-enp8s0 netns t-switch"
        ));
    }

    #[test]
    fn wires_carry_no_super_segments_and_pods_keep_their_offloads() {
        let plan = plan();
        assert_eq!(
            offload_script(&plan, "worker1"),
            "ethtool -K eth0 tx off sg off tso off gso off gro on >/dev/null\n"
        );
        assert!(offload_script(&plan, "outside").contains("gro off"));
        assert_eq!(offload_script(&plan, "pod1a"), "");
    }

    #[test]
    fn nodes_filter_reverse_paths_and_hosts_do_not() {
        assert!(sysctls("worker1").contains(&"net.ipv4.conf.all.rp_filter=1".to_owned()));
        assert!(sysctls("worker1").contains(&"net.ipv4.ip_forward=1".to_owned()));
        assert!(sysctls("pod1a").contains(&"net.ipv4.conf.all.rp_filter=0".to_owned()));
        assert!(sysctls("outside").contains(&"net.ipv4.ip_forward=0".to_owned()));
    }
}
