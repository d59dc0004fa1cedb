//! Addresses that nobody decodes: reads are all ones, writes go nowhere, and the machine lives.

use crate::cpu::{in8, in16, in32, out8, out16, out32, read, write};
use crate::ensure;
use crate::failure::Outcome;
use crate::start_info::StartInfo;

/// Ports that no device of ours has.
const PORTS: [u16; 4] = [0x0250, 0x0a79, 0x5658, 0xfff0];
/// Between the devices below 4 GiB, just above a small guest's memory, and far above it.
const ADDRESSES: [u64; 4] = [0xfd12_3458, 0xfed4_5000, 0xa000_0000, 0x3_8000_0010];

/// Touches them all, in every width.
pub fn test(_: &StartInfo) -> Outcome {
    for port in PORTS {
        out8(port, 0x5a);
        out16(port, 0x5a5a);
        out32(port, 0x5a5a_5a5a);
        let found = (in8(port), in16(port), in32(port));
        ensure!(found == (!0, !0, !0), "port {port:#x} reads {found:x?}");
    }
    for address in ADDRESSES {
        write(address, 0x5a_u8);
        write(address, 0x5a5a_u16);
        write(address, 0x5a5a_5a5a_u32);
        write(address, 0x5a5a_5a5a_5a5a_5a5a_u64);
        let found: (u8, u16, u32, u64) =
            (read(address), read(address), read(address), read(address));
        ensure!(
            found == (!0, !0, !0, !0),
            "address {address:#x} reads {found:x?}"
        );
    }
    Ok(())
}
