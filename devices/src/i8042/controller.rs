//! The controller between the two ports and the two devices.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::keyboard::{KeyboardState, Leds};
use super::mouse::{MouseButtons, MouseState};
use super::queue::Bounded;
use super::scancode;
use crate::bus::{BusDevice, Registers};
use crate::interrupt::{InterruptLine, Wire};
use crate::state::{StateError, Stateful};
use crate::system::{SystemControl, SystemEvent};

/// Offset of the data port from 0x60.
const DATA: u64 = 0;
/// Offset of the status and command port from 0x60.
const COMMAND: u64 = 4;

/// Status: a byte waits at the data port.
const STATUS_OUTPUT: u8 = 1 << 0;
/// Status: the self test passed.
const STATUS_SYSTEM: u8 = 1 << 2;
/// Status: the last byte written went to the command port.
const STATUS_COMMAND: u8 = 1 << 3;
/// Status: the keyboard is not locked.
const STATUS_UNLOCKED: u8 = 1 << 4;
/// Status: the byte that waits is the mouse's.
const STATUS_MOUSE: u8 = 1 << 5;

/// Command byte: the keyboard interrupts.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
/// Command byte: the mouse interrupts.
const MOUSE_INTERRUPT: u8 = 1 << 1;
/// Command byte: shown as [`STATUS_SYSTEM`].
const SYSTEM_FLAG: u8 = 1 << 2;
/// Command byte: the keyboard is cut off.
const KEYBOARD_OFF: u8 = 1 << 4;
/// Command byte: the mouse is cut off.
const MOUSE_OFF: u8 = 1 << 5;
/// Command byte: the keyboard's set 2 becomes set 1.
const TRANSLATE: u8 = 1 << 6;

/// Output port: not in reset.
const OUT_RUNNING: u8 = 1 << 0;
/// Output port: address line 20. Kept, but it never masks an address.
const OUT_A20: u8 = 1 << 1;
/// Output port: a keyboard byte waits.
const OUT_KEYBOARD: u8 = 1 << 4;
/// Output port: a mouse byte waits.
const OUT_MOUSE: u8 = 1 << 5;
/// Output port: bits that are always set.
const OUT_ONES: u8 = 0xcc;

/// The prefix of break codes in set 2.
const BREAK: u8 = 0xf0;

/// Called with the lights that are on when that changes.
pub type LedHook = Box<dyn Fn(Leds) + Send>;

/// Where a byte at the data port comes from; decides its status bits and its interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Keyboard,
    Mouse,
}

/// What the next byte written to the data port is, if not for the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Argument {
    /// Byte `n` of the controller's memory; byte 0 is the command byte.
    Memory(u8),
    OutputPort,
    EchoKeyboard,
    EchoMouse,
    ToMouse,
}

/// What a snapshot keeps of an [`I8042`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct I8042State {
    command_byte: u8,
    memory: [u8; 32],
    output_port: u8,
    tested: bool,
    last_was_command: bool,
    argument: Option<Argument>,
    /// The byte at the data port, read or not, and whether it is still unread.
    output: u8,
    source: Option<Source>,
    replies: Bounded<(u8, Source), 16>,
    breaking: bool,
    keyboard: KeyboardState,
    mouse: MouseState,
}

impl I8042State {
    fn new() -> Self {
        Self {
            command_byte: KEYBOARD_INTERRUPT | MOUSE_INTERRUPT,
            memory: [0; 32],
            output_port: OUT_RUNNING | OUT_A20 | OUT_ONES,
            tested: false,
            last_was_command: true,
            argument: None,
            output: 0,
            source: None,
            replies: Bounded::default(),
            breaking: false,
            keyboard: KeyboardState::new(),
            mouse: MouseState::new(),
        }
    }

    fn status(&self) -> u8 {
        let waiting = match self.source {
            None => 0,
            Some(Source::Keyboard) => STATUS_OUTPUT,
            Some(Source::Mouse) => STATUS_OUTPUT | STATUS_MOUSE,
        };
        let system = self.tested || self.command_byte & SYSTEM_FLAG != 0;
        waiting
            | STATUS_UNLOCKED
            | if system { STATUS_SYSTEM } else { 0 }
            | if self.last_was_command {
                STATUS_COMMAND
            } else {
                0
            }
    }

