//! The keyboard: its commands, and the bytes that keys turn into.

use serde::{Deserialize, Serialize};

use super::queue::Bounded;
use super::scancode;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;
const ECHO: u8 = 0xee;
/// A keyboard of the AT kind with its default layout.
const ID: [u8; 2] = [0xab, 0x83];
/// The prefix of extended keys.
const EXTENDED: u8 = 0xe0;
/// The prefix of the key that has no break code.
const PAUSE: u8 = 0xe1;
/// The prefix of break codes in set 2.
const BREAK: u8 = 0xf0;
/// Set in break codes of set 1.
const BREAK_BIT: u8 = 0x80;

/// Bytes of key codes that can wait.
const KEYS: usize = 256;
/// Room that only releases may use, so that no key hangs when the guest does not listen for long.
const KEPT_FOR_RELEASES: usize = 64;

/// Which of the keyboard's lights are on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leds {
    /// Scroll Lock.
    pub scroll: bool,
    /// Num Lock.
    pub num: bool,
    /// Caps Lock.
    pub caps: bool,
}

impl Leds {
    const fn from_byte(byte: u8) -> Self {
        Self {
            scroll: byte & 1 != 0,
            num: byte & 2 != 0,
            caps: byte & 4 != 0,
        }
    }
}

/// A command whose argument comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Command {
    Leds,
    ScanCodeSet,
    Typematic,
    KeyKind,
}

/// The scan code set that the keyboard speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Set {
    One,
    Two,
}

/// Modifier keys that change what others send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Modifiers {
    shift: [bool; 2],
    ctrl: [bool; 2],
    alt: [bool; 2],
}

impl Modifiers {
    fn note(&mut self, code: u8, extended: bool, down: bool) {
        match (code, extended) {
            (0x2a, false) => self.shift[0] = down,
            (0x36, false) => self.shift[1] = down,
            (0x1d, _) => self.ctrl[usize::from(extended)] = down,
            (0x38, _) => self.alt[usize::from(extended)] = down,
            _ => {}
        }
    }

    fn shift(self) -> bool {
        self.shift.contains(&true)
    }

    fn ctrl(self) -> bool {
        self.ctrl.contains(&true)
    }

    fn alt(self) -> bool {
        self.alt.contains(&true)
    }
}

/// The keyboard, which is its own saved state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyboardState {
    replies: Bounded<u8, 16>,
    keys: Bounded<u8, KEYS>,
    command: Option<Command>,
    last_sent: u8,
    scanning: bool,
    set: Set,
    leds: Leds,
    modifiers: Modifiers,
}

impl KeyboardState {
    pub(super) fn new() -> Self {
        Self {
            replies: Bounded::default(),
            keys: Bounded::default(),
            command: None,
            last_sent: 0,
            scanning: true,
            set: Set::Two,
            leds: Leds::default(),
            modifiers: Modifiers::default(),
        }
    }

    pub(super) fn leds(&self) -> Leds {
        self.leds
    }

    /// Whether it could have come from a real keyboard.
    pub(super) fn is_valid(&self) -> bool {
        !self.replies.is_over() && !self.keys.is_over()
    }

    /// The next byte for the host, answers first. Keys wait while an argument is expected: a host that
    /// waits for its acknowledgement throws everything else away.
    pub(super) fn pop(&mut self) -> Option<u8> {
        let byte = match self.replies.pop() {
            None if self.command.is_none() => self.keys.pop(),
            reply => reply,
        }?;
        self.last_sent = byte;
        Some(byte)
    }

    /// A byte from the host.
    pub(super) fn receive(&mut self, byte: u8) {
        match self.command.take() {
            Some(command) if byte < ECHO || command == Command::KeyKind => {
                self.argument(command, byte);
            }
            _ => self.command(byte),
        }
    }

