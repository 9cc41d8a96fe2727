//! tshark's expert information about what we emit.

use anyhow::{Context, Result, ensure};
use gateway_tests::capture::Frames;

/// Frames with a remark of at least a warning (tshark's `PI_WARN`, 0x600000), outer or inner, checksums validated. Two
/// remarks are not about errors: that a connection is refused (a reset is a warning), and a TCP checksum of 0xffff,
/// which is the kernel's way to write zero (`CSUM_MANGLED_0` in `skb_checksum_help`).
const REMARKS: &str = "_ws.expert.severity >= 6291456 && !tcp.connection.rst && !(tcp.checksum == 0xffff)";

/// The remarks about a wire's frames, but for what was captured while something unsound was sent, which is passed on as
/// it came.
pub(crate) fn remarks(wire: &str, frames: &Frames, unsound: &[(f64, f64)]) -> Result<Vec<String>> {
    ensure!(frames.matching("ip")?.len() > 20, "next to nothing was captured on {wire}");
    let fields = ["frame.time_epoch", "frame.number", "_ws.col.Protocol", "_ws.expert.message"];
    let mut found = Vec::new();
    for row in frames.fields(REMARKS, &fields, &[])? {
        let (time, rest) = row.split_first().context("a row has a time")?;
        let time: f64 = time.parse()?;
        if !unsound.iter().any(|(from, to)| (*from..*to).contains(&time)) {
            found.push(format!("{wire}, frame {}", rest.join(": ")));
        }
    }
    Ok(found)
}