    /// Whether the byte at the data port interrupts as the keyboard, and as the mouse.
    fn interrupts(&self) -> [bool; 2] {
        let wants = |source, bit| self.source == Some(source) && self.command_byte & bit != 0;
        [
            wants(Source::Keyboard, KEYBOARD_INTERRUPT),
            wants(Source::Mouse, MOUSE_INTERRUPT),
        ]
    }

    /// The next byte for the data port: the controller's, the keyboard's, the mouse's.
    fn next(&mut self) -> Option<(u8, Source)> {
        if let Some(reply) = self.replies.pop() {
            return Some(reply);
        }
        if self.command_byte & KEYBOARD_OFF == 0
            && let Some(byte) = self.next_key()
        {
            return Some((byte, Source::Keyboard));
        }
        if self.command_byte & MOUSE_OFF == 0 {
            return Some((self.mouse.pop()?, Source::Mouse));
        }
        None
    }

    /// The keyboard's next byte, translated if it is to be.
    fn next_key(&mut self) -> Option<u8> {
        let byte = self.keyboard.pop()?;
        if self.command_byte & TRANSLATE == 0 {
            self.breaking = false;
            return Some(byte);
        }
        if byte != BREAK {
            let bit = u8::from(std::mem::take(&mut self.breaking)) << 7;
            return Some(scancode::to_set1(byte) | bit);
        }
        // The prefix turns into the highest bit of the code that follows it.
        self.breaking = true;
        let code = self.keyboard.pop()?;
        self.breaking = false;
        Some(scancode::to_set1(code) | 0x80)
    }
}

/// The PS/2 controller. Put it on the bus as two [`I8042Port`]s: port 0x61 between them is another
/// device's.
pub struct I8042 {
    state: I8042State,
    keyboard_line: Wire,
    mouse_line: Wire,
    system: Arc<dyn SystemControl>,
    on_leds: Option<LedHook>,
}

impl I8042 {
    /// A controller with a keyboard on `keyboard_line` and a mouse on `mouse_line`, which reports
    /// resets to `system`.
    #[must_use]
    pub fn new(
        keyboard_line: Arc<dyn InterruptLine>,
        mouse_line: Arc<dyn InterruptLine>,
        system: Arc<dyn SystemControl>,
    ) -> Self {
        Self {
            state: I8042State::new(),
            keyboard_line: Wire::new(keyboard_line),
            mouse_line: Wire::new(mouse_line),
            system,
            on_leds: None,
        }
    }

    /// Calls `hook`, with the controller's lock held, whenever the lights change.
    pub fn set_led_hook(&mut self, hook: LedHook) {
        self.on_leds = Some(hook);
    }

    /// The keyboard's lights.
    #[must_use]
    pub fn leds(&self) -> Leds {
        self.state.keyboard.leds()
    }

    /// A key goes down (again, if it repeats) or up. `code` is its set 1 code without the break
    /// bit (1 to 0x7f); `extended` says that it comes after 0xe0. Pause is the extended 0x46.
    pub fn keyboard_event(&mut self, code: u8, extended: bool, down: bool) {
        self.state.keyboard.key(code, extended, down);
        self.load();
    }

    /// The mouse moves by `dx` to the right and `dy` down, in counts.
    pub fn mouse_motion(&mut self, dx: i32, dy: i32) {
        self.state.mouse.motion(dx, dy);
        self.load();
    }

    /// Exactly `buttons` are down.
    pub fn mouse_buttons(&mut self, buttons: MouseButtons) {
        self.state.mouse.set_buttons(buttons);
        self.load();
    }

    /// The wheel turns by `clicks`, away from the user if positive.
    pub fn wheel(&mut self, clicks: i32) {
        self.state.mouse.wheel(clicks);
        self.load();
    }

