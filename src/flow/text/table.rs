//! The attributes whose payload is a row of fields: `ipv4(src=…,dst=…)`. One table serves reading and writing.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::attr::{self, key as k};
use super::Append as _;
use super::scan::{Scan, TextError, TextFault};

/// How a field is spelled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mac,
    Ipv4,
    Ipv6,
    /// Big-endian number of so many bytes, decimal.
    Dec(usize),
    /// Big-endian number of so many bytes, hexadecimal.
    Hex(usize),
    /// As `Hex(4)`, masks with eight digits.
    Word,
    /// The 20 bits of a flow label in four bytes.
    Label,
    /// `no`, `first` or `later`.
    Frag,
}

/// A field of a payload.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Another name that is read too.
    also: &'static str,
    at: usize,
    kind: Kind,
}

const fn f(name: &'static str, at: usize, kind: Kind) -> Field {
    Field { name, also: name, at, kind }
}

/// An attribute with fields.
pub(super) struct Flat {
    pub(super) name: &'static str,
    pub(super) number: u16,
    pub(super) len: usize,
    pub(super) fields: &'static [Field],
}

pub(super) static FLAT: [Flat; 14] = [
    Flat {
        name: "ct_tuple4",
        number: k::CT_ORIG_TUPLE_IPV4,
        len: 16,
        fields: &[
            f("src", 0, Kind::Ipv4),
            f("dst", 4, Kind::Ipv4),
            f("proto", 12, Kind::Dec(1)),
            f("tp_src", 8, Kind::Dec(2)),
            f("tp_dst", 10, Kind::Dec(2)),
        ],
    },
    Flat {
        name: "ct_tuple6",
        number: k::CT_ORIG_TUPLE_IPV6,
        len: 40,
        fields: &[
            f("src", 0, Kind::Ipv6),
            f("dst", 16, Kind::Ipv6),
            f("proto", 36, Kind::Dec(1)),
            // Open vSwitch prints one name and reads the other.
            Field { also: "tp_src", ..f("src_port", 32, Kind::Dec(2)) },
            Field { also: "tp_dst", ..f("dst_port", 34, Kind::Dec(2)) },
        ],
    },
    Flat { name: "eth", number: k::ETHERNET, len: 12, fields: &[f("src", 0, Kind::Mac), f("dst", 6, Kind::Mac)] },
    Flat {
        name: "packet_type",
        number: k::PACKET_TYPE,
        len: 4,
        fields: &[f("ns", 0, Kind::Dec(2)), f("id", 2, Kind::Hex(2))],
    },
    Flat {
        name: "ipv4",
        number: k::IPV4,
        len: 12,
        fields: &[
            f("src", 0, Kind::Ipv4),
            f("dst", 4, Kind::Ipv4),
            f("proto", 8, Kind::Dec(1)),
            f("tos", 9, Kind::Hex(1)),
            f("ttl", 10, Kind::Dec(1)),
            f("frag", 11, Kind::Frag),
        ],
    },
    Flat {
        name: "ipv6",
        number: k::IPV6,
        len: 40,
        fields: &[
            f("src", 0, Kind::Ipv6),
            f("dst", 16, Kind::Ipv6),
            f("label", 32, Kind::Label),
            f("proto", 36, Kind::Dec(1)),
            f("tclass", 37, Kind::Hex(1)),
            f("hlimit", 38, Kind::Dec(1)),
            f("frag", 39, Kind::Frag),
        ],
    },
    Flat { name: "tcp", number: k::TCP, len: 4, fields: &PORTS },
    Flat { name: "udp", number: k::UDP, len: 4, fields: &PORTS },
    Flat { name: "sctp", number: k::SCTP, len: 4, fields: &PORTS },
    Flat { name: "icmp", number: k::ICMP, len: 2, fields: &ICMP },
    Flat { name: "icmpv6", number: k::ICMPV6, len: 2, fields: &ICMP },
    Flat {
        name: "arp",
        number: k::ARP,
        len: 24,
        fields: &[
            f("sip", 0, Kind::Ipv4),
            f("tip", 4, Kind::Ipv4),
            f("op", 8, Kind::Dec(2)),
            f("sha", 10, Kind::Mac),
            f("tha", 16, Kind::Mac),
        ],
    },
    Flat {
        name: "nd",
        number: k::ND,
        len: 28,
        fields: &[f("target", 0, Kind::Ipv6), f("sll", 16, Kind::Mac), f("tll", 22, Kind::Mac)],
    },
    Flat {
        name: "nd_ext",
        number: k::ND_EXTENSIONS,
        len: 8,
        fields: &[f("nd_reserved", 0, Kind::Word), f("nd_options_type", 4, Kind::Dec(1))],
    },
];

