//! The behaviours that segments of SRv6 stand for at their end (RFC 8986 §4), with the numbers and names of IANA's registry "SRv6 Endpoint
//! Behaviors".
//!
//! A local segment is a flow: it matches the IPv6 destination, and its action is `tnl_pop` of a tunnel whose
//! [`Options`](super::Options) name the behaviour. What is left comes in again on the tunnel's port, and the flows of that port decide where
//! it goes. So behaviours that differ only in this do the same to the packet:
//!
//! | behaviours | what becomes of the packet | what the flows of the port do |
//! |---|---|---|
//! | End, End.X, End.T | it goes on to its next segment ([`endpoint`](super::endpoint)) | End: route it; End.X: one neighbour; End.T: route it by another table |
//! | End.DT6, End.DX6 | the outer headers are taken off an IPv6 packet | a table; one neighbour |
//! | End.DT4, End.DX4 | the same of an IPv4 packet | a table; one neighbour |
//! | End.DT46 | the same of either | a table for each |
//! | End.DX2 | the same of an Ethernet frame | one port; by the VLAN (as End.DX2V), or by the MAC address (as End.DT2U) |

use crate::wire::{ethernet, ip};

/// Variations of End, End.X and End.T (RFC 8986 §4.16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flavours {
    /// Penultimate segment pop: the segment routing header goes as soon as no segment is left in it.
    pub psp: bool,
    /// Ultimate segment pop: a packet whose segments are all used up comes out without the segment routing header.
    pub usp: bool,
    /// Ultimate segment decapsulation: an IP packet in a packet whose segments are all used up comes out without the outer headers.
    pub usd: bool,
}

impl Flavours {
    /// None.
    pub const NONE: Flavours = Flavours { psp: false, usp: false, usd: false };

    /// All that there are, in the order of their numbers.
    const ALL: [Flavours; 8] = {
        let mut all = [Flavours::NONE; 8];
        let mut i = 0;
        while i < all.len() {
            all[i] = Flavours { psp: i & 1 != 0, usp: i & 2 != 0, usd: i & 4 != 0 };
            i += 1;
        }
        all
    };
}

/// What a segment stands for at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Behaviour {
    /// The packet goes on to its next segment (§4.1).
    End(Flavours),
    /// The same, by a neighbour that the segment names (§4.2).
    EndX(Flavours),
    /// The same, by a table that the segment names (§4.3).
    EndT(Flavours),
    /// An IPv6 packet comes out, for one neighbour (§4.4).
    EndDx6,
    /// An IPv4 packet comes out, for one neighbour (§4.5).
    EndDx4,
    /// An IPv6 packet comes out, for a table (§4.6).
    EndDt6,
    /// An IPv4 packet comes out, for a table (§4.7).
    EndDt4,
    /// An IPv4 or IPv6 packet comes out, for a table (§4.8).
    EndDt46,
    /// An Ethernet frame comes out (§4.9).
    EndDx2,
}

/// Names by number; those of behaviours that are not here are empty.
const NAMES: [&str; 40] = [
    "",
    "End",
    "End with PSP",
    "End with USP",
    "End with PSP & USP",
    "End.X",
    "End.X with PSP",
    "End.X with USP",
    "End.X with PSP & USP",
    "End.T",
    "End.T with PSP",
    "End.T with USP",
    "End.T with PSP & USP",
    "",
    "",
    "",
    "End.DX6",
    "End.DX4",
    "End.DT6",
    "End.DT4",
    "End.DT46",
    "End.DX2",
    "",
    "",
    "",
    "",
    "",
    "",
    "End with USD",
    "End with PSP & USD",
    "End with USP & USD",
    "End with PSP, USP & USD",
    "End.X with USD",
    "End.X with PSP & USD",
    "End.X with USP & USD",
    "End.X with PSP, USP & USD",
    "End.T with USD",
    "End.T with PSP & USD",
    "End.T with USP & USD",
    "End.T with PSP, USP & USD",
];

impl Behaviour {
    /// All, with all flavours.
    pub fn all() -> impl Iterator<Item = Behaviour> {
        let flavoured = [Behaviour::End, Behaviour::EndX, Behaviour::EndT];
        let plain = [
            Behaviour::EndDx6,
            Behaviour::EndDx4,
            Behaviour::EndDt6,
            Behaviour::EndDt4,
            Behaviour::EndDt46,
            Behaviour::EndDx2,
        ];
        flavoured.into_iter().flat_map(|of| Flavours::ALL.map(of)).chain(plain)
    }

    /// The behaviour that IANA numbers so; `None` if it is not one of these.
    pub fn from_number(number: u16) -> Option<Behaviour> {
        Behaviour::all().find(|behaviour| behaviour.number() == number)
    }

