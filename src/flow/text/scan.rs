//! Walking over the text, and what can be wrong with it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::netlink::CodecError;
use super::{PortNames, TEXT_LEN_MAX, Ufid};

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextFault {
    /// Something else should be there.
    #[error("{0} is expected")]
    Expected(&'static str),
    /// A number is too large for its field.
    #[error("the number must not be above {0:#x}")]
    TooLarge(u64),
    /// The field is there twice.
    #[error("it is there twice")]
    Twice,
    /// Wye cannot do this.
    #[error("it is not supported")]
    Unsupported,
    /// Lists of actions, or tags, are nested too deeply.
    #[error("it is nested too deeply")]
    TooDeep,
    /// There is too much text.
    #[error("the text has more than {TEXT_LEN_MAX} bytes")]
    TooLong,
    /// The text is well formed, but what it says is not a flow.
    #[error("{0}")]
    Codec(Box<CodecError>),
}

/// A text that cannot be read as a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// Character in the line, from 1.
    pub column: usize,
    /// The field that was being read, such as `ipv4(src)`; empty outside of all.
    pub field: String,
    /// The beginning of what stands there.
    pub found: String,
    /// What is wrong.
    pub fault: TextFault,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        write!(f, "column {}: ", self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.fault)?;
        match self.found.as_str() {
            "" => write!(f, " (at the end)"),
            found => write!(f, " (at {found:?})"),
        }
    }
}

impl std::error::Error for TextError {}

/// The characters between attributes and between actions.
const DELIMITERS: [char; 5] = [',', ' ', '\t', '\r', '\n'];

