//! The attribute level: walking a list of attributes without trust, writing one, and what can be wrong with it.

use std::fmt;

use super::super::attr;

/// Which attribute an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrName {
    /// One that Wye knows, by its name in `linux/openvswitch.h`.
    Known(&'static str),
    /// A number without a name in the space of this prefix.
    Unknown(&'static str, u16),
}

impl fmt::Display for AttrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttrName::Known(name) => f.write_str(name),
            AttrName::Unknown(prefix, number) => write!(f, "{prefix}{number}"),
        }
    }
}

/// What is wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The payload has the wrong size.
    #[error("has {got} bytes, but should have {want}")]
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// The payload has a size that the attribute cannot have.
    #[error("has {got} bytes, but should have {want}")]
    LengthRule {
        /// Bytes there are.
        got: usize,
        /// The rule.
        want: &'static str,
    },
    /// The list ends within the attribute, or behind it with a rest that is no attribute.
    #[error("is followed by {0} bytes that are no attribute")]
    Garbage(usize),
    /// The attribute is there twice.
    #[error("is there twice")]
    Duplicate,
    /// No attribute has this number.
    #[error("is not known")]
    Unknown,
    /// The attribute does not belong here.
    #[error("is not expected here: {0}")]
    Unexpected(&'static str),
    /// The attribute has to be there.
    #[error("is missing")]
    Missing,
    /// The value makes no sense.
    #[error("has a value that is not allowed: {0}")]
    Invalid(&'static str),
    /// The mask matches a field of a header whose presence it does not match.
    #[error("can be matched only together with {0}")]
    Prerequisite(&'static str),
    /// Well formed, but Wye cannot do it.
    #[error("is not supported{0}")]
    Unsupported(&'static str),
    /// Lists of actions are nested too deeply.
    #[error("is nested more than {} levels deep", super::DEPTH_MAX)]
    TooDeep,
    /// The list of attributes is too long.
    #[error("holds more than {} bytes", super::LEN_MAX)]
    TooLong,
}

/// Attributes that cannot be read as a key, a mask or actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{attr} {fault}")]
pub struct CodecError {
    /// The attribute.
    pub attr: AttrName,
    /// What is wrong with it.
    pub fault: Fault,
}

/// A space of attribute numbers: names, and the prefix for numbers without one.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    name: fn(u16) -> Option<&'static str>,
    prefix: &'static str,
    /// What the list as a whole is called.
    list: &'static str,
}

pub(crate) const KEY: Family = Family { name: attr::key::name, prefix: "OVS_KEY_ATTR_", list: "flow key" };
pub(crate) const MASK: Family = Family { name: attr::key::name, prefix: "OVS_KEY_ATTR_", list: "flow mask" };
pub(crate) const TUNNEL: Family =
    Family { name: attr::tunnel::name, prefix: "OVS_TUNNEL_KEY_ATTR_", list: "OVS_KEY_ATTR_TUNNEL" };
pub(crate) const VXLAN: Family =
    Family { name: attr::vxlan::name, prefix: "OVS_VXLAN_EXT_", list: "OVS_TUNNEL_KEY_ATTR_VXLAN_OPTS" };
pub(crate) const NSH: Family = Family { name: attr::nsh::name, prefix: "OVS_NSH_KEY_ATTR_", list: "OVS_KEY_ATTR_NSH" };
pub(crate) const ACTION: Family =
    Family { name: attr::action::name, prefix: "OVS_ACTION_ATTR_", list: "list of actions" };
pub(crate) const USERSPACE: Family =
    Family { name: attr::userspace::name, prefix: "OVS_USERSPACE_ATTR_", list: "OVS_ACTION_ATTR_USERSPACE" };
pub(crate) const SAMPLE: Family =
    Family { name: attr::sample::name, prefix: "OVS_SAMPLE_ATTR_", list: "OVS_ACTION_ATTR_SAMPLE" };
pub(crate) const CHECK_PKT_LEN: Family = Family {
    name: attr::check_pkt_len::name,
    prefix: "OVS_CHECK_PKT_LEN_ATTR_",
    list: "OVS_ACTION_ATTR_CHECK_PKT_LEN",
};
pub(crate) const DEC_TTL: Family =
    Family { name: attr::dec_ttl::name, prefix: "OVS_DEC_TTL_ATTR_", list: "OVS_ACTION_ATTR_DEC_TTL" };

impl Family {
    pub(crate) fn error(self, number: u16, fault: Fault) -> CodecError {
        let attr = match (self.name)(number) {
            Some(name) => AttrName::Known(name),
            None => AttrName::Unknown(self.prefix, number),
        };
        CodecError { attr, fault }
    }

    pub(crate) fn list_error(self, fault: Fault) -> CodecError {
        CodecError { attr: AttrName::Known(self.list), fault }
    }
}

/// A walk over a list of attributes; ends after the first error.
pub(crate) struct Walk<'a> {
    rest: &'a [u8],
    family: Family,
    last: Option<u16>,
}

pub(crate) fn walk(bytes: &[u8], family: Family) -> Walk<'_> {
    Walk { rest: bytes, family, last: None }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(u16, &'a [u8]), CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let attribute = (|| {
            let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let number = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & attr::TYPE_MASK;
            let payload = rest.get(4..len)?;
            self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            self.last = Some(number);
            Some((number, payload))
        })();
        Some(attribute.ok_or_else(|| {
            let fault = Fault::Garbage(rest.len());
            match self.last {
                Some(number) => self.family.error(number, fault),
                None => self.family.list_error(Fault::Garbage(rest.len())),
            }
        }))
    }
}

