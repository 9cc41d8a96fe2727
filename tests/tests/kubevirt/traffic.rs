//! TCP connections of a guest live through its migration: one from outside to its EIP, one from it to the outside.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::{Guest, Lab};
use gateway_tests::cluster::Scene;
use gateway_tests::scene::{CLIENT, EIP1, verdict};

use super::replay::served_by;
use super::steps::{DONE, MIG1, MIG2, MIG3, MIG4, MIG5, Move, RUN, Step, take};
use super::talk::Talk;
use super::vm::{A, B, C, Launcher, Vm};

/// How early or late a switch is told.
const HALF: Duration = Duration::from_millis(500);
/// In A's place on the other worker, with A's address.
pub(crate) const KEPT: Launcher = Launcher { suffix: "ddddd", place: "pod2a", ip: Some("10.244.1.11") };

/// When the switch is told, as against when the guest moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// At once.
    OnTime,
    /// Half a second before.
    Early,
    /// Half a second after.
    Late,
}

/// A VM and its guest.
struct Stage {
    guest: Guest,
    vm: Vm,
    scene: Scene,
}

impl Stage {
    /// The guest runs in A; the other places are ready for it.
    fn new(prefix: &str, places: &[Launcher]) -> Result<Self> {
        let scene = Scene::new(prefix)?;
        scene.cluster.install_kubevirt()?;
        let vm = Vm::create(&scene.cluster, "web", Some(EIP1))?;
        let mut guest = Guest::new(&scene.lab)?;
        for launcher in places {
            keep_address(&scene.lab, *launcher)?;
            guest.prepare(launcher.place)?;
        }
        guest.prepare(A.place)?;
        guest.move_to(A.place)?;
        let stage = Self { guest, vm, scene };
        stage.steps(&[RUN], A, A)?;
        served_by(&stage.scene, EIP1, Some(A))?;
        Ok(stage)
    }

    fn steps(&self, steps: &[Step], from: Launcher, to: Launcher) -> Result<()> {
        take(&Move { cluster: &self.scene.cluster, vm: &self.vm, from, to }, steps)
    }

    /// A whole migration, in which two connections go on: all lines arrive, in order, and nothing is reset. The
    /// longest pause of either.
    fn migrate(&mut self, from: Launcher, to: Launcher, told: Told) -> Result<Duration> {
        let lab = &self.scene.lab;
        let mut resets = lab.spawn("client", &["tcpdump", "-nlqi", "any", "tcp[tcpflags] & tcp-rst != 0"])?;
        resets.wait_for("listening on", Duration::from_secs(3))?;
        let talks = [
            Talk::open(lab, "in", "client", "guest", EIP1)?,
            Talk::open(lab, "out", "guest", "client", CLIENT)?,
        ];
        let peer = talks[1].peer.ip().to_string();
        ensure!(peer == EIP1, "the client sees {peer}");
        let go_on = || talks.iter().try_for_each(Talk::goes_on);
        self.steps(&[MIG1, MIG2, MIG3], from, to)?;
        go_on()?;
        match told {
            Told::OnTime => self.guest.move_to(to.place).and_then(|()| self.steps(&[MIG4], from, to))?,
            Told::Early => {
                self.steps(&[MIG4], from, to)?;
                sleep(HALF);
                self.guest.move_to(to.place)?;
            }
            Told::Late => {
                let dropped = || verdict(&self.scene.lab, "gw1", "drop_spoofed_source");
                let before = dropped()?;
                self.guest.move_to(to.place)?;
                sleep(HALF);
                ensure!(dropped()? > before, "what the guest says in vain gets as far as the gateway");
                self.steps(&[MIG4], from, to)?;
            }
        }
        let reset = |when| format!("{when}; resets: {}", resets.stdout());
        go_on().with_context(|| reset("the guest has moved"))?;
        served_by(&self.scene, EIP1, Some(to))?;
        self.steps(&[MIG5, DONE], from, to)?;
        go_on().with_context(|| reset("the source has ended"))?;
        let pauses: Result<Vec<_>> = talks.into_iter().map(Talk::end).collect();
        let (pauses, resets) = (pauses?, resets.interrupt()?);
        ensure!(resets.trim().is_empty(), "{resets}");
        println!("{} to {}, {told:?}: pauses {pauses:?}", from.place, to.place);
        Ok(pauses.into_iter().max().unwrap_or_default())
    }
}

/// What a CNI that keeps a VM's address does: it is the target's too, and the target's node delivers to it.
pub(crate) fn keep_address(lab: &Lab, target: Launcher) -> Result<()> {
    let (Some(ip), gateway) = (target.ip, "10.244.2.1") else { return Ok(()) };
    let script = format!(
        "ip addr flush dev eth0; ip addr add {ip}/32 dev eth0; ip route add {gateway} dev eth0; \
         ip route add default via {gateway}"
    );
    lab.read(target.place, &["sh", "-ec", &script])?;
    lab.read(target.node()?, &["ip", "route", "add", &format!("{ip}/32"), "dev", "cni0"]).map(drop)
}

/// What nearly every cluster has and the lab has not: nodes reach the outside by themselves, and it them.
fn own_way_out(lab: &Lab) -> Result<()> {
    let switch = lab.netns("switch")?;
    let router = format!(
        "ip link add eth1 type veth peer name router netns {switch}; ip addr add 192.168.100.2/24 dev eth1; \
         ip link set eth1 up; sysctl -qw net.ipv4.ip_forward=1"
    );
    lab.read("apiserver", &["sh", "-ec", &router])?;
    lab.read("switch", &["ip", "link", "set", "router", "master", "ext", "up"])?;
    lab.read("client", &["ip", "route", "add", "172.18.0.0/24", "via", "192.168.100.2"])?;
    for node in ["worker1", "worker2"] {
        lab.read(node, &["ip", "route", "add", "default", "via", "172.18.0.10"])?;
        lab.read(node, &["ping", "-c1", "-W2", CLIENT])?;
    }
    Ok(())
}

#[test]
fn connections_live_through_migrations() -> Result<()> {
    let mut stage = Stage::new("v5-", &[B, KEPT, C])?;
    stage.migrate(A, B, Told::OnTime)?;
    own_way_out(&stage.scene.lab)?;
    stage.migrate(B, A, Told::Late)?;
    // With equal addresses.
    stage.migrate(A, KEPT, Told::OnTime)?;
    stage.migrate(KEPT, A, Told::Early)?;
    stage.migrate(A, KEPT, Told::Late)?;
    // And to the gateway.
    stage.migrate(KEPT, C, Told::Early)?;
    stage.migrate(C, B, Told::OnTime).map(drop)
}
