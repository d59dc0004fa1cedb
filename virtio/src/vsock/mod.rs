//! virtio-vsock (5.10): stream sockets between the guest and the host, without the host's kernel.
//!
//! What the guest connects to, and who connects to it, is a [`Host`]'s: here are only connections,
//! their credit and their turns. A guest can take no more than a number of connections, each with a
//! buffer of fixed size; what it has to be told waits in as many places as there are connections,
//! and of answers to what is no connection there are few: while they wait, the guest waits.

mod connection;
mod host;
mod packet;
mod switch;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use caraway_devices::{Clock, StateError, Timer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::{Chain, Virtqueue};

pub use host::{ConnectionId, Host, HostStream, Readiness};
pub use packet::HOST_CID;
use packet::Header;
use switch::Switch;
pub use switch::VsockCounts;

/// `VIRTIO_VSOCK_F_STREAM`.
const STREAM: u64 = 1 << 0;
/// The queues: packets to the guest, packets from it, events.
const RX: u16 = 0;
const TX: u16 = 1;
const EVENT: u16 = 2;
/// As on the host's kernel, but for the events.
const QUEUE_SIZES: [u16; 3] = [128, 128, 16];
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`: all connections are gone.
const TRANSPORT_RESET: [u8; 4] = [0; 4];
/// The most bytes of data in a packet, `VIRTIO_VSOCK_MAX_PKT_BUF_SIZE` of Linux.
const MOST_DATA: usize = 64 << 10;
/// Packets to the guest before others get their turn.
const TURN: usize = 128;

/// Why the host can't connect to the guest.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No driver listens.
    #[error("the guest has no driver for its sockets")]
    NoDriver,
    /// There are as many connections as there may be.
    #[error("there are {0} connections, which is the most")]
    Full(usize),
    /// The stream can't be watched.
    #[error("the connection can't be watched")]
    Stream(#[from] io::Error),
}

/// The device.
pub struct Vsock {
    cid: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    switch: Switch,
    queues: [Option<Arc<Virtqueue>>; 3],
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
    /// The guest believes in connections that are not there, and was not told yet.
    lost: bool,
    /// The guest has sent what waits until it takes our answers.
    is_stalled: bool,
    scratch: Vec<u8>,
}

/// What a snapshot keeps of the device. Streams of the host's can't be kept: the guest is told that
/// all connections are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockState {
    /// The guest has connections, or was not told yet that they are gone.
    lost: bool,
}

impl Vsock {
    /// A device for the guest with context id `cid`. Whoever waits for `timer`, which goes by
    /// `clock`, calls [`expired`](Self::expired).
    #[must_use]
    pub fn new(
        cid: u32,
        host: impl Host + 'static,
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Timer>,
    ) -> Self {
        let cid = u64::from(cid);
        Self {
            cid,
            inner: Mutex::new(Inner {
                switch: Switch::new(cid, Box::new(host)),
                queues: [const { None }; 3],
                clock,
                timer,
                lost: false,
                is_stalled: false,
                scratch: Vec::new(),
            }),
        }
    }

    /// Asks the guest for a connection to its `port`. `make` gets the connection's name and gives
    /// its stream, which hears by [`HostStream::accepted`] that the guest took it, and is dropped if
    /// it did not.
    ///
    /// # Errors
    /// [`ConnectError`]; the stream is dropped.
    pub fn connect(
        &self,
        port: u32,
        make: impl FnOnce(ConnectionId) -> io::Result<Box<dyn HostStream>>,
    ) -> Result<(), ConnectError> {
        let mut inner = self.inner.lock();
        if inner.queues[usize::from(RX)].is_none() || inner.queues[usize::from(TX)].is_none() {
            return Err(ConnectError::NoDriver);
        }
        let now = inner.clock.now();
        inner.switch.connect(port, now, make)?;
        inner.serve();
        Ok(())
    }

    /// Whether there may be another connection.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.inner.lock().switch.has_room()
    }

    /// These streams can do something now. Those that are none any more are passed over.
    pub fn ready(&self, streams: impl IntoIterator<Item = (ConnectionId, Readiness)>) {
        let mut inner = self.inner.lock();
        for (id, ready) in streams {
            inner.switch.hear_host(id, ready);
        }
        inner.serve();
    }

    /// The timer rang.
    pub fn expired(&self) {
        self.inner.lock().serve();
    }

    /// What there was so far.
    #[must_use]
    pub fn counts(&self) -> VsockCounts {
        self.inner.lock().switch.counts()
    }
}

impl Inner {
    fn queue(&self, index: u16) -> Option<Arc<Virtqueue>> {
        self.queues[usize::from(index)].clone()
    }

    /// Says what there is to say, and goes on where it had to wait.
    fn serve(&mut self) {
        let now = self.clock.now();
        self.switch.expire(now);
        self.tell();
        if self.is_stalled && self.switch.takes_more() {
            self.is_stalled = false;
            if let Some(queue) = self.queue(TX) {
                queue.ring();
            }
        }
        self.timer.arm(self.switch.next_deadline());
    }

    /// Gives the guest packets, as far as it has buffers.
    fn tell(&mut self) {
        let Some(queue) = self.queue(RX) else {
            return;
        };
        let mut given = false;
        for turn in 0.. {
            if !self.switch.has_news() {
                break;
            }
            if turn == TURN {
                queue.ring();
                break;
            }
            let Some(chain) = queue.pop() else {
                match queue.want_doorbell() {
                    true => continue,
                    false => break,
                }
            };
            match self.fill(&queue, &chain) {
                Some(0) => {
                    queue.unpop();
                    break;
                }
                Some(length) => {
                    queue.complete(chain.head, length);
                    given = true;
                }
                None => return,
            }
        }
        if given {
            queue.interrupt();
        }
    }

    /// Fills a chain with the next packet; its length, 0 if there is none after all. `None` if the
    /// chain is not one for packets.
    fn fill(&mut self, queue: &Virtqueue, chain: &Chain) -> Option<u32> {
        let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
        if room <= Header::SIZE {
            queue.fail(&"a receive buffer has no room for a header and data");
            return None;
        }
        self.scratch.resize((room - Header::SIZE).min(MOST_DATA), 0);
        let Some(header) = self.switch.next(&mut self.scratch, self.clock.now()) else {
            return Some(0);
        };
        let data = &self.scratch[..header.len as usize];
        let written = chain
            .write(queue.memory(), 0, &header.to_bytes())
            .and_then(|_| chain.write(queue.memory(), Header::SIZE as u64, data));
        match written {
            Ok(_) => Some((Header::SIZE + data.len()) as u32),
            Err(error) => {
                queue.fail(&error);
                None
            }
        }
    }

    /// Takes the guest's packets.
    fn hear(&mut self) {
        let Some(queue) = self.queue(TX) else {
            return;
        };
        queue.serve(|chain| {
            if !self.switch.takes_more() {
                self.is_stalled = true;
                queue.unpop();
                return ControlFlow::Break(());
            }
            self.take(&queue, &chain);
            queue.complete(chain.head, 0);
            ControlFlow::Continue(())
        });
        queue.interrupt();
    }

    /// Takes one packet. What is no packet is passed over.
    fn take(&mut self, queue: &Virtqueue, chain: &Chain) {
        self.scratch.clear();
        let read = chain.read(queue.memory(), 0, Header::SIZE, &mut self.scratch);
        let Some(header) = read.ok().and_then(|()| self.scratch.first_chunk()) else {
            return;
        };
        let header = Header::parse(header);
        let length = header.len as usize;
        let there = chain.readable_len() - Header::SIZE as u64;
        if length > MOST_DATA || u64::from(header.len) > there {
            return;
        }
        self.scratch.clear();
        let from = Header::SIZE as u64;
        let read = chain.read(queue.memory(), from, length, &mut self.scratch);
        if read.is_ok() {
            self.switch.hear(&header, &self.scratch);
        }
    }

    /// Tells the guest that its connections are gone, once it has a buffer for that.
    fn tell_loss(&mut self) {
        let Some(queue) = self.queue(EVENT).filter(|_| self.lost) else {
            return;
        };
        let Some(chain) = queue.pop() else {
            if queue.want_doorbell() {
                queue.ring();
            }
            return;
        };
        match chain.write(queue.memory(), 0, &TRANSPORT_RESET) {
            Ok(written) if written == TRANSPORT_RESET.len() => {
                queue.complete(chain.head, written as u32);
                queue.interrupt();
                self.lost = false;
            }
            _ => queue.fail(&"an event buffer has fewer than 4 bytes"),
        }
    }
}

impl VirtioDevice for Vsock {
    type State = VsockState;
    const KIND: &'static str = "virtio-vsock";
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 19,
        // Communication controller, other.
        pci_class: 0x07_8000,
    };

    fn features(&self) -> u64 {
        STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.cid.to_le_bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        data.fill(0);
        for (target, source) in data.iter_mut().zip(config.iter().skip(from)) {
            *target = *source;
        }
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        let index = usize::from(queue.index());
        if let Some(place) = self.inner.lock().queues.get_mut(index) {
            *place = Some(queue);
        }
    }

    fn stop_queue(&self, index: u16) {
        if let Some(place) = self.inner.lock().queues.get_mut(usize::from(index)) {
            *place = None;
        }
    }

    fn process_queue(&self, index: u16) {
        let mut inner = self.inner.lock();
        match index {
            TX => inner.hear(),
            EVENT => inner.tell_loss(),
            _ => {}
        }
        inner.serve();
    }

    fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.switch.clear();
        inner.lost = false;
        inner.is_stalled = false;
        inner.timer.arm(None);
    }

    fn save(&self) -> Self::State {
        let inner = self.inner.lock();
        VsockState {
            lost: inner.lost || !inner.switch.is_empty(),
        }
    }

    fn restore(&self, state: Self::State) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        inner.switch.clear();
        inner.is_stalled = false;
        inner.timer.arm(None);
        inner.lost = state.lost;
        Ok(())
    }
}
