//! The BPF programs: one entry point a hook. On the host target this is an empty program, so that the workspace
//! builds everywhere.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod finish;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};
    use gateway_ebpf::datapath::Hook;

    use crate::finish;

    #[xdp(frags)]
    fn xdp_external(ctx: XdpContext) -> u32 {
        finish::xdp(Hook::External, &ctx)
    }

    #[xdp(frags)]
    fn xdp_underlay(ctx: XdpContext) -> u32 {
        finish::xdp(Hook::Underlay, &ctx)
    }

    #[classifier]
    fn tc_external(ctx: TcContext) -> i32 {
        finish::tc(Hook::External, &ctx)
    }

    #[classifier]
    fn tc_underlay(ctx: TcContext) -> i32 {
        finish::tc(Hook::Underlay, &ctx)
    }

    #[classifier]
    fn tc_underlay_egress(ctx: TcContext) -> i32 {
        finish::tc(Hook::UnderlayEgress, &ctx)
    }

    #[classifier]
    fn tc_router_port(ctx: TcContext) -> i32 {
        finish::tc(Hook::RouterPortEgress, &ctx)
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse a reachable loop without end: nothing in the datapath panics.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
