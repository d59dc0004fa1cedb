//! Which frames the driver wants to see (5.1.6.5.1 and 5.1.6.5.2).

use serde::{Deserialize, Serialize};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Addresses that a table holds; a driver that has more gets every frame of that kind.
const TABLE: usize = 64;

/// A table of addresses, of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    addresses: Vec<Mac>,
    /// The driver named more than have room.
    overflown: bool,
}

impl Table {
    fn has(&self, mac: Mac) -> bool {
        self.overflown || self.addresses.contains(&mac)
    }

    /// Cuts a table off the front of a command: a count of 32 bits, and as many addresses.
    fn cut(bytes: &mut &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (mine, rest) = rest.split_at_checked(count.checked_mul(6)?)?;
        *bytes = rest;
        let (addresses, _) = mine.as_chunks();
        let overflown = count > TABLE;
        Some(Self {
            addresses: if overflown {
                Vec::new()
            } else {
                addresses.to_vec()
            },
            overflown,
        })
    }
}

/// What a driver set. A fresh one wants everything, as a driver that knows of no filter does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    unicast: Table,
    multicast: Table,
}

/// `VIRTIO_NET_CTRL_RX_*`.
mod mode {
    pub(super) const PROMISCUOUS: u8 = 0;
    pub(super) const ALL_MULTICAST: u8 = 1;
    pub(super) const ALL_UNICAST: u8 = 2;
    pub(super) const NO_MULTICAST: u8 = 3;
    pub(super) const NO_UNICAST: u8 = 4;
    pub(super) const NO_BROADCAST: u8 = 5;
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Table::default(),
            multicast: Table::default(),
        }
    }
}

impl Filter {
    /// Sets a mode by its command; whether there is such a one.
    pub(super) fn set_mode(&mut self, command: u8, on: bool) -> bool {
        let flag = match command {
            mode::PROMISCUOUS => &mut self.promiscuous,
            mode::ALL_MULTICAST => &mut self.all_multicast,
            mode::ALL_UNICAST => &mut self.all_unicast,
            mode::NO_MULTICAST => &mut self.no_multicast,
            mode::NO_UNICAST => &mut self.no_unicast,
            mode::NO_BROADCAST => &mut self.no_broadcast,
            _ => return false,
        };
        *flag = on;
        true
    }

    /// Sets both tables from a command; whether it held together.
    pub(super) fn set_tables(&mut self, mut bytes: &[u8]) -> bool {
        let tables = Table::cut(&mut bytes).zip(Table::cut(&mut bytes));
        let Some((unicast, multicast)) = tables.filter(|_| bytes.is_empty()) else {
            return false;
        };
        (self.unicast, self.multicast) = (unicast, multicast);
        true
    }

    /// Whether a frame to `target` is for a driver with the address `own`.
    pub(super) fn wants(&self, target: Mac, own: Mac) -> bool {
        if self.promiscuous {
            return true;
        }
        if target == [0xff; 6] {
            return !self.no_broadcast;
        }
        if target[0] & 1 != 0 {
            return !self.no_multicast && (self.all_multicast || self.multicast.has(target));
        }
        !self.no_unicast && (self.all_unicast || target == own || self.unicast.has(target))
    }

    /// Whether a saved one is possible.
    pub(super) fn is_sound(&self) -> bool {
        let tables = [&self.unicast, &self.multicast];
        tables.iter().all(|table| table.addresses.len() <= TABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];
    const GROUP: Mac = [1, 0, 0x5e, 0, 0, 1];
    const BROADCAST: Mac = [0xff; 6];

    fn wanted(filter: &Filter) -> [bool; 4] {
        [OWN, OTHER, GROUP, BROADCAST].map(|target| filter.wants(target, OWN))
    }

    fn strict() -> Filter {
        let mut filter = Filter::default();
        filter.set_mode(mode::PROMISCUOUS, false);
        filter
    }

    #[test]
    fn a_driver_that_says_nothing_gets_everything() {
        assert_eq!(wanted(&Filter::default()), [true; 4]);
    }

    #[test]
    fn a_strict_one_gets_what_is_for_it_or_for_all() {
        assert_eq!(wanted(&strict()), [true, false, false, true]);
    }

    #[test]
    fn modes_let_more_or_less_through() {
        for (command, expected) in [
            (mode::ALL_MULTICAST, [true, false, true, true]),
            (mode::ALL_UNICAST, [true, true, false, true]),
            (mode::NO_UNICAST, [false, false, false, true]),
            (mode::NO_BROADCAST, [true, false, false, false]),
        ] {
            let mut filter = strict();

            assert!(filter.set_mode(command, true));

            assert_eq!(wanted(&filter), expected, "{command}");
        }
    }

    #[test]
    fn tables_let_their_addresses_through() {
        let mut filter = strict();
        let command = [&1u32.to_le_bytes()[..], &OTHER, &1u32.to_le_bytes(), &GROUP].concat();

        assert!(filter.set_tables(&command));

        assert_eq!(wanted(&filter), [true; 4]);
    }

    #[test]
    fn a_table_that_is_too_long_lets_all_of_its_kind_through() {
        let mut filter = strict();
        let many = [&65u32.to_le_bytes()[..], &[2; 6 * 65], &[0; 4]].concat();

        assert!(filter.set_tables(&many));

        assert_eq!(wanted(&filter), [true, true, false, true]);
        assert!(filter.is_sound());
    }

    #[test]
    fn tables_that_do_not_hold_together_change_nothing() {
        let mut filter = strict();
        for command in [
            &[][..],
            &[0; 4],
            &[0; 9],
            &[1, 0, 0, 0, 2, 2, 2, 2, 2, 2],
            &[0xff; 16],
        ] {
            assert!(!filter.set_tables(command), "{command:?}");
        }
        assert_eq!(filter, strict());
    }
}
