//! The Internet checksum: RFC 1071 (the sum), RFC 1624 (its incremental update) and the local checksum offload
//! of the kernel's Documentation/networking/checksum-offloads.rst.
//!
//! A [`Sum`] is a one's-complement sum of big-endian 16-bit words, not yet inverted.

/// A running one's-complement sum of big-endian 16-bit words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u32);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds one 16-bit word. Carries fit for 65,536 words.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u32)
    }

    /// Adds the one's complement of a word: takes it out of the sum again.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, word: u16) -> Self {
        self.word(!word)
    }

    /// Adds an array of bytes; an odd last byte is padded with zero on the right (RFC 1071 section 4.1).
    #[inline(always)]
    #[must_use]
    pub fn bytes<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        let mut i = 0;
        while i + 1 < N {
            self = self.word(u16::from_be_bytes([bytes[i], bytes[i + 1]]));
            i += 2;
        }
        if i < N { self.word(u16::from_be_bytes([bytes[i], 0])) } else { self }
    }

    /// Takes an array of bytes (an even number) out of the sum again.
    #[inline(always)]
    #[must_use]
    pub fn without_bytes<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        let mut i = 0;
        while i + 1 < N {
            self = self.without(u16::from_be_bytes([bytes[i], bytes[i + 1]]));
            i += 2;
        }
        self
    }

    /// The sum of 32-bit words as they lie in memory, as [`Native`] adds them.
    #[inline(always)]
    pub const fn of_native(sum: u64) -> Self {
        Self(u16::from_be(Native(sum).fold()) as u32)
    }

    /// The sum folded to 16 bits, not inverted.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let folded = (self.0 >> 16) + (self.0 & 0xffff);
        ((folded >> 16) + (folded & 0xffff)) as u16
    }

    /// The value of a checksum field: the inverted fold.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// A running one's-complement sum of words as they lie in memory: the order of bytes does not matter until the end, and a
/// wider sum has its carries to fold (RFC 1071 section 2, B and C). Made for the fast path, which swaps no bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Native(u64);

impl Native {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds a word of 16 bits, in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a word of 32 bits, in memory order. Carries fit for 2^32 of them.
    #[inline(always)]
    #[must_use]
    pub const fn wide(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// What the sum changes by when one word becomes another.
    #[inline(always)]
    #[must_use]
    pub const fn moved(self, from: u32, to: u32) -> Self {
        self.wide(!from).wide(to)
    }

    /// Adds another sum.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum folded to 16 bits, not inverted, in memory order.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }

    /// The value of a checksum field, in memory order.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The new value of checksum field `field`, in memory order, after the sum of what it covers changed by this (RFC
    /// 1624, equation 3).
    #[inline(always)]
    pub const fn carried_into(self, field: u16) -> u16 {
        self.word(!field).checksum()
    }
}

/// The new value of checksum field `field` after `old` became `new` (RFC 1624, equation 3).
#[inline(always)]
pub fn update<const N: usize>(field: u16, old: &[u8; N], new: &[u8; N]) -> u16 {
    carry(field, Sum::ZERO.without_bytes(old).bytes(new))
}

/// The new value of checksum field `field` after the sum of what it covers changed by `change` (the same equation).
#[inline(always)]
pub const fn carry(field: u16, change: Sum) -> u16 {
    Sum::ZERO.without(field).word(change.fold()).checksum()
}

/// The pseudo-header of UDP and TCP over IPv4 (RFC 768, RFC 9293): addresses, protocol and L4 length in bytes.
#[inline(always)]
pub fn pseudo_header(source: &[u8; 4], destination: &[u8; 4], protocol: u8, l4_len: u16) -> Sum {
    Sum::ZERO.bytes(source).bytes(destination).word(protocol as u16).word(l4_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1071_section_3_example() {
        let sum = Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn wide_words_in_memory_order_give_the_same_sum() {
        let words = [[0x00, 0x01, 0xf2, 0x03], [0xf4, 0xf5, 0xf6, 0xf7]];
        let sum = words.into_iter().map(|word| u64::from(u32::from_ne_bytes(word))).sum();
        assert_eq!(Sum::of_native(sum).fold(), 0xddf2);
        assert_eq!(Sum::of_native(u64::MAX).fold(), 0xffff);
    }

    #[test]
    fn rfc1624_section_4_example() {
        // "HC = 0xDD2F, m = 0x5555, m' = 0x3285": equation 3 gives 0x0000, equation 2 would give 0xffff.
        assert_eq!(update(0xdd2f, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
    }

    #[test]
    fn native_words_carry_as_big_endian_ones() {
        let (from, to) = ([10, 244, 1, 10], [192, 168, 100, 101]);
        let moved = Native::ZERO.moved(u32::from_ne_bytes(from), u32::from_ne_bytes(to));
        for field in [0_u16, 1, 0x1c46, 0xfffe, 0xffff] {
            assert_eq!(u16::from_be(moved.carried_into(field.to_be())), update(field, &from, &to));
        }
    }

    #[test]
    fn odd_length_is_padded_on_the_right() {
        assert_eq!(Sum::ZERO.bytes(&[0x12, 0x34, 0x56]).fold(), 0x1234 + 0x5600);
    }

    #[test]
    fn update_is_undone_by_its_reverse() {
        let there = update(0x1c46, &[10, 244, 1, 10], &[192, 168, 100, 101]);
        assert_eq!(update(there, &[192, 168, 100, 101], &[10, 244, 1, 10]), 0x1c46);
    }

    #[test]
    fn a_valid_segment_sums_to_the_complement_of_its_pseudo_header() {
        // What local checksum offload rests on: UDP, 4 bytes of payload, checksum filled in.
        let pseudo = pseudo_header(&[10, 0, 0, 1], &[10, 0, 0, 2], 17, 12);
        let mut segment = [0x30, 0x39, 0x00, 0x35, 0x00, 0x0c, 0, 0, 1, 2, 3, 4];
        let check = Sum(pseudo.0).bytes(&segment).checksum();
        segment[6..8].copy_from_slice(&check.to_be_bytes());
        assert_eq!(Sum::ZERO.bytes(&segment).fold(), !pseudo.fold());
    }
}
