//! A virtual machine's guest: a namespace that is wired to one launcher pod after another, as KubeVirt's masquerade
//! binding does it. The namespace is one of the lab's and goes with it, and its wire with the namespace.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    Lab,
    plan::{GUEST, GUEST_IP, GUEST_ROUTER, GUEST_ROUTER_MAC, Pod},
    tool,
};

/// The bridge in a launcher pod; KubeVirt names it after the pod's NIC.
const BRIDGE: &str = "k6t-eth0";
/// The end of the guest's cable, which moves from pod to pod.
const TAP: &str = "tap0";

/// The guest of a lab. Nothing is plugged in anywhere at first.
#[derive(Debug)]
pub struct Guest {
    prefix: String,
    /// Name of the namespace that holds the cable.
    at: String,
}

impl Guest {
    /// Gives the namespace `guest` of a lab its NIC; once in a lab's life.
    pub fn new(lab: &Lab) -> Result<Self> {
        let guest = Self { prefix: lab.config().prefix.clone(), at: GUEST.to_owned() };
        let mtu = lab.config().pod_mtu();
        let veth = |a: &str, b: &str| format!("link add {a} mtu {mtu} type veth peer name {b} mtu {mtu}\n");
        // Behind a bridge of its own, so that the NIC is up whatever becomes of the cable: a guest that moves does not
        // notice, and speaks the moment it is there.
        let script = veth("eth0", "nic")
            + &veth("cable", TAP)
            + &format!(
                "link add qemu type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 link set nic master qemu up\nlink set cable master qemu up\nlink set qemu up\nlink set lo up\n\
                 addr add {GUEST_IP}/24 dev eth0\nlink set eth0 up\nroute add default via {GUEST_ROUTER}\n"
            );
        guest.ip(GUEST, &script)?;
        Ok(guest)
    }

    /// Makes a pod a launcher: the bridge and the translation that a guest finds there. A target is made ready so
    /// before its guest arrives.
    pub fn prepare(&self, pod: &str) -> Result<()> {
        known(pod)?;
        let bridge = format!(
            "link add {BRIDGE} address {GUEST_ROUTER_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             addr add {GUEST_ROUTER}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
        );
        self.ip(pod, &bridge)?;
        let netns = self.netns(pod);
        tool::run(tool::in_netns(&netns, "sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"]), "")?;
        tool::run(tool::in_netns(&netns, "nft").args(["-f", "-"]), &ruleset()).map(drop)
    }

    /// Moves the guest, sockets and all, into a pod that is prepared.
    pub fn move_to(&mut self, pod: &str) -> Result<()> {
        known(pod)?;
        let netns = self.netns(pod);
        self.ip(&self.at, &format!("link set {TAP} netns {netns}\n"))?;
        pod.clone_into(&mut self.at);
        self.ip(pod, &format!("link set {TAP} master {BRIDGE} up\n"))
    }

    fn netns(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn ip(&self, namespace: &str, script: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.netns(namespace), "-batch", "-"]);
        tool::run(&mut command, script).map(drop).with_context(|| format!("wiring the guest to {namespace}"))
    }
}

fn known(pod: &str) -> Result<()> {
    ensure!(Pod::named(pod).is_some(), "the lab has no pod {pod:?}");
    Ok(())
}

/// As `pkg/network/setup/netpod/masquerade/masquerade.go` of KubeVirt writes it for a guest without a list of ports.
fn ruleset() -> String {
    format!(
        "table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    iifname \"eth0\" counter jump KUBEVIRT_PREINBOUND
  }}
  chain input {{
    type nat hook input priority 100; policy accept;
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr 127.0.0.1 counter dnat to {GUEST_IP}
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {GUEST_IP} counter masquerade
    oifname \"{BRIDGE}\" counter jump KUBEVIRT_POSTINBOUND
  }}
  chain KUBEVIRT_PREINBOUND {{
    counter dnat to {GUEST_IP}
  }}
  chain KUBEVIRT_POSTINBOUND {{
    ip saddr 127.0.0.1 counter snat to {GUEST_ROUTER}
  }}
}}
"
    )
}
