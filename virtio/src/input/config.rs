//! The configuration, through which the driver asks what the device is (5.8.4).

/// `VIRTIO_INPUT_CFG_*`: what [`Item`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// The device's name.
    Name,
    /// Its serial number.
    Serial,
    /// Bus, vendor, product and version.
    Ids,
    /// Its properties, as a bitmap.
    Properties,
    /// Which codes of event type `.0` it has, as a bitmap.
    Codes(u16),
    /// The range of absolute axis `.0`.
    Axis(u16),
}

impl Query {
    pub(crate) fn from_registers(select: u8, subsel: u8) -> Option<Self> {
        let subsel = u16::from(subsel);
        Some(match select {
            0x01 => Self::Name,
            0x02 => Self::Serial,
            0x03 => Self::Ids,
            0x10 => Self::Properties,
            0x11 => Self::Codes(subsel),
            0x12 => Self::Axis(subsel),
            _ => return None,
        })
    }
}

/// Bytes of an answer at most.
const ITEM_SIZE: usize = 128;
/// Where the answer starts.
const ITEM: usize = 8;
/// Bytes of `struct virtio_input_config`.
const CONFIG_SIZE: usize = ITEM + ITEM_SIZE;

/// `struct virtio_input_config` with `answer` in it; an answer of no bytes means "not there".
pub(crate) fn image(select: u8, subsel: u8, answer: &[u8]) -> [u8; CONFIG_SIZE] {
    let mut image = [0; CONFIG_SIZE];
    let len = answer.len().min(ITEM_SIZE);
    image[0] = select;
    image[1] = subsel;
    image[2] = len as u8;
    image[ITEM..ITEM + len].copy_from_slice(&answer[..len]);
    image
}

/// A bitmap with the bits of `codes` set, as long as the highest one needs.
pub(crate) fn bitmap(codes: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut bits = Vec::new();
    for code in codes {
        let byte = usize::from(code / 8);
        if bits.len() <= byte {
            bits.resize(byte + 1, 0);
        }
        bits[byte] |= 1u8 << (code % 8);
    }
    bits
}

/// `struct virtio_input_devids`: a virtual device, with the vendor that QEMU's devices have, so
/// that what a guest knows of those holds for ours.
pub(crate) fn ids(product: u16) -> Vec<u8> {
    const BUS_VIRTUAL: u16 = 0x06;
    const VENDOR: u16 = 0x0627;
    const VERSION: u16 = 1;
    let fields = [BUS_VIRTUAL, VENDOR, product, VERSION];
    fields
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}

/// `struct virtio_input_absinfo` of an axis from 0 to `max`.
pub(crate) fn axis(max: u32) -> Vec<u8> {
    let fields = [0, max, 0, 0, 0];
    fields
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_is_as_long_as_its_highest_bit_needs() {
        assert_eq!(bitmap([0, 9, 15]), [0x01, 0x82]);
    }
}