    /// Whether the guest has a driver that listens to the mouse.
    #[must_use]
    pub fn is_mouse_listening(&self) -> bool {
        self.state.mouse.is_listening()
    }

    /// Puts the next byte at the data port if the last one was read.
    fn load(&mut self) {
        if self.state.source.is_none()
            && let Some((byte, source)) = self.state.next()
        {
            self.state.output = byte;
            self.state.source = Some(source);
        }
        self.drive();
    }

    /// Drives both lines as the byte at the data port wants.
    fn drive(&mut self) {
        let [keyboard, mouse] = self.state.interrupts();
        self.keyboard_line.set(keyboard);
        self.mouse_line.set(mouse);
    }

    /// The same after a reset or a restore.
    fn drive_anew(&mut self) {
        let [keyboard, mouse] = self.state.interrupts();
        self.keyboard_line.force(keyboard);
        self.mouse_line.force(mouse);
    }

    fn read_data(&mut self) -> u8 {
        let byte = self.state.output;
        self.state.source = None;
        // Each byte needs an edge of its own.
        self.drive();
        self.load();
        byte
    }

    fn write_data(&mut self, byte: u8) {
        self.state.last_was_command = false;
        match self.state.argument.take() {
            None => {
                self.state.command_byte &= !KEYBOARD_OFF;
                let before = self.leds();
                self.state.keyboard.receive(byte);
                self.report_leds(before);
            }
            Some(Argument::Memory(0)) => self.state.command_byte = byte,
            Some(Argument::Memory(at)) => {
                if let Some(cell) = self.state.memory.get_mut(usize::from(at)) {
                    *cell = byte;
                }
            }
            Some(Argument::OutputPort) => self.write_output_port(byte),
            Some(Argument::EchoKeyboard) => self.reply(byte, Source::Keyboard),
            Some(Argument::EchoMouse) => self.reply(byte, Source::Mouse),
            Some(Argument::ToMouse) => {
                self.state.command_byte &= !MOUSE_OFF;
                self.state.mouse.receive(byte);
            }
        }
        self.load();
    }

    fn write_command(&mut self, command: u8) {
        let state = &mut self.state;
        state.last_was_command = true;
        state.argument = None;
        match command {
            0x20 => {
                let byte = state.command_byte;
                self.reply(byte, Source::Keyboard);
            }
            0x21..=0x3f => {
                let byte = state.memory[usize::from(command & 0x1f)];
                self.reply(byte, Source::Keyboard);
            }
            0x60..=0x7f => state.argument = Some(Argument::Memory(command & 0x1f)),
            0xa7 => state.command_byte |= MOUSE_OFF,
            0xa8 => state.command_byte &= !MOUSE_OFF,
            // The interfaces pass their tests.
            0xa9 | 0xab | 0xe0 => self.reply(0, Source::Keyboard),
            0xaa => {
                state.tested = true;
                self.reply(0x55, Source::Keyboard);
            }
            0xad => state.command_byte |= KEYBOARD_OFF,
            0xae => state.command_byte &= !KEYBOARD_OFF,
            // The input port: the keyboard is not locked.
            0xc0 => self.reply(0x80, Source::Keyboard),
            0xd0 => {
                let byte = self.output_port();
                self.reply(byte, Source::Keyboard);
            }
            0xd1 => state.argument = Some(Argument::OutputPort),
            0xd2 => state.argument = Some(Argument::EchoKeyboard),
            0xd3 => state.argument = Some(Argument::EchoMouse),
            0xd4 => state.argument = Some(Argument::ToMouse),
            0xdd => state.output_port &= !OUT_A20,
            0xdf => state.output_port |= OUT_A20,
            // Pulses the lines whose bits are clear; line 0 is the processors' reset.
            0xf0..=0xff if command & OUT_RUNNING == 0 => self.system.raise(SystemEvent::Reset),
            _ => tracing::trace!(command, "a command that the PS/2 controller does not know"),
        }
        self.load();
    }

    fn output_port(&self) -> u8 {
        let waiting = match self.state.source {
            None => 0,
            Some(Source::Keyboard) => OUT_KEYBOARD,
            Some(Source::Mouse) => OUT_MOUSE,
        };
        self.state.output_port | waiting
    }

