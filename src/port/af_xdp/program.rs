//! The XDP program that steers an interface's packets to sockets, made and attached without any library.
//!
//! ```text
//! return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
//! ```
//!
//! Packets of a queue without a socket go on to the kernel. The program is attached by a BPF link, whose life is that of its
//! file descriptor: it is detached when the last owner drops it, and also when the process is killed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;

use super::Attach;
use crate::port::sys;

const MAP_CREATE: c_int = 0;
const MAP_UPDATE_ELEM: c_int = 2;
const PROG_LOAD: c_int = 5;
const LINK_CREATE: c_int = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const FLAG_GENERIC: u32 = 1 << 1;
const FLAG_NATIVE: u32 = 1 << 2;
const XDP_PASS: i32 = 2;
const HELPER_REDIRECT_MAP: i32 = 51;

/// What could not be done, and the kernel's answer.
pub(super) struct Refused {
    pub(super) what: &'static str,
    pub(super) source: io::Error,
}

/// An attached program and its map of sockets. Everything ends with it.
pub(super) struct Program {
    map: OwnedFd,
    _link: OwnedFd,
}

/// `union bpf_attr`: its first 128 bytes, the rest of which a kernel takes as zero.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new(fields: &[(usize, u64, usize)]) -> Self {
        let mut bytes = [0; 128];
        for (at, value, len) in fields {
            // Little-endian machines keep the low bytes first; the others would need the last ones.
            let value = if cfg!(target_endian = "little") { *value } else { *value << (64 - 8 * len) };
            bytes[*at..at + len].copy_from_slice(&value.to_ne_bytes()[..*len]);
        }
        Attributes(bytes)
    }
}

/// Calls `bpf(2)`.
///
/// # Safety
/// Addresses in `attributes` must lead to memory that the command may read (and none of the commands here writes).
#[allow(unsafe_code)]
unsafe fn bpf(command: c_int, attributes: &mut Attributes) -> io::Result<c_int> {
    let len = size_of::<Attributes>();
    // SAFETY: the kernel reads `len` bytes of attributes; what those lead to is the caller's proof.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.0.as_mut_ptr(), len) };
    sys::check(answer as c_int)
}

/// As [`bpf`], for commands that return a new file descriptor.
///
/// # Safety
/// As [`bpf`]; and `command` must be one of those.
#[allow(unsafe_code)]
unsafe fn bpf_fd(command: c_int, mut attributes: Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller's proof; the descriptor is new and nobody else's.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(command, &mut attributes)?)) }
}

fn instructions(map: RawFd) -> [[u8; 8]; 6] {
    let instruction = |code: u8, destination: u8, source: u8, offset: i16, immediate: i32| {
        let registers =
            if cfg!(target_endian = "little") { destination | source << 4 } else { source | destination << 4 };
        let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
        [code, registers, o0, o1, i0, i1, i2, i3]
    };
    [
        instruction(0x61, 2, 1, 16, 0),       // r2 = ctx->rx_queue_index
        instruction(0x18, 1, 1, 0, map),      // r1 = the map, by its descriptor
        instruction(0, 0, 0, 0, 0),           // … of which this is the second half
        instruction(0xb7, 3, 0, 0, XDP_PASS), // r3 = XDP_PASS
        instruction(0x85, 0, 0, 0, HELPER_REDIRECT_MAP),
        instruction(0x95, 0, 0, 0, 0), // return r0
    ]
}

impl Program {
    /// Loads the program for at most `queues` queues and attaches it to interface number `index`.
    #[allow(unsafe_code)]
    pub(super) fn attach(index: i32, queues: u32, attach: Attach) -> Result<Self, Refused> {
        let refused = |what| move |source| Refused { what, source };
        let map = Attributes::new(&[(0, MAP_TYPE_XSKMAP.into(), 4), (4, 4, 4), (8, 4, 4), (12, queues.into(), 4)]);
        // SAFETY: plain numbers; the command returns a descriptor.
        let map = unsafe { bpf_fd(MAP_CREATE, map) }.map_err(refused("cannot make a map of sockets"))?;

        let code = instructions(map.as_raw_fd());
        let licence = c"Dual MIT/GPL";
        let load = Attributes::new(&[
            (0, PROG_TYPE_XDP.into(), 4),
            (4, code.len() as u64, 4),
            (8, code.as_ptr() as u64, 8),
            (16, licence.as_ptr() as u64, 8),
            (68, ATTACH_TYPE_XDP.into(), 4),
        ]);
        // SAFETY: the kernel reads `code.len()` instructions of 8 bytes and a C string, both of which outlive the call; the
        // command returns a descriptor.
        let program = unsafe { bpf_fd(PROG_LOAD, load) }.map_err(refused("cannot load the XDP program"))?;

        let link = |flags: u32| {
            let attributes = Attributes::new(&[
                (0, program.as_raw_fd() as u64, 4),
                (4, index as u64, 4),
                (8, ATTACH_TYPE_XDP.into(), 4),
                (12, flags.into(), 4),
            ]);
            // SAFETY: plain numbers; the command returns a descriptor.
            unsafe { bpf_fd(LINK_CREATE, attributes) }
        };
        let link = match attach {
            Attach::Native => link(FLAG_NATIVE),
            Attach::Generic => link(FLAG_GENERIC),
            // The kernel chooses by what the driver has, which may still refuse this interface (its MTU, for example).
            Attach::Auto => link(0).or_else(|e| if sys::is(&e, libc::EBUSY) { Err(e) } else { link(FLAG_GENERIC) }),
        };
        let link = link.map_err(refused("cannot attach the XDP program"))?;
        Ok(Program { map, _link: link })
    }

    /// Gives the packets of receive queue `queue` to `socket`. They go back to the kernel when the socket is closed.
    #[allow(unsafe_code)]
    pub(super) fn steer(&self, queue: u32, socket: &OwnedFd) -> io::Result<()> {
        let (key, value) = (queue, socket.as_raw_fd());
        let mut update = Attributes::new(&[
            (0, self.map.as_raw_fd() as u64, 4),
            (8, (&raw const key) as u64, 8),
            (16, (&raw const value) as u64, 8),
        ]);
        // SAFETY: the kernel reads a key and a value of four bytes each, which outlive the call.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut update) }.map(drop)
    }
}