static PORTS: [Field; 2] = [f("src", 0, Kind::Dec(2)), f("dst", 2, Kind::Dec(2))];
static ICMP: [Field; 2] = [f("type", 0, Kind::Dec(1)), f("code", 1, Kind::Dec(1))];

/// The table's entry for an attribute.
pub(super) fn flat(number: u16) -> Option<&'static Flat> {
    FLAT.iter().find(|flat| flat.number == number)
}

const FRAGS: [&str; 3] = ["no", "first", "later"];

impl Kind {
    pub(super) fn len(self) -> usize {
        match self {
            Kind::Mac => 6,
            Kind::Ipv4 | Kind::Word | Kind::Label => 4,
            Kind::Ipv6 => 16,
            Kind::Dec(len) | Kind::Hex(len) => len,
            Kind::Frag => 1,
        }
    }

    /// Reads `VALUE` or `VALUE/MASK` into slices of the kind's length.
    pub(super) fn read(self, scan: &mut Scan<'_>, value: &mut [u8], mask: &mut [u8]) -> Result<(), TextError> {
        mask.fill(0xff);
        match self {
            Kind::Mac => {
                value.copy_from_slice(&scan.mac()?);
                if scan.eat("/") {
                    mask.copy_from_slice(&scan.mac()?);
                }
            }
            Kind::Ipv4 => {
                value.copy_from_slice(&scan.ipv4()?);
                if scan.eat("/") {
                    match scan.prefix::<4>()? {
                        Some(bits) => mask.copy_from_slice(&bits),
                        None => mask.copy_from_slice(&scan.ipv4()?),
                    }
                }
            }
            Kind::Ipv6 => {
                value.copy_from_slice(&scan.ipv6()?);
                if scan.eat("/") {
                    match scan.prefix::<16>()? {
                        Some(bits) => mask.copy_from_slice(&bits),
                        None => mask.copy_from_slice(&scan.ipv6()?),
                    }
                }
            }
            Kind::Dec(_) | Kind::Hex(_) | Kind::Word | Kind::Label => {
                let max = match self {
                    Kind::Label => 0xf_ffff,
                    _ => u64::MAX >> (64 - 8 * self.len()),
                };
                let (number, bits) = scan.masked_number(max)?;
                value.copy_from_slice(&number.to_be_bytes()[8 - self.len()..]);
                mask.copy_from_slice(&bits.to_be_bytes()[8 - self.len()..]);
            }
            Kind::Frag => {
                let start = scan.at();
                let word = scan.run(|c| c.is_ascii_lowercase());
                let Some(kind) = FRAGS.iter().position(|name| *name == word) else {
                    return Err(scan.error_at(start, TextFault::Expected("no, first or later")));
                };
                value[0] = kind as u8;
            }
        }
        Ok(())
    }

    /// Appends the value and, unless it is exact, the mask.
    pub(super) fn write(self, value: &[u8], mask: &[u8], out: &mut String) {
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, &b| number << 8 | u64::from(b));
        let is_exact = match self {
            Kind::Label => number(mask) & 0xf_ffff == 0xf_ffff,
            Kind::Frag => true,
            _ => mask.iter().all(|&b| b == 0xff),
        };
        self.write_value(value, number(value), out);
        if is_exact {
            return;
        }
        out.push('/');
        match self {
            Kind::Dec(_) | Kind::Hex(_) | Kind::Label => hex(number(mask), out),
            Kind::Word => write!(out, "{:#010x}", number(mask)),
            _ => self.write_value(mask, 0, out),
        }
    }

    fn write_value(self, bytes: &[u8], number: u64, out: &mut String) {
        match self {
            Kind::Mac => {
                let digits: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
                out.push_str(&digits.join(":"))
            }
            Kind::Ipv4 => {
                write!(out, "{}", Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap_or_default()))
            }
            Kind::Ipv6 => {
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default());
                match address.segments() {
                    // As inet_ntop writes it.
                    [0, 0, 0, 0, 0, 0, seventh, _] if seventh != 0 => {
                        write!(out, "::{}.{}.{}.{}", bytes[12], bytes[13], bytes[14], bytes[15])
                    }
                    _ => write!(out, "{address}"),
                }
            }
            Kind::Dec(_) => write!(out, "{number}"),
            Kind::Hex(_) | Kind::Label => {
                hex(number, out);
            }
            Kind::Word => write!(out, "{number:#x}"),
            Kind::Frag => out.push_str(FRAGS.get(number as usize).copied().unwrap_or("<error>")),
        };
    }
}