/// A list whose attributes have numbers below 32, come at most once and in any order. What was read is taken out, so that
/// the rest can be refused.
pub(crate) struct Set<'a> {
    payloads: [Option<&'a [u8]>; 32],
    family: Family,
}

impl<'a> Set<'a> {
    pub(crate) fn read(bytes: &'a [u8], family: Family) -> Result<Self, CodecError> {
        if bytes.len() > super::LEN_MAX {
            return Err(family.list_error(Fault::TooLong));
        }
        let mut set = Set { payloads: [None; 32], family };
        for attribute in walk(bytes, family) {
            let (number, payload) = attribute?;
            if (family.name)(number).is_none() {
                return Err(family.error(number, Fault::Unknown));
            }
            if set.payloads[usize::from(number)].replace(payload).is_some() {
                return Err(family.error(number, Fault::Duplicate));
            }
        }
        Ok(set)
    }

    pub(crate) fn has(&self, number: u16) -> bool {
        self.payloads[usize::from(number)].is_some()
    }

    pub(crate) fn take(&mut self, number: u16) -> Option<&'a [u8]> {
        self.payloads[usize::from(number)].take()
    }

    /// Takes an attribute that has exactly `N` bytes.
    pub(crate) fn take_array<const N: usize>(&mut self, number: u16) -> Result<Option<[u8; N]>, CodecError> {
        let Some(payload) = self.take(number) else { return Ok(None) };
        let fault = Fault::Length { got: payload.len(), want: N };
        payload.try_into().map(Some).map_err(|_| self.error(number, fault))
    }

    pub(crate) fn take_u32(&mut self, number: u16) -> Result<Option<u32>, CodecError> {
        Ok(self.take_array(number)?.map(u32::from_ne_bytes))
    }

    pub(crate) fn error(&self, number: u16, fault: Fault) -> CodecError {
        self.family.error(number, fault)
    }

    /// Refuses what is left.
    pub(crate) fn finish(self, why: &'static str) -> Result<(), CodecError> {
        match self.payloads.iter().position(Option::is_some) {
            Some(number) => Err(self.error(number as u16, Fault::Unexpected(why))),
            None => Ok(()),
        }
    }
}

/// Appends an attribute. Payloads here are far below 64 KB; lists of actions check theirs in [`nested`].
pub(crate) fn put(out: &mut Vec<u8>, number: u16, payload: &[u8]) {
    debug_assert!(payload.len() < 0xfff0);
    let start = out.len();
    out.extend_from_slice(&(payload.len() as u16 + 4).to_ne_bytes());
    out.extend_from_slice(&number.to_ne_bytes());
    out.extend_from_slice(payload);
    pad(out, start);
}

/// Fills the attribute that begins at `start` up to a multiple of 4.
fn pad(out: &mut Vec<u8>, start: usize) {
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
}

/// Appends an attribute whose payload `fill` appends. False, and nothing appended, if that is too long for an attribute.
pub(crate) fn nested(out: &mut Vec<u8>, number: u16, fill: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let Ok(len) = u16::try_from(out.len() - start) else {
        out.truncate(start);
        return false;
    };
    out[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    out[start + 2..start + 4].copy_from_slice(&number.to_ne_bytes());
    pad(out, start);
    true
}

/// The `N` bytes at `at`; the caller has checked the length.
pub(crate) fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
