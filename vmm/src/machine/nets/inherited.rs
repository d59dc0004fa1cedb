//! Descriptors that whoever started the program has opened for it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use parking_lot::Mutex;

/// Standard input, output and error are before it.
const FIRST: RawFd = 3;

/// Descriptors that were open from the start, and are nobody's yet.
#[derive(Debug)]
pub struct Inherited(Mutex<BTreeSet<RawFd>>);

impl Inherited {
    /// Those that are open now, which must be before the program opens any that it keeps.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn now() -> io::Result<Self> {
        let names: Vec<_> = std::fs::read_dir("/proc/self/fd")?.collect::<Result<_, _>>()?;
        let numbers = names.iter().filter_map(|entry| {
            let number: RawFd = entry.file_name().to_str()?.parse().ok()?;
            (number >= FIRST && is_open(number)).then_some(number)
        });
        Ok(Self(Mutex::new(numbers.collect())))
    }

    /// Gives the descriptor of this number away, if it is there and `accept` says so; that it is not
    /// there is `None`.
    pub fn take<E>(
        &self,
        number: RawFd,
        accept: impl FnOnce(BorrowedFd<'_>) -> Result<(), E>,
    ) -> Option<Result<OwnedFd, E>> {
        let mut numbers = self.0.lock();
        if !numbers.contains(&number) {
            return None;
        }
        // SAFETY: it was open at the start, nobody else knows of it, and it stays in the set.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        if let Err(error) = accept(borrowed) {
            return Some(Err(error));
        }
        numbers.remove(&number);
        // SAFETY: as above, and as it is in the set no longer it is given away once.
        Some(Ok(unsafe { OwnedFd::from_raw_fd(number) }))
    }
}

/// The folder's own descriptor was listed, too, and is closed by now.
fn is_open(number: RawFd) -> bool {
    // SAFETY: only asks about a number.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_descriptor_is_given_away_once() {
        let number = File::open("/dev/null").unwrap().into_raw_fd();
        let inherited = Inherited::now().unwrap();

        let refused = inherited.take(number, |_| Err(()));
        let first = inherited.take(number, |_| Ok::<_, ()>(()));
        let second = inherited.take(number, |_| Ok::<_, ()>(()));

        assert!(matches!(refused, Some(Err(()))));
        assert_eq!(first.unwrap().unwrap().as_raw_fd(), number);
        assert!(second.is_none());
    }

    #[test]
    fn a_descriptor_that_was_not_open_is_not_there() {
        let inherited = Inherited::now().unwrap();

        assert!(inherited.take(RawFd::MAX, |_| Ok::<_, ()>(())).is_none());
    }
}
