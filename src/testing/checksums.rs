//! [`verify`]: recomputes every checksum of a frame from scratch, sharing no code with the engine.
//!
//! It reads headers by plain indexing of its own and sums word by word, so that a mistake in `wire/` or in an action cannot hide here.

/// The Internet checksum, word by word (RFC 1071 §4.1).
pub fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// CRC32c, bit by bit (RFC 9260 appendix A, reflected polynomial).
pub fn naive_crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Verifies every checksum of an Ethernet frame that can be verified and returns how many that were.
///
/// # Errors
/// A sentence naming the checksum that is wrong, or the length that does not fit.
pub fn verify(frame: &[u8]) -> Result<usize, String> {
    let mut at = 12;
    let mut ethertype = be16(frame, at).ok_or("shorter than an Ethernet header")?;
    at += 2;
    while ethertype == 0x8100 || ethertype == 0x88a8 {
        ethertype = be16(frame, at + 2).ok_or("truncated tag")?;
        at += 4;
    }
    if ethertype < 0x600 && frame.get(at..at + 6) == Some(&[0xaa, 0xaa, 3, 0, 0, 0]) {
        ethertype = be16(frame, at + 6).ok_or("truncated SNAP")?;
        at += 8;
    }
    verify_network(ethertype, frame.get(at..).unwrap_or_default())
}

/// As [`verify`], for what follows the EtherType.
///
/// # Errors
/// As [`verify`].
pub fn verify_network(ethertype: u16, bytes: &[u8]) -> Result<usize, String> {
    match ethertype {
        0x0800 => ipv4(bytes),
        0x86dd => ipv6(bytes),
        0x8847 | 0x8848 => {
            let mut at = 0;
            while bytes.get(at + 2).ok_or("label stack without a bottom")? & 1 == 0 {
                at += 4;
            }
            // What is inside shows itself by its version, as it does to a router that pops the last label.
            let inner = bytes.get(at + 4..).unwrap_or_default();
            match inner.first().map(|b| b >> 4) {
                Some(4) if ipv4_fits(inner) => ipv4(inner),
                Some(6) if inner.len() >= 40 => ipv6(inner),
                _ => Ok(0),
            }
        }
        0x894f => {
            let len = usize::from(bytes.get(1).ok_or("truncated NSH")? & 0x3f) * 4;
            let inner = bytes.get(len..).ok_or("NSH longer than the packet")?;
            match bytes.get(3) {
                Some(1) => ipv4(inner),
                Some(2) => ipv6(inner),
                Some(3) => verify(inner),
                Some(4) => verify_network(0x894f, inner),
                _ => Ok(0),
            }
        }
        _ => Ok(0),
    }
}

fn ipv4_fits(bytes: &[u8]) -> bool {
    bytes.len() >= 20 && usize::from(bytes[0] & 15) * 4 >= 20 && bytes.len() >= usize::from(bytes[0] & 15) * 4
}

fn ipv4(bytes: &[u8]) -> Result<usize, String> {
    if !ipv4_fits(bytes) {
        return Err("truncated IPv4 header".into());
    }
    let header_len = usize::from(bytes[0] & 15) * 4;
    let found = be16(bytes, 10).unwrap_or_default();
    let mut header = bytes[..header_len].to_vec();
    header[10..12].fill(0);
    if naive(&header) != found {
        return Err(format!("IPv4 header checksum is {found:04x}, should be {:04x}", naive(&header)));
    }
    let total = usize::from(be16(bytes, 2).unwrap_or_default());
    let segment = bytes.get(header_len..total).ok_or("IPv4 total length does not fit")?;
    if be16(bytes, 6).unwrap_or_default() & 0x3fff != 0 {
        return Ok(1);
    }
    let mut pseudo = bytes[12..20].to_vec();
    pseudo.extend([0, bytes[9]]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    Ok(1 + transport(bytes[9], &pseudo, segment, true)?)
}

fn ipv6(bytes: &[u8]) -> Result<usize, String> {
    let header = bytes.get(..40).ok_or("truncated IPv6 header")?;
    let payload = usize::from(be16(header, 4).unwrap_or_default());
    let bytes = bytes.get(..40 + payload).ok_or("IPv6 payload length does not fit")?;
    let (mut next, mut at) = (header[6], 40);
    let mut dst = header[24..40].to_vec();
    while matches!(next, 0 | 43 | 44 | 51 | 60 | 135) {
        let h = bytes.get(at..at + 8).ok_or("truncated extension header")?;
        match next {
            44 if u16::from_be_bytes([h[2], h[3]]) & 0xfff9 != 0 => return Ok(0),
            // The first segment of the list is the final destination (RFC 8754 §2).
            43 if h[3] > 0 => dst = bytes.get(at + 8..at + 24).ok_or("truncated segment list")?.to_vec(),
            _ => {}
        }
        at += match next {
            44 => 8,
            51 => (usize::from(h[1]) + 2) * 4,
            _ => (usize::from(h[1]) + 1) * 8,
        };
        next = h[0];
    }
    let segment = bytes.get(at..).ok_or("extension header longer than the packet")?;
    let mut pseudo = header[8..24].to_vec();
    pseudo.extend(dst);
    pseudo.extend((segment.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, next]);
    transport(next, &pseudo, segment, false)
}

fn transport(proto: u8, pseudo: &[u8], segment: &[u8], v4: bool) -> Result<usize, String> {
    if proto == 132 {
        let mut whole = segment.to_vec();
        let field: &mut [u8; 4] = whole.get_mut(8..).and_then(|b| b.first_chunk_mut()).ok_or("truncated SCTP")?;
        let found = u32::from_le_bytes(core::mem::take(field));
        let right = naive_crc32c(&whole);
        return if found == right {
            Ok(1)
        } else {
            Err(format!("SCTP checksum is {found:08x}, should be {right:08x}"))
        };
    }
    let (name, at, with_pseudo) = match proto {
        1 if v4 => ("ICMP", 2, false),
        2 => ("IGMP", 2, false),
        6 => ("TCP", 16, true),
        17 => ("UDP", 6, true),
        58 if !v4 => ("ICMPv6", 2, true),
        _ => return Ok(0),
    };
    let found = be16(segment, at).ok_or_else(|| format!("truncated {name}"))?;
    if proto == 17 && found == 0 {
        return Ok(0);
    }
    let mut all = if with_pseudo { pseudo.to_vec() } else { Vec::new() };
    let start = all.len();
    all.extend(segment);
    all[start + at..start + at + 2].fill(0);
    let mut right = naive(&all);
    if proto == 17 && right == 0 {
        right = 0xffff;
    }
    if found == right { Ok(1) } else { Err(format!("{name} checksum is {found:04x}, should be {right:04x}")) }
}
