//! Where a function sits: bus, device, function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bus, device and function number of a PCI function in segment 0, written `00:05.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    bus: u8,
    device: u8,
    function: u8,
}

/// The text is not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a PCI address such as \"00:05.0\" (bus 00-ff, device 00-1f, function 0-7)"
)]
pub struct PciAddressError {
    text: String,
}

impl PciAddress {
    /// The function at `bus:device.function`; `None` if device is over 31 or function over 7.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self {
                bus,
                device,
                function,
            })
        } else {
            None
        }
    }

    /// The function with routing id `rid`: bus in bits 15:8, device in 7:3, function in 2:0.
    #[must_use]
    pub const fn from_rid(rid: u16) -> Self {
        Self {
            bus: (rid >> 8) as u8,
            device: (rid >> 3) as u8 & 0x1f,
            function: rid as u8 & 7,
        }
    }

    /// The routing id, see [`from_rid`](Self::from_rid).
    #[must_use]
    pub const fn rid(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16) << 3 | self.function as u16
    }

    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.device
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{:x}",
            self.bus, self.device, self.function
        )
    }
}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (bus, rest) = text.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let number = |digits: &str, width: usize| {
                let fits = digits.len() == width && digits.bytes().all(|b| b.is_ascii_hexdigit());
                fits.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
            };
            Self::new(number(bus, 2)?, number(device, 2)?, number(function, 1)?)
        };
        parse().ok_or_else(|| PciAddressError {
            text: text.to_owned(),
        })
    }
}

impl TryFrom<String> for PciAddress {
    type Error = PciAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_text() {
        let address = PciAddress::new(0, 0x1f, 3).unwrap();

        assert_eq!(address.to_string(), "00:1f.3");
        assert_eq!("00:1f.3".parse(), Ok(address));
        assert_eq!(PciAddress::from_rid(address.rid()), address);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "", "00:20.0", "00:01.8", "0:1.0", "00:+1.0", "00:01", "00:01.0 ",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }
}
