//! Frames from the guest: straight out of its buffers.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::backend::{Backend, LONGEST};
use super::header::Header;
use super::pieces::{Pieces, after, get, pieces};
use super::{Served, Terms, Turn};
use crate::queue::{Chain, Virtqueue};

/// The device's end of a transmit queue.
#[derive(Default)]
pub(super) struct Transmit {
    queue: Option<Arc<Virtqueue>>,
}

impl Transmit {
    pub(super) fn set_queue(&mut self, queue: Option<Arc<Virtqueue>>) {
        self.queue = queue;
    }

    /// The queue, to have it served.
    pub(super) fn ring(&self) {
        self.queue.iter().for_each(|queue| queue.ring());
    }

    /// Sends what the driver has made available, as far as the host takes it. The rest stays where it
    /// is: nothing is dropped because the host is slow.
    pub(super) fn serve(&mut self, backend: &mut dyn Backend, terms: &mut Terms<'_>) -> Served {
        match terms.link_up.then(|| backend.flush()).transpose() {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Served::Lost(error),
            // Whoever waits for the host's room comes back.
            Err(_) => return Served::Done,
            Ok(_) => {}
        }
        let Some(queue) = &self.queue else {
            return Served::Done;
        };
        if let Some(at) = terms.wait() {
            return Served::Until(at);
        }
        let mut turn = Turn::new();
        let mut any = false;
        queue.refuse_doorbell();
        let served = loop {
            let Some(chain) = queue.pop() else {
                // After frames there is one more look before the driver has to ring: it often has more
                // by then, and ringing takes it longer than looking takes us.
                if any || queue.want_doorbell() {
                    queue.ring();
                }
                break Served::Done;
            };
            let lost = match send(queue, &chain, backend, terms) {
                Ok(length) => {
                    turn.pass(length);
                    terms.passed(length);
                    None
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Whoever waits for the host's room comes back.
                    queue.unpop();
                    break Served::Done;
                }
                Err(error) => {
                    turn.pass(0);
                    terms.counters.dropped();
                    (error.kind() == ErrorKind::ConnectionReset).then_some(error)
                }
            };
            queue.complete(chain.head, 0);
            any = true;
            if let Some(error) = lost {
                break Served::Lost(error);
            }
            if let Some(at) = terms.wait() {
                break Served::Until(at);
            }
            if turn.is_over() {
                queue.ring();
                break Served::Done;
            }
        };
        queue.interrupt();
        served
    }
}

/// Sends the frame of a chain; its length.
fn send(
    queue: &Virtqueue,
    chain: &Chain,
    backend: &mut dyn Backend,
    terms: &Terms<'_>,
) -> io::Result<usize> {
    let bad = |_| io::Error::from(ErrorKind::InvalidInput);
    let total: u64 = chain.readable.iter().map(|s| u64::from(s.len)).sum();
    let length = total.checked_sub(Header::SIZE as u64);
    let length = length.and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| *length <= LONGEST) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    if !terms.link_up {
        return Err(ErrorKind::NotConnected.into());
    }
    let all = pieces(queue.memory(), &chain.readable, Header::SIZE + length).map_err(bad)?;
    // Copied once: the driver may change it meanwhile, and what was checked is what is sent.
    let mut header = [0; Header::SIZE];
    get(&all, 0, &mut header);
    let header = Header::from_bytes(&header)
        .checked(terms.host)
        .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let frame: Pieces<'_> = after(&all, Header::SIZE).collect();
    backend.send(header, &frame)?;
    Ok(length)
}
