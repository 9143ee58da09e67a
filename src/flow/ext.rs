//! [`Ext`]: metadata that few packets have, kept beside the 64-byte descriptor.

use super::key::{FlowKey, LINE_MISC, LINE_NSH, LINE_OPTIONS, LINE_TUNNEL, LineSet, MiscLine, NshLine, TunnelLine};
use zerocopy::FromZeros;

/// Rarer metadata of one packet. A worker keeps a table of these; [`Packet::ext`](crate::packet::Packet::ext) is the index.
#[derive(Clone, Debug)]
pub struct Ext {
    /// QoS priority.
    pub skb_priority: u32,
    /// Bytes at the packet's end that the next output or upcall leaves out (`trunc`).
    pub cut: u16,
    /// Which of the parts below hold anything.
    pub lines: LineSet,
    /// Tunnel metadata.
    pub tunnel: TunnelLine,
    /// Geneve options.
    pub options: [u8; 256],
    /// `ct_label` and the original IPv4 tuple; the other fields are zero.
    pub misc: MiscLine,
    /// The original IPv6 addresses; the other fields are zero.
    pub nsh: NshLine,
}

impl Default for Ext {
    fn default() -> Self {
        Ext {
            skb_priority: 0,
            cut: 0,
            lines: 0,
            tunnel: TunnelLine::new_zeroed(),
            options: [0; 256],
            misc: MiscLine::new_zeroed(),
            nsh: NshLine::new_zeroed(),
        }
    }
}

impl Ext {
    /// The metadata part of `key`: what a packet must carry to be extracted to that key again.
    pub fn of_key(key: &FlowKey) -> Ext {
        let mut ext = Ext {
            skb_priority: key.base.skb_priority,
            lines: key.lines_used() & (LINE_TUNNEL | LINE_OPTIONS),
            tunnel: key.tunnel,
            options: key.options,
            ..Ext::default()
        };
        ext.misc.ct_label = key.misc.ct_label;
        ext.misc.ct_orig_proto = key.misc.ct_orig_proto;
        ext.misc.ct_orig_ipv4_src = key.misc.ct_orig_ipv4_src;
        ext.misc.ct_orig_ipv4_dst = key.misc.ct_orig_ipv4_dst;
        ext.misc.ct_orig_tp_src = key.misc.ct_orig_tp_src;
        ext.misc.ct_orig_tp_dst = key.misc.ct_orig_tp_dst;
        ext.nsh.ct_orig_ipv6_src = key.nsh.ct_orig_ipv6_src;
        ext.nsh.ct_orig_ipv6_dst = key.nsh.ct_orig_ipv6_dst;
        if ext.misc != MiscLine::new_zeroed() {
            ext.lines |= LINE_MISC;
        }
        if ext.nsh != NshLine::new_zeroed() {
            ext.lines |= LINE_NSH;
        }
        ext
    }

    /// Makes it say nothing. Parts that `lines` does not name keep what they hold.
    #[inline(always)]
    pub fn clear(&mut self) {
        (self.skb_priority, self.cut, self.lines) = (0, 0, 0);
    }

    /// True when it says nothing.
    pub fn is_empty(&self) -> bool {
        self.skb_priority == 0 && self.cut == 0 && self.lines == 0
    }
}