/// A place in the text.
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Attribute or action, and field of it, that is being read.
    field: (&'static str, &'static str),
    pub(super) names: &'a PortNames<'a>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str, names: &'a PortNames<'a>) -> Result<Self, TextError> {
        let scan = Scan { text, at: 0, field: ("", ""), names };
        if text.len() > TEXT_LEN_MAX {
            return Err(scan.error(TextFault::TooLong));
        }
        Ok(scan)
    }

    /// The text from here. `at` only ever moves over whole characters.
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn set_field(&mut self, attribute: &'static str, field: &'static str) {
        self.field = (attribute, field);
    }

    pub(super) fn error(&self, fault: TextFault) -> TextError {
        self.error_at(self.at, fault)
    }

    pub(super) fn error_at(&self, at: usize, fault: TextFault) -> TextError {
        let before = self.text.get(..at).unwrap_or_default();
        let found = self.text.get(at..).unwrap_or_default().chars().take(24).collect();
        let field = match self.field {
            (outer, "") => outer.to_owned(),
            (outer, inner) => format!("{outer}({inner})"),
        };
        TextError { line: None, column: before.chars().count() + 1, field, found, fault }
    }

    pub(super) fn expected<T>(&self, what: &'static str) -> Result<T, TextError> {
        Err(self.error(TextFault::Expected(what)))
    }

    /// Passes over `token` if it is here.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let here = self.rest().starts_with(token);
        if here {
            self.at += token.len();
        }
        here
    }

    /// Passes over `token`, which has to be here.
    pub(super) fn need(&mut self, token: &'static str) -> Result<(), TextError> {
        if self.eat(token) { Ok(()) } else { self.expected(token) }
    }

    /// Passes over the name of an attribute or action with its parenthesis.
    pub(super) fn open(&mut self, name: &str) -> bool {
        match self.rest().strip_prefix(name) {
            Some(behind) if behind.starts_with('(') => {
                self.at += name.len() + 1;
                true
            }
            _ => false,
        }
    }

    /// Passes over a word that stands alone: an end, a delimiter or a closing parenthesis follows.
    pub(super) fn word(&mut self, word: &str) -> bool {
        match self.rest().strip_prefix(word) {
            Some(behind) if behind.is_empty() || behind.starts_with(DELIMITERS) || behind.starts_with(')') => {
                self.at += word.len();
                true
            }
            _ => false,
        }
    }

    pub(super) fn skip_delimiters(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(DELIMITERS).len();
    }

    /// Passes over characters for as long as `is_part`.
    pub(super) fn run(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Refuses anything but delimiters.
    pub(super) fn end(&mut self) -> Result<(), TextError> {
        self.skip_delimiters();
        if self.rest().is_empty() { Ok(()) } else { self.expected("the end") }
    }

    /// A number as C writes them: decimal, hexadecimal with `0x`, octal with `0`.
    pub(super) fn number(&mut self, max: u64) -> Result<u64, TextError> {
        let start = self.at;
        let radix = match self.rest().as_bytes() {
            [b'0', b'x' | b'X', ..] => {
                self.at += 2;
                16
            }
            [b'0', b'0'..=b'9', ..] => 8,
            _ => 10,
        };
        let digits = self.run(|c| c.is_digit(radix));
        if digits.is_empty() {
            self.at = start;
            return self.expected("a number");
        }
        match u64::from_str_radix(digits, radix) {
            Ok(number) if number <= max => Ok(number),
            _ => Err(self.error_at(start, TextFault::TooLarge(max))),
        }
    }

    /// A number and, behind a `/`, its mask; without one all bits of `max`, which is all ones.
    pub(super) fn masked_number(&mut self, max: u64) -> Result<(u64, u64), TextError> {
        let value = self.number(max)?;
        let mask = if self.eat("/") { self.number(max)? } else { max };
        Ok((value, mask))
    }

    /// Hexadecimal digits that fill `bytes` from the right, or a number that does.
    pub(super) fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), TextError> {
        let start = self.at;
        bytes.fill(0);
        if !(self.eat("0x") || self.eat("0X")) {
            let number = self.number(u64::MAX)?.to_be_bytes();
            let used = 8 - number.iter().take_while(|&&b| b == 0).count();
            let Some(room) = bytes.len().checked_sub(used) else {
                return Err(self.error_at(start, TextFault::Expected("a number of fewer bytes")));
            };
            bytes[room..].copy_from_slice(&number[8 - used..]);
            return Ok(());
        }
        let digits = self.run(|c| c.is_ascii_hexdigit());
        if digits.is_empty() {
            return self.expected("hexadecimal digits");
        }
        let digits = digits.trim_start_matches('0');
        if digits.len() > 2 * bytes.len() {
            return Err(self.error_at(start, TextFault::Expected("a number of fewer bytes")));
        }
        let len = bytes.len();
        for (i, digit) in digits.bytes().rev().enumerate() {
            let value = (digit as char).to_digit(16).unwrap_or(0) as u8;
            bytes[len - 1 - i / 2] |= value << (4 * (i % 2));
        }
        Ok(())
    }

    pub(super) fn mac(&mut self) -> Result<[u8; 6], TextError> {
        let start = self.at;
        let word = self.run(|c| c.is_ascii_hexdigit() || c == ':');
        let mut mac = [0; 6];
        let mut parts = word.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2));
            match part.and_then(|part| u8::from_str_radix(part, 16).ok()) {
                Some(value) => *byte = value,
                None => return Err(self.error_at(start, TextFault::Expected("an Ethernet address"))),
            }
        }
        match parts.next() {
            None => Ok(mac),
            Some(_) => Err(self.error_at(start, TextFault::Expected("an Ethernet address"))),
        }
    }

    pub(super) fn ipv4(&mut self) -> Result<[u8; 4], TextError> {
        let start = self.at;
        let word = self.run(|c| c.is_ascii_digit() || c == '.');
        let address = word.parse::<Ipv4Addr>();
        address.map(|a| a.octets()).map_err(|_| self.error_at(start, TextFault::Expected("an IPv4 address")))
    }

    pub(super) fn ipv6(&mut self) -> Result<[u8; 16], TextError> {
        let start = self.at;
        let word = self.run(|c| c.is_ascii_hexdigit() || c == ':' || c == '.');
        let address = word.parse::<Ipv6Addr>();
        address.map(|a| a.octets()).map_err(|_| self.error_at(start, TextFault::Expected("an IPv6 address")))
    }

    /// The length of a prefix as a mask, if that is what stands here.
    pub(super) fn prefix<const N: usize>(&mut self) -> Result<Option<[u8; N]>, TextError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let next = self.rest().as_bytes().get(digits);
        if digits == 0 || matches!(next, Some(b'.' | b':' | b'a'..=b'f' | b'A'..=b'F' | b'x')) {
            return Ok(None);
        }
        let len = self.number(8 * N as u64)? as usize;
        Ok(Some(std::array::from_fn(|i| match len.saturating_sub(8 * i) {
            0 => 0,
            bits @ 1..8 => !(0xff >> bits),
            _ => 0xff,
        })))
    }

    /// Flags: `syn|ack` (those, and no other), `+syn-ack` (these bits), `0x12/0x3f`, `0`. Gives value and mask.
    pub(super) fn flags(&mut self, names: &[(u32, &str)], all: u32) -> Result<(u32, u32), TextError> {
        let start = self.at;
        let (mut value, mut mask) = (0, 0);
        if self.rest().starts_with(['+', '-']) {
            while self.rest().starts_with(['+', '-']) {
                let set = self.rest().starts_with('+');
                self.at += 1;
                let bit = self.flag(names)?;
                if mask & bit != 0 {
                    return Err(self.error(TextFault::Twice));
                }
                mask |= bit;
                value |= if set { bit } else { 0 };
            }
            return Ok((value, mask));
        }
        loop {
            if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
                value |= self.number(all.into())? as u32;
                if self.at > start && self.eat("/") {
                    return Ok((value, self.number(all.into())? as u32));
                }
            } else if !self.rest().starts_with(')') {
                value |= self.flag(names)?;
            }
            if !self.eat("|") {
                return Ok((value, all));
            }
        }
    }

    fn flag(&mut self, names: &[(u32, &str)]) -> Result<u32, TextError> {
        let word = self.rest();
        let word = &word[..word.find(['+', '-', '|', ')']).unwrap_or(word.len())];
        match names.iter().find(|(_, name)| *name == word) {
            Some((bit, _)) => {
                self.at += word.len();
                Ok(*bit)
            }
            None => self.expected("a flag"),
        }
    }

    /// A port's number or name, up to a delimiter or a closing parenthesis.
    pub(super) fn port(&mut self) -> Result<u32, TextError> {
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return self.number(u32::MAX.into()).map(|number| number as u32);
        }
        let start = self.at;
        let name = self.run(|c| !DELIMITERS.contains(&c) && !matches!(c, '(' | ')'));
        let number = self.names.number(name).filter(|_| !name.is_empty());
        number.ok_or_else(|| self.error_at(start, TextFault::Expected("a port's number or name")))
    }

    /// `ufid:` and a UUID, if that is here.
    pub(super) fn ufid(&mut self) -> Result<Option<Ufid>, TextError> {
        self.skip_delimiters();
        if !self.eat("ufid:") {
            return Ok(None);
        }
        let start = self.at;
        let text = self.run(|c| c.is_ascii_hexdigit() || c == '-');
        let shape: Vec<usize> = text.split('-').map(str::len).collect();
        let number = u128::from_str_radix(&text.replace('-', ""), 16);
        let (Ok(number), [8, 4, 4, 4, 12]) = (number, shape.as_slice()) else {
            return Err(self.error_at(start, TextFault::Expected("a UUID")));
        };
        let mut ufid = [0; 16];
        for (bytes, part) in ufid.chunks_exact_mut(4).zip(number.to_be_bytes().chunks_exact(4)) {
            bytes.copy_from_slice(part);
            if cfg!(target_endian = "little") {
                bytes.reverse();
            }
        }
        Ok(Some(ufid))
    }

    /// Passes over what `dump-flows` prints between key and actions.
    pub(super) fn statistics(&mut self) {
        const NAMES: [&str; 7] = ["packets:", "bytes:", "used:", "flags:", "offloaded:", "dp:", "dp-extra-info:"];
        loop {
            self.skip_delimiters();
            if !NAMES.iter().any(|name| self.eat(name)) {
                return;
            }
            self.run(|c| !DELIMITERS.contains(&c));
        }
    }
}

/// The four words of a UFID, in the order in which they are printed.
pub(super) fn ufid_parts(ufid: &Ufid) -> [u32; 4] {
    std::array::from_fn(|i| u32::from_ne_bytes([ufid[4 * i], ufid[4 * i + 1], ufid[4 * i + 2], ufid[4 * i + 3]]))
}
