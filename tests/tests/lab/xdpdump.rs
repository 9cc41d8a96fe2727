//! xdpdump on our programs: an operator sees packets before and after them.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::scene::{EIP1, reaches, scene};

#[test]
#[ignore = "needs a kernel with fentry: `cargo xtask test kernels`"]
fn xdpdump_shows_packets_at_entry_and_exit() -> Result<()> {
    let lab = scene("x1-", 1500)?;
    for (nic, program) in [("enp8s0", "xdp_external"), ("eth0", "xdp_underlay")] {
        let words = ["xdpdump", "-i", nic, "-p", program, "--rx-capture", "entry,exit"];
        let mut job = lab.spawn("gw1", &[&["stdbuf", "-oL"], &words[..]].concat())?;
        job.wait_for("listening on", Duration::from_secs(20))?;
        reaches(&lab, "client", EIP1, 5)?;
        std::thread::sleep(Duration::from_millis(500));
        let output = job.interrupt()?;
        for mark in [format!("{program}()@entry"), format!("{program}()@exit[REDIRECT]")] {
            ensure!(output.matches(&mark).count() >= 5, "{nic}: {mark} is not shown five times:\n{output}");
        }
    }
    Ok(())
}
