//! MPLS label stack entries (RFC 3032 §2.1): label 20 bits, traffic class 3 (RFC 5462), bottom of stack 1, TTL 8.

/// Length of an entry.
pub const LSE_LEN: usize = 4;
/// Label bits.
pub const LABEL_MASK: u32 = 0xffff_f000;
/// Lowest bit of the label.
pub const LABEL_SHIFT: u32 = 12;
/// Traffic class bits.
pub const TC_MASK: u32 = 0x0000_0e00;
/// Lowest bit of the traffic class.
pub const TC_SHIFT: u32 = 9;
/// Bottom of stack.
pub const BOS: u32 = 0x0000_0100;
/// TTL bits.
pub const TTL_MASK: u32 = 0x0000_00ff;

/// An entry from its parts; surplus bits are cut off.
pub const fn lse(label: u32, tc: u8, bottom: bool, ttl: u8) -> u32 {
    label << LABEL_SHIFT | (tc as u32) << TC_SHIFT & TC_MASK | if bottom { BOS } else { 0 } | ttl as u32
}
