//! Where sequences of runs were seen.

use zerocopy::FromZeros;

/// The binary logarithm of the table of a large image.
const MAX_TABLE_BITS: u32 = 16;
const MIN_TABLE_BITS: u32 = 8;
/// Sequences of runs that are remembered at most, 12 bytes each; a text has one in ten pixels or fewer.
const MAX_SIGHTINGS: usize = 1 << 18;

/// A ring of the last sightings, those with the same hash chained, the newest first. Sightings and places are
/// numbered from the first that ever was. So what is overwritten or forgotten needs not be looked for: its number
/// is too small.
#[derive(Debug, Default)]
pub(in crate::codec) struct Table {
    bits: u32,
    /// By the upper bits of the hash, the newest sighting; 0 is none.
    newest: Vec<u32>,
    /// By the lowest bits of a sighting's number; of a power of two of them.
    ring: Vec<Sighting>,
    /// The number of the last sighting, …
    last: u32,
    /// … and of the last that stays.
    committed: u32,
    /// The number before that of the first place.
    forgotten: u32,
    /// Places since then.
    places: u32,
}

/// One sequence of runs.
#[derive(Debug, Default, Clone, Copy, FromZeros)]
struct Sighting {
    /// The number of the place where it begins.
    place: u32,
    /// Other bits of its hash: most that differ are told apart without a look at their pixels.
    tag: u32,
    /// The one before it with the same upper bits.
    before: u32,
}

impl Table {
    /// Forgets everything, and is ready for so many pixels; what is seen in more takes the room of the oldest.
    pub(in crate::codec) fn restart(&mut self, pixels: usize) {
        let size = pixels.next_power_of_two();
        self.bits = size.ilog2().clamp(MIN_TABLE_BITS, MAX_TABLE_BITS);
        grow(&mut self.newest, 1 << self.bits);
        grow(&mut self.ring, size.min(MAX_SIGHTINGS));
        self.forget(self.places as usize);
    }

    /// Has room for so many places.
    pub(super) fn extend(&mut self, places: usize) {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        if self.forgotten.max(self.last).checked_add(places).is_none() {
            // After four billion numbers begin anew.
            self.newest.fill(0);
            self.ring.fill(Sighting::default());
            self.forgotten = 0;
            self.last = 0;
            self.committed = 0;
        }
        self.places = places;
    }

    /// What was seen up to now stays.
    pub(in crate::codec) fn commit(&mut self) {
        self.committed = self.last;
    }

    /// Forgets what was seen since then.
    pub(in crate::codec) fn roll_back(&mut self) {
        self.last = self.committed;
    }

    /// Forgets the first `count` places: the others are so much nearer to the start.
    pub(in crate::codec) fn forget(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(self.places);
        self.forgotten += count;
        self.places -= count;
    }

    /// Remembers what begins at a place.
    pub(super) fn insert(&mut self, place: usize, key: u64) {
        let slot = (key >> (64 - self.bits)) as usize;
        let this = self.last + 1;
        let index = self.index(this);
        let (Some(newest), Some(sighting)) = (self.newest.get_mut(slot), self.ring.get_mut(index))
        else {
            return;
        };
        *sighting = Sighting {
            place: self.forgotten + place as u32 + 1,
            tag: Self::tag(key),
            // Later ones were taken back.
            before: if *newest < this { *newest } else { 0 },
        };
        *newest = this;
        self.last = this;
    }

    /// Where the same seems to begin as at the place that was [inserted](Self::insert) last, the newest first. A
    /// sighting that only shares its slot is `None`, but is looked at too.
    pub(super) fn seen(&self, key: u64) -> impl Iterator<Item = Option<usize>> {
        let mut newer = self.sighting(self.last);
        std::iter::from_fn(move || {
            let seen = self.sighting(newer.before);
            // Where the ring has overwritten one is another, which may have been taken back since.
            let is_there = self.last.wrapping_sub(newer.before) < self.ring.len() as u32
                && (self.forgotten + 1..newer.place).contains(&seen.place);
            newer = seen;
            let is_same = seen.tag == Self::tag(key);
            let place = move || (seen.place - self.forgotten - 1) as usize;
            is_there.then(|| is_same.then(place))
        })
    }

    fn sighting(&self, number: u32) -> Sighting {
        let sighting = self.ring.get(self.index(number));
        sighting.copied().unwrap_or_default()
    }

    fn index(&self, number: u32) -> usize {
        number as usize & self.ring.len().wrapping_sub(1)
    }

    fn tag(key: u64) -> u32 {
        (key >> 16) as u32
    }
}

/// Makes it so long, if it is not, of zeros: what stays so takes no memory. Without memory nothing is found.
fn grow<T: FromZeros>(list: &mut Vec<T>, length: usize) {
    if list.len() < length {
        *list = T::new_vec_zeroed(length).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0x1234_5678_9abc_def0;
    /// Differs from that in the tag alone.
    const OTHER: u64 = KEY ^ 1 << 20;

    fn table_of(places: impl IntoIterator<Item = (usize, u64)>) -> Table {
        let mut table = Table::default();
        table.restart(1 << 10);
        table.extend(1 << 10);
        for (place, key) in places {
            table.insert(place, key);
        }
        table
    }

    fn seen(table: &Table) -> Vec<usize> {
        table.seen(KEY).flatten().collect()
    }

    #[test]
    fn the_newest_comes_first_and_another_of_the_same_slot_is_left_out() {
        let table = table_of([(0, KEY), (7, OTHER), (9, KEY), (12, KEY)]);

        assert_eq!(seen(&table), [9, 0]);
    }

    #[test]
    fn what_the_ring_has_overwritten_is_not_found() {
        let between = (1..1 << 10).map(|place| (place, !KEY));
        let all_but_one = between.clone().skip(1);

        let kept = table_of(
            std::iter::once((0, KEY))
                .chain(all_but_one)
                .chain([(1030, KEY)]),
        );
        let lost = table_of(
            std::iter::once((0, KEY))
                .chain(between)
                .chain([(1030, KEY)]),
        );

        assert_eq!(seen(&kept), [0]);
        assert_eq!(seen(&lost), [0; 0]);
    }

    #[test]
    fn what_is_taken_back_is_not_found() {
        let mut table = table_of([(0, KEY)]);
        table.commit();
        table.insert(5, KEY);
        table.insert(8, KEY);

        table.roll_back();
        table.insert(4, KEY);

        assert_eq!(seen(&table), [0; 0]);
    }

    #[test]
    fn forgotten_places_are_not_found_and_the_others_are_nearer_to_the_start() {
        let mut table = table_of([(2, KEY), (6, KEY)]);

        table.forget(5);
        table.insert(30, KEY);

        assert_eq!(seen(&table), [1]);
    }

    #[test]
    fn numbers_begin_anew_before_they_are_too_large() {
        let mut table = table_of([(0, KEY)]);
        table.last = u32::MAX - 2;

        table.extend(1 << 10);
        table.insert(3, KEY);
        table.insert(5, KEY);

        assert_eq!(seen(&table), [3]);
    }
}
