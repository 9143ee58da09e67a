//! The Internet checksum (RFC 1071), its incremental update (RFC 1624), and SCTP's CRC32c (RFC 9260 appendix A).
//!
//! A one's-complement sum does not care in which order its words come nor, but for a final swap, in which byte order they
//! are read. [`Sum`] therefore adds native words as they stand in memory and swaps once at the end.
//!
//! *Incremental update.* With `HC` the old checksum, `m` the old word and `m'` the new one, RFC 1624 §3 gives
//! `HC' = ~(~HC + ~m + m')`. [`Delta`] collects `~m + m'` over any number of words, so one delta serves the IPv4 header
//! checksum and the layer-4 checksum alike.

/// A one's-complement sum under construction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

/// Folds to 16 bits with end-around carry.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

impl Sum {
    /// Adds one word, given as a number.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u16) -> Sum {
        Sum(self.0 + word.to_be() as u64)
    }

    /// Adds `bytes` as words. A slice of odd length counts as padded with a zero byte, so only the last one may be odd.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        // Two accumulators of 32-bit halves cannot overflow below 2^32 chunks, and they vectorise.
        let (mut low, mut high) = (0u64, 0u64);
        let (chunks, mut rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            let word = u64::from_ne_bytes(*chunk);
            low += word & 0xffff_ffff;
            high += word >> 32;
        }
        if let Some((four, tail)) = rest.split_first_chunk::<4>() {
            low += u64::from(u32::from_ne_bytes(*four));
            rest = tail;
        }
        if let Some((two, tail)) = rest.split_first_chunk::<2>() {
            high += u64::from(u16::from_ne_bytes(*two));
            rest = tail;
        }
        if let [last] = rest {
            high += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Sum(self.0 + u64::from(fold(low)) + u64::from(fold(high)))
    }

    /// Adds `bytes` and `rest` as if they were one; `bytes` must be of even length.
    #[inline]
    #[must_use]
    pub fn both(self, bytes: &[u8], rest: &[u8]) -> Sum {
        debug_assert!(bytes.len().is_multiple_of(2), "only the last slice may be odd");
        self.bytes(bytes).bytes(rest)
    }

    /// The sum folded to 16 bits, so that [`Sum::finish_with`] is short.
    #[inline(always)]
    #[must_use]
    pub const fn folded(self) -> Sum {
        Sum(fold(self.0) as u64)
    }

    /// The checksum with one word more, of a sum that is [`folded`](Sum::folded).
    #[inline(always)]
    pub const fn finish_with(self, word: u16) -> u16 {
        let sum = self.0 as u32 + word.to_be() as u32;
        // At most 0x1fffe: one end-around carry is all there can be.
        u16::from_be(!(((sum & 0xffff) + (sum >> 16)) as u16))
    }

    /// The checksum: the complement of the sum, as a number.
    #[inline(always)]
    pub const fn finish(self) -> u16 {
        u16::from_be(!fold(self.0))
    }
}

/// The checksum of `bytes`. Over a header whose checksum field is right it is 0.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    Sum::default().bytes(bytes).finish()
}

/// True if the checksum of an IPv4 header without options is right.
#[inline(always)]
pub fn is_right_v4(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    // Folding keeps a number's residue modulo 0xffff, and to divide by a constant is shorter. An IPv4 header's sum is not 0.
    sum.is_multiple_of(0xffff)
}

/// The IPv4 pseudo-header (RFC 793 §3.1, RFC 768); `len` is that of the transport header and data.
#[inline]
pub fn pseudo_v4(src: [u8; 4], dst: [u8; 4], proto: u8, len: u16) -> Sum {
    Sum::default().bytes(&src).bytes(&dst).word(proto.into()).word(len)
}

/// The IPv6 pseudo-header (RFC 8200 §8.1); `len` is that of the transport header and data, without extension headers.
#[inline]
pub fn pseudo_v6(src: &[u8; 16], dst: &[u8; 16], proto: u8, len: u32) -> Sum {
    Sum::default().bytes(src).bytes(dst).word(proto.into()).word((len >> 16) as u16).word(len as u16)
}

