//! Runs the datapath on a kernel context and turns its outcome into the kernel's return code: the one total match
//! per engine.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::programs::{TcContext, XdpContext};
use gateway_ebpf::datapath::{self, Action, Hook};

use crate::maps::Tables;
use crate::skb::SkbFrame;
use crate::xdp::{self, XdpFrame};

/// Runs an XDP program.
#[inline(always)]
pub(crate) fn xdp(hook: Hook, ctx: &XdpContext) -> u32 {
    let exit = datapath::run(hook, &mut XdpFrame::new(ctx), &Tables).exit;
    match exit.action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        // Not XDP_TX: a veth wakes its peer for a redirected frame when the peer has GRO or XDP, for a transmitted one
        // only when it has XDP. Elsewhere the two are alike, and rare.
        Action::Reflect => xdp::redirect(xdp::arrived_on(ctx)),
        Action::Redirect => xdp::redirect(exit.ifindex),
        // Never asked of an engine that cannot (`Frame::KERNEL_RESOLVES`); visible as an XDP exception if it were.
        Action::RedirectNeighbor | Action::Inject => xdp_action::XDP_ABORTED,
    }
}

/// Runs a TC classifier in direct-action mode. `Pass` lets the next program at the hook decide.
#[inline(always)]
pub(crate) fn tc(hook: Hook, ctx: &TcContext) -> i32 {
    let mut frame = SkbFrame::new(ctx);
    let exit = datapath::run(hook, &mut frame, &Tables).exit;
    match exit.action {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT as i32,
        Action::Reflect => frame.reflect(),
        Action::Redirect => frame.redirect(exit.ifindex),
        Action::RedirectNeighbor => frame.redirect_neighbor(exit.ifindex, exit.next_hop),
        Action::Inject => frame.inject(exit.ifindex),
    }
}
