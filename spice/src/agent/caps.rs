//! What the two ends of an agent's stream can do (`VD_AGENT_CAP_*`).

use crate::wire::{Reader, Truncated};

/// Words of capability bits that are kept; `vd_agent.h` fills half of the first.
const WORDS: usize = 4;

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Caps([u32; WORDS]);

impl Caps {
    pub(super) const MOUSE_STATE: u32 = 0;
    pub(super) const CLIPBOARD: u32 = 3;
    pub(super) const CLIPBOARD_BY_DEMAND: u32 = 5;
    pub(super) const CLIPBOARD_SELECTION: u32 = 6;
    pub(super) const MAX_CLIPBOARD: u32 = 10;
    pub(super) const FILE_XFER_DISABLED: u32 = 13;
    pub(super) const CLIPBOARD_NO_RELEASE_ON_REGRAB: u32 = 16;
    pub(super) const CLIPBOARD_GRAB_SERIAL: u32 = 17;

    /// All that concerns a clipboard.
    pub(super) const ALL_CLIPBOARD: [u32; 6] = [
        Self::CLIPBOARD,
        Self::CLIPBOARD_BY_DEMAND,
        Self::CLIPBOARD_SELECTION,
        Self::MAX_CLIPBOARD,
        Self::CLIPBOARD_NO_RELEASE_ON_REGRAB,
        Self::CLIPBOARD_GRAB_SERIAL,
    ];
    /// How this server can talk about a clipboard to either end, whatever the other end can.
    const TRANSLATED: [u32; 3] = [
        Self::CLIPBOARD_SELECTION,
        Self::CLIPBOARD_NO_RELEASE_ON_REGRAB,
        Self::CLIPBOARD_GRAB_SERIAL,
    ];

    pub(super) fn has(self, bit: u32) -> bool {
        let word = self.0.get(bit as usize / 32);
        word.is_some_and(|word| word >> (bit % 32) & 1 != 0)
    }

    pub(super) fn with(mut self, bits: &[u32]) -> Self {
        for bit in bits {
            self.0[*bit as usize / 32] |= 1 << (bit % 32);
        }
        self
    }

    pub(super) fn without(mut self, bits: &[u32]) -> Self {
        for bit in bits {
            self.0[*bit as usize / 32] &= !(1 << (bit % 32));
        }
        self
    }

    /// What either can do.
    pub(super) fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] | other.0[n]))
    }

    /// What clients with these together are shown as to the agent.
    pub(super) fn of_clients(self) -> Self {
        if self.has(Self::CLIPBOARD_BY_DEMAND) {
            self.with(&Self::TRANSLATED)
        } else {
            self
        }
    }

    /// What an agent with these is shown as to a client that may not do everything.
    pub(super) fn of_agent(self, clipboard: bool, files: bool) -> Self {
        let mut shown = self;
        if !clipboard {
            shown = shown.without(&Self::ALL_CLIPBOARD);
        }
        if !files {
            shown = shown.with(&[Self::FILE_XFER_DISABLED]);
        }
        shown
    }

    /// The body of `ANNOUNCE_CAPABILITIES`: whether an answer is wanted, and the set.
    pub(super) fn parse(body: &[u8]) -> Result<(bool, Self), Truncated> {
        let mut fields = Reader(body);
        let request = fields.u32()? != 0;
        let mut caps = Self::default();
        for word in &mut caps.0 {
            *word = fields.u32().unwrap_or(0);
        }
        Ok((request, caps))
    }

    pub(super) fn announcement(self, request: bool) -> Vec<u8> {
        // Trailing words without a bit are left out: some agents know the length of one word only.
        let used = self.0.iter().rposition(|word| *word != 0).unwrap_or(0);
        let words = [u32::from(request)];
        words
            .iter()
            .chain(&self.0[..=used])
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_survives_the_wire() {
        let caps = Caps::default().with(&[0, 5, 17, 40]);

        let parsed = Caps::parse(&caps.announcement(true));

        assert_eq!(parsed, Ok((true, caps)));
    }

    #[test]
    fn what_is_forbidden_is_not_shown() {
        let agent = Caps::default().with(&[Caps::MOUSE_STATE]);
        let full = agent.with(&Caps::ALL_CLIPBOARD);

        let shown = full.of_agent(false, false);

        assert_eq!(shown, agent.with(&[Caps::FILE_XFER_DISABLED]));
    }
}
