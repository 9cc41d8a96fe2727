//! Sums over the bytes of a frame.

use gateway_common::csum::Sum;

use super::Frame;
use super::zeroed::Zeroed;

/// Bytes summed up at once.
const CHUNK: usize = 64;
/// Chunks at most: jumbo frames and more.
const MAX_CHUNKS: usize = 160;

/// The sum over `len` bytes at offset `at`; `None` when they are more than [`MAX_CHUNKS`] chunks, none, or not there.
#[inline(always)]
pub(super) fn over<F: Frame>(frame: &F, mut at: usize, mut len: usize) -> Option<Sum> {
    let mut sum = 0;
    for _ in 0..MAX_CHUNKS {
        // The last one apart: what it leaves is nothing, which the verifier would not see.
        if len <= CHUNK {
            return Some(Sum::of_native(sum + chunk(frame, at, len)?));
        }
        sum += chunk(frame, at, CHUNK)?;
        at += CHUNK;
        len -= CHUNK;
    }
    None
}

/// The sum of the 32-bit words of `len` bytes at offset `at`, a chunk at most, the last one padded with zeros.
#[inline(always)]
pub(super) fn chunk<F: Frame>(frame: &F, at: usize, len: usize) -> Option<u64> {
    let mut bytes = Zeroed::<CHUNK>::new();
    frame.copy(at, len, &mut bytes.0)?;
    let words = bytes.0.as_chunks::<4>().0;
    Some(words.iter().fold(0, |sum, word| sum + u64::from(u32::from_ne_bytes(*word))))
}
