//! Traces of UDP packets of one length, one per flow, in a shuffled order.

/// The shortest frame.
pub const FRAME_LEN: usize = 64;

/// Frames of one length, back to back.
pub struct Trace {
    frames: Vec<u8>,
    len: usize,
}

/// Spreads consecutive numbers over 32 bits.
fn mix(i: u32) -> u32 {
    let mut z = i.wrapping_add(0x9e37_79b9);
    z = (z ^ z >> 16).wrapping_mul(0x21f0_aaad);
    z = (z ^ z >> 15).wrapping_mul(0x735a_2d97);
    z ^ z >> 15
}

/// The addresses and ports of flow `i`. The destination's first 16 bits take 1024 values, which are what the megaflows of
/// the cases match; the source lies in 10/8, the destination port is 53.
pub fn tuple(i: u32) -> ([u8; 4], [u8; 4], u16, u16) {
    let src = 0x0a00_0000 | i.wrapping_mul(2_654_435_761) & 0xff_ffff;
    let m = mix(i);
    let dst = (20 + i % 64) << 24 | (i / 64 % 16) << 16 | m & 0xffff;
    (src.to_be_bytes(), dst.to_be_bytes(), 1024 + (m >> 16) as u16 % 60_000, 53)
}

fn frame(i: u32, len: usize) -> Vec<u8> {
    let (src, dst, sport, dport) = tuple(i);
    let mut f = vec![0; len];
    f[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    f[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0]);
    f[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    f[26..30].copy_from_slice(&src);
    f[30..34].copy_from_slice(&dst);
    let sum: u32 = f[14..34].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    f[24..26].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
    f[34..36].copy_from_slice(&sport.to_be_bytes());
    f[36..38].copy_from_slice(&dport.to_be_bytes());
    f[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
    f
}

impl Trace {
    /// A trace of `flows` flows, at least 4096 packets. `wrap` is told each frame of `len` bytes, and its flow's number, and returns what
    /// is received; always the same number of bytes.
    pub fn new(flows: u32, len: usize, wrap: impl Fn(u32, Vec<u8>) -> Vec<u8>) -> Self {
        let mut order: Vec<u32> = (0..flows).collect();
        let mut state = 1u64;
        for i in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(i, (state >> 33) as usize % (i + 1));
        }
        let repeats = (4096 / flows as usize).max(1);
        let frames = (0..repeats).flat_map(|_| order.iter().flat_map(|&i| wrap(i, frame(i, len)))).collect();
        Trace { frames, len: wrap(0, frame(0, len)).len() }
    }

    /// How many frames there are.
    pub fn count(&self) -> usize {
        self.frames.len() / self.len
    }

    /// Frame `i`.
    pub fn frame(&self, i: usize) -> &[u8] {
        &self.frames[i * self.len..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a.
    fn hash(trace: &Trace) -> u64 {
        let step = |h: u64, &byte: &u8| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        trace.frames.iter().fold(0xcbf2_9ce4_8422_2325, step)
    }

    #[test]
    fn the_trace_is_the_one_that_benches_peers_sends_through_other_switches() {
        // SAME_AS_WYE in benches/peers/traffic.py; whoever changes one changes the other.
        assert_eq!(hash(&Trace::new(1000, FRAME_LEN, |_, frame| frame)), 0xb9ec_a573_a498_8dfd);
    }
}
