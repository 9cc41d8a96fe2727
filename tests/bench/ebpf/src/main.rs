//! The twin of `../../c/plain.c`: the same paths in and out, step by step, in Rust. What differs in time is the language.
//! On the host target this is an empty program, so that the workspace builds everywhere.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod paths;
#[cfg(target_arch = "bpf")]
mod tables;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;

    use crate::paths::{inbound, outbound};
    use crate::tables::{hashed_eip, hashed_pod, indexed_eip, indexed_pod};

    #[xdp(frags)]
    fn in_hash(ctx: XdpContext) -> u32 {
        inbound(&ctx, hashed_eip)
    }

    #[xdp(frags)]
    fn in_array(ctx: XdpContext) -> u32 {
        inbound(&ctx, indexed_eip)
    }

    #[xdp(frags)]
    fn out_hash(ctx: XdpContext) -> u32 {
        outbound(&ctx, hashed_pod)
    }

    #[xdp(frags)]
    fn out_array(ctx: XdpContext) -> u32 {
        outbound(&ctx, indexed_pod)
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse a reachable loop without end: nothing here panics.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
