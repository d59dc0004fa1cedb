//! What the guest says of its memory (5.5.6.3).

/// The guest's memory, each in bytes but for the counts of faults; `None` where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Brought in from swap since it started.
    pub swap_in: Option<u64>,
    /// Sent to swap since it started.
    pub swap_out: Option<u64>,
    /// Page faults that had to read from a disk.
    pub major_faults: Option<u64>,
    /// All other page faults.
    pub minor_faults: Option<u64>,
    /// Not used for anything.
    pub free: Option<u64>,
    /// All of it.
    pub total: Option<u64>,
    /// What new programs could have without swapping.
    pub available: Option<u64>,
    /// Copies of what is on disks, which can go at once.
    pub disk_caches: Option<u64>,
}

/// A tag and a value.
const ENTRY: usize = 10;
/// Entries that a guest may send: there are tags that we have no use for.
pub(super) const MOST_BYTES: usize = 64 * ENTRY;

impl Stats {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut stats = Self::default();
        for entry in bytes.chunks_exact(ENTRY) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let value = entry[2..].iter().rev();
            let value = value.fold(0, |value, byte| value << 8 | u64::from(*byte));
            // A guest says of what it does not know that it is as large as can be.
            stats.set(tag, Some(value).filter(|value| *value != u64::MAX));
        }
        stats
    }

    /// `VIRTIO_BALLOON_S_*`.
    fn set(&mut self, tag: u16, value: Option<u64>) {
        let fields = [
            &mut self.swap_in,
            &mut self.swap_out,
            &mut self.major_faults,
            &mut self.minor_faults,
            &mut self.free,
            &mut self.total,
            &mut self.available,
            &mut self.disk_caches,
        ];
        if let Some(field) = fields.into_iter().nth(tag.into()) {
            *field = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_known_by_their_tags() {
        let mut bytes = Vec::new();
        for (tag, value) in [(4_u16, 1000_u64), (99, 5), (5, 4096), (6, u64::MAX)] {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([1, 0, 7]);

        let stats = Stats::parse(&bytes);

        let wanted = Stats {
            free: Some(1000),
            total: Some(4096),
            ..Stats::default()
        };
        assert_eq!(stats, wanted);
    }
}
