//! The mouse: three kinds in one, as the guest asks (plain PS/2, with a wheel, with five buttons).

use serde::{Deserialize, Serialize};

use super::queue::Bounded;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;

/// Bytes of movement that can wait; more movement than that is added up.
const PACKETS: usize = 64;

const DEFAULT_RATE: u8 = 100;
const DEFAULT_RESOLUTION: u8 = 2;

/// What a guest sets as sample rates, one after the other, to get a wheel or five buttons.
const WHEEL_KNOCK: [u8; 3] = [200, 100, 80];
const FIVE_BUTTONS_KNOCK: [u8; 3] = [200, 200, 80];

/// The most that one packet can say of a distance. Its sign has a bit of its own.
const STEP: i32 = 127;

/// Which buttons are down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MouseButtons {
    /// The left one.
    pub left: bool,
    /// The right one.
    pub right: bool,
    /// The middle one, which is the wheel's.
    pub middle: bool,
    /// The fourth one, "back".
    pub side: bool,
    /// The fifth one, "forward".
    pub extra: bool,
}

impl MouseButtons {
    fn first_three(self) -> u8 {
        u8::from(self.left) | u8::from(self.right) << 1 | u8::from(self.middle) << 2
    }

    fn last_two(self) -> u8 {
        u8::from(self.side) << 4 | u8::from(self.extra) << 5
    }
}

/// What the mouse says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Wheel,
    FiveButtons,
}

impl Kind {
    const fn id(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Wheel => 3,
            Self::FiveButtons => 4,
        }
    }
}

/// A command whose argument comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Command {
    SetResolution,
    SetRate,
}

/// The mouse, which is its own saved state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MouseState {
    replies: Bounded<u8, 16>,
    packets: Bounded<u8, PACKETS>,
    command: Option<Command>,
    last_sent: u8,
    reporting: bool,
    remote: bool,
    wrap: bool,
    doubled: bool,
    rate: u8,
    resolution: u8,
    kind: Kind,
    rates: [u8; 3],
    /// Distance not yet sent: right and down positive, wheel towards the user positive.
    moved: [i32; 3],
    buttons: MouseButtons,
    buttons_sent: MouseButtons,
}

impl MouseState {
    pub(super) fn new() -> Self {
        Self {
            replies: Bounded::default(),
            packets: Bounded::default(),
            command: None,
            last_sent: 0,
            reporting: false,
            remote: false,
            wrap: false,
            doubled: false,
            rate: DEFAULT_RATE,
            resolution: DEFAULT_RESOLUTION,
            kind: Kind::Plain,
            rates: [0; 3],
            moved: [0; 3],
            buttons: MouseButtons::default(),
            buttons_sent: MouseButtons::default(),
        }
    }

    /// Whether it could have come from a real mouse.
    pub(super) fn is_valid(&self) -> bool {
        !self.replies.is_over() && !self.packets.is_over()
    }

    /// Whether the guest listens to movement.
    pub(super) fn is_listening(&self) -> bool {
        self.reporting && !self.remote && !self.wrap
    }

    /// The next byte for the host, answers first. Movements wait while an argument is expected, as the
    /// keyboard's keys do.
    pub(super) fn pop(&mut self) -> Option<u8> {
        if self.replies.is_empty() && self.packets.is_empty() {
            self.report();
        }
        let byte = match self.replies.pop() {
            None if self.command.is_none() => self.packets.pop(),
            reply => reply,
        }?;
        self.last_sent = byte;
        Some(byte)
    }

    pub(super) fn motion(&mut self, dx: i32, dy: i32) {
        self.moved[0] = self.moved[0].saturating_add(dx);
        self.moved[1] = self.moved[1].saturating_add(dy);
        self.moves();
    }

    pub(super) fn wheel(&mut self, clicks: i32) {
        self.moved[2] = self.moved[2].saturating_sub(clicks);
        self.moves();
    }

    pub(super) fn set_buttons(&mut self, buttons: MouseButtons) {
        if buttons == self.buttons {
            return;
        }
        // Movement up to here belongs to the buttons as they were.
        self.report();
        self.buttons = buttons;
        self.moves();
    }

