//! A datapath with one worker whose callbacks write down what they see.

use std::ffi::CStr;
use std::mem::{MaybeUninit, zeroed};
use std::os::raw::c_void;
use std::ptr::null_mut;

use wye_capi::datapath::*;
use wye_capi::flow::*;
use wye_capi::packet::*;
use wye_capi::port::*;
use wye_capi::stats::*;
use wye_capi::status::*;
use wye_capi::upcall::*;
use wye_capi::worker::*;

/// `OVS_ACTION_ATTR_OUTPUT`.
pub fn output(port: u32) -> Vec<u8> {
    attribute(1, &port.to_ne_bytes())
}

/// `OVS_ACTION_ATTR_USERSPACE` with a pid of 7.
pub fn userspace() -> Vec<u8> {
    attribute(2, &attribute(1, &7u32.to_ne_bytes()))
}

pub fn attribute(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(payload.len() as u16 + 4).to_ne_bytes());
    out.extend_from_slice(&number.to_ne_bytes());
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// The key of `frame()` on this port: recirc_id, in_port, Ethernet, EtherType.
pub fn key(port: u32) -> Vec<u8> {
    let mut key = attribute(20, &0u32.to_ne_bytes());
    key.extend(attribute(3, &port.to_ne_bytes()));
    key.extend(attribute(4, &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]));
    key.extend(attribute(6, &0x88b5u16.to_be_bytes()));
    key
}

/// A mask of port and EtherType.
pub fn port_mask() -> Vec<u8> {
    let mut mask = attribute(20, &[0xff; 4]);
    mask.extend(attribute(3, &[0xff; 4]));
    mask.extend(attribute(4, &[0; 12]));
    mask.extend(attribute(6, &[0xff; 2]));
    mask
}

/// An Ethernet frame of 60 bytes of the local experimental type.
pub fn frame() -> [u8; 60] {
    let mut frame = [0x55; 60];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame
}

/// A packet in a buffer of its own with 64 bytes of headroom.
pub struct Owned {
    pub descriptor: wye_packet,
    pub bytes: Box<[u8; 256]>,
}

impl Owned {
    pub fn new(in_port: u32) -> Box<Self> {
        let mut bytes = Box::new([0u8; 256]);
        bytes[64..124].copy_from_slice(&frame());
        // SAFETY: a descriptor is integers and pointers.
        let mut descriptor: wye_packet = unsafe { zeroed() };
        descriptor.buffer = bytes.as_mut_ptr();
        descriptor.capacity = 256;
        descriptor.data_ofs = 64;
        descriptor.len = 60;
        descriptor.in_port = in_port;
        descriptor.token = 0x77 as *mut c_void;
        Box::new(Owned { descriptor, bytes })
    }

    pub fn at(&mut self) -> *mut wye_packet {
        &mut self.descriptor
    }

    pub fn is(&self, fate: wye_fate) -> bool {
        self.descriptor.fate == fate as u16
    }
}

/// A packet as a callback saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub port: u32,
    pub at: *mut wye_packet,
    pub buffer: *mut u8,
    pub bytes: Vec<u8>,
    pub is_engines: bool,
    pub priority: u32,
    pub label: [u8; 16],
}

fn seen(port: u32, at: *mut wye_packet) -> Seen {
    // SAFETY: the library hands valid descriptors out.
    let (w, bytes) = unsafe {
        let w = &*at;
        (w, std::slice::from_raw_parts(w.buffer.add(w.data_ofs as usize), w.len as usize).to_vec())
    };
    let is_engines = w.flags & WYE_PKT_ENGINE != 0;
    Seen { port, at, buffer: w.buffer, bytes, is_engines, priority: w.skb_priority, label: w.ct_label }
}

type OnUpcall = Box<dyn FnMut(Test, &wye_upcall)>;

/// What the callbacks do and what they saw. It is only reached through [`Test`], since callbacks change it while calls are under way.
pub struct World {
    pub datapath: *mut wye_datapath,
    pub worker: *mut wye_worker,
    pub sent: Vec<Seen>,
    pub released: Vec<(*mut wye_packet, u16, u16)>,
    pub upcalls: Vec<(u32, Vec<u8>)>,
    /// Packets that `transmit` takes per call.
    pub takes: usize,
    /// What `upcall` answers.
    pub answer: wye_answer,
    /// Called before the answer.
    pub on_upcall: Option<OnUpcall>,
    pub on_transmit: Option<Box<dyn FnMut(Test)>>,
    pub on_release: Option<Box<dyn FnMut(Test)>>,
}