    fn write_output_port(&mut self, byte: u8) {
        self.state.output_port = byte & (OUT_RUNNING | OUT_A20) | OUT_ONES;
        if byte & OUT_RUNNING == 0 {
            self.system.raise(SystemEvent::Reset);
        }
    }

    fn reply(&mut self, byte: u8, source: Source) {
        self.state.replies.push_all([(byte, source)].into_iter());
    }

    fn report_leds(&self, before: Leds) {
        let now = self.leds();
        if let Some(hook) = self.on_leds.as_ref().filter(|_| now != before) {
            hook(now);
        }
    }
}

impl Registers for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(first) = data.first_mut() {
            match offset {
                DATA => *first = self.read_data(),
                COMMAND => *first = self.state.status(),
                _ => {}
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data.first()) {
            (DATA, Some(&byte)) => self.write_data(byte),
            (COMMAND, Some(&byte)) => self.write_command(byte),
            _ => {}
        }
    }
}

/// One of the controller's two ports, as a device on the bus.
pub struct I8042Port {
    controller: Arc<Mutex<I8042>>,
    offset: u64,
}

impl I8042Port {
    /// The data port, for [`DATA_PORT`](super::DATA_PORT).
    #[must_use]
    pub fn data(controller: Arc<Mutex<I8042>>) -> Arc<Self> {
        let offset = DATA;
        Arc::new(Self { controller, offset })
    }

    /// The status and command port, for [`COMMAND_PORT`](super::COMMAND_PORT).
    #[must_use]
    pub fn command(controller: Arc<Mutex<I8042>>) -> Arc<Self> {
        let offset = COMMAND;
        Arc::new(Self { controller, offset })
    }
}

impl BusDevice for I8042Port {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        self.controller.lock().read(self.offset, data);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        self.controller.lock().write(self.offset, data);
    }
}

impl Stateful for I8042 {
    type State = I8042State;
    const KIND: &'static str = "i8042";
    const VERSION: u32 = 1;

    fn save(&self) -> I8042State {
        self.state.clone()
    }

    fn restore(&mut self, state: I8042State) -> Result<(), StateError> {
        let fits = !state.replies.is_over() && state.keyboard.is_valid() && state.mouse.is_valid();
        if !fits {
            return Err(StateError::Invalid {
                kind: Self::KIND,
                what: "more bytes wait than there is room for".to_owned(),
            });
        }
        let before = self.leds();
        self.state = state;
        self.report_leds(before);
        self.drive_anew();
        Ok(())
    }