    /// The behaviour with this name, upper and lower case as in the registry; `None` if it is not one of these.
    pub fn from_name(name: &str) -> Option<Behaviour> {
        Behaviour::all().find(|behaviour| behaviour.name() == name)
    }

    /// The number in IANA's registry.
    pub const fn number(self) -> u16 {
        match self {
            Behaviour::End(flavours) => flavoured(1, 28, flavours),
            Behaviour::EndX(flavours) => flavoured(5, 32, flavours),
            Behaviour::EndT(flavours) => flavoured(9, 36, flavours),
            Behaviour::EndDx6 => 16,
            Behaviour::EndDx4 => 17,
            Behaviour::EndDt6 => 18,
            Behaviour::EndDt4 => 19,
            Behaviour::EndDt46 => 20,
            Behaviour::EndDx2 => 21,
        }
    }

    /// The name in IANA's registry, which names the flavours too: "End.DT4", "End.X with PSP & USD".
    pub const fn name(self) -> &'static str {
        NAMES[self.number() as usize]
    }

    /// The flavours; `None` for a behaviour that has none because it takes the outer headers off in any case.
    pub const fn flavours(self) -> Option<Flavours> {
        match self {
            Behaviour::End(flavours) | Behaviour::EndX(flavours) | Behaviour::EndT(flavours) => Some(flavours),
            _ => None,
        }
    }

    /// Whether what `next` stands for, behind the outer headers, comes out without them: its EtherType, or `Some(None)` for an Ethernet
    /// frame.
    pub(super) const fn takes_out(self, next: u8) -> Option<Option<u16>> {
        let (v4, v6, frame) = match self {
            Behaviour::End(flavours) | Behaviour::EndX(flavours) | Behaviour::EndT(flavours) => {
                (flavours.usd, flavours.usd, false)
            }
            Behaviour::EndDx6 | Behaviour::EndDt6 => (false, true, false),
            Behaviour::EndDx4 | Behaviour::EndDt4 => (true, false, false),
            Behaviour::EndDt46 => (true, true, false),
            Behaviour::EndDx2 => (false, false, true),
        };
        match next {
            ip::IPIP if v4 => Some(Some(ethernet::IPV4)),
            ip::IPV6 if v6 => Some(Some(ethernet::IPV6)),
            ip::ETHERNET if frame => Some(None),
            _ => None,
        }
    }
}

/// Flavours are numbered in two runs: without USD from `first`, with it from `usd`.
const fn flavoured(first: u16, usd: u16, flavours: Flavours) -> u16 {
    (if flavours.usd { usd } else { first }) + flavours.psp as u16 + 2 * flavours.usp as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_registry() {
        let mut numbers: Vec<u16> = Behaviour::all().map(Behaviour::number).collect();
        numbers.sort_unstable();
        let expected: Vec<u16> = (1..=12).chain(16..=21).chain(28..=39).collect();
        assert_eq!(numbers, expected);
        for behaviour in Behaviour::all() {
            assert_eq!(Behaviour::from_number(behaviour.number()), Some(behaviour));
            assert_eq!(Behaviour::from_name(behaviour.name()), Some(behaviour));
            let named = |flavour| behaviour.name().contains(flavour);
            let flavours = Flavours { psp: named("PSP"), usp: named("USP"), usd: named("USD") };
            assert_eq!(behaviour.flavours().unwrap_or_default(), flavours, "{}", behaviour.name());
        }
        let psp_usd = Flavours { psp: true, usp: false, usd: true };
        for (behaviour, number, name) in [
            (Behaviour::End(Flavours::NONE), 1, "End"),
            (Behaviour::EndX(psp_usd), 33, "End.X with PSP & USD"),
            (Behaviour::EndT(Flavours::NONE), 9, "End.T"),
            (Behaviour::EndDx6, 16, "End.DX6"),
            (Behaviour::EndDx4, 17, "End.DX4"),
            (Behaviour::EndDt6, 18, "End.DT6"),
            (Behaviour::EndDt4, 19, "End.DT4"),
            (Behaviour::EndDt46, 20, "End.DT46"),
            (Behaviour::EndDx2, 21, "End.DX2"),
        ] {
            assert_eq!((behaviour.number(), behaviour.name()), (number, name));
        }
        for unknown in [0, 13, 14, 15, 22, 24, 27, 40, 41, u16::MAX] {
            assert_eq!(Behaviour::from_number(unknown), None);
        }
        assert_eq!((Behaviour::from_name(""), Behaviour::from_name("end.dt4")), (None, None));
    }
}
