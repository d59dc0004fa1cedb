//! virtio-console (5.3) with named ports, joined to whatever the host has for them.
//!
//! A port is a stream of bytes with two ends, each of which may be open or closed. Nothing is lost
//! at either: what the guest writes stays in its own buffers until the host's end takes it, and what
//! the host has is only asked for when the guest has a buffer for it. The number 0 is left free, as
//! on QEMU: drivers take it for a console.

mod control;
mod port;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use caraway_devices::StateError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::{Chain, Virtqueue};

pub use port::PortEnd;
use port::{Counts, Port, PortState};

/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const MULTIPORT: u64 = 1 << 1;
/// Queues of the ports' control messages.
const TO_DRIVER: u16 = 2;
const FROM_DRIVER: u16 = 3;
/// As on QEMU.
const QUEUE_SIZE: u16 = 128;

/// What a port is to be.
pub struct PortConfig {
    /// Its name in the guest: the file `/dev/virtio-ports/NAME` of Linux.
    pub name: String,
    /// The host's end.
    pub end: Arc<dyn PortEnd>,
}

/// What went through a port since the device was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// The guest has it open.
    pub guest_open: bool,
    /// Bytes from the guest.
    pub bytes_out: u64,
    /// Bytes to the guest.
    pub bytes_in: u64,
}

/// The device.
pub struct Console {
    inner: Mutex<Inner>,
    queue_sizes: Vec<u16>,
    wake: Arc<EventFd>,
}

struct Inner {
    /// The driver said that it is there (`VIRTIO_CONSOLE_DEVICE_READY`).
    driver_ready: bool,
    to_driver: Option<Arc<Virtqueue>>,
    from_driver: Option<Arc<Virtqueue>>,
    ports: Vec<Port>,
}

/// What a snapshot keeps of a console.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleState {
    driver_ready: bool,
    ports: Vec<PortState>,
}

impl Console {
    /// A console with these ports, numbered from 1.
    ///
    /// # Errors
    /// The host's, if it has no eventfd to give.
    pub fn new(ports: Vec<PortConfig>) -> std::io::Result<Self> {
        let queue_sizes = vec![QUEUE_SIZE; 4 + 2 * ports.len()];
        let wake = Arc::new(EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK)?);
        let number = |(number, config): (u32, PortConfig)| Port::new(number, config);
        Ok(Self {
            inner: Mutex::new(Inner {
                driver_ready: false,
                to_driver: None,
                from_driver: None,
                ports: (1..).zip(ports).map(number).collect(),
            }),
            queue_sizes,
            wake,
        })
    }

    /// The bell that a port's end rings when it has bytes, has room again, opens or closes. Whoever
    /// waits for it calls [`serve_ends`](Self::serve_ends).
    #[must_use]
    pub fn wake(&self) -> &Arc<EventFd> {
        &self.wake
    }

    /// Asks every port's end what is new, and silences the bell.
    pub fn serve_ends(&self) {
        // It may have been silent.
        let _ = self.wake.read();
        self.inner.lock().serve();
    }

    /// The ports, in the order of their numbers.
    #[must_use]
    pub fn ports(&self) -> Vec<PortInfo> {
        let inner = self.inner.lock();
        let info = |port: &Port| {
            let Counts {
                from_guest,
                to_guest,
            } = port.counts();
            PortInfo {
                name: port.name().to_owned(),
                guest_open: port.is_guest_open(),
                bytes_out: from_guest,
                bytes_in: to_guest,
            }
        };
        inner.ports.iter().map(info).collect()
    }
}

impl Inner {
    fn serve(&mut self) {
        if !self.driver_ready {
            return;
        }
        self.tell_driver();
        for port in &mut self.ports {
            port.serve();
        }
    }

