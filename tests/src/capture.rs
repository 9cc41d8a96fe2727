//! Captures on both networks, read by tshark with checksum validation.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::{Job, Lab};

/// Frames of one wire kept at most; a transfer of 1 GiB is longer, its end is not looked at.
const FRAMES: &str = "60000";

/// Captures this process has started; their files are told apart by it.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running capture of one interface.
pub struct Capture {
    job: Job,
    file: PathBuf,
}

impl Capture {
    /// Captures whole frames in `namespace` on `interface`.
    pub fn start(lab: &Lab, namespace: &str, interface: &str) -> Result<Self> {
        Self::of(lab, namespace, interface, "inout")
    }

    /// Captures what arrives on `interface`, and nothing that is sent there.
    pub fn arriving(lab: &Lab, namespace: &str, interface: &str) -> Result<Self> {
        Self::of(lab, namespace, interface, "in")
    }

    fn of(lab: &Lab, namespace: &str, interface: &str, direction: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name =
            format!("eip-gateway-{}-{}-{interface}-{number}.pcap", std::process::id(), lab.netns(namespace)?);
        let file = std::env::temp_dir().join(name);
        let path = file.to_str().context("a UTF-8 path")?;
        let words = [
            "tcpdump",
            "--immediate-mode",
            "-ni",
            interface,
            "-Q",
            direction,
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
        job.wait_for("listening on", Duration::from_secs(20))?;
        Ok(Self { job, file })
    }

    /// Ends the capture.
    pub fn stop(mut self) -> Result<Frames> {
        // What is on its way is still to be written.
        std::thread::sleep(Duration::from_millis(200));
        let _output = self.job.interrupt()?;
        Ok(Frames { file: self.file })
    }
}

/// A finished capture, deleted on drop.
pub struct Frames {
    file: PathBuf,
}

impl Drop for Frames {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.file);
    }
}

impl Frames {
    /// Summaries of the frames that match a display filter.
    pub fn matching(&self, filter: &str) -> Result<Vec<String>> {
        self.tshark(&["-Y", filter])
    }

    /// The given fields of the frames that match a display filter, as tshark's dissectors read them; a field that a frame
    /// has several times (in a quote, say) is all its values with commas. `options` are tshark's own.
    pub fn fields(&self, filter: &str, fields: &[&str], options: &[&str]) -> Result<Vec<Vec<String>>> {
        let wanted = fields.iter().flat_map(|field| ["-e", *field]);
        let words: Vec<_> = ["-Y", filter, "-T", "fields"].into_iter().chain(wanted).collect();
        let lines = self.tshark(&[&words, options].concat())?;
        Ok(lines.iter().map(|line| line.split('\t').map(ToOwned::to_owned).collect()).collect())
    }

    fn tshark(&self, words: &[&str]) -> Result<Vec<String>> {
        let output = std::process::Command::new("tshark")
            .args(["-n", "-r"])
            .arg(&self.file)
            .args(VALIDATE)
            .args(words)
            .output()
            .context("tshark is missing: run `cargo xtask setup`")?;
        ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect())
    }

    /// At least one frame was seen, none malformed and none with a wrong checksum.
    pub fn are_well_formed(&self, wire: &str) -> Result<()> {
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
