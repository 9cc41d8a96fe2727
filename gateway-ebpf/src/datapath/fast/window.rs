//! The first bytes of a frame, read and written by words.
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "loads and stores words at addresses of any alignment")
)]

/// `N` bytes of a frame, to be read. Words are in memory order, which for a wire format is network order.
///
/// BPF has loads and stores of words for any address, but the compiler, which sees bytes, takes those one by one: hence
/// instructions by name.
#[derive(Clone, Copy)]
pub(super) struct View<'a, const N: usize>(pub(super) &'a [u8; N]);

/// The same, to be written.
pub(super) struct Window<'a, const N: usize>(pub(super) &'a mut [u8; N]);

impl<'a, const N: usize> View<'a, N> {
    /// The last `M` bytes.
    #[inline(always)]
    pub(super) fn tail<const M: usize>(self) -> View<'a, M> {
        const { assert!(M <= N) };
        match self.0.last_chunk::<M>() {
            Some(tail) => View(tail),
            // Refused above.
            None => unreachable!(),
        }
    }

    /// The word of 16 bits at `AT`.
    #[inline(always)]
    pub(super) fn word<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N) };
        #[cfg(not(target_arch = "bpf"))]
        return u16::from_ne_bytes([self.0[AT], self.0[AT + 1]]);
        #[cfg(target_arch = "bpf")]
        {
            let word: u64;
            // SAFETY: the assertion above.
            unsafe {
                core::arch::asm!("{word} = *(u16 *)({bytes} + {at})", word = lateout(reg) word,
                    bytes = in(reg) self.0.as_ptr(), at = const AT, options(pure, readonly, nostack, preserves_flags));
            }
            word as u16
        }
    }

    /// The word of 32 bits at `AT`.
    #[inline(always)]
    pub(super) fn wide<const AT: usize>(self) -> u32 {
        const { assert!(AT + 4 <= N) };
        #[cfg(not(target_arch = "bpf"))]
        return u32::from_ne_bytes([self.0[AT], self.0[AT + 1], self.0[AT + 2], self.0[AT + 3]]);
        #[cfg(target_arch = "bpf")]
        {
            let word: u64;
            // SAFETY: the assertion above.
            unsafe {
                core::arch::asm!("{word} = *(u32 *)({bytes} + {at})", word = lateout(reg) word,
                    bytes = in(reg) self.0.as_ptr(), at = const AT, options(pure, readonly, nostack, preserves_flags));
            }
            word as u32
        }
    }
}

impl<const N: usize> Window<'_, N> {
    /// To read what is written.
    #[inline(always)]
    pub(super) fn view(&self) -> View<'_, N> {
        View(self.0)
    }

    /// The last `M` bytes.
    #[inline(always)]
    pub(super) fn tail<const M: usize>(&mut self) -> Window<'_, M> {
        const { assert!(M <= N) };
        match self.0.last_chunk_mut::<M>() {
            Some(tail) => Window(tail),
            // Refused above.
            None => unreachable!(),
        }
    }

    /// Writes the word of 16 bits at `AT`.
    #[inline(always)]
    pub(super) fn set_word<const AT: usize>(&mut self, word: u16) {
        const { assert!(AT + 2 <= N) };
        #[cfg(not(target_arch = "bpf"))]
        self.0[AT..AT + 2].copy_from_slice(&word.to_ne_bytes());
        #[cfg(target_arch = "bpf")]
        // SAFETY: the assertion above.
        unsafe {
            core::arch::asm!("*(u16 *)({bytes} + {at}) = {word}", word = in(reg) u64::from(word),
                bytes = in(reg) self.0.as_mut_ptr(), at = const AT, options(nostack, preserves_flags));
        }
    }

    /// Writes the word of 32 bits at `AT`.
    #[inline(always)]
    pub(super) fn set_wide<const AT: usize>(&mut self, word: u32) {
        const { assert!(AT + 4 <= N) };
        #[cfg(not(target_arch = "bpf"))]
        self.0[AT..AT + 4].copy_from_slice(&word.to_ne_bytes());
        #[cfg(target_arch = "bpf")]
        // SAFETY: the assertion above.
        unsafe {
            core::arch::asm!("*(u32 *)({bytes} + {at}) = {word}", word = in(reg) u64::from(word),
                bytes = in(reg) self.0.as_mut_ptr(), at = const AT, options(nostack, preserves_flags));
        }
    }
}
