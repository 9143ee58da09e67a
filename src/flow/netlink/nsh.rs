//! NSH (RFC 8300) as nested attributes.

use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::U32;

use super::super::attr::{key as k, nsh as n};
use super::super::key::{FlowKey, NshLine};
use super::wire::{CodecError, Fault, NSH, Set, nested, part, put};

/// Metadata type with 16 bytes of context.
pub(super) const MDTYPE_1: u8 = 1;
/// Metadata type with TLVs.
pub(super) const MDTYPE_2: u8 = 2;

/// Reads a key (`complete`: as strictly as a key from netlink has to be) or a mask.
pub(super) fn decode(bytes: &[u8], complete: bool, out: &mut NshLine) -> Result<(), CodecError> {
    let mut set = Set::read(bytes, NSH)?;
    match set.take_array::<8>(n::BASE)? {
        Some(base) => {
            [out.flags, out.ttl, out.mdtype, out.np] = part(&base, 0);
            out.path_hdr = U32::from_bytes(part(&base, 4));
        }
        None if complete => return Err(NSH.error(n::BASE, Fault::Missing)),
        None => {}
    }
    if let Some(md1) = set.take_array::<16>(n::MD1)? {
        if complete && out.mdtype != MDTYPE_1 {
            return Err(NSH.error(n::MD1, Fault::Unexpected("the metadata type is not 1")));
        }
        out.context = std::array::from_fn(|i| U32::from_bytes(part(&md1, 4 * i)));
    }
    set.finish("metadata of type 2 cannot be matched")
}

pub(super) fn encode(line: &NshLine, is_mask: bool, out: &mut Vec<u8>) {
    nested(out, k::NSH, |out| {
        let base = [&[line.flags, line.ttl, line.mdtype, line.np], line.path_hdr.as_bytes()].concat();
        put(out, n::BASE, &base);
        // A flow may match the context without saying what makes it one.
        if is_mask || line.mdtype == MDTYPE_1 || line.context != [U32::ZERO; 4] {
            put(out, n::MD1, line.context.as_bytes());
        }
    });
}

pub(super) fn exact_mask(key: &FlowKey, mask: &mut FlowKey) {
    let m = &mut mask.nsh;
    (m.flags, m.ttl, m.mdtype, m.np) = (0xff, 0xff, 0xff, 0xff);
    m.path_hdr = U32::new(u32::MAX);
    if key.nsh.mdtype == MDTYPE_1 {
        m.context = [U32::new(u32::MAX); 4];
    }
}
