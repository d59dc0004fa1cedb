//! One direction of a pipe: bytes and marks between them, in order and bounded.

use std::collections::VecDeque;

/// Something that travels through a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item<M> {
    /// These bytes, at least one.
    Bytes(Vec<u8>),
    /// Something that happened between bytes.
    Mark(M),
}

/// Items on their way, of [`Queue::LIMIT`] bytes at most.
#[derive(Debug)]
pub(super) struct Queue<M> {
    items: VecDeque<Item<M>>,
    load: usize,
}

impl<M> Default for Queue<M> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            load: 0,
        }
    }
}

impl<M: PartialEq> Queue<M> {
    /// Bytes that may be on their way. Two round trips of 80 ms at 6 Mbit/s; the socket's own
    /// buffers come on top.
    pub(super) const LIMIT: usize = 64 * 1024;
    /// What an item costs at least, so that many small ones are bounded too.
    const ITEM_COST: usize = 64;

    fn cost(item: &Item<M>) -> usize {
        match item {
            Item::Bytes(bytes) => bytes.len().max(Self::ITEM_COST),
            Item::Mark(_) => Self::ITEM_COST,
        }
    }

    /// Bytes that [`Queue::push`] would take now.
    pub(super) fn room(&self) -> usize {
        Self::LIMIT.saturating_sub(self.load)
    }

    /// Takes as many of the bytes as there is room for, and says how many.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = &bytes[..bytes.len().min(self.room())];
        if taken.is_empty() {
            return 0;
        }
        if let Some(Item::Bytes(last)) = self.items.back_mut() {
            let before = last.len().max(Self::ITEM_COST);
            last.extend_from_slice(taken);
            self.load += last.len().max(Self::ITEM_COST) - before;
        } else {
            self.append(Item::Bytes(taken.to_vec()));
        }
        taken.len()
    }

    /// Appends a mark, whether or not there is room: whoever does must bound how many there are.
    pub(super) fn mark(&mut self, mark: M) {
        self.append(Item::Mark(mark));
    }

    fn append(&mut self, item: Item<M>) {
        self.load += Self::cost(&item);
        self.items.push_back(item);
    }

    /// Takes back the last item if it is this mark, and says whether it was.
    pub(super) fn unmark(&mut self, mark: &M) -> bool {
        let last = matches!(self.items.back(), Some(Item::Mark(last)) if last == mark);
        if last {
            self.items.pop_back();
            self.load -= Self::ITEM_COST;
        }
        last
    }

    pub(super) fn pop(&mut self) -> Option<Item<M>> {
        let item = self.items.pop_front()?;
        self.load -= Self::cost(&item);
        Some(item)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_merged_up_to_a_mark() {
        let mut queue = Queue::default();
        queue.push(b"a");
        queue.push(b"b");
        queue.mark('!');
        queue.push(b"c");
        assert_eq!(queue.pop(), Some(Item::Bytes(b"ab".to_vec())));
        assert_eq!(queue.pop(), Some(Item::Mark('!')));
        assert_eq!(queue.pop(), Some(Item::Bytes(b"c".to_vec())));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn what_does_not_fit_stays_with_its_owner() {
        let mut queue = Queue::<()>::default();
        let many = vec![7; Queue::<()>::LIMIT + 5];
        assert_eq!(queue.push(&many), Queue::<()>::LIMIT);
        assert_eq!(queue.push(b"x"), 0);
        queue.pop();
        assert_eq!(queue.push(b"x"), 1);
    }

    proptest! {
        #[test]
        fn all_bytes_come_out_in_order_and_the_load_returns_to_nothing(
            steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 0..200)
        ) {
            let mut queue = Queue::default();
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let mut drain = |queue: &mut Queue<()>| while let Some(item) = queue.pop() {
                if let Item::Bytes(bytes) = item { got.extend(bytes); }
            };
            for (mark, bytes) in steps {
                let taken = queue.push(&bytes);
                sent.extend_from_slice(&bytes[..taken]);
                if mark && queue.room() > 0 { queue.mark(()); }
                prop_assert!(queue.load <= Queue::<()>::LIMIT + Queue::<()>::ITEM_COST);
                if queue.room() == 0 { drain(&mut queue); }
            }
            drain(&mut queue);
            prop_assert_eq!(queue.load, 0);
            prop_assert_eq!(sent, got);
        }
    }
}
