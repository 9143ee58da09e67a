//! [`Step`]: what the executor tells whoever watches it. Nobody watching costs nothing: the question is asked at compile time.

use crate::flow::Ext;
use crate::flow::action::Action;
use crate::packet::{Fate, Packet};

/// Something that happens to one packet, named by its reference. What is told between a `Begin` and its `End` happens
/// inside of that action.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// An action is about to be carried out on the packet.
    Begin {
        /// The action.
        action: &'a Action,
        /// The packet before it.
        packet: &'a Packet,
        /// Its metadata that the descriptor has no room for.
        ext: Option<&'a Ext>,
    },
    /// The action has been carried out.
    End {
        /// The packet and its rarer metadata; `None` if the list does not go on with it.
        packet: Option<(&'a Packet, Option<&'a Ext>)>,
    },
    /// `sample`: it is carried out. `check_pkt_len`: the packet is longer.
    Chose(bool),
    /// A copy was to be made.
    Copied {
        /// The copy's reference; `None` if there is no buffer for it.
        copy: Option<u16>,
    },
    /// The packet is in another buffer now.
    Moved {
        /// Its reference from now on.
        to: u16,
    },
    /// `lb_output` has chosen.
    Member {
        /// The packet's hash.
        hash: u32,
        /// The member's port, if the bond has any for this hash.
        port: Option<u32>,
    },
    /// The packet goes to the upcall handler.
    Handed {
        /// Its length, after `trunc`.
        len: usize,
    },
    /// The packet waits to be sent. If nothing more is told of it, the port has taken it.
    Queued {
        /// The port.
        port: u32,
        /// Its length, after `trunc`.
        len: usize,
    },
    /// The packet, or copy, has come to its end otherwise.
    Ended(Fate),
}