    /// Movement that nobody listens to is not kept.
    fn moves(&mut self) {
        if self.is_listening() {
            self.report();
        } else if !self.remote {
            self.moved = [0; 3];
        }
    }

    fn has_news(&self) -> bool {
        let wheel = self.kind != Kind::Plain && self.moved[2] != 0;
        self.moved[..2] != [0; 2] || wheel || self.buttons != self.buttons_sent
    }

    /// Queues packets while there is something to say and room to say it.
    fn report(&mut self) {
        while self.is_listening() && self.has_news() && self.packets.room() >= 4 {
            let (packet, len) = self.packet();
            self.packets.push_all(packet.into_iter().take(len));
        }
    }

    /// Takes as much of the distance as one packet can say.
    fn packet(&mut self) -> ([u8; 4], usize) {
        let mut take = |axis: usize, low: i32, high: i32| {
            let step = self.moved[axis].clamp(low, high);
            self.moved[axis] -= step;
            step
        };
        let right = take(0, -STEP, STEP);
        let up = -take(1, -STEP, STEP);
        let wheel = match self.kind {
            Kind::Plain => take(2, i32::MIN, i32::MAX),
            Kind::Wheel => take(2, -STEP, STEP),
            Kind::FiveButtons => take(2, -7, 7),
        };
        self.buttons_sent = self.buttons;
        let signs = u8::from(right < 0) << 4 | u8::from(up < 0) << 5;
        let first = 0x08 | signs | self.buttons.first_three();
        let (last, len) = match self.kind {
            Kind::Plain => (0, 3),
            Kind::Wheel => (wheel as u8, 4),
            Kind::FiveButtons => (wheel as u8 & 0xf | self.buttons.last_two(), 4),
        };
        ([first, right as u8, up as u8, last], len)
    }

    /// A byte from the host.
    pub(super) fn receive(&mut self, byte: u8) {
        if let Some(command) = self.command.take() {
            match command {
                Command::SetResolution => self.resolution = byte & 3,
                Command::SetRate => self.set_rate(byte),
            }
            return self.reply(&[ACK]);
        }
        if self.wrap && !matches!(byte, 0xec | 0xff) {
            return self.reply(&[byte]);
        }
        self.command(byte);
    }

    fn command(&mut self, byte: u8) {
        match byte {
            0xe6 => self.doubled = false,
            0xe7 => self.doubled = true,
            0xe8 => self.command = Some(Command::SetResolution),
            0xe9 => {
                let status = self.status();
                return self.reply(&[ACK, status, self.resolution, self.rate]);
            }
            0xea => self.remote = false,
            0xeb => {
                let (packet, len) = self.packet();
                self.reply(&[ACK]);
                self.replies.push_all(packet.into_iter().take(len));
                return;
            }
            0xec => self.wrap = false,
            0xee => self.wrap = true,
            0xf0 => self.remote = true,
            0xf2 => return self.reply(&[ACK, self.kind.id()]),
            0xf3 => self.command = Some(Command::SetRate),
            0xf4 => self.set_reporting(true),
            0xf5 => self.set_reporting(false),
            0xf6 => self.set_defaults(),
            0xfe => {
                let last = self.last_sent;
                return self.reply(&[last]);
            }
            0xff => {
                let buttons = self.buttons;
                *self = Self::new();
                self.buttons = buttons;
                self.buttons_sent = buttons;
                return self.reply(&[ACK, SELF_TEST_PASSED, self.kind.id()]);
            }
            _ => return self.reply(&[RESEND]),
        }
        self.reply(&[ACK]);
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.push_all(bytes.iter().copied());
    }

    fn set_reporting(&mut self, on: bool) {
        self.reporting = on;
        self.packets.clear();
        self.moved = [0; 3];
    }

    fn set_defaults(&mut self) {
        self.set_reporting(false);
        self.remote = false;
        self.doubled = false;
        self.rate = DEFAULT_RATE;
        self.resolution = DEFAULT_RESOLUTION;
    }

    fn set_rate(&mut self, rate: u8) {
        self.rate = rate;
        self.rates = [self.rates[1], self.rates[2], rate];
        match self.rates {
            WHEEL_KNOCK => self.kind = Kind::Wheel,
            FIVE_BUTTONS_KNOCK => self.kind = Kind::FiveButtons,
            _ => {}
        }
    }

