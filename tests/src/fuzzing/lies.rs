//! Frames that contradict themselves.

use arbitrary::{Result, Unstructured};

/// Offsets of 16-bit fields that lengths, flags and types stand in: of a packet behind Ethernet, and of one in our tunnel.
const WORDS: [usize; 14] = [12, 16, 20, 24, 36, 38, 40, 46, 62, 66, 70, 74, 86, 88];
/// Headers of everything we read lie before this.
const HEADERS: usize = 140;

/// Changes a frame in one to four places, or its length.
///
/// # Errors
/// The bytes are used up.
pub fn tell(u: &mut Unstructured<'_>, frame: &mut Vec<u8>) -> Result<()> {
    for _ in 0..u.int_in_range(1..=4_u8)? {
        if frame.len() < 2 {
            return Ok(());
        }
        let last = frame.len() - 1;
        match u.int_in_range(0..=6_u8)? {
            0 | 1 => frame[u.int_in_range(0..=last.min(HEADERS))?] = u.arbitrary()?,
            2 => frame[u.int_in_range(0..=last.min(HEADERS))?] ^= 1 << u.int_in_range(0..=7_u8)?,
            3 => word(u, frame)?,
            4 => frame.truncate(u.int_in_range(0..=last)?),
            5 => {
                let padded = frame.len() + u.int_in_range(1..=64_usize)?;
                frame.resize(padded, u.arbitrary()?);
            }
            // No outer UDP checksum: what is inside counts.
            _ => without_checksum(frame),
        }
    }
    Ok(())
}

/// A length a little off, or far.
fn word(u: &mut Unstructured<'_>, frame: &mut [u8]) -> Result<()> {
    let at = *u.choose(&WORDS)?;
    let Some([hi, lo]) = frame.get_mut(at..at + 2) else { return Ok(()) };
    let value = u16::from_be_bytes([*hi, *lo]);
    let value = match u.int_in_range(0..=4_u8)? {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value.wrapping_sub(u.int_in_range(2..=60)?),
        3 => *u.choose(&[0, 19, 20, 0x7fff, 0xffff])?,
        _ => u.arbitrary()?,
    };
    [*hi, *lo] = value.to_be_bytes();
    Ok(())
}

fn without_checksum(frame: &mut [u8]) {
    if let Some(checksum) = frame.get_mut(40..42) {
        checksum.fill(0);
    }
}