    /// Gives the driver the control messages that it has buffers for.
    fn tell_driver(&mut self) {
        let Some(queue) = self.to_driver.clone().filter(|_| self.driver_ready) else {
            return;
        };
        let mut told = false;
        'ports: for port in &mut self.ports {
            while let Some(message) = port.due() {
                let chain = match queue.pop() {
                    Some(chain) => chain,
                    // The driver rings when it has another.
                    None if queue.want_doorbell() => continue,
                    None => break 'ports,
                };
                match chain.write(queue.memory(), 0, &message) {
                    Ok(written) if written == message.len() => {}
                    Ok(_) => return queue.fail(&"a control buffer is too short"),
                    Err(error) => return queue.fail(&error),
                }
                queue.complete(chain.head, message.len() as u32);
                port.told();
                told = true;
            }
        }
        if told {
            queue.interrupt();
        }
    }

    fn hear_driver(&mut self) {
        let Some(queue) = self.from_driver.clone() else {
            return;
        };
        queue.serve(|chain| {
            if let Some(message) = read_control(&queue, &chain) {
                self.obey(message);
            }
            queue.complete(chain.head, 0);
            ControlFlow::Continue(())
        });
        queue.interrupt();
        self.serve();
    }

    fn obey(&mut self, message: control::Message) {
        use control::event;
        let yes = message.value != 0;
        if message.event == event::DEVICE_READY {
            self.driver_ready = yes;
            return;
        }
        // Of a port that is not there, or an event that is not a driver's, nothing is to be said.
        let mut ports = self.ports.iter_mut();
        let Some(port) = ports.find(|port| port.number() == message.port) else {
            return;
        };
        match message.event {
            event::PORT_READY => {
                // Linux, once it was suspended, says this of the ports it knows, and no more
                // that it is there itself.
                self.driver_ready |= yes;
                port.set_ready(yes);
            }
            event::PORT_OPEN => port.set_guest_open(yes),
            _ => {}
        }
    }
}

fn read_control(queue: &Virtqueue, chain: &Chain) -> Option<control::Message> {
    let mut bytes = Vec::new();
    let read = chain.read(queue.memory(), 0, control::Message::SIZE, &mut bytes);
    read.ok()?;
    control::Message::parse(&bytes)
}

/// A queue of a port: which port, counted from 0, and whether it is the one that the driver fills.
fn port_of(queue: u16) -> Option<(usize, bool)> {
    let index = usize::from(queue).checked_sub(4)?;
    Some((index / 2, index % 2 == 1))
}

impl VirtioDevice for Console {
    type State = ConsoleState;
    const KIND: &'static str = "virtio-console";
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 3,
        // Communication controller, other.
        pci_class: 0x07_8000,
    };

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Columns and rows, which are not offered, and the ports with that of number 0.
        let ports = (self.queue_sizes.len() as u32 - 2) / 2;
        let config = [[0; 4], ports.to_le_bytes(), [0; 4]].concat();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (target, source) in data.iter_mut().zip(config.iter().skip(from)) {
            *target = *source;
        }
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        let mut inner = self.inner.lock();
        let index = queue.index();
        match (index, port_of(index)) {
            (TO_DRIVER, _) => inner.to_driver = Some(queue),
            (FROM_DRIVER, _) => inner.from_driver = Some(queue),
            (_, Some((port, outward))) => {
                if let Some(port) = inner.ports.get_mut(port) {
                    port.set_queue(outward, Some(queue));
                }
            }
            // The port of number 0 is not there.
            _ => {}
        }
    }

    fn stop_queue(&self, index: u16) {
        let mut inner = self.inner.lock();
        match (index, port_of(index)) {
            (TO_DRIVER, _) => inner.to_driver = None,
            (FROM_DRIVER, _) => inner.from_driver = None,
            (_, Some((port, outward))) => {
                if let Some(port) = inner.ports.get_mut(port) {
                    port.set_queue(outward, None);
                }
            }
            _ => {}
        }
    }

    fn process_queue(&self, index: u16) {
        let mut inner = self.inner.lock();
        match index {
            FROM_DRIVER => inner.hear_driver(),
            TO_DRIVER => inner.serve(),
            _ => {
                let port = port_of(index).and_then(|(port, _)| inner.ports.get_mut(port));
                if let Some(port) = port {
                    port.serve();
                }
                // Its end may have closed over what it got.
                inner.tell_driver();
            }
        }
    }

    fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.driver_ready = false;
        inner.ports.iter_mut().for_each(Port::reset);
    }

    fn save(&self) -> Self::State {
        let inner = self.inner.lock();
        ConsoleState {
            driver_ready: inner.driver_ready,
            ports: inner.ports.iter().map(Port::save).collect(),
        }
    }

    fn restore(&self, state: Self::State) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        let names = |what: String| StateError::Invalid {
            kind: Self::KIND,
            what,
        };
        if state.ports.len() != inner.ports.len() {
            let (found, wanted) = (state.ports.len(), inner.ports.len());
            return Err(names(format!("{found} ports instead of {wanted}")));
        }
        for (port, state) in inner.ports.iter().zip(&state.ports) {
            port.check(state).map_err(names)?;
        }
        inner.driver_ready = state.driver_ready;
        for (port, state) in inner.ports.iter_mut().zip(state.ports) {
            port.restore(state);
        }
        Ok(())
    }
}
