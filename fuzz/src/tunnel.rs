//! Tunnels: outer headers that strangers send, and outer headers that a controller hands over. The input is four bytes, which choose the
//! kind, the options, what the receiver knew, and where outer headers end; then a frame.

use std::sync::Arc;

use wye::flow::extract::{ExtractOptions, extract_whole};
use wye::flow::{Ext, FlowKey};
use wye::packet::{Packet, PacketFlags, Pool};
use wye::time::Nanos;
use wye::tunnel::{Kind, Moment, Options, Sequence, Template, open, open_usual};

/// Frames longer than this say nothing new.
const FRAME_LEN_MAX: usize = 2048;

std::thread_local! {
    static POOL: Arc<Pool> = Pool::new(1, 4096, 640).expect("memory for one buffer");
}

/// A packet that is dropped is unchanged, what is left of others was in them, the fast path does the same, and whatever headers are accepted
/// are pushed in front of a packet that stays as it is.
pub fn run(bytes: &[u8]) {
    let &[kind, options, flags, headers, ref frame @ ..] = bytes else { return };
    if frame.len() > FRAME_LEN_MAX {
        return;
    }
    let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
    let has = |bit: u8| options & bit != 0;
    let options = Options {
        gbp: has(1),
        gpe: has(2),
        zero_checksum6: has(4),
        ecn: has(8),
        known_options: has(16).then(|| Box::from([(0x0102, 0x80)])),
        reduced: has(32),
    };
    POOL.with(|pool| {
        opened(pool, kind, &options, flags & 1 != 0, frame);
        if let Some((header, inner)) = frame.split_at_checked(headers.into()) {
            pushed(pool, kind, &options, header, inner);
        }
    });
}

/// A packet as it is received; `None` if it is not even an Ethernet frame.
fn received(pool: &Arc<Pool>, checksums_good: bool, frame: &[u8]) -> Option<Packet> {
    let mut packet = pool.packet(frame).expect("the buffer came back");
    if extract_whole(&mut packet, None, ExtractOptions::default()).is_err() {
        pool.free(&mut packet);
        return None;
    }
    if checksums_good {
        packet.flags.insert(PacketFlags::CHECKSUM_GOOD);
    }
    Some(packet)
}

fn opened(pool: &Arc<Pool>, kind: Kind, options: &Options, checksums_good: bool, frame: &[u8]) -> Option<Vec<u8>> {
    let mut packet = received(pool, checksums_good, frame)?;
    let mut ext = Ext::default();
    let result = open(&mut packet, &mut ext, kind, options);
    let left = packet.data().to_vec();
    pool.free(&mut packet);
    assert!(left.len() <= frame.len());
    if result.is_err() {
        assert_eq!(left, frame, "a packet that is dropped was changed");
    }

    let mut packet = received(pool, checksums_good, frame)?;
    let mut key = FlowKey::default();
    if open_usual(&mut packet, &mut key, kind, options).is_some() {
        assert_eq!(result, Ok(()), "the fast path takes what is dropped");
        assert_eq!((packet.data(), key.tunnel, key.options), (&left[..], ext.tunnel, ext.options));
    } else {
        assert_eq!(packet.data(), frame, "the fast path changed what it does not take");
    }
    pool.free(&mut packet);
    result.is_ok().then_some(left)
}

fn pushed(pool: &Arc<Pool>, kind: Kind, options: &Options, header: &[u8], inner: &[u8]) {
    let Ok(template) = Template::new(kind, header) else { return };
    let Some(mut packet) = received(pool, false, inner) else { return };
    let sequence = Sequence::starting(u32::MAX);
    let moment = Moment { sequence: &sequence, now: Nanos(u64::MAX) };
    template.push(&mut packet, 0xdead_beef, None, moment).expect("the pool's headroom");
    let bytes = packet.data().to_vec();
    pool.free(&mut packet);
    assert_eq!(bytes.len(), header.len() + inner.len());
    assert!(bytes.ends_with(inner), "the inner packet was changed");
    // Congestion marks may change what is inside.
    let options = Options { ecn: false, ..options.clone() };
    if let Some(left) = opened(pool, kind, &options, false, &bytes) {
        assert!(left.ends_with(inner), "another packet came out");
    }
}
