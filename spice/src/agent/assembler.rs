//! Messages out of the pieces that carry them.

use super::wire::{AgentError, HELD, Header, MESSAGE_HEADER};

/// Puts one stream's messages together. Holds [`HELD`] bytes of a message at most.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Header and body of the message under way, or of the last one.
    buffer: Vec<u8>,
    /// `buffer` was given out and is to be begun anew.
    given: bool,
    /// Bytes to come of a message whose beginning was given out.
    left: u32,
}

/// What came next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'held, 'input> {
    /// A message: what is held of its body, and how many bytes follow as [`Piece::Rest`].
    Message {
        header: Header,
        body: &'held [u8],
        left: u32,
    },
    /// More of the last message's body.
    Rest(&'input [u8]),
}

impl Assembler {
    /// The next piece, off the front of `input`; `None` once that is used up.
    pub(super) fn next<'held, 'input>(
        &'held mut self,
        input: &mut &'input [u8],
    ) -> Result<Option<Piece<'held, 'input>>, AgentError> {
        if self.left > 0 {
            let (now, later) = input.split_at(input.len().min(self.left as usize));
            *input = later;
            self.left -= now.len() as u32;
            return Ok((!now.is_empty()).then_some(Piece::Rest(now)));
        }
        if std::mem::take(&mut self.given) {
            self.buffer.clear();
            // A long message is rare, and a stream may rest for hours after it.
            self.buffer.shrink_to(4 * MESSAGE_HEADER);
        }
        if !self.fill(input, MESSAGE_HEADER) {
            return Ok(None);
        }
        let header = Header::parse(&self.buffer)?;
        let held = header.size.min(HELD);
        if !self.fill(input, MESSAGE_HEADER + held as usize) {
            return Ok(None);
        }
        self.given = true;
        self.left = header.size - held;
        Ok(Some(Piece::Message {
            header,
            body: &self.buffer[MESSAGE_HEADER..],
            left: self.left,
        }))
    }

    /// Moves bytes from `input` to the buffer until that has `wanted`.
    fn fill(&mut self, input: &mut &[u8], wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.buffer.len());
        let (now, later) = input.split_at(input.len().min(missing));
        *input = later;
        self.buffer.extend_from_slice(now);
        self.buffer.len() >= wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::wire::Outgoing;

    /// Kind and body of each message in `pieces`.
    fn messages(pieces: &[&[u8]]) -> Vec<(u32, Vec<u8>)> {
        let mut assembler = Assembler::default();
        let mut found: Vec<(u32, Vec<u8>)> = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(next) = assembler.next(&mut piece).expect("it is well formed") {
                match next {
                    Piece::Message { header, body, .. } => {
                        found.push((header.kind, body.to_vec()));
                    }
                    Piece::Rest(more) => found.last_mut().expect("it began").1.extend(more),
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_does_not_matter(
            bodies in prop::collection::vec((0u32..40, 0usize..3000), 1..6),
            long in prop::option::of(HELD as usize - 2..HELD as usize + 3000),
            cuts in prop::collection::vec(1usize..2000, 1..20),
        ) {
            let wanted: Vec<(u32, Vec<u8>)> = bodies
                .into_iter()
                .chain(long.map(|size| (4, size)))
                .map(|(kind, size)| (kind, (0..size).map(|n| (n * 7) as u8).collect()))
                .collect();
            let stream: Vec<u8> = wanted
                .iter()
                .flat_map(|(kind, body)| Outgoing::new(*kind, body).bytes().to_vec())
                .collect();
            let mut pieces = Vec::new();
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap_or(&1)));
                pieces.push(now);
                rest = later;
            }

            prop_assert_eq!(messages(&pieces), wanted);
        }
    }

    #[test]
    fn another_protocol_is_refused() {
        let mut input: &[u8] = &[2; MESSAGE_HEADER];

        let refused = Assembler::default().next(&mut input).err();

        assert_eq!(refused, Some(AgentError::Protocol(0x0202_0202)));
    }

    #[test]
    fn a_length_is_refused_before_anything_is_kept_for_it() {
        let mut bytes = Outgoing::new(4, &[]).bytes().to_vec();
        bytes[16..].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut assembler = Assembler::default();

        let refused = assembler.next(&mut bytes.as_slice()).err();

        let (kind, size) = (4, u32::MAX);
        assert_eq!(refused, Some(AgentError::TooLong { kind, size }));
        assert!(assembler.buffer.capacity() < 1024);
    }
}
