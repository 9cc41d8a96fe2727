//! Captures on both networks, read by tshark with checksum validation.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::{Job, Lab};

/// Frames of one wire kept at most; a transfer of 1 GiB is longer, its end is not looked at.
const FRAMES: &str = "60000";

/// A running capture of one interface.
pub(crate) struct Capture {
    job: Job,
    file: PathBuf,
}

impl Capture {
    /// Captures whole frames in `namespace` on `interface`.
    pub(crate) fn start(lab: &Lab, namespace: &str, interface: &str) -> Result<Self> {
        let file = std::env::temp_dir().join(format!(
            "eip-gateway-{}-{}-{interface}.pcap",
            std::process::id(),
            lab.netns(namespace)?
        ));
        let path = file.to_str().context("a UTF-8 path")?;
        let words = [
            "tcpdump",
            "--immediate-mode",
            "-ni",
            interface,
            "-s0",
            "-B",
            "32768",
            "-c",
            FRAMES,
            "-U",
            "-Z",
            "root",
            "-w",
            path,
        ];
        let mut job = lab.spawn(namespace, &words)?;
        job.wait_for("listening on", Duration::from_secs(5))?;
        Ok(Self { job, file })
    }

    /// Ends the capture.
    pub(crate) fn stop(mut self) -> Result<Frames> {
        // What is on its way is still to be written.
        std::thread::sleep(Duration::from_millis(200));
        let _output = self.job.interrupt()?;
        Ok(Frames { file: self.file })
    }
}

/// A finished capture, deleted on drop.
pub(crate) struct Frames {
    file: PathBuf,
}

impl Drop for Frames {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.file);
    }
}

impl Frames {
    /// Summaries of the frames that match a display filter.
    pub(crate) fn matching(&self, filter: &str) -> Result<Vec<String>> {
        let output = std::process::Command::new("tshark")
            .args(["-n", "-r"])
            .arg(&self.file)
            .args(VALIDATE)
            .args(["-Y", filter])
            .output()
            .context("tshark is missing: run `cargo xtask setup`")?;
        ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect())
    }

    /// At least one frame was seen, none malformed and none with a wrong checksum.
    pub(crate) fn are_well_formed(&self, wire: &str) -> Result<()> {
        ensure!(!self.matching("frame.number == 1")?.is_empty(), "nothing was captured on {wire}");
        let bad = self.matching(BAD)?;
        ensure!(
            bad.is_empty(),
            "{} bad frames on {wire}, the first: {}",
            bad.len(),
            bad.first().map_or("", |l| l)
        );
        Ok(())
    }
}

/// Checksums are looked at only on request.
const VALIDATE: [&str; 8] = [
    "-o",
    "ip.check_checksum:TRUE",
    "-o",
    "tcp.check_checksum:TRUE",
    "-o",
    "udp.check_checksum:TRUE",
    "-o",
    "tcp.desegment_tcp_streams:FALSE",
];

/// Malformed, or a checksum that is there and wrong (status 0), outer or inner. A TCP checksum of 0xffff is the kernel's
/// way to write zero (`CSUM_MANGLED_0` in `skb_checksum_help`): the same sum, though tshark would rather see zero.
const BAD: &str = "_ws.malformed || ip.checksum.status == 0 || (tcp.checksum.status == 0 && !(tcp.checksum == 0xffff)) || udp.checksum.status == 0 \
                   || icmp.checksum.status == 0";
