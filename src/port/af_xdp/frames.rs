//! The memory that an AF_XDP socket receives into and sends from: equal frames, each in exactly one hand.

use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use memmap2::MmapMut;

use super::SOL_XDP;
use crate::packet::{Owner, Packet};
use crate::port::sys;

const UMEM_REG: libc::c_int = 4;

/// Frames of one mapping. A frame is free, with the kernel, or described by a packet.
///
/// The mapping outlives every packet: while some are out, dropping this leaks it instead.
pub(super) struct Frames {
    map: core::mem::ManuallyDrop<MmapMut>,
    base: NonNull<u8>,
    frame_len: u32,
    free: Vec<u32>,
    /// Which frames a packet describes, and how many.
    is_out: Vec<bool>,
    out: usize,
}

// SAFETY: the mapping is only touched through packets, each the sole descriptor of its frame, and by the kernel in frames
// that were given to it; `base` is a plain address of memory that this owns.
#[allow(unsafe_code)]
unsafe impl Send for Frames {}

impl Frames {
    /// Maps `count` frames of `frame_len` bytes.
    pub(super) fn new(count: u32, frame_len: u32) -> io::Result<Self> {
        let bytes = count as usize * frame_len as usize;
        let mut map = MmapMut::map_anon(bytes)?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or_else(|| io::Error::other("empty mapping"))?;
        let free = (0..count).rev().collect();
        let is_out = vec![false; count as usize];
        Ok(Frames { map: core::mem::ManuallyDrop::new(map), base, frame_len, free, is_out, out: 0 })
    }

    /// Makes the frames the memory of `socket`.
    #[allow(unsafe_code)]
    pub(super) fn register(&mut self, socket: &OwnedFd) -> io::Result<()> {
        // struct xdp_umem_reg: address, length, frame length, headroom (beyond the kernel's own), flags, metadata length.
        let mut request = [0u8; 32];
        request[..8].copy_from_slice(&(self.base.as_ptr() as u64).to_ne_bytes());
        request[8..16].copy_from_slice(&(self.map.len() as u64).to_ne_bytes());
        request[16..20].copy_from_slice(&self.frame_len.to_ne_bytes());
        // SAFETY: the option names the mapping, which this owns, and the kernel holds its pages by itself. It will write only
        // to frames that are put on the fill ring, and those are described by no packet.
        let answer = unsafe {
            let (value, len) = (request.as_ptr().cast(), request.len() as libc::socklen_t);
            libc::setsockopt(socket.as_raw_fd(), SOL_XDP, UMEM_REG, value, len)
        };
        sys::check(answer).map(drop)
    }

    /// After the kernel has let go of the socket: every frame that no packet describes is free.
    pub(super) fn reclaim_all(&mut self) {
        self.free.clear();
        self.free.extend((0..self.is_out.len() as u32).rev().filter(|i| !self.is_out[*i as usize]));
    }

    pub(super) fn frame_len(&self) -> u32 {
        self.frame_len
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free frame, by its address in the kernel's terms.
    pub(super) fn take_free(&mut self) -> Option<u64> {
        self.free.pop().map(|frame| u64::from(frame) * u64::from(self.frame_len))
    }

    /// Takes back the frame that `address`, which the kernel named, lies in.
    pub(super) fn put_free(&mut self, address: u64) {
        let frame = address / u64::from(self.frame_len);
        if (frame as usize) < self.is_out.len() && !self.is_out[frame as usize] {
            self.free.push(frame as u32);
        }
    }

    /// Describes `len` bytes at `address` in a frame that neither the kernel nor the free list has. `None`, and the frame
    /// is free, if they do not lie in one frame.
    #[allow(unsafe_code)]
    pub(super) fn packet(&mut self, address: u64, len: u32) -> Option<Packet> {
        let (frame, offset) = (address / u64::from(self.frame_len), address % u64::from(self.frame_len));
        let is_out = self.is_out.get_mut(usize::try_from(frame).ok()?)?;
        if *is_out {
            return None;
        }
        // SAFETY: `frame` is below the number of frames, so its bytes lie in the mapping, which was zeroed, is writable, and
        // outlives the packet (see `Drop`). No other packet describes the frame (`is_out`), and the caller took it from the
        // kernel or the free list, so that the kernel does not write to it.
        let packet = unsafe {
            let at = self.base.add(frame as usize * self.frame_len as usize);
            Packet::from_raw_parts(at, self.frame_len, offset as u16, len, Owner::Port, frame)
        };
        match packet {
            Some(packet) => {
                *is_out = true;
                self.out += 1;
                Some(packet)
            }
            None => {
                self.free.push(frame as u32);
                None
            }
        }
    }

    /// True if `packet` describes one of these frames.
    pub(super) fn owns(&self, packet: &Packet) -> bool {
        packet.owner() == Owner::Port && {
            let at = (packet.buffer_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
            at < self.map.len()
        }
    }

    /// Takes the frame back from a packet of its own and returns the address of the packet's data in the kernel's terms. The
    /// frame is the caller's to give to the kernel or to [`Frames::put_free`].
    pub(super) fn take_back(&mut self, packet: &mut Packet) -> u64 {
        debug_assert!(self.owns(packet));
        let packet = packet.take();
        if let Some(is_out) = self.is_out.get_mut(packet.token() as usize) {
            self.out -= usize::from(*is_out);
            *is_out = false;
        }
        packet.token() * u64::from(self.frame_len) + packet.headroom() as u64
    }
}

impl Drop for Frames {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.out == 0 {
            // SAFETY: dropped once, here, and no packet is out that could reach the mapping.
            unsafe { core::mem::ManuallyDrop::drop(&mut self.map) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_in_one_hand_at_a_time() {
        let mut frames = Frames::new(2, 2048).unwrap();
        let address = frames.take_free().unwrap();
        let mut packet = frames.packet(address + 256, 60).unwrap();
        assert_eq!((packet.headroom(), packet.len(), frames.free()), (256, 60, 1));
        assert!(frames.owns(&packet));
        assert!(frames.packet(address, 60).is_none(), "described already");
        frames.put_free(address);
        assert_eq!(frames.free(), 1, "not free while described");
        assert_eq!(frames.take_back(&mut packet), address + 256);
        frames.put_free(address + 256);
        assert_eq!((frames.free(), packet.owner()), (2, Owner::Gone));
    }

    #[test]
    fn what_does_not_lie_in_a_frame_is_refused() {
        let mut frames = Frames::new(2, 2048).unwrap();
        let address = frames.take_free().unwrap();
        assert!(frames.packet(address + 2000, 60).is_none());
        assert_eq!(frames.free(), 2);
        assert!(frames.packet(4096, 60).is_none());
        assert!(frames.packet(u64::MAX, 60).is_none());
        frames.put_free(u64::MAX);
        assert_eq!(frames.free(), 2);
    }

    #[test]
    fn frames_that_are_out_survive_their_owner_and_a_new_socket() {
        let mut frames = Frames::new(2, 2048).unwrap();
        let address = frames.take_free().unwrap();
        let mut packet = frames.packet(address, 60).unwrap();
        frames.reclaim_all();
        assert_eq!(frames.free(), 1);
        drop(frames);
        packet.data_mut().fill(7);
        assert_eq!(packet.data(), [7; 60]);
    }
}