    fn command(&mut self, byte: u8) {
        match byte {
            0xed => self.expect(Command::Leds),
            ECHO => self.reply(&[ECHO]),
            0xf0 => self.expect(Command::ScanCodeSet),
            0xf2 => self.reply(&[ACK, ID[0], ID[1]]),
            0xf3 => self.expect(Command::Typematic),
            0xf4 => {
                self.scanning = true;
                self.reply(&[ACK]);
            }
            0xf5 => {
                self.set_defaults();
                self.scanning = false;
                self.reply(&[ACK]);
            }
            0xf6 => {
                self.set_defaults();
                self.scanning = true;
                self.reply(&[ACK]);
            }
            // Which keys repeat and which send breaks, in set 3 only: accepted, without effect.
            0xf7..=0xfa => self.reply(&[ACK]),
            0xfb..=0xfd => self.expect(Command::KeyKind),
            0xfe => {
                let last = self.last_sent;
                self.reply(&[last]);
            }
            0xff => {
                let modifiers = self.modifiers;
                *self = Self::new();
                self.modifiers = modifiers;
                self.reply(&[ACK, SELF_TEST_PASSED]);
            }
            _ => self.reply(&[RESEND]),
        }
    }

    fn argument(&mut self, command: Command, byte: u8) {
        match (command, byte) {
            (Command::Leds, _) => self.leds = Leds::from_byte(byte),
            (Command::ScanCodeSet, 0) => {
                let current = match self.set {
                    Set::One => 1,
                    Set::Two => 2,
                };
                return self.reply(&[ACK, current]);
            }
            (Command::ScanCodeSet, 1) => self.set = Set::One,
            (Command::ScanCodeSet, 2) => self.set = Set::Two,
            // Set 3 is what few keyboards speak; saying so makes the guest go back to set 2.
            (Command::ScanCodeSet, _) => return self.reply(&[RESEND]),
            (Command::Typematic | Command::KeyKind, _) => {}
        }
        self.reply(&[ACK]);
    }

    fn expect(&mut self, command: Command) {
        self.command = Some(command);
        self.reply(&[ACK]);
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.push_all(bytes.iter().copied());
    }

    fn set_defaults(&mut self) {
        self.keys.clear();
        self.set = Set::Two;
        self.leds = Leds::default();
    }

    /// A key went down, again if it repeats, or up. `code` is its set 1 code without the break
    /// bit, `extended` whether it comes after 0xe0.
    pub(super) fn key(&mut self, code: u8, extended: bool, down: bool) {
        let code = code & !BREAK_BIT;
        self.modifiers.note(code, extended, down);
        if !self.scanning {
            return;
        }
        let mut bytes = Vec::with_capacity(8);
        match (code, extended) {
            (0x37, true) => self.print_screen(down, &mut bytes),
            (0x46, true) => self.pause(down, &mut bytes),
            _ => self.encode(code, extended, down, &mut bytes),
        }
        let kept = if down { KEPT_FOR_RELEASES } else { 0 };
        let fits = self.keys.room() >= bytes.len() + kept;
        if !(fits && self.keys.push_all(bytes.into_iter())) {
            tracing::debug!(code, extended, down, "the guest reads no keys; one is lost");
        }
    }

    fn encode(&self, code: u8, extended: bool, down: bool, bytes: &mut Vec<u8>) {
        if extended {
            bytes.push(EXTENDED);
        }
        match (self.set, scancode::to_set2(code)) {
            (Set::One, _) => bytes.push(if down { code } else { code | BREAK_BIT }),
            (Set::Two, Some(code)) if down => bytes.push(code),
            (Set::Two, Some(code)) => bytes.extend([BREAK, code]),
            (Set::Two, None) => bytes.clear(),
        }
    }

    /// Print Screen comes with a shift that nobody pressed; with Alt it is System Request.
    fn print_screen(&self, down: bool, bytes: &mut Vec<u8>) {
        let (shift, print, request) = (0x2a, 0x37, 0x54);
        if self.modifiers.alt() {
            self.encode(request, false, down, bytes);
        } else if self.modifiers.shift() || self.modifiers.ctrl() {
            self.encode(print, true, down, bytes);
        } else if down {
            self.encode(shift, true, true, bytes);
            self.encode(print, true, true, bytes);
        } else {
            self.encode(print, true, false, bytes);
            self.encode(shift, true, false, bytes);
        }
    }

