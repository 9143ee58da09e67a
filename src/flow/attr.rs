//! The numbers of OVS's netlink attributes (Linux uAPI, `linux/openvswitch.h`), and their names for error messages.
//!
//! An attribute is `struct nlattr`: length (2 bytes, includes these 4), type (2 bytes, the upper two bits are flags), the
//! payload, and zeros up to a multiple of 4. Both are in native byte order.
//!
//! What only a userspace datapath has gets no number from the kernel, and Open vSwitch moves such numbers from version to
//! version, so Wye has its own for them, from [`WYE_FIRST`] up; who talks to an Open vSwitch translates.

/// Bits of `nla_type` that hold the type.
pub const TYPE_MASK: u16 = 0x3fff;
/// In `nla_type`: the payload is attributes.
pub const NESTED: u16 = 0x8000;

/// The first of Wye's own action numbers; everything below is the kernel's. They end at [`TYPE_MASK`].
pub const WYE_FIRST: u16 = 0x1000;

macro_rules! attributes {
    ($(#[$doc:meta])* $module:ident $prefix:literal { $($(#[$item:meta])* $name:ident = $number:expr,)* }) => {
        $(#[$doc])*
        pub mod $module {
            #[allow(unused_imports)]
            use super::WYE_FIRST;

            $(
                #[doc = concat!("`", $prefix, stringify!($name), "`")]
                $(#[$item])*
                pub const $name: u16 = $number;
            )*

            /// The name of attribute `number`, if it is known.
            pub const fn name(number: u16) -> Option<&'static str> {
                match number {
                    $($name => Some(concat!($prefix, stringify!($name))),)*
                    _ => None,
                }
            }
        }
    };
}

attributes! {
    /// `enum ovs_key_attr`: fields of a flow key.
    key "OVS_KEY_ATTR_" {
        ENCAP = 1,
        PRIORITY = 2,
        IN_PORT = 3,
        ETHERNET = 4,
        VLAN = 5,
        ETHERTYPE = 6,
        IPV4 = 7,
        IPV6 = 8,
        TCP = 9,
        UDP = 10,
        ICMP = 11,
        ICMPV6 = 12,
        ARP = 13,
        ND = 14,
        SKB_MARK = 15,
        TUNNEL = 16,
        SCTP = 17,
        TCP_FLAGS = 18,
        DP_HASH = 19,
        RECIRC_ID = 20,
        MPLS = 21,
        CT_STATE = 22,
        CT_ZONE = 23,
        CT_MARK = 24,
        CT_LABELS = 25,
        CT_ORIG_TUPLE_IPV4 = 26,
        CT_ORIG_TUPLE_IPV6 = 27,
        NSH = 28,
        PACKET_TYPE = 29,
        ND_EXTENSIONS = 30,
    }
}

attributes! {
    /// `enum ovs_tunnel_key_attr`: what is inside `OVS_KEY_ATTR_TUNNEL`.
    tunnel "OVS_TUNNEL_KEY_ATTR_" {
        ID = 0,
        IPV4_SRC = 1,
        IPV4_DST = 2,
        TOS = 3,
        TTL = 4,
        DONT_FRAGMENT = 5,
        CSUM = 6,
        OAM = 7,
        GENEVE_OPTS = 8,
        TP_SRC = 9,
        TP_DST = 10,
        VXLAN_OPTS = 11,
        IPV6_SRC = 12,
        IPV6_DST = 13,
        PAD = 14,
        ERSPAN_OPTS = 15,
        GTPU_OPTS = 16,
    }
}

attributes! {
    /// What is inside `OVS_TUNNEL_KEY_ATTR_VXLAN_OPTS`.
    vxlan "OVS_VXLAN_EXT_" {
        GBP = 1,
    }
}

attributes! {
    /// `enum ovs_nsh_key_attr`: what is inside `OVS_KEY_ATTR_NSH` and `OVS_ACTION_ATTR_PUSH_NSH`.
    nsh "OVS_NSH_KEY_ATTR_" {
        BASE = 1,
        MD1 = 2,
        MD2 = 3,
    }
}

attributes! {
    /// `enum ovs_action_attr`, and Wye's own from `WYE_FIRST` up.
    action "OVS_ACTION_ATTR_" {
        OUTPUT = 1,
        USERSPACE = 2,
        SET = 3,
        PUSH_VLAN = 4,
        POP_VLAN = 5,
        SAMPLE = 6,
        RECIRC = 7,
        HASH = 8,
        PUSH_MPLS = 9,
        POP_MPLS = 10,
        SET_MASKED = 11,
        CT = 12,
        TRUNC = 13,
        PUSH_ETH = 14,
        POP_ETH = 15,
        CT_CLEAR = 16,
        PUSH_NSH = 17,
        POP_NSH = 18,
        METER = 19,
        CLONE = 20,
        CHECK_PKT_LEN = 21,
        ADD_MPLS = 22,
        DEC_TTL = 23,
        DROP = 24,
        PSAMPLE = 25,
        /// as Wye numbers it.
        TUNNEL_PUSH = WYE_FIRST,
        /// as Wye numbers it.
        TUNNEL_POP = WYE_FIRST + 1,
        /// as Wye numbers it.
        LB_OUTPUT = WYE_FIRST + 2,
        /// Wye's own.
        ENCAP = WYE_FIRST + 3,
    }
}

attributes! {
    /// `enum ovs_userspace_attr`.
    userspace "OVS_USERSPACE_ATTR_" {
        PID = 1,
        USERDATA = 2,
        EGRESS_TUN_PORT = 3,
        ACTIONS = 4,
    }
}

attributes! {
    /// `enum ovs_sample_attr`.
    sample "OVS_SAMPLE_ATTR_" {
        PROBABILITY = 1,
        ACTIONS = 2,
    }
}

attributes! {
    /// `enum ovs_check_pkt_len_attr`.
    check_pkt_len "OVS_CHECK_PKT_LEN_ATTR_" {
        PKT_LEN = 1,
        ACTIONS_IF_GREATER = 2,
        ACTIONS_IF_LESS_EQUAL = 3,
    }
}

attributes! {
    /// `enum ovs_dec_ttl_attr`.
    dec_ttl "OVS_DEC_TTL_ATTR_" {
        ACTION = 1,
    }
}

/// Bits of `OVS_KEY_ATTR_CT_STATE` that Wye's datapath has: new, est, rel, rpl, inv, trk, snat, dnat.
pub const CT_STATE_MASK: u32 = 0xff;
/// `OVS_FRAG_TYPE_NONE`.
pub const FRAG_TYPE_NONE: u8 = 0;
/// `OVS_FRAG_TYPE_FIRST`.
pub const FRAG_TYPE_FIRST: u8 = 1;
/// `OVS_FRAG_TYPE_LATER`.
pub const FRAG_TYPE_LATER: u8 = 2;
/// `OVS_HASH_ALG_L4`.
pub const HASH_ALG_L4: u32 = 0;
/// `OVS_HASH_ALG_SYM_L4`.
pub const HASH_ALG_SYM_L4: u32 = 1;
/// The port number that means "no port" (`ODPP_NONE`): what a key without `OVS_KEY_ATTR_IN_PORT` has.
pub const PORT_NONE: u32 = u32::MAX;

/// `enum ovs_vport_type`: the kinds of tunnels, as `tnl_push` names them.
pub mod vport_type {
    /// `OVS_VPORT_TYPE_GRE`
    pub const GRE: u32 = 3;
    /// `OVS_VPORT_TYPE_VXLAN`
    pub const VXLAN: u32 = 4;
    /// `OVS_VPORT_TYPE_GENEVE`
    pub const GENEVE: u32 = 5;
    /// `OVS_VPORT_TYPE_ERSPAN`
    pub const ERSPAN: u32 = 107;
    /// `OVS_VPORT_TYPE_IP6ERSPAN`
    pub const IP6ERSPAN: u32 = 108;
    /// `OVS_VPORT_TYPE_IP6GRE`
    pub const IP6GRE: u32 = 109;
    /// `OVS_VPORT_TYPE_GTPU`
    pub const GTPU: u32 = 110;
    /// `OVS_VPORT_TYPE_SRV6`
    pub const SRV6: u32 = 112;
}
