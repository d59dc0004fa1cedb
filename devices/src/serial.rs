//! The serial port: a 16550A around vm-superio's.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{Serial, SerialEvents, SerialState};

use crate::bus::Registers;
use crate::interrupt::InterruptLine;
use crate::state::{StateError, Stateful};

/// Bytes that the receive FIFO holds.
const FIFO: usize = 64;

/// The registers of a 16550 that are looked into here, by their offsets, and their bits.
mod register {
    /// Interrupt enable, while the divisor is not in its place.
    pub(super) const IER: u8 = 1;
    pub(super) const IER_RECEIVED: u8 = 1 << 0;
    /// Interrupt identification.
    pub(super) const IIR: u8 = 2;
    pub(super) const IIR_NONE: u8 = 1 << 0;
    pub(super) const IIR_RECEIVED: u8 = 1 << 2;
    /// Line control.
    pub(super) const LCR: u8 = 3;
    pub(super) const LCR_DIVISOR: u8 = 1 << 7;
}

/// Where the first serial port is, and its interrupt.
pub mod com1 {
    /// The first of eight I/O ports.
    pub const PORT: u16 = 0x3f8;
    /// How many there are.
    pub const LEN: u16 = 8;
    /// The interrupt.
    pub const GSI: u32 = 4;
}

/// Called when the guest has emptied the receive FIFO: there is room for more input.
pub type RoomHook = Box<dyn Fn() + Send + Sync>;

struct Line(Arc<dyn InterruptLine>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

#[derive(Clone)]
struct Room(Option<Arc<dyn Fn() + Send + Sync>>);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        if let Some(hook) = &self.0 {
            hook();
        }
    }
}

type Sink = Box<dyn Write + Send>;
type Uart = Serial<Line, Room, Sink>;

/// A 16550A that writes what the guest sends to a sink, and gives the guest what is enqueued.
pub struct SerialPort {
    uart: Uart,
    line: Arc<dyn InterruptLine>,
    room: Room,
}

/// What a snapshot keeps of a [`SerialPort`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialPortState {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    input: Vec<u8>,
}

impl SerialPort {
    /// A port on `line` that writes to `output`. The sink should not block: the guest waits for it
    /// byte by byte.
    #[must_use]
    pub fn new(line: Arc<dyn InterruptLine>, output: Sink) -> Self {
        Self::with_room(line, output, Room(None))
    }

    /// As [`new`](Self::new); `room` is called, with the port's lock held, when the guest has
    /// emptied the receive FIFO.
    #[must_use]
    pub fn with_room_hook(line: Arc<dyn InterruptLine>, output: Sink, room: RoomHook) -> Self {
        Self::with_room(line, output, Room(Some(Arc::from(room))))
    }

    fn with_room(line: Arc<dyn InterruptLine>, output: Sink, room: Room) -> Self {
        Self {
            uart: Uart::with_events(Line(Arc::clone(&line)), room.clone(), output),
            line,
            room,
        }
    }

    /// Gives `input` to the guest as far as there is room, and says how many bytes that was.
    pub fn enqueue(&mut self, input: &[u8]) -> usize {
        let count = input.len().min(self.room());
        let Some(fitting) = input.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return 0;
        };
        self.uart.enqueue_raw_bytes(fitting).unwrap_or(0)
    }

    /// How many bytes [`enqueue`](Self::enqueue) would take.
    #[must_use]
    pub fn room(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// Whether there is input that the guest has asked to be interrupted for.
    fn has_news(&mut self) -> bool {
        let has_input = self.room() < FIFO;
        let no_divisor = self.uart.read(register::LCR) & register::LCR_DIVISOR == 0;
        has_input && no_divisor && self.uart.read(register::IER) & register::IER_RECEIVED != 0
    }

    /// Why there is an interrupt. That of input is there as long as the input, which a driver may leave in
    /// part: Linux reads at most 256 bytes before it asks again.
    fn identify(&mut self) -> u8 {
        let has_news = self.has_news();
        match self.uart.read(register::IIR) {
            cause if has_news => cause & !register::IIR_NONE | register::IIR_RECEIVED,
            cause => cause,
        }
    }

    /// Puts `state` in the place of the current one, keeping the sink.
    fn load(&mut self, state: &SerialState) -> Result<(), StateError> {
        if state.in_buffer.len() > FIFO {
            let what = format!(
                "{} bytes of input; the FIFO holds {FIFO}",
                state.in_buffer.len()
            );
            return Err(StateError::Invalid {
                kind: Self::KIND,
                what,
            });
        }
        let sink = std::mem::replace(self.uart.writer_mut(), Box::new(std::io::sink()));
        let line = Line(Arc::clone(&self.line));
        match Uart::from_state(state, line, self.room.clone(), sink) {
            Ok(uart) => {
                self.uart = uart;
                Ok(())
            }
            Err(error) => Err(StateError::Invalid {
                kind: Self::KIND,
                what: error.to_string(),
            }),
        }
    }
}

