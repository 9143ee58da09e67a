//! Sequence numbers of tunnels whose headers have them: GRE, ERSPAN, GTP-U.

use crate::sync::primitive::{AtomicU32, Ordering};
use crate::time::Nanos;

/// The sequence numbers of a tunnel.
///
/// *Thread-safety.* Atomic: shared by all workers. Each number is given out once, but packets of two workers may leave in another order.
#[derive(Debug)]
// A line of its own, so that workers of different tunnels do not wait for one another.
#[repr(align(64))]
pub struct Sequence(AtomicU32);

impl Default for Sequence {
    fn default() -> Self {
        Sequence::starting(0)
    }
}

impl Sequence {
    /// Numbers from `first` on.
    pub fn starting(first: u32) -> Sequence {
        Sequence(AtomicU32::new(first))
    }

    /// The next number: 0 at first (RFC 2890 §2.2), and again behind the largest.
    #[inline]
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// How many sequences [`Sequences`] has.
const SEQUENCES: usize = 64;

/// The sequence numbers of all tunnels of a datapath, by the number of the port that they go out of: what matters to a receiver is that the
/// numbers of one tunnel grow, whichever flows its packets are of. Tunnels whose port numbers are equal modulo 64 share a sequence, so that
/// their receivers see gaps, as if packets had been lost.
///
/// *Thread-safety.* As [`Sequence`].
#[derive(Debug)]
pub struct Sequences([Sequence; SEQUENCES]);

impl Default for Sequences {
    fn default() -> Self {
        Sequences(core::array::from_fn(|_| Sequence::default()))
    }
}

impl Sequences {
    /// The sequence of the tunnel that goes out of `port`.
    #[inline(always)]
    pub fn of(&self, port: u32) -> &Sequence {
        &self.0[port as usize % SEQUENCES]
    }
}

/// What goes into a packet's headers that neither the template nor the packet knows.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'s> {
    /// The tunnel's sequence numbers.
    pub sequence: &'s Sequence,
    /// The time, for headers that say when a packet was sent.
    pub now: Nanos,
}