    fn reset(&mut self) {
        let before = self.leds();
        self.state = I8042State::new();
        self.report_leds(before);
        self.drive_anew();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::FakeLine;
    use crate::system::FakeSystem;

    struct Fixture {
        keyboard: Arc<FakeLine>,
        mouse: Arc<FakeLine>,
        system: Arc<FakeSystem>,
        controller: I8042,
    }

    fn fixture() -> Fixture {
        let (keyboard, mouse) = (FakeLine::new(), FakeLine::new());
        let system = FakeSystem::new();
        let controller = I8042::new(keyboard.clone(), mouse.clone(), system.clone());
        Fixture {
            keyboard,
            mouse,
            system,
            controller,
        }
    }

    impl Fixture {
        fn command(&mut self, command: u8) {
            self.controller.write(COMMAND, &[command]);
        }

        fn data(&mut self, byte: u8) {
            self.controller.write(DATA, &[byte]);
        }

        fn status(&mut self) -> u8 {
            let mut data = [0];
            self.controller.read(COMMAND, &mut data);
            data[0]
        }

        fn read(&mut self) -> u8 {
            let mut data = [0];
            self.controller.read(DATA, &mut data);
            data[0]
        }

        fn drain(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.status() & STATUS_OUTPUT != 0 {
                bytes.push(self.read());
            }
            bytes
        }

        fn set_command_byte(&mut self, byte: u8) {
            self.command(0x60);
            self.data(byte);
        }
    }

    #[test]
    fn translation_turns_set_2_into_set_1() {
        let mut f = fixture();
        f.set_command_byte(TRANSLATE);

        f.controller.keyboard_event(0x1e, false, true);
        f.controller.keyboard_event(0x1e, false, false);
        f.controller.keyboard_event(0x48, true, false);

        assert_eq!(f.drain(), [0x1e, 0x9e, 0xe0, 0xc8]);
    }

    #[test]
    fn the_id_is_translated_too() {
        let mut f = fixture();
        f.set_command_byte(TRANSLATE);

        f.data(0xf2);

        assert_eq!(f.drain(), [0xfa, 0xab, 0x41]);
    }

    #[test]
    fn every_byte_has_an_edge_of_its_own() {
        let mut f = fixture();

        f.controller.keyboard_event(0x48, true, false);
        f.drain();

        assert_eq!(f.keyboard.edges(), 3);
        assert!(!f.keyboard.level());
    }

    #[test]
    fn the_mouse_interrupts_on_its_own_line() {
        let mut f = fixture();

        f.command(0xd4);
        f.data(0xf4);

        assert_eq!((f.keyboard.edges(), f.mouse.edges()), (0, 1));
        assert_eq!(f.status() & STATUS_MOUSE, STATUS_MOUSE);
    }

    #[test]
    fn a_mouse_echo_reaches_the_mouse_line() {
        let mut f = fixture();

        f.command(0xd3);
        f.data(0xa5);

        assert_eq!(f.mouse.edges(), 1);
        assert_eq!(f.drain(), [0xa5]);
    }

    #[test]
    fn bytes_wait_while_the_keyboard_is_cut_off() {
        let mut f = fixture();
        f.command(0xad);
        f.controller.keyboard_event(0x1e, false, true);
        let meanwhile = f.drain();

        f.command(0xae);

        assert!(meanwhile.is_empty());
        assert_eq!(f.drain(), [0x1c]);
    }

    #[test]
    fn self_tests_pass() {
        let mut f = fixture();
        for (command, answer) in [(0xaa, 0x55), (0xab, 0), (0xa9, 0)] {
            f.command(command);

            assert_eq!(f.drain(), [answer], "{command:#x}");
        }
        assert_eq!(f.status() & STATUS_SYSTEM, STATUS_SYSTEM);
    }

    #[test]
    fn both_reset_sequences_reset() {
        let mut by_pulse = fixture();
        by_pulse.command(0xfe);
        let mut by_port = fixture();
        by_port.command(0xd1);
        by_port.data(0xfe & !OUT_RUNNING);

        assert_eq!(by_pulse.system.events(), [SystemEvent::Reset]);
        assert_eq!(by_port.system.events(), [SystemEvent::Reset]);
    }

    #[test]
    fn the_hook_hears_of_each_change_of_the_lights() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&heard);
        let mut f = fixture();
        f.controller
            .set_led_hook(Box::new(move |leds| sink.lock().push(leds)));

        for byte in [0xed, 2, 0xed, 2] {
            f.data(byte);
        }

        let num = Leds {
            num: true,
            ..Leds::default()
        };
        assert_eq!(*heard.lock(), [num]);
        assert_eq!(f.controller.leds(), num);
    }

    #[test]
    fn the_ports_of_the_bus_reach_both_registers() {
        let controller = Arc::new(Mutex::new(fixture().controller));
        let mut data = [0];

        BusDevice::write(&*I8042Port::command(Arc::clone(&controller)), 0, &[0xaa]);
        BusDevice::read(&*I8042Port::data(controller), 0, &mut data);

        assert_eq!(data, [0x55]);
    }
}

crate::state_tests!(
    i8042_state,
    I8042::new(
        crate::interrupt::FakeLine::new(),
        crate::interrupt::FakeLine::new(),
        crate::system::FakeSystem::new(),
    ),
    |controller: &mut I8042| {
        controller.write(DATA, &[0xed]);
        controller.write(DATA, &[7]);
        controller.keyboard_event(0x1e, false, true);
        controller.write(COMMAND, &[0xd4]);
    }
);