impl Registers for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        for (port, byte) in (0..com1::LEN as u8).skip(offset as usize).zip(data) {
            *byte = match port {
                register::IIR => self.identify(),
                port => self.uart.read(port),
            };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (port, &byte) in (0..com1::LEN as u8).skip(offset as usize).zip(data) {
            if let Err(error) = self.uart.write(port, byte) {
                tracing::debug!(%error, "a byte of serial output is lost");
            }
        }
    }
}

impl Stateful for SerialPort {
    type State = SerialPortState;
    const KIND: &'static str = "serial";
    const VERSION: u32 = 1;

    fn save(&self) -> SerialPortState {
        let state = self.uart.state();
        SerialPortState {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            input: state.in_buffer,
        }
    }

    fn restore(&mut self, state: SerialPortState) -> Result<(), StateError> {
        self.load(&SerialState {
            baud_divisor_low: state.divisor[0],
            baud_divisor_high: state.divisor[1],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.input,
        })
    }

    fn reset(&mut self) {
        // The default state has an empty FIFO, which always fits.
        let _ = self.load(&SerialState::default());
        self.line.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use super::*;
    use crate::interrupt::FakeLine;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_the_guest_sends_comes_out() {
        let output = Output::default();
        let mut port = SerialPort::new(FakeLine::new(), Box::new(output.clone()));

        for byte in b"ok" {
            port.write(0, &[*byte]);
        }

        assert_eq!(*output.0.lock(), b"ok");
    }

    #[test]
    fn input_stops_when_the_fifo_is_full() {
        let mut port = SerialPort::new(FakeLine::new(), Box::new(std::io::sink()));

        let first = port.enqueue(&[7; 100]);
        let second = port.enqueue(&[7; 100]);

        assert_eq!((first, second), (FIFO, 0));
    }

    #[test]
    fn the_hook_is_called_when_the_fifo_is_empty_again() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let hook = Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut port = SerialPort::with_room_hook(FakeLine::new(), Box::new(std::io::sink()), hook);
        port.enqueue(b"ab");
        let mut data = [0];

        port.read(0, &mut data);
        let after_one = calls.load(Ordering::Relaxed);
        port.read(0, &mut data);

        assert_eq!(data, *b"b");
        assert_eq!((after_one, calls.load(Ordering::Relaxed)), (0, 1));
    }

    #[test]
    fn input_interrupts_once_enabled() {
        let line = FakeLine::new();
        let mut port = SerialPort::new(line.clone(), Box::new(std::io::sink()));
        port.write(1, &[1]);

        port.enqueue(b"x");

        assert_eq!(line.edges(), 1);
    }

    #[test]
    fn input_that_was_left_is_still_a_reason_to_interrupt() {
        let mut port = SerialPort::new(FakeLine::new(), Box::new(std::io::sink()));
        let read = |port: &mut SerialPort, offset| {
            let mut data = [0];
            port.read(offset, &mut data);
            data[0]
        };
        port.write(1, &[1]);
        port.enqueue(b"abc");

        let first = read(&mut port, 2);
        let byte = read(&mut port, 0);
        let second = read(&mut port, 2);
        let rest = [read(&mut port, 0), read(&mut port, 0)];
        let third = read(&mut port, 2);

        assert_eq!((byte, rest), (b'a', *b"bc"));
        assert_eq!([first, second, third], [0xc4, 0xc4, 0xc1]);
    }

    #[test]
    fn input_without_its_interrupt_enabled_is_no_reason() {
        let mut port = SerialPort::new(FakeLine::new(), Box::new(std::io::sink()));
        port.enqueue(b"abc");
        let mut cause = [0];

        port.read(2, &mut cause);

        assert_eq!(cause, [0xc1]);
    }

    #[test]
    fn a_state_with_too_much_input_changes_nothing() {
        let mut port = SerialPort::new(FakeLine::new(), Box::new(std::io::sink()));
        let before = port.save();
        let mut state = before.clone();
        state.input = vec![0; FIFO + 1];

        assert!(port.restore(state).is_err());
        assert_eq!(port.save(), before);
    }
}

crate::state_tests!(
    serial_state,
    SerialPort::new(crate::interrupt::FakeLine::new(), Box::new(std::io::sink())),
    |port: &mut SerialPort| {
        port.write(1, &[1]);
        port.enqueue(b"abc");
    }
);
