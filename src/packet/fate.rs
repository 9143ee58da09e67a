//! What becomes of a packet: exactly one [`Fate`], and for a drop exactly one [`DropReason`].

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why a packet was dropped. Numbers are stable across versions (they cross the C ABI); names are counters' names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* $variant = $number,)* }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),*];

            /// The counter's name: lower case, words joined by `_`.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header, or longer than its buffer allows.
    RxInvalid = 0, "rx_invalid";
    /// The flow's action list is empty, or it ends without an output.
    NoOutput = 1, "no_output";
    /// An explicit `drop` action.
    Explicit = 2, "explicit";
    /// No flow matched and no upcall handler is set.
    Miss = 3, "miss";
    /// The upcall handler answered "drop".
    UpcallRefused = 4, "upcall_refused";
    /// The upcall ring was full, or upcalls are disabled just now.
    UpcallLost = 5, "upcall_lost";
    /// Output to a port that does not exist.
    InvalidPort = 6, "invalid_port";
    /// Output to a port that exists but is down or has gone.
    PortDown = 7, "port_down";
    /// The port's transmit queue took no more.
    TxFull = 8, "tx_full";
    /// The port cannot send a packet of this length.
    TxTooLong = 9, "tx_too_long";
    /// A meter's band was exceeded.
    Meter = 10, "meter";
    /// More recirculations than the limit, see `action::RECIRCULATIONS_MAX`, or an upcall whose answer hands the packet up again, and so on.
    RecirculationLimit = 11, "recirculation_limit";
    /// `dec_ttl` of a packet whose TTL or hop limit is 1 or 0, or such a packet at a segment that is not its last (RFC 8986 §4.1).
    TtlExpired = 12, "ttl_expired";
    /// An action needs a header that the packet lacks, or that is truncated.
    ActionHeader = 13, "action_header";
    /// No buffer was free for a copy.
    NoBuffer = 14, "no_buffer";
    /// No headroom or tailroom is left for a header.
    NoHeadroom = 15, "no_headroom";
    /// `lb_output` to a bond that does not exist or has no member.
    InvalidBond = 16, "invalid_bond";
    /// An action that this engine cannot carry out.
    UnsupportedAction = 17, "unsupported_action";
    /// The gateway's policy refused it (unknown VLAN on the port, link-local control frame).
    Policy = 18, "policy";
    /// Ingress on a port where it may not be forwarded to any other port.
    NoDestination = 19, "no_destination";
    /// Broadcast, unknown-unicast or multicast flooding exceeded its limit.
    Storm = 20, "storm";
    /// The engine shuts down or was poisoned by a caught panic.
    Shutdown = 21, "shutdown";
    /// A tunnel packet whose outer or tunnel header is cut off, contradicts itself, or has a version or flags that are not in use.
    TunnelHeader = 22, "tunnel_header";
    /// A tunnel packet whose outer checksum is wrong, or missing where it must not be.
    TunnelChecksum = 23, "tunnel_checksum";
    /// A fragment of a tunnel packet: it would have to be reassembled first.
    TunnelFragment = 24, "tunnel_fragment";
    /// A tunnel packet with an option or extension header that must be understood and is not (RFC 8926 §3.5, 3GPP TS 29.281 §5.2.1, RFC 8200 §4.2).
    TunnelOption = 25, "tunnel_option";
    /// A tunnel packet marked "congestion experienced" around one whose transport cannot be told (RFC 6040 §4.2).
    TunnelEcn = 26, "tunnel_ecn";
    /// `tunnel_pop` or `encap` with a tunnel that does not exist.
    UnknownTunnel = 27, "unknown_tunnel";
    /// `encap` into a tunnel whose way is not known.
    Unresolved = 28, "unresolved";
    /// `encap` of a packet that is too long for the tunnel's way.
    TooBig = 29, "too_big";
    /// A tunnel packet whose network identifier is no VPC's here.
    UnknownVni = 30, "unknown_vni";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason's number, an index below [`DropReason::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason numbered `index`.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }
}

impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// The one end of each packet that enters the engine. The sum over all fates equals the packets that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Not decided yet (only inside a burst).
    #[default]
    Undecided,
    /// At least one port took it or a copy of it.
    Transmitted,
    /// Queued on the upcall ring, or consumed by the upcall handler.
    Upcall,
    /// Waits for an asynchronous stage.
    Parked,
    /// Handed to the local stack or the caller instead of a port.
    Delivered,
    /// Dropped.
    Dropped(DropReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_names_unique() {
        let mut names = std::collections::HashSet::new();
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert!(names.insert(reason.name()));
        }
    }
}
