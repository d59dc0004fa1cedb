//! The VM generation id: where the ACPI tables say it is, and the event that says it changed.

use crate::cpu::{in8, out8, read, wait_until};
use crate::ensure;
use crate::failure::{Outcome, Why, why};
use crate::say;
use crate::start_info::StartInfo;

/// GPE0_STS and GPE0_EN, and the event's bit in the first byte of each.
const GPE0_STS: u16 = 0x620;
const GPE0_EN: u16 = 0x628;
const EVENT: u8 = 1 << 5;

/// Of a table's header.
const LENGTH: u64 = 4;
const HEADER: u64 = 36;
/// `DSDT` in the FADT.
const DSDT: u64 = 40;
/// `Name (ADDR, Package (2) { … })` up to the two numbers, whatever the package's length.
const NAME: [u8; 4] = *b"ADDR";
const PACKAGE: u8 = 0x12;
const DWORD: u8 = 0x0c;

/// Says the id; with `changes=1` waits for the event and says it again.
pub fn test(info: &StartInfo) -> Outcome {
    let id = find(info.rsdp())?;
    out8(GPE0_EN, EVENT);
    say_id(id);
    for _ in 0..info.number("changes", 0) {
        let came = wait_until(|| in8(GPE0_STS) & EVENT != 0);
        ensure!(came, "no event says that the id changed");
        out8(GPE0_STS, EVENT);
        say_id(id);
    }
    Ok(())
}

fn say_id(at: u64) {
    let half = |at| read::<u64>(at).swap_bytes();
    say!("vmgenid {:016x}{:016x}", half(at), half(at + 8));
}

/// The address of the id.
fn find(rsdp: u64) -> Result<u64, Why> {
    let xsdt = read::<u64>(rsdp + 24);
    let entries = (HEADER..u64::from(read::<u32>(xsdt + LENGTH))).step_by(8);
    let fadt = entries
        .map(|entry| read::<u64>(xsdt + entry))
        .find(|table| read::<[u8; 4]>(*table) == *b"FACP")
        .ok_or_else(|| why(format_args!("no FADT")))?;
    let dsdt = u64::from(read::<u32>(fadt + DSDT));
    let end = dsdt + u64::from(read::<u32>(dsdt + LENGTH)) - 14;
    let name = (dsdt + HEADER..end)
        .find(|at| read::<[u8; 4]>(*at) == NAME && read::<u8>(at + 4) == PACKAGE)
        .ok_or_else(|| why(format_args!("no ADDR in the DSDT")))?;
    ensure!(read::<u8>(name + 7) == DWORD, "the address is no number");
    // The upper half is 0, a byte of its own kind.
    Ok(read::<u32>(name + 8).into())
}
