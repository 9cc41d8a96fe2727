//! Memory that starts as zeros.

use core::hint::black_box;

/// `N` bytes, a multiple of eight, that are zero. Aligned, so that BPF moves them by words.
#[repr(align(8))]
pub(super) struct Zeroed<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Zeroed<N> {
    /// Zeros, word by word. A constant would be written by a call of `memset`: a loop over bytes, and one more frame on
    /// the stack, of which Linux 6.1 counts 32 bytes at least for every frame.
    #[inline(always)]
    pub(super) fn new() -> Self {
        const { assert!(N.is_multiple_of(8)) };
        let zero = black_box(0_u64).to_ne_bytes();
        let mut zeroed = Self([0; N]);
        for word in zeroed.0.as_chunks_mut::<8>().0 {
            *word = zero;
        }
        zeroed
    }
}