/// What a UDP sender writes for a computed checksum: 0 stands for "none", so a computed 0 is sent as its equal (RFC 768).
#[inline(always)]
pub const fn udp_sent(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The change of a sum when words change, see the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// A 16-bit word at an even offset changed.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Delta {
        Delta(self.0 + (!old).to_be() as u64 + new.to_be() as u64)
    }

    /// A 32-bit word at an even offset changed.
    #[inline(always)]
    #[must_use]
    pub const fn word32(self, old: u32, new: u32) -> Delta {
        Delta(self.0 + (!old).to_be() as u64 + new.to_be() as u64)
    }

    /// Bytes at an even offset changed.
    #[inline(always)]
    #[must_use]
    pub fn bytes<const N: usize>(self, old: &[u8; N], new: &[u8; N]) -> Delta {
        const { assert!(N.is_multiple_of(2), "a checksum counts whole words") };
        let mut sum = self.0;
        for (old, new) in old.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
            sum += u64::from(!u16::from_ne_bytes(*old)) + u64::from(u16::from_ne_bytes(*new));
        }
        Delta(sum)
    }

    /// Slices of equal, even length at an even offset changed. A longer slice's surplus is ignored.
    #[inline]
    #[must_use]
    pub fn slices(self, old: &[u8], new: &[u8]) -> Delta {
        let mut sum = self.0;
        for (old, new) in old.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
            sum += u64::from(!u16::from_ne_bytes(*old)) + u64::from(u16::from_ne_bytes(*new));
        }
        Delta(sum)
    }

    /// The new checksum (RFC 1624 §3, equation 3).
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        u16::from_be(!fold(self.0 + (!checksum).to_be() as u64))
    }

    /// The new UDP checksum: "none" stays "none", and a computed 0 is sent as 0xffff (RFC 768).
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 { 0 } else { udp_sent(self.apply(checksum)) }
    }
}

/// The checksum after the 16-bit word `old` became `new` (RFC 1624).
#[inline(always)]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    Delta(0).word(old, new).apply(checksum)
}

/// The checksum after the 32-bit word `old` became `new` (RFC 1624).
#[inline(always)]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    Delta(0).word32(old, new).apply(checksum)
}

/// The CRC32c of `bytes`. SCTP sends it least significant byte first (RFC 9260 appendix A).
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The CRC32c of what `crc` covers followed by `bytes`.
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn a_folded_sum_gives_the_same_checksum() {
        for (sum, word) in [(0, 0), (0xffff, 0xffff), (0xffff, 1), (0x1_2345_6789, 0x8000), (u64::MAX >> 8, 0xfffe)] {
            assert_eq!(Sum(sum).folded().finish_with(word), Sum(sum).word(word).finish(), "{sum:x} {word:x}");
        }
    }

    #[test]
    fn rfc1071_s3_example() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn rfc1624_s4_example() {
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn rfc3720_b4_crc32c_vectors() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        let delta = Delta::default().word32(1, 2);
        assert_eq!(delta.apply_udp(0), 0);
        assert_eq!(Delta::default().word(5, 5).apply_udp(0xffff), 0xffff);
    }

    proptest! {
        #[test]
        fn any_slices_sum_as_word_by_word(a in proptest::collection::vec(any::<u8>(), 0..200), b in proptest::collection::vec(any::<u8>(), 0..99)) {
            let even = &a[..a.len() & !1];
            let all = [even, &b].concat();
            prop_assert_eq!(Sum::default().bytes(even).bytes(&b).finish(), naive(&all));
        }

        #[test]
        fn incremental_update_equals_recomputation(mut bytes in proptest::collection::vec(any::<u8>(), 20..80), at in 0usize..8, new in any::<[u8; 4]>()) {
            // A header with something in it that never changes, as every real one has.
            bytes[19] |= 1;
            let old: [u8; 4] = *bytes[2 * at..].first_chunk().unwrap();
            let before = naive(&bytes);
            bytes[2 * at..2 * at + 4].copy_from_slice(&new);
            let after = naive(&bytes);
            let (o, n) = (u32::from_be_bytes(old), u32::from_be_bytes(new));
            prop_assert_eq!(update32(before, o, n), after);
            prop_assert_eq!(Delta::default().bytes(&old, &new).apply(before), after);
            prop_assert_eq!(Delta::default().slices(&old, &new).apply(before), after);
            let by16 = Delta::default().word((o >> 16) as u16, (n >> 16) as u16).word(o as u16, n as u16);
            prop_assert_eq!(by16.apply(before), after);
        }
    }
}
