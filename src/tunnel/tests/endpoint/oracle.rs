//! RFC 8986 §4 once more, for untagged frames: a packet is taken apart into its headers, these are changed, and it is put together again.

use crate::packet::DropReason;
use crate::tunnel::Behaviour;
use crate::wire::{ethernet, ip};

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    pub bytes: Vec<u8>,
    /// What the bytes begin with if not with an Ethernet header.
    pub layer3: Option<u16>,
    /// It went on to its next segment.
    pub advanced: bool,
}

/// The headers of a packet: extension headers up to the first in which segments are left, each with its type.
struct Parts {
    ethernet: Vec<u8>,
    fixed: Vec<u8>,
    chain: Vec<(u8, Vec<u8>)>,
    /// The type of what follows the chain, and its bytes.
    upper: u8,
    rest: Vec<u8>,
    padding: Vec<u8>,
}

/// True of a segment routing header with at least this many segments left.
fn is_left((kind, header): &(u8, Vec<u8>), at_least: u8) -> bool {
    *kind == ip::ROUTING && header[2] == 4 && header[3] >= at_least
}

fn take(bytes: &mut Vec<u8>, n: usize) -> Result<Vec<u8>, DropReason> {
    if bytes.len() < n {
        return Err(DropReason::TunnelHeader);
    }
    Ok(bytes.drain(..n).collect())
}

fn parse(frame: &[u8]) -> Result<Parts, DropReason> {
    let mut bytes = frame.to_vec();
    let ethernet = take(&mut bytes, ethernet::HEADER_LEN)?;
    let fixed = take(&mut bytes, 40)?;
    if ethernet[12..] != ethernet::IPV6.to_be_bytes() || fixed[0] >> 4 != 6 {
        return Err(DropReason::TunnelHeader);
    }
    let mut rest = take(&mut bytes, usize::from(u16::from_be_bytes([fixed[4], fixed[5]])))?;
    let (mut upper, mut chain) = (fixed[6], Vec::new());
    while [ip::HOP_BY_HOP, ip::ROUTING, ip::DESTINATION_OPTIONS].contains(&upper) {
        let units = *rest.get(1).ok_or(DropReason::TunnelHeader)?;
        let header = take(&mut rest, 8 + 8 * usize::from(units))?;
        if upper == ip::ROUTING && header[2] != 4 && header[3] > 0 {
            return Err(DropReason::TunnelHeader);
        }
        if upper == ip::DESTINATION_OPTIONS {
            options(header[2..].to_vec())?;
        }
        let kind = upper;
        upper = header[0];
        chain.push((kind, header));
        if chain.last().is_some_and(|last| is_left(last, 1)) {
            break;
        }
    }
    Ok(Parts { ethernet, fixed, chain, upper, rest, padding: bytes })
}

fn options(mut bytes: Vec<u8>) -> Result<(), DropReason> {
    while !bytes.is_empty() {
        let kind = bytes.remove(0);
        if kind >= 64 {
            return Err(DropReason::TunnelOption);
        }
        if kind > 0 {
            let len = take(&mut bytes, 1)?[0];
            take(&mut bytes, len.into())?;
        }
    }
    Ok(())
}

impl Parts {
    fn build(mut self) -> Vec<u8> {
        let len: usize = self.chain.iter().map(|(_, header)| header.len()).sum();
        self.fixed[4..6].copy_from_slice(&((len + self.rest.len()) as u16).to_be_bytes());
        let kinds: Vec<u8> = self.chain.iter().map(|(kind, _)| *kind).chain([self.upper]).collect();
        self.fixed[6] = kinds[0];
        for ((_, header), next) in self.chain.iter_mut().zip(&kinds[1..]) {
            header[0] = *next;
        }
        let chain = self.chain.into_iter().flat_map(|(_, header)| header);
        self.ethernet.into_iter().chain(self.fixed).chain(chain).chain(self.rest).chain(self.padding).collect()
    }
}

/// What becomes of `frame`.
pub fn open(frame: &[u8], behaviour: Behaviour, upper_layer: bool) -> Result<Expected, DropReason> {
    if frame.len() < ethernet::HEADER_LEN {
        return Err(DropReason::RxInvalid);
    }
    let mut parts = parse(frame)?;
    let flavours = behaviour.flavours();
    if let Some((_, header)) = parts.chain.last_mut().filter(|last| is_left(last, 1)) {
        let flavours = flavours.ok_or(DropReason::TunnelHeader)?;
        if parts.fixed[7] <= 1 {
            return Err(DropReason::TtlExpired);
        }
        let last_max = i32::from(header[1]) / 2 - 1;
        if i32::from(header[4]) > last_max || i32::from(header[3]) > i32::from(header[4]) + 1 {
            return Err(DropReason::TunnelHeader);
        }
        parts.fixed[7] -= 1;
        header[3] -= 1;
        let at = 8 + 16 * usize::from(header[3]);
        parts.fixed[24..40].copy_from_slice(&header[at..at + 16]);
        if flavours.psp && header[3] == 0 {
            parts.chain.pop();
        }
        return Ok(Expected { bytes: parts.build(), layer3: None, advanced: true });
    }
    let usd = flavours.is_some_and(|flavours| flavours.usd);
    let v4 = usd || [Behaviour::EndDx4, Behaviour::EndDt4, Behaviour::EndDt46].contains(&behaviour);
    let v6 = usd || [Behaviour::EndDx6, Behaviour::EndDt6, Behaviour::EndDt46].contains(&behaviour);
    match parts.upper {
        4 if v4 => return Ok(Expected { bytes: parts.rest, layer3: Some(0x0800), advanced: false }),
        41 if v6 => return Ok(Expected { bytes: parts.rest, layer3: Some(0x86dd), advanced: false }),
        143 if behaviour == Behaviour::EndDx2 => {
            return Ok(Expected { bytes: parts.rest, layer3: None, advanced: false });
        }
        44 if !upper_layer => return Err(DropReason::TunnelFragment),
        _ if !upper_layer => return Err(DropReason::TunnelHeader),
        _ => {}
    }
    if flavours.is_some_and(|flavours| flavours.usp)
        && let Some(at) = parts.chain.iter().position(|header| is_left(header, 0))
    {
        parts.chain.remove(at);
    }
    Ok(Expected { bytes: parts.build(), layer3: None, advanced: false })
}
