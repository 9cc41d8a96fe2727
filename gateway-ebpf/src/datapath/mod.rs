//! One datapath: a frame and the tables in, an [`Outcome`] out.

mod arp;
mod arrival;
mod egress;
mod external;
mod fast;
mod fragment;
mod frame;
mod geneve;
mod icmp;
mod inside;
mod martian;
mod nat;
mod offload;
mod options;
mod packet;
mod pmtu;
mod quote;
mod sum;
mod tunnel_port;
mod underlay;
mod zeroed;

use gateway_common::ABI_VERSION;
use gateway_common::limit::Limited;
use gateway_common::tables::{
    CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_PIECES_TO_UNDERLAY, CONFIG_XDP_TO_EXTERNAL,
    CONFIG_XDP_TO_UNDERLAY, Config,
};
use gateway_common::verdict::Verdict;

pub use frame::{Direction, Env, Frame, L4Change, Room, Way};

/// Where a frame is seen. Each is one function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// Arriving on the external NIC: ARP, echo, packets to EIPs.
    External,
    /// Arriving on the underlay NIC: Geneve from workers and gateways.
    Underlay,
    /// Leaving by the underlay NIC: packets of EIP pods on this node.
    UnderlayEgress,
    /// Leaving by the router port: packets of EIP pods on the gateway itself.
    RouterPortEgress,
}

/// What the engine is to do with the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Action {
    /// Give it to the kernel, at this very place. Not 0: an [`Exit`] of nothing but zeros is written by a call of `memset`, 10 ns
    /// for each frame that passes.
    Pass = 1,
    /// Drop it.
    Drop,
    /// Send it out by the interface it is on.
    Reflect,
    /// Send it out by `ifindex`; its Ethernet header is complete.
    Redirect,
    /// Send it out by `ifindex`; the kernel resolves `next_hop` and writes the Ethernet header (TC only).
    RedirectNeighbor,
    /// Give it to the kernel as if it had arrived on `ifindex` (TC only).
    Inject,
}

/// An action and its arguments. A flat struct, always written as a whole: an enum with data leaves bytes undefined,
/// and a compiler may fill those from a pointer's register, which the verifier refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// What to do.
    pub action: Action,
    /// The interface, 0 where none is meant.
    pub ifindex: u32,
    /// Next hop, network-order bytes; 0.0.0.0: by the kernel's route to the packet's destination.
    pub next_hop: [u8; 4],
}

impl Exit {
    /// [`Action::Pass`].
    pub const PASS: Self = Self::of(Action::Pass, 0);
    /// [`Action::Drop`].
    pub const DROP: Self = Self::of(Action::Drop, 0);
    /// [`Action::Reflect`].
    pub const REFLECT: Self = Self::of(Action::Reflect, 0);

    #[inline(always)]
    const fn of(action: Action, ifindex: u32) -> Self {
        Self { action, ifindex, next_hop: [0; 4] }
    }
}

/// The end of a packet's way: its name, and what the engine is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The named reason, counted.
    pub verdict: Verdict,
    /// What to do.
    pub exit: Exit,
}

impl Outcome {
    #[inline(always)]
    const fn new(verdict: Verdict, exit: Exit) -> Self {
        Self { verdict, exit }
    }

    #[inline(always)]
    const fn pass(verdict: Verdict) -> Self {
        Self { verdict, exit: Exit::PASS }
    }

    #[inline(always)]
    const fn drop(verdict: Verdict) -> Self {
        Self { verdict, exit: Exit::DROP }
    }
}

/// A step that either goes on with a value or has found the packet's end.
type Step<T> = Result<T, Outcome>;

/// Runs a frame through a hook and counts the verdict. Bytes and packets are those of the frame as it came.
#[inline(always)]
pub fn run<F: Frame, E: Env>(hook: Hook, frame: &mut F, env: &E) -> Outcome {
    if let Some(config) = config(env)
        && let Some(outcome) = fast::run(hook, frame, env, config)
    {
        return outcome;
    }
    let (packets, bytes) = (frame.segments(), frame.frame_len());
    let outcome = decide(hook, frame, env).unwrap_or_else(|end| end);
    env.count_verdict(outcome.verdict, packets, bytes);
    outcome
}

#[inline(always)]
fn decide<F: Frame, E: Env>(hook: Hook, frame: &mut F, env: &E) -> Step<Outcome> {
    let Some(config) = config(env) else { return Err(Outcome::pass(Verdict::PassDisabled)) };
    match hook {
        Hook::External => external::run(frame, env, config),
        Hook::Underlay => underlay::run(frame, env, config),
        Hook::UnderlayEgress => egress::underlay(frame, env, config),
        Hook::RouterPortEgress => egress::router_port(frame, env, config),
    }
}

/// The configuration, if an agent of this version has written one.
#[inline(always)]
fn config<E: Env>(env: &E) -> Option<&Config> {
    env.config().filter(|config| config.abi == ABI_VERSION)
}

/// A NIC to send by: the flags of [`Config`] that say what it takes from XDP.
#[derive(Clone, Copy)]
struct Nic {
    /// Frames of one buffer.
    whole: u32,
    /// Frames of several.
    pieces: u32,
}

impl Nic {
    const EXTERNAL: Self = Self { whole: CONFIG_XDP_TO_EXTERNAL, pieces: CONFIG_XDP_PIECES_TO_EXTERNAL };
    const UNDERLAY: Self = Self { whole: CONFIG_XDP_TO_UNDERLAY, pieces: CONFIG_XDP_PIECES_TO_UNDERLAY };
}

/// Refuses to go on where XDP cannot send the frame by a NIC: the TC twin can. Called before anything is changed.
#[inline(always)]
fn can_send<F: Frame>(frame: &F, config: &Config, nic: Nic) -> Step<()> {
    let both = nic.whole | nic.pieces;
    if F::KERNEL_RESOLVES || config.flags & both == both {
        return Ok(());
    }
    if config.flags & nic.whole != 0 && !frame.in_pieces() {
        Ok(())
    } else {
        Err(Outcome::pass(Verdict::PassToTwin))
    }
}

/// Leaves a next hop on `ifindex` to the kernel; 0.0.0.0: by its route to the packet's destination. XDP leaves it the whole frame.
/// Anybody can name hosts that nobody knows, so it is done so often in a second.
#[inline(always)]
fn resolve<F: Frame, E: Env>(env: &E, config: &Config, ifindex: u32, next_hop: [u8; 4]) -> Step<Exit> {
    let kind = Limited::NextHops;
    if !F::KERNEL_RESOLVES {
        Err(Outcome::pass(Verdict::PassUnresolved))
    } else if env.take(kind, kind.per_second(config), 1) {
        Ok(Exit { action: Action::RedirectNeighbor, ifindex, next_hop })
    } else {
        Err(Outcome::drop(Verdict::DropSlowPathLimit))
    }
}

/// Whether `addr` lies in the external subnet.
#[inline(always)]
fn on_external_link(config: &Config, addr: [u8; 4]) -> bool {
    let mask = u32::from_ne_bytes(config.external_netmask);
    u32::from_ne_bytes(addr) & mask == u32::from_ne_bytes(config.external_network)
}