    /// Pause sends make and break at once when it goes down; with Ctrl it is Break.
    fn pause(&self, down: bool, bytes: &mut Vec<u8>) {
        let (ctrl, num_lock) = (0x1d, 0x45);
        if self.modifiers.ctrl() {
            if down {
                self.encode(0x46, true, true, bytes);
                self.encode(0x46, true, false, bytes);
            }
        } else if down {
            for press in [true, false] {
                bytes.push(PAUSE);
                self.encode(ctrl, false, press, bytes);
                self.encode(num_lock, false, press, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(keyboard: &mut KeyboardState) -> Vec<u8> {
        std::iter::from_fn(|| keyboard.pop()).collect()
    }

    fn after(bytes: &[u8]) -> KeyboardState {
        let mut keyboard = KeyboardState::new();
        for byte in bytes {
            keyboard.receive(*byte);
        }
        drain(&mut keyboard);
        keyboard
    }

    #[test]
    fn keys_send_set_2() {
        let mut keyboard = KeyboardState::new();

        keyboard.key(0x1e, false, true);
        keyboard.key(0x1e, false, false);
        keyboard.key(0x48, true, true);
        keyboard.key(0x48, true, false);

        assert_eq!(
            drain(&mut keyboard),
            [0x1c, 0xf0, 0x1c, 0xe0, 0x75, 0xe0, 0xf0, 0x75]
        );
    }

    #[test]
    fn keys_send_set_1_when_told_to() {
        let mut keyboard = after(&[0xf0, 1]);

        keyboard.key(0x1e, false, true);
        keyboard.key(0x1e, false, false);

        assert_eq!(drain(&mut keyboard), [0x1e, 0x9e]);
    }

    #[test]
    fn pause_sends_everything_when_it_goes_down() {
        let mut keyboard = KeyboardState::new();

        keyboard.key(0x46, true, true);
        keyboard.key(0x46, true, false);

        assert_eq!(
            drain(&mut keyboard),
            [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]
        );
    }

    #[test]
    fn print_screen_with_alt_is_system_request() {
        let mut keyboard = KeyboardState::new();
        keyboard.key(0x38, false, true);
        drain(&mut keyboard);

        keyboard.key(0x37, true, true);
        keyboard.key(0x37, true, false);

        assert_eq!(drain(&mut keyboard), [0x84, 0xf0, 0x84]);
    }

    #[test]
    fn commands_are_answered() {
        for (bytes, answer) in [
            (&[0xff][..], &[0xfa, 0xaa][..]),
            (&[0xf2], &[0xfa, 0xab, 0x83]),
            (&[0xed, 2], &[0xfa, 0xfa]),
            (&[0xf0, 0], &[0xfa, 0xfa, 2]),
            (&[0xf0, 3], &[0xfa, 0xfe]),
            (&[0xf3, 0x20], &[0xfa, 0xfa]),
            (&[0xee], &[0xee]),
            (&[0x01], &[0xfe]),
            (&[0xf2, 0xfe], &[0xfa, 0xab, 0x83, 0]),
        ] {
            let mut keyboard = KeyboardState::new();

            for byte in bytes {
                keyboard.receive(*byte);
            }

            assert_eq!(drain(&mut keyboard), answer, "{bytes:x?}");
        }
    }

    #[test]
    fn a_command_in_place_of_an_argument_is_a_command() {
        let mut keyboard = KeyboardState::new();

        keyboard.receive(0xed);
        keyboard.receive(0xf4);

        assert_eq!(drain(&mut keyboard), [0xfa, 0xfa]);
        assert_eq!(keyboard.leds(), Leds::default());
    }

    #[test]
    fn keys_wait_for_the_argument_of_a_command() {
        let mut keyboard = after(&[0xed]);

        keyboard.key(0x1e, false, true);
        let before = drain(&mut keyboard);
        keyboard.receive(2);

        assert!(before.is_empty());
        assert_eq!(drain(&mut keyboard), [0xfa, 0x1c]);
    }

    #[test]
    fn nothing_is_sent_while_scanning_is_off() {
        let mut keyboard = after(&[0xf5]);

        keyboard.key(0x1e, false, true);

        assert!(drain(&mut keyboard).is_empty());
    }

    #[test]
    fn releases_still_fit_when_presses_do_not() {
        let mut keyboard = KeyboardState::new();
        for _ in 0..1000 {
            keyboard.key(0x1e, false, true);
        }

        keyboard.key(0x1e, false, false);

        assert!(drain(&mut keyboard).ends_with(&[0xf0, 0x1c]));
    }
}
