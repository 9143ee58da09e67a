//! IPv6 (RFC 8200) and the walk over its extension headers.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ip;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Bits of the flow label in the first word.
pub const LABEL_MASK: u32 = 0xf_ffff;
/// Length of the fragment header (§4.5).
pub const FRAGMENT_LEN: usize = 8;
/// The fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_label: U32,
    /// Length of everything behind this header.
    pub payload_len: U16,
    /// Type of the header that follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// The fragment header (§4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Fragment {
    /// Type of the header that follows.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of 8 bytes (upper 13 bits) and "more" (lowest bit).
    pub offset_more: U16,
    /// Identification.
    pub id: U32,
}

const _: () = assert!(size_of::<Fragment>() == FRAGMENT_LEN);

/// What [`walk`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Protocol behind the extension headers; [`ip::FRAGMENT`] for a later fragment, whose content begins anywhere.
    pub proto: u8,
    /// Offset of it from the IPv6 header.
    pub at: usize,
    /// It is a fragment with an offset.
    pub is_later_fragment: bool,
    /// It is a fragment; an atomic one (RFC 6946) does not count.
    pub is_fragment: bool,
    /// A routing header with segments left: the destination address is not the final one.
    pub is_routed: bool,
}

/// Walks from the IPv6 header at the start of `bytes` to the first header that is no extension header. `None` if the fixed header
/// or an extension header is cut off. The walk is bounded by the packet's length: each header takes 8 bytes or more. It must go as far as
/// key extraction does, or checksums behind a long chain would not follow a change of addresses.
#[inline]
pub fn walk(bytes: &[u8]) -> Option<Upper> {
    let (header, _) = Header::ref_from_prefix(bytes).ok()?;
    let mut upper = Upper {
        proto: header.next_header,
        at: HEADER_LEN,
        is_later_fragment: false,
        is_fragment: false,
        is_routed: false,
    };
    loop {
        let units = match upper.proto {
            ip::HOP_BY_HOP | ip::ROUTING | ip::DESTINATION_OPTIONS | ip::AH | ip::FRAGMENT => {
                // Every extension header has at least 8 bytes.
                let extension: &[u8; 8] = bytes.get(upper.at..)?.first_chunk()?;
                let len = match upper.proto {
                    ip::AH => (usize::from(extension[1]) + 2) * 4,
                    ip::FRAGMENT => {
                        let offset_more = u16::from_be_bytes([extension[2], extension[3]]);
                        upper.is_fragment |= offset_more & 0xfff9 != 0;
                        upper.is_later_fragment |= offset_more & 0xfff8 != 0;
                        FRAGMENT_LEN
                    }
                    ip::ROUTING => {
                        upper.is_routed |= extension[3] != 0;
                        (usize::from(extension[1]) + 1) * 8
                    }
                    _ => (usize::from(extension[1]) + 1) * 8,
                };
                if upper.is_later_fragment {
                    upper.at += len;
                    return Some(upper);
                }
                upper.proto = extension[0];
                len
            }
            _ => return (upper.at <= bytes.len()).then_some(upper),
        };
        upper.at += units;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(next: u8) -> Vec<u8> {
        let mut h = vec![0u8; 40];
        (h[0], h[6]) = (0x60, next);
        h
    }

    #[test]
    fn chain_of_extensions_ends_at_the_transport_header() {
        let mut p = header(ip::HOP_BY_HOP);
        p.extend([ip::ROUTING, 0, 0, 0, 0, 0, 0, 0]);
        p.extend([ip::FRAGMENT, 1, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        p.extend([ip::UDP, 0, 0, 1, 0, 0, 0, 9]);
        let upper = walk(&p).unwrap();
        assert_eq!((upper.proto, upper.at), (ip::UDP, 72));
        assert!(upper.is_fragment && !upper.is_later_fragment && upper.is_routed);
        assert_eq!(walk(&p[..71]), None);
    }

    #[test]
    fn later_fragment_has_no_transport_header() {
        let mut p = header(ip::FRAGMENT);
        p.extend([ip::HOP_BY_HOP, 0, 0, 8, 0, 0, 0, 9]);
        let upper = walk(&p).unwrap();
        assert!(upper.is_later_fragment);
        assert_eq!((upper.proto, upper.at), (ip::FRAGMENT, 48));
    }

    #[test]
    fn rfc6946_atomic_fragment_is_whole() {
        let mut p = header(ip::FRAGMENT);
        p.extend([ip::TCP, 0, 0, 0, 0, 0, 0, 9]);
        let upper = walk(&p).unwrap();
        assert!(!upper.is_fragment);
        assert_eq!(upper.proto, ip::TCP);
    }

    #[test]
    fn chain_is_followed_as_far_as_the_packet_goes() {
        let mut p = header(ip::DESTINATION_OPTIONS);
        for _ in 0..1000 {
            p.extend([ip::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0]);
        }
        assert_eq!(walk(&p), None);
        let last = p.len() - 8;
        p[last] = ip::UDP;
        assert_eq!(walk(&p).map(|upper| (upper.proto, upper.at)), Some((ip::UDP, 8040)));
    }

    #[test]
    fn mobility_header_is_what_the_packet_carries() {
        let mut p = header(ip::MOBILITY);
        p.extend([ip::NO_NEXT, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(walk(&p).map(|upper| (upper.proto, upper.at)), Some((ip::MOBILITY, 40)));
    }
}
