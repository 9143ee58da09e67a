//! VLAN numbers, sets of them, and what a port makes of them.

use crate::flow::key::BaseLine;
use crate::flow::key::VLAN_PRESENT;
use crate::wire::ethernet;

/// The number of a VLAN: 1 to 4094 (IEEE 802.1Q §9.6 reserves 0 and 4095).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// VLAN 1, the usual one of ports that are not told otherwise.
    pub const DEFAULT: VlanId = VlanId(1);

    /// VLAN `number`, if it is one.
    pub const fn new(number: u16) -> Option<VlanId> {
        if number >= 1 && number <= 4094 { Some(VlanId(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl core::fmt::Display for VlanId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of VLANs.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// No VLAN.
    pub fn none() -> Self {
        VlanSet(Box::new([0; 64]))
    }

    /// Every VLAN.
    pub fn all() -> Self {
        (1..=4094).filter_map(VlanId::new).collect()
    }

    /// Adds `vlan`.
    pub fn insert(&mut self, vlan: VlanId) {
        self.0[usize::from(vlan.0 / 64)] |= 1 << (vlan.0 % 64);
    }

    /// True if `vlan` is in the set.
    pub fn contains(&self, vlan: VlanId) -> bool {
        self.0[usize::from(vlan.0 / 64)] >> (vlan.0 % 64) & 1 != 0
    }
}

impl core::fmt::Display for VlanSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut vlans =
            (1..=4094).filter_map(VlanId::new).filter(|&vlan| self.contains(vlan)).map(VlanId::number).peekable();
        let mut separator = "";
        while let Some(first) = vlans.next() {
            let mut last = first;
            while let Some(next) = vlans.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl FromIterator<VlanId> for VlanSet {
    fn from_iter<I: IntoIterator<Item = VlanId>>(vlans: I) -> Self {
        let mut set = VlanSet::none();
        vlans.into_iter().for_each(|vlan| set.insert(vlan));
        set
    }
}

impl core::fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set()
            .entries((1..=4094).filter_map(VlanId::new).filter(|&v| self.contains(v)).map(VlanId::number))
            .finish()
    }
}

/// Which VLANs a port belongs to, and how its frames show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortVlans {
    /// Frames without a tag (or with VLAN number 0, which is a priority only) belong to this VLAN and leave without a tag. Frames
    /// with a tag are refused.
    Access(VlanId),
    /// Frames with a tag belong to its VLAN, if `allowed` has it.
    Trunk {
        /// Frames of this VLAN come and go without a tag. `None`: frames without a tag are refused.
        native: Option<VlanId>,
        /// VLANs that come and go with a tag. The native one need not be among them; if it is, it may come with a tag too.
        allowed: VlanSet,
    },
}

impl Default for PortVlans {
    fn default() -> Self {
        PortVlans::Access(VlanId::DEFAULT)
    }
}

/// How a frame shows its VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// Not at all. A service tag (802.1ad) is none of the bridge's: it is payload.
    None,
    /// By an 802.1Q tag.
    Vlan,
    /// A tag of VLAN 0: only a priority, which is here in place.
    Priority(u16),
}

impl Tag {
    /// The tag of a packet with this key, and the VLAN number in it.
    pub(super) fn of(key: &BaseLine) -> (Tag, u16) {
        let tci = key.vlan_tci.get();
        match tci & 0xfff {
            _ if tci & VLAN_PRESENT == 0 || key.vlan_tpid.get() != ethernet::VLAN => (Tag::None, 0),
            0 => (Tag::Priority(tci & 0xe000), 0),
            vlan => (Tag::Vlan, vlan),
        }
    }
}

impl PortVlans {
    /// The VLAN that a frame with this tag belongs to; `None` if the port refuses it.
    pub(super) fn classify(&self, tag: Tag, number: u16) -> Option<VlanId> {
        match (self, tag) {
            (PortVlans::Access(vlan), Tag::None | Tag::Priority(_)) => Some(*vlan),
            (PortVlans::Access(_), Tag::Vlan) => None,
            (PortVlans::Trunk { native, .. }, Tag::None | Tag::Priority(_)) => *native,
            (PortVlans::Trunk { allowed, .. }, Tag::Vlan) => VlanId::new(number).filter(|&vlan| allowed.contains(vlan)),
        }
    }

    /// Whether frames of `vlan` leave by this port, and if so, whether with a tag.
    pub(super) fn leaves_tagged(&self, vlan: VlanId) -> Option<bool> {
        match self {
            PortVlans::Access(own) => (*own == vlan).then_some(false),
            PortVlans::Trunk { native, .. } if *native == Some(vlan) => Some(false),
            PortVlans::Trunk { allowed, .. } => allowed.contains(vlan).then_some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_0_and_4095_are_no_vlans() {
        assert_eq!((VlanId::new(0), VlanId::new(4095), VlanId::new(9000)), (None, None, None));
        assert!(
            VlanSet::all().contains(VlanId::new(1).unwrap()) && VlanSet::all().contains(VlanId::new(4094).unwrap())
        );
        assert_eq!(format!("{:?}", [3, 70].into_iter().filter_map(VlanId::new).collect::<VlanSet>()), "{3, 70}");
        assert_eq!(
            [5, 3, 4, 9, 4094].into_iter().filter_map(VlanId::new).collect::<VlanSet>().to_string(),
            "3-5,9,4094"
        );
        assert_eq!((VlanSet::all().to_string(), VlanSet::none().to_string()), ("1-4094".to_owned(), String::new()));
    }

    #[test]
    fn native_vlan_leaves_untagged_and_comes_tagged_only_where_allowed() {
        let [one, two, three] = [1, 2, 3].map(|n| VlanId::new(n).unwrap());
        let trunk = PortVlans::Trunk { native: Some(one), allowed: [two].into_iter().collect() };
        assert_eq!(
            (trunk.leaves_tagged(one), trunk.leaves_tagged(two), trunk.leaves_tagged(three)),
            (Some(false), Some(true), None)
        );
        assert_eq!(
            (trunk.classify(Tag::None, 0), trunk.classify(Tag::Vlan, 2), trunk.classify(Tag::Vlan, 1)),
            (Some(one), Some(two), None)
        );
        let access = PortVlans::Access(two);
        assert_eq!((access.classify(Tag::Vlan, 2), access.classify(Tag::Priority(0xe000), 0)), (None, Some(two)));
    }
}