/// Access to a world: each use is a new borrow.
#[derive(Clone, Copy)]
pub struct Test(*mut World);

impl std::ops::Deref for Test {
    type Target = World;
    fn deref(&self) -> &World {
        // SAFETY: the world lives as long as its fixture, and no borrow lasts across a call of the library.
        unsafe { &*self.0 }
    }
}

impl std::ops::DerefMut for Test {
    fn deref_mut(&mut self) -> &mut World {
        // SAFETY: as above.
        unsafe { &mut *self.0 }
    }
}

/// Owns a world, its worker and its datapath.
pub struct Fixture(Test);

impl std::ops::Deref for Fixture {
    type Target = Test;
    fn deref(&self) -> &Test {
        &self.0
    }
}

impl std::ops::DerefMut for Fixture {
    fn deref_mut(&mut self) -> &mut Test {
        &mut self.0
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SAFETY: made by `with`, freed once.
        unsafe {
            wye_worker_free(self.worker);
            wye_datapath_free(self.datapath);
            drop(Box::from_raw(self.0.0));
        }
    }
}

unsafe extern "C-unwind" fn transmit(ctx: *mut c_void, port: u32, packets: *mut *mut wye_packet, n: usize) -> usize {
    // SAFETY: the list is valid.
    let (mut world, packets) = unsafe { (Test(ctx.cast()), std::slice::from_raw_parts(packets, n)) };
    let taken = world.takes.min(n);
    world.sent.extend(packets[..taken].iter().map(|&at| seen(port, at)));
    if let Some(mut f) = world.on_transmit.take() {
        f(world);
        world.on_transmit = Some(f);
    }
    taken
}

unsafe extern "C-unwind" fn release(ctx: *mut c_void, packets: *mut *mut wye_packet, n: usize) {
    // SAFETY: as above.
    let (mut world, packets) = unsafe { (Test(ctx.cast()), std::slice::from_raw_parts(packets, n)) };
    // SAFETY: the descriptors are valid.
    world.released.extend(packets.iter().map(|&at| unsafe { (at, (*at).fate, (*at).reason) }));
    if let Some(mut f) = world.on_release.take() {
        f(world);
        world.on_release = Some(f);
    }
}

unsafe extern "C-unwind" fn upcall(ctx: *mut c_void, upcall: *const wye_upcall, answer: *mut wye_answer) {
    // SAFETY: as above.
    let (mut world, upcall) = unsafe { (Test(ctx.cast()), &*upcall) };
    // SAFETY: the key is valid for its length.
    let key = unsafe { std::slice::from_raw_parts(upcall.key.cast::<u8>(), upcall.key_len as usize) };
    world.upcalls.push((upcall.kind, key.to_vec()));
    if let Some(mut f) = world.on_upcall.take() {
        f(world, upcall);
        world.on_upcall = Some(f);
    }
    // SAFETY: valid for writes.
    unsafe { *answer = world.answer };
}

pub fn ops() -> wye_worker_ops {
    wye_worker_ops {
        size: size_of::<wye_worker_ops>() as u32,
        reserved: 0,
        transmit: Some(transmit),
        release: Some(release),
        upcall: Some(upcall),
    }
}

impl Fixture {
    /// A datapath with ports 1 to 3 and a worker with these callbacks.
    pub fn with(ops: wye_worker_ops) -> Fixture {
        // SAFETY: an answer is integers and pointers.
        let answer: wye_answer = unsafe { zeroed() };
        let world = Box::new(World {
            datapath: null_mut(),
            worker: null_mut(),
            sent: vec![],
            released: vec![],
            upcalls: vec![],
            takes: usize::MAX,
            answer,
            on_upcall: None,
            on_transmit: None,
            on_release: None,
        });
        let mut world = Fixture(Test(Box::into_raw(world)));
        // SAFETY: a config is integers and pointers; all pointers are valid.
        unsafe {
            let mut config: wye_datapath_config = zeroed();
            config.size = size_of::<wye_datapath_config>() as u32;
            config.flows_max = 1024;
            config.pool_buffers = 1024;
            config.seed = 1;
            let mut datapath = MaybeUninit::uninit();
            assert_eq!(wye_datapath_new(&config, Some(&mut datapath), None), WYE_OK);
            world.datapath = datapath.assume_init();
            for number in 1..=3 {
                let mut port: wye_port_config = zeroed();
                port.size = size_of::<wye_port_config>() as u32;
                port.number = number;
                assert_eq!(wye_port_add(world.dp(), &port, None), WYE_OK);
            }
            let mut worker = MaybeUninit::uninit();
            let ctx = world.0.0.cast();
            assert_eq!(wye_worker_new(world.dp(), &ops, ctx, Some(&mut worker), None), WYE_OK);
            world.worker = worker.assume_init();
        }
        world
    }

