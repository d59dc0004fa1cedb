//! Where a firmware image goes: read-only below 4 GiB, and its end in RAM below 1 MiB.
//!
//! SeaBIOS of 128 or 256 KiB and a combined OVMF image of up to 4 MiB go the same way: their last
//! bytes hold the reset vector at 0xffff_fff0, and their last 128 KiB are what real-mode code finds
//! at 0xe0000.

use caraway_arch::layout::{FOUR_GIB, HIGH_RAM_START, KIB, MIB};
use caraway_arch::{AddressRange, GuestMemory};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// The largest image: what an x86 chipset decodes as flash.
pub const MAX_SIZE: u64 = 8 * MIB;
/// Images come in multiples of this; KVM maps whole pages, and the reset code is 64 KiB aligned.
pub const STEP: u64 = 64 * KIB;
/// How much of the end is copied below 1 MiB, at most.
pub const SHADOW_SIZE: u64 = 128 * KIB;

/// An image that is no firmware.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Its size can't be.
    #[error("a firmware image has 64 KiB to 8 MiB in steps of 64 KiB; this one has {size} bytes")]
    Size {
        /// Its size in bytes.
        size: usize,
    },
    /// Its last bytes, where a processor starts, are all the same.
    #[error(
        "not a firmware image: its reset vector, the last 16 bytes, is filled with {byte:#04x}"
    )]
    NoResetVector {
        /// The byte.
        byte: u8,
    },
    /// Guest memory does not take the copy.
    #[error("guest memory at {address:#x} can't take the end of the firmware: {source}")]
    Memory {
        /// The guest's address.
        address: u64,
        /// Why.
        source: GuestMemoryError,
    },
}

/// An image that can be placed.
#[derive(Debug, Clone)]
pub struct Firmware {
    image: Vec<u8>,
}

impl Firmware {
    /// Takes an image that was read from a file.
    ///
    /// # Errors
    /// [`PlaceError::Size`] and [`PlaceError::NoResetVector`] if it can't be one.
    pub fn new(image: Vec<u8>) -> Result<Self, PlaceError> {
        let size = image.len();
        let fits = (STEP..=MAX_SIZE).contains(&(size as u64));
        if !fits || !(size as u64).is_multiple_of(STEP) {
            return Err(PlaceError::Size { size });
        }
        if let Some(&[byte, ref rest @ ..]) = image.last_chunk::<16>()
            && rest.iter().all(|&other| other == byte)
        {
            return Err(PlaceError::NoResetVector { byte });
        }
        Ok(Self { image })
    }

    /// Its bytes, for the read-only memory at [`Firmware::rom`].
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// Where the image is in the guest: right below 4 GiB. Nothing if it were empty, which
    /// [`Firmware::new`] does not let it be.
    pub fn rom(&self) -> Option<AddressRange> {
        let size = self.image.len() as u64;
        AddressRange::new(FOUR_GIB.checked_sub(size)?, size)
    }

    /// Copies the end of the image below 1 MiB, where it is RAM that firmware may change: at
    /// power-on and again at every reset.
    ///
    /// # Errors
    /// [`PlaceError::Memory`] if guest memory ends below 1 MiB.
    pub fn shadow(&self, memory: &GuestMemory) -> Result<(), PlaceError> {
        let size = (self.image.len() as u64).min(SHADOW_SIZE);
        let address = HIGH_RAM_START - size;
        let from = self.image.len() - usize::try_from(size).unwrap_or(0);
        let end = self.image.get(from..).unwrap_or_default();
        memory
            .write_slice(end, GuestAddress(address))
            .map_err(|source| PlaceError::Memory { address, source })
    }
}

#[cfg(test)]
mod tests {
    use caraway_arch::{Backing, Layout, memory};

    use super::*;

    fn image(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at / 7) as u8).collect()
    }

    #[test]
    fn an_image_ends_at_four_gibibytes() {
        let rom = Firmware::new(image(256 * KIB)).unwrap().rom().unwrap();
        assert_eq!((rom.start(), rom.end()), (0xfffc_0000, FOUR_GIB));
    }

    #[test]
    fn the_last_128_kib_are_also_below_one_mebibyte() {
        let memory =
            memory::create(&Layout::new(2 * MIB, 48).unwrap(), Backing::Anonymous).unwrap();
        let image = image(256 * KIB);
        Firmware::new(image.clone())
            .unwrap()
            .shadow(&memory)
            .unwrap();
        let mut shadow = vec![0; SHADOW_SIZE as usize];
        memory
            .read_slice(&mut shadow, GuestAddress(0xe_0000))
            .unwrap();
        assert_eq!(shadow, image[128 << 10..]);
    }

    #[test]
    fn odd_sizes_and_empty_vectors_are_refused() {
        for size in [0, 1, 65_537, 16 << 20] {
            let error = Firmware::new(vec![1; size]).unwrap_err();
            assert!(matches!(error, PlaceError::Size { size: told } if told == size));
        }
        let error = Firmware::new(vec![0xff; 65_536]).unwrap_err();
        assert!(matches!(error, PlaceError::NoResetVector { byte: 0xff }));
    }
}