    fn status(&self) -> u8 {
        let buttons = self.buttons;
        u8::from(buttons.right)
            | u8::from(buttons.middle) << 1
            | u8::from(buttons.left) << 2
            | u8::from(self.doubled) << 4
            | u8::from(self.reporting) << 5
            | u8::from(self.remote) << 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mouse: &mut MouseState) -> Vec<u8> {
        std::iter::from_fn(|| mouse.pop()).collect()
    }

    fn after(bytes: &[u8]) -> MouseState {
        let mut mouse = MouseState::new();
        for byte in bytes {
            mouse.receive(*byte);
            drain(&mut mouse);
        }
        mouse
    }

    const WHEEL: [u8; 7] = [0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf4];
    const FIVE: [u8; 7] = [0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf4];

    #[test]
    fn a_plain_mouse_sends_three_bytes_with_up_positive() {
        let mut mouse = after(&[0xf4]);

        mouse.motion(5, 3);

        assert_eq!(drain(&mut mouse), [0x28, 5, 0xfd]);
    }

    #[test]
    fn far_movement_takes_several_packets() {
        let mut mouse = after(&[0xf4]);

        mouse.motion(200, 0);

        assert_eq!(drain(&mut mouse), [0x08, 127, 0, 0x08, 73, 0]);
    }

    #[test]
    fn the_knocks_bring_wheel_and_buttons() {
        let id = |bytes: &[u8]| {
            let mut mouse = after(bytes);
            mouse.receive(0xf2);
            drain(&mut mouse)[1]
        };

        assert_eq!([id(&[]), id(&WHEEL), id(&FIVE)], [0, 3, 4]);
    }

    #[test]
    fn the_wheel_away_from_the_user_is_negative() {
        let mut mouse = after(&WHEEL);

        mouse.wheel(1);

        assert_eq!(drain(&mut mouse), [0x08, 0, 0, 0xff]);
    }

    #[test]
    fn five_buttons_share_the_fourth_byte_with_the_wheel() {
        let mut mouse = after(&FIVE);

        mouse.set_buttons(MouseButtons {
            left: true,
            extra: true,
            ..MouseButtons::default()
        });
        mouse.wheel(-2);

        assert_eq!(drain(&mut mouse), [0x09, 0, 0, 0x20, 0x09, 0, 0, 0x22]);
    }

    #[test]
    fn movement_is_added_up_while_the_queue_is_full() {
        let mut mouse = after(&[0xf4]);
        for _ in 0..100 {
            mouse.motion(1, 0);
        }

        let sent = drain(&mut mouse);

        let total: u32 = sent.chunks(3).map(|packet| u32::from(packet[1])).sum();
        assert_eq!(total, 100);
        assert!(sent.len() < 100, "{} bytes", sent.len());
    }

    #[test]
    fn a_remote_mouse_speaks_when_asked() {
        let mut mouse = after(&[0xf0, 0xf4]);
        mouse.motion(7, 0);
        let unasked = drain(&mut mouse);

        mouse.receive(0xeb);

        assert!(unasked.is_empty());
        assert_eq!(drain(&mut mouse), [0xfa, 0x08, 7, 0]);
    }

    #[test]
    fn status_tells_what_was_set() {
        let mut mouse = after(&[0xe8, 3, 0xf3, 40, 0xe7, 0xf4]);

        mouse.receive(0xe9);

        assert_eq!(drain(&mut mouse), [0xfa, 0x30, 3, 40]);
    }

    #[test]
    fn a_mouse_in_wrap_mode_echoes() {
        let mut mouse = after(&[0xee]);

        mouse.receive(0xf2);
        mouse.receive(0xec);

        assert_eq!(drain(&mut mouse), [0xf2, 0xfa]);
    }

    #[test]
    fn reset_is_answered_with_test_and_id() {
        let mut mouse = after(&WHEEL);

        mouse.receive(0xff);

        assert_eq!(drain(&mut mouse), [0xfa, 0xaa, 0]);
    }
}
