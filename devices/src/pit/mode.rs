//! What a control word asks for.

/// What a counter does when it runs out (8254 datasheet, "Mode Definitions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// 0: the output rises when the count ends.
    TerminalCount,
    /// 1: the gate's edge starts a low pulse of the count's length.
    OneShot,
    /// 2: low for one clock in every count.
    RateGenerator,
    /// 3: high for one half of every count, low for the other.
    SquareWave,
    /// 4: low for one clock when the count ends.
    SoftwareStrobe,
    /// 5: the same, started by the gate's edge.
    HardwareStrobe,
}

impl Mode {
    /// Whether the count starts with the gate's rising edge.
    pub(super) const fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }

    /// Whether the count starts anew by itself.
    pub(super) const fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }

    /// The smallest count that the datasheet allows; a smaller one is taken for this.
    pub(super) const fn smallest_count(self) -> u32 {
        if self.is_periodic() { 2 } else { 1 }
    }
}

/// Which bytes of a count an access to the channel's port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Low,
    High,
    /// Low first, then high.
    Both,
}

/// Bits 5:0 of a control word: access in 5:4 (not 0), mode in 3:1, BCD in 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub(super) struct Control(u8);

/// A saved control word that a counter can't have.
#[derive(Debug, thiserror::Error)]
#[error("a counter's control word is 16 to 63, not {0}")]
pub(super) struct BadControl(u8);

impl Control {
    /// Two bytes, mode 3, binary: what firmware sets.
    pub(super) const POWER_ON: Self = Self(0x36);

    /// The counter's part of `word`; `None` if it is a latch command.
    pub(super) const fn new(word: u8) -> Option<Self> {
        match word & 0x3f {
            0..0x10 => None,
            bits => Some(Self(bits)),
        }
    }

    /// As the read-back command shows it.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// Bit 3 does not matter for modes 2 and 3.
    pub(super) const fn mode(self) -> Mode {
        match self.0 >> 1 & 7 {
            0 => Mode::TerminalCount,
            1 => Mode::OneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        }
    }

    pub(super) const fn access(self) -> Access {
        match self.0 >> 4 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::Both,
        }
    }

    /// How a register's value is counted.
    pub(super) const fn digits(self) -> Digits {
        if self.0 & 1 != 0 {
            Digits::Bcd
        } else {
            Digits::Binary
        }
    }
}

impl TryFrom<u8> for Control {
    type Error = BadControl;

    fn try_from(bits: u8) -> Result<Self, BadControl> {
        let control = Self::new(bits).filter(|control| control.0 == bits);
        control.ok_or(BadControl(bits))
    }
}

impl From<Control> for u8 {
    fn from(control: Control) -> Self {
        control.0
    }
}

/// How a counter counts: 16 bits, or four decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    Binary,
    Bcd,
}

impl Digits {
    /// How many values there are; a count register of 0 stands for as many.
    pub(super) const fn modulus(self) -> u32 {
        match self {
            Self::Binary => 0x1_0000,
            Self::Bcd => 10_000,
        }
    }

    /// How many clocks a count register of `register` means.
    pub(super) fn count(self, register: u16) -> u32 {
        match (self, register) {
            (_, 0) => self.modulus(),
            (Self::Binary, count) => count.into(),
            (Self::Bcd, digits) => {
                let nibbles = [12, 8, 4, 0].map(|shift| u32::from(digits >> shift & 0xf));
                let number = nibbles.iter().fold(0, |number, digit| number * 10 + digit);
                // Nibbles over 9 are no digits; the datasheet leaves open what they mean.
                number.min(self.modulus())
            }
        }
    }

    /// A count as a guest reads it; the modulus reads as 0.
    pub(super) fn encode(self, count: u32) -> u16 {
        // Below the modulus, which is at most 65,536.
        let count = (count % self.modulus()) as u16;
        let digit = |unit: u16| count / unit % 10;
        match self {
            Self::Binary => count,
            Self::Bcd => digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1),
        }
    }
}
