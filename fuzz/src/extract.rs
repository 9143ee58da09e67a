//! Key extraction: the edge that every packet crosses. The first byte of the input chooses the options.

use std::sync::Arc;

use wye::flow::extract::{ExtractOptions, clear_unused, extract, extract_base, extract_whole};
use wye::flow::key::FlowKey;
use wye::packet::buffer::NONE;
use wye::packet::{Packet, PacketFlags, Pool};

/// Frames longer than this say nothing new.
const FRAME_LEN_MAX: usize = 2048;

std::thread_local! {
    static POOL: Arc<Pool> = Pool::new(1, 4096, 128).expect("memory for one buffer");
}

/// Extraction changes no byte, leaves offsets inside the packet and in order, and all ways to extract agree.
pub fn run(bytes: &[u8]) {
    let [control, frame @ ..] = bytes else { return };
    if frame.len() > FRAME_LEN_MAX {
        return;
    }
    POOL.with(|pool| {
        let mut packet = pool.packet(frame).expect("the buffer came back");
        packet.in_port = 7;
        packet.recirc_id = u32::from(control >> 4);
        packet.ct_mark = 0xabcd_ef01;
        if control & 1 != 0 {
            packet.flags.insert(PacketFlags::LAYER3);
            packet.l3_type = if control & 2 != 0 { 0x86dd } else { 0x0800 };
        }
        check(&mut packet, frame, ExtractOptions { vlan_depth: control >> 2 & 3 });
        pool.free(&mut packet);
    });
}

fn check(packet: &mut Packet, frame: &[u8], options: ExtractOptions) {
    let layer3 = packet.flags.contains(PacketFlags::LAYER3);
    let whole = extract_whole(packet, None, options);
    assert_eq!(packet.data(), frame, "extraction changed the packet");
    assert_eq!(
        whole.is_err(),
        !layer3 && frame.len() < 14,
        "only a packet shorter than its Ethernet header is refused"
    );
    let offsets = [packet.l2_5, packet.l3, packet.l4];
    let present: Vec<u16> = offsets.into_iter().filter(|at| *at != NONE).collect();
    assert!(present.is_sorted() && present.iter().all(|at| usize::from(*at) <= frame.len()), "offsets {offsets:?}");
    let Ok(whole) = whole else { return };

    // A dirty key gives the same, once what was not written is cleared.
    let mut dirty = FlowKey::default();
    dirty.lines_mut().iter_mut().flatten().for_each(|word| *word = 0x5a5a_5a5a_5a5a_5a5a);
    let lines = extract(packet, None, options, &mut dirty).expect("it was accepted before");
    assert_eq!(whole.lines_used() & !lines, 0, "a line in use was not reported");
    clear_unused(&mut dirty, lines);
    assert_eq!(dirty, whole);

    if let Some(base) = extract_base(packet) {
        assert_eq!((base, 1), (whole.lines()[0], whole.lines_used()), "the fast path disagrees");
        assert_eq!([packet.l2_5, packet.l3, packet.l4], offsets, "the fast path's offsets disagree");
    }
}