    pub fn new() -> Fixture {
        Fixture::with(ops())
    }
}

impl Test {
    pub fn dp(self) -> Option<&'static wye_datapath> {
        // SAFETY: freed by `Drop` only.
        unsafe { self.datapath.as_ref() }
    }

    pub fn w(self) -> Option<&'static wye_worker> {
        // SAFETY: freed by `Drop` only.
        unsafe { self.worker.as_ref() }
    }

    pub fn put(self, flags: u32, ufid: u8, key: &[u8], mask: &[u8], actions: &[u8]) -> wye_status {
        // SAFETY: a request is integers and pointers, the pointers are valid.
        unsafe {
            let mut put: wye_flow_request = zeroed();
            put.size = size_of::<wye_flow_request>() as u32;
            put.flags = flags;
            put.ufid = [ufid; 16];
            (put.key, put.key_len) = (key.as_ptr().cast(), key.len() as u32);
            (put.mask, put.mask_len) = (mask.as_ptr().cast(), mask.len() as u32);
            (put.actions, put.actions_len) = (actions.as_ptr().cast(), actions.len() as u32);
            wye_flow_put(self.dp(), &put, None, None)
        }
    }

    pub fn process(self, packets: &mut [Box<Owned>]) -> wye_status {
        let list: Vec<_> = packets.iter_mut().map(|p| p.at()).collect();
        // SAFETY: the packets are valid.
        unsafe { wye_worker_process(self.w(), list.as_ptr(), list.len(), 1_000_000) }
    }

    pub fn execute(self, packet: &mut Owned, actions: &[u8], flags: u32) -> wye_status {
        // SAFETY: the packet is valid.
        unsafe {
            wye_worker_execute(self.w(), packet.at(), actions.as_ptr().cast(), actions.len(), flags, 1_000_000, None)
        }
    }

    /// The answer "carry out `actions`", whose bytes are leaked.
    pub fn answer_with(mut self, actions: Vec<u8>, flags: u32) {
        let actions: &'static [u8] = actions.leak();
        self.answer.verdict = WYE_VERDICT_EXECUTE;
        self.answer.flags = flags;
        (self.answer.actions, self.answer.actions_len) = (actions.as_ptr().cast(), actions.len() as u32);
    }

    pub fn stat(self, name: &CStr) -> u64 {
        let mut stats = MaybeUninit::uninit();
        let mut value = MaybeUninit::uninit();
        // SAFETY: written on success.
        unsafe {
            assert_eq!(wye_datapath_stats(self.dp(), Some(&mut stats), None), WYE_OK);
            let stats = stats.assume_init();
            assert_eq!(wye_stats_get(stats.as_ref(), name.as_ptr(), Some(&mut value)), WYE_OK);
            wye_stats_free(stats);
            value.assume_init()
        }
    }

    /// Asserts that each packet that came in has one fate, and says how many came in.
    pub fn packets_in(self) -> u64 {
        let mut stats = MaybeUninit::uninit();
        assert_eq!(wye_datapath_stats(self.dp(), Some(&mut stats), None), WYE_OK);
        // SAFETY: written on success.
        let stats = unsafe { stats.assume_init() };
        let (mut cursor, mut fates, mut packets) = (0, 0, 0);
        loop {
            let (mut name, mut value) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            // SAFETY: the reading lives, names and values are written when 1 is returned.
            let (name, value) = unsafe {
                if wye_stats_next(stats.as_ref(), Some(&mut cursor), Some(&mut name), Some(&mut value)) == 0 {
                    break;
                }
                (CStr::from_ptr(name.assume_init()).to_str().unwrap(), value.assume_init())
            };
            if ["transmitted", "upcall", "parked", "delivered"].contains(&name) || name.starts_with("dropped.") {
                fates += value;
            }
            if name == "packets_in" {
                packets = value;
            }
        }
        // SAFETY: not used any more.
        unsafe { wye_stats_free(stats) };
        assert_eq!(packets, fates);
        packets
    }
}
