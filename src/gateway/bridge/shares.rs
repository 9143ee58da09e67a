//! How a bound that VPCs share is dealt out, so that none of them can take the last place from another.
//!
//! Half of the places are dealt out evenly, and each party has its share of them whatever the others do. The other half goes to whoever comes
//! first. Beside that each party has a limit of its own.

use std::collections::BTreeMap;

use crate::gateway::domain::{Domain, Vni};

/// Whoever a share belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Party {
    /// The VLANs of the bridge, all together.
    Vlans,
    /// A VPC.
    Vpc(Vni),
}

impl From<Domain> for Party {
    fn from(domain: Domain) -> Party {
        match domain {
            Domain::Vlan(_) => Party::Vlans,
            Domain::Vpc(vni) => Party::Vpc(vni),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    used: u32,
    limit: u32,
}

/// The places of one bound. What is used never exceeds it, but for what [`Shares::overdrawn`] names after a party has joined.
#[derive(Debug, Default)]
pub(super) struct Shares {
    max: u32,
    accounts: BTreeMap<Party, Account>,
    /// What each party has for itself.
    each: u32,
    /// What all have taken beyond that.
    common: u32,
}

impl Shares {
    /// `max` places, of the VLANs alone so far.
    pub fn new(max: u32) -> Shares {
        let accounts = BTreeMap::from([(Party::Vlans, Account { used: 0, limit: max })]);
        let mut shares = Shares { max, accounts, each: 0, common: 0 };
        shares.deal();
        shares
    }

    /// False, and nothing is changed, if there would not be a place for each party.
    pub fn join(&mut self, party: Party, limit: u32) -> bool {
        if self.accounts.len() as u64 >= u64::from(self.max / 2) {
            return false;
        }
        self.accounts.entry(party).or_default().limit = limit;
        self.deal();
        true
    }

    /// The places of a party that goes are free.
    pub fn leave(&mut self, party: Party) {
        self.accounts.remove(&party);
        self.deal();
    }

    fn deal(&mut self) {
        self.each = self.max / 2 / (self.accounts.len() as u32).max(1);
        self.common = self.accounts.values().map(|account| account.used.saturating_sub(self.each)).sum();
    }

    /// The other half, whatever rounding left of the first: so that it does not become smaller when a party leaves.
    fn common_max(&self) -> u32 {
        self.max - self.max / 2
    }

    /// A party that has to give places back, since one has joined, and how many: of those that took most.
    pub fn overdrawn(&self) -> Option<(Party, u32)> {
        let over = self.common.checked_sub(self.common_max()).filter(|over| *over > 0)?;
        let (party, account) = self.accounts.iter().max_by_key(|(_, account)| account.used)?;
        Some((*party, over.min(account.used - self.each)))
    }

    /// True if `party` may take a place.
    pub fn has_room(&self, party: Party) -> bool {
        let may = |account: &Account| {
            account.used < account.limit && (account.used < self.each || self.common < self.common_max())
        };
        self.accounts.get(&party).is_some_and(may)
    }

    /// Takes a place.
    pub fn take(&mut self, party: Party) {
        let Some(account) = self.accounts.get_mut(&party) else { return };
        self.common += u32::from(account.used >= self.each);
        account.used += 1;
    }

    /// Gives a place back.
    pub fn give(&mut self, party: Party) {
        let Some(account) = self.accounts.get_mut(&party) else { return };
        account.used -= 1;
        self.common -= u32::from(account.used >= self.each);
    }

    /// All places.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Places that `party` has.
    pub fn used(&self, party: Party) -> u32 {
        self.accounts.get(&party).map_or(0, |account| account.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn party(n: u32) -> Party {
        if n == 0 { Party::Vlans } else { Party::Vpc(Vni::new(n).unwrap()) }
    }

    #[test]
    fn one_alone_has_all() {
        let mut shares = Shares::new(7);
        for _ in 0..7 {
            assert!(shares.has_room(Party::Vlans));
            shares.take(Party::Vlans);
        }
        assert!(!shares.has_room(Party::Vlans));
    }

    #[test]
    fn there_are_no_more_parties_than_have_a_place() {
        let mut shares = Shares::new(7);
        assert!(shares.join(party(1), 9) && shares.join(party(2), 9) && !shares.join(party(3), 9));
        assert!(!shares.has_room(party(3)));
        shares.leave(party(1));
        assert!(shares.join(party(3), 9));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(u32, u32),
        Leave(u32),
        Take(u32),
        Give(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (1u32..5, 1u32..40).prop_map(|(n, limit)| Step::Join(n, limit)),
            1 => (1u32..5).prop_map(Step::Leave),
            12 => (0u32..5).prop_map(Step::Take),
            3 => (0u32..5).prop_map(Step::Give),
        ]
    }

    proptest! {
        /// Whatever the others do, a party gets its even part of half, and all together never get more than there is.
        #[test]
        fn bounds_hold_and_each_has_its_share(max in 2u32..60, steps in proptest::collection::vec(step(), 0..300)) {
            let mut shares = Shares::new(max);
            let mut used = BTreeMap::from([(party(0), (0u32, max))]);
            for step in steps {
                match step {
                    Step::Join(n, limit) if !used.contains_key(&party(n)) => {
                        if shares.join(party(n), limit) {
                            used.insert(party(n), (0, limit));
                        }
                        while let Some((party, over)) = shares.overdrawn() {
                            prop_assert!(over > 0);
                            (0..over).for_each(|_| shares.give(party));
                            used.get_mut(&party).unwrap().0 -= over;
                        }
                    }
                    Step::Leave(n) if used.remove(&party(n)).is_some() => shares.leave(party(n)),
                    Step::Take(n) => {
                        let each = max / 2 / used.len() as u32;
                        let total: u32 = used.values().map(|(used, _)| used).sum();
                        let has_room = shares.has_room(party(n));
                        match used.get_mut(&party(n)) {
                            Some((used, limit)) => {
                                prop_assert!(!has_room || used < limit && total < max);
                                prop_assert!(has_room || *used >= each.min(*limit));
                                if has_room {
                                    shares.take(party(n));
                                    *used += 1;
                                }
                            }
                            None => prop_assert!(!has_room),
                        }
                    }
                    Step::Give(n) => {
                        if let Some((used, _)) = used.get_mut(&party(n)).filter(|(used, _)| *used > 0) {
                            shares.give(party(n));
                            *used -= 1;
                        }
                    }
                    _ => {}
                }
                for n in 0..5 {
                    prop_assert_eq!(shares.used(party(n)), used.get(&party(n)).map_or(0, |(used, _)| *used));
                }
            }
        }
    }
}
