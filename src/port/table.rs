//! The ports of one datapath as the packet path sees them: a value that is replaced as a whole.

use std::sync::Arc;

/// Ports that one datapath may have.
pub const PORTS_MAX: usize = 4096;
/// Port numbers are below this, as in OVS's userspace datapath.
pub const PORT_NUMBER_END: u32 = 65_536;

/// One port.
#[derive(Clone, Debug)]
pub struct PortEntry {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: Arc<str>,
    /// The longest packet that it sends, Ethernet header included.
    pub packet_len_max: u32,
    /// Whether it carries traffic.
    pub up: bool,
}

const NO_SLOT: u16 = u16::MAX;

/// All ports by number.
#[derive(Clone, Debug, Default)]
pub struct PortTable {
    /// Slot of each port number.
    by_number: Vec<u16>,
    slots: Vec<Option<PortEntry>>,
}

/// Why a port was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortAddError {
    /// The number is taken.
    #[error("port number {0} is in use")]
    NumberInUse(u32),
    /// The name is taken.
    #[error("a port of this name exists")]
    NameInUse,
    /// The number is not below [`PORT_NUMBER_END`].
    #[error("port number {0} is out of range (0 to 65535)")]
    NumberOutOfRange(u32),
    /// [`PORTS_MAX`] ports exist.
    #[error("the datapath has its maximum of {PORTS_MAX} ports")]
    TooMany,
}

impl PortTable {
    /// Adds a port.
    ///
    /// # Errors
    /// See [`PortAddError`]; nothing is changed then.
    pub fn add(&mut self, entry: PortEntry) -> Result<(), PortAddError> {
        if entry.number >= PORT_NUMBER_END {
            return Err(PortAddError::NumberOutOfRange(entry.number));
        }
        if self.get(entry.number).is_some() {
            return Err(PortAddError::NumberInUse(entry.number));
        }
        if self.iter().any(|p| p.name == entry.name) {
            return Err(PortAddError::NameInUse);
        }
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.slots.len() < PORTS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(PortAddError::TooMany),
        };
        let number = entry.number as usize;
        if self.by_number.len() <= number {
            self.by_number.resize(number + 1, NO_SLOT);
        }
        self.by_number[number] = slot as u16;
        self.slots[slot] = Some(entry);
        Ok(())
    }

    /// Removes a port and returns it.
    pub fn remove(&mut self, number: u32) -> Option<PortEntry> {
        let slot = core::mem::replace(self.by_number.get_mut(number as usize)?, NO_SLOT);
        self.slots.get_mut(usize::from(slot))?.take()
    }

    /// The port numbered `number`.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&PortEntry> {
        self.with_slot(number).map(|(_, entry)| entry)
    }

    /// The port numbered `number`, for changing.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut PortEntry> {
        let slot = *self.by_number.get(number as usize)?;
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    /// The port numbered `number` and its slot, a small number below [`PORTS_MAX`].
    #[inline(always)]
    pub fn with_slot(&self, number: u32) -> Option<(u16, &PortEntry)> {
        let slot = *self.by_number.get(number as usize)?;
        self.slots.get(usize::from(slot))?.as_ref().map(|entry| (slot, entry))
    }

    /// All ports, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &PortEntry> {
        self.slots.iter().flatten()
    }

    /// The port named `name`.
    pub fn by_name(&self, name: &str) -> Option<&PortEntry> {
        self.iter().find(|p| &*p.name == name)
    }

    /// The lowest free number from `from` on.
    pub fn free_number(&self, from: u32) -> Option<u32> {
        (from..PORT_NUMBER_END).find(|&n| self.get(n).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, name: &str) -> PortEntry {
        PortEntry { number, name: name.into(), packet_len_max: 1518, up: true }
    }

    #[test]
    fn numbers_and_names_are_unique_and_slots_are_reused() {
        let mut table = PortTable::default();
        table.add(entry(7, "a")).unwrap();
        assert_eq!(table.add(entry(7, "b")), Err(PortAddError::NumberInUse(7)));
        assert_eq!(table.add(entry(8, "a")), Err(PortAddError::NameInUse));
        assert_eq!(table.add(entry(65_536, "z")), Err(PortAddError::NumberOutOfRange(65_536)));
        table.add(entry(65_535, "last")).unwrap();
        let (slot, _) = table.with_slot(7).unwrap();
        assert!(table.remove(7).is_some() && table.remove(7).is_none() && table.get(7).is_none());
        table.add(entry(1, "c")).unwrap();
        assert_eq!(table.with_slot(1).unwrap().0, slot);
        assert_eq!(table.free_number(1), Some(2));
    }
}