/// As `%#x` in C: zero has no prefix.
pub(super) fn hex(number: u64, out: &mut String) {
    if number == 0 {
        out.push('0')
    } else {
        write!(out, "{number:#x}")
    };
}

impl Flat {
    /// Reads the fields up to the closing parenthesis. Fields that are not there have neither value nor mask.
    pub(super) fn read(&self, scan: &mut Scan<'_>) -> Result<(Vec<u8>, Vec<u8>), TextError> {
        let (mut value, mut mask) = (vec![0; self.len], vec![0; self.len]);
        let mut seen = 0u32;
        scan.set_field(self.name, "");
        let find = |scan: &mut Scan<'_>| {
            let is_here = |name: &str| scan.rest().strip_prefix(name).is_some_and(|behind| behind.starts_with('='));
            let hit = self.fields.iter().enumerate().find(|(_, field)| is_here(field.name) || is_here(field.also));
            hit.map(|(i, field)| (i, field, if is_here(field.name) { field.name } else { field.also }))
        };
        while !scan.eat(")") {
            let Some((i, field, name)) = find(scan) else { return scan.expected("a field of it, or )") };
            scan.set_field(self.name, field.name);
            if seen & 1 << i != 0 {
                return Err(scan.error(TextFault::Twice));
            }
            seen |= 1 << i;
            scan.eat(name);
            scan.need("=")?;
            let range = field.at..field.at + field.kind.len();
            field.kind.read(scan, &mut value[range.clone()], &mut mask[range])?;
            if !scan.eat(",") && !scan.rest().starts_with(')') {
                return scan.expected(", or )");
            }
            scan.set_field(self.name, "");
        }
        scan.set_field("", "");
        Ok((value, mask))
    }

    /// Appends the fields that have any bit in their mask.
    pub(super) fn write(&self, value: &[u8], mask: &[u8], out: &mut String) {
        out.push_str(self.name);
        out.push('(');
        let mut first = true;
        for field in self.fields {
            let range = field.at..field.at + field.kind.len();
            let (value, mask) = (&value[range.clone()], &mask[range]);
            if mask.iter().all(|&b| b == 0) {
                continue;
            }
            if !first {
                out.push(',');
            }
            first = false;
            out.push_str(field.name);
            out.push('=');
            field.kind.write(value, mask, out);
        }
        out.push(')');
    }
}

/// Names of `OVS_CS_F_*`.
pub(super) const CT_STATE: [(u32, &str); 8] = [
    (0x01, "new"),
    (0x02, "est"),
    (0x04, "rel"),
    (0x08, "rpl"),
    (0x10, "inv"),
    (0x20, "trk"),
    (0x40, "snat"),
    (0x80, "dnat"),
];

/// Names of the TCP flags.
pub(super) const TCP_FLAGS: [(u32, &str); 12] = [
    (0x001, "fin"),
    (0x002, "syn"),
    (0x004, "rst"),
    (0x008, "psh"),
    (0x010, "ack"),
    (0x020, "urg"),
    (0x040, "ece"),
    (0x080, "cwr"),
    (0x100, "ns"),
    (0x200, "[200]"),
    (0x400, "[400]"),
    (0x800, "[800]"),
];

/// Names of a tunnel's flags, with Open vSwitch's own numbers.
pub(super) const TUNNEL_FLAGS: [(u32, &str); 4] = [(1, "oam"), (2, "df"), (4, "csum"), (8, "key")];

/// Appends flags: `syn|ack`, or `+syn-ack` if the mask is less than `all`.
pub(super) fn write_flags(names: &[(u32, &str)], value: u32, mask: u32, all: u32, out: &mut String) {
    if mask == all {
        let set: Vec<&str> = names.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
        out.push_str(if set.is_empty() { "0" } else { "" });
        out.push_str(&set.join("|"));
    } else if mask == 0 {
        out.push_str("0/0");
    } else {
        for (bit, name) in names.iter().filter(|(bit, _)| mask & bit != 0) {
            out.push(if value & bit != 0 { '+' } else { '-' });
            out.push_str(name);
        }
    }
}

const _: () = assert!(attr::FRAG_TYPE_FIRST == 1 && attr::FRAG_TYPE_LATER == 2);
