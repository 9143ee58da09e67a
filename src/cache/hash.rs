//! Keyed hashing of key lines, from registers.
//!
//! Four folded 64×64→128-bit multiplications over a line, each operand blinded by a secret (the construction of foldhash
//! and wyhash). The secrets are per engine, so that a sender who knows the code cannot aim packets at one bucket.

use crate::flow::Line;

/// The secrets of one engine.
#[derive(Clone, Debug)]
pub struct LineHasher {
    keys: [u64; 9],
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl LineHasher {
    /// A hasher whose secrets derive from `seed` (by splitmix64, so that every seed gives nine unlike ones).
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let keys = core::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        });
        LineHasher { keys }
    }

    /// The hash of `line & mask`.
    #[inline(always)]
    pub fn line(&self, line: &Line, mask: &Line) -> u64 {
        let k = &self.keys;
        let w = |i: usize| line[i] & mask[i] ^ k[i];
        let a = fold(w(0), w(1)) ^ fold(w(2), w(3)).rotate_left(17);
        let b = fold(w(4), w(5)) ^ fold(w(6), w(7)).rotate_left(31);
        fold(a ^ k[8], b ^ a.rotate_left(32) | 1)
    }

    /// What [`join`](Self::join) takes for `line & mask` of a tunnel line (see [`TunnelLine`](crate::flow::key::TunnelLine)): two multiplications
    /// suffice where its IPv6 addresses do not count, as between IPv4 hosts.
    #[inline(always)]
    pub fn tunnel(&self, line: &Line, mask: &Line) -> u64 {
        let k = &self.keys;
        let w = |i: usize| line[i] & mask[i] ^ k[i];
        let hash = fold(w(0), w(1)) ^ fold(w(6), w(7)).rotate_left(17);
        if (2..6).fold(0, |any, i| any | line[i] & mask[i]) == 0 {
            return hash;
        }
        hash ^ fold(fold(w(2), w(3)) ^ k[8], fold(w(4), w(5)) | 1)
    }

    /// Mixes a further line into `hash`.
    #[inline(always)]
    pub fn further(&self, hash: u64, line: &Line, mask: &Line) -> u64 {
        self.join(hash, self.line(line, mask))
    }

    /// As [`further`](Self::further), of a line whose own hash is at hand.
    #[inline(always)]
    pub fn join(&self, hash: u64, line: u64) -> u64 {
        fold(hash ^ self.keys[0], line | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_bits_do_not_count_and_others_do() {
        let hasher = LineHasher::new(1);
        let mut mask = [u64::MAX; 8];
        mask[4] = 0xffff;
        let line = [3; 8];
        let base = hasher.line(&line, &mask);
        for bit in 0..512 {
            let mut other = line;
            other[bit / 64] ^= 1 << (bit % 64);
            let same = hasher.line(&other, &mask) == base;
            assert_eq!(same, mask[bit / 64] >> (bit % 64) & 1 == 0, "bit {bit}");
        }
    }

    #[test]
    fn tunnel_line_is_told_by_each_bit_that_counts() {
        let hasher = LineHasher::new(1);
        for line in [[3; 8], [3, 3, 0, 0, 0, 0, 3, 3]] {
            let mut mask = [u64::MAX; 8];
            (mask[1], mask[3]) = (0xffff, 0xffff_0000);
            let first = hasher.tunnel(&line, &mask);
            for bit in 0..512 {
                let mut other = line;
                other[bit / 64] ^= 1 << (bit % 64);
                let same = hasher.tunnel(&other, &mask) == first;
                assert_eq!(same, mask[bit / 64] >> (bit % 64) & 1 == 0, "bit {bit}");
            }
        }
    }

    #[test]
    fn consecutive_keys_spread_over_low_and_high_bits() {
        let hasher = LineHasher::new(42);
        let (mut low, mut high) = (std::collections::HashSet::new(), std::collections::HashSet::new());
        for i in 0..4096u64 {
            let h = hasher.line(&[1, 2, 3, 4, i, 6, 7, 8], &[u64::MAX; 8]);
            low.insert(h & 0xffff);
            high.insert(h >> 48);
        }
        // 4096 draws from 65,536 leave about 3971 distinct values.
        assert!(low.len() > 3850 && high.len() > 3850, "{} {}", low.len(), high.len());
    }
}
