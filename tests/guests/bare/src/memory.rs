//! Is there as much memory as the map says, everywhere it says?

use crate::cpu::{read, write};
use crate::ensure;
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

const RAM: u32 = 1;
const MIB: u64 = 1 << 20;
const PAGE: usize = 4 << 10;
/// Below this are the loader's tables and this program, which has some 8 MiB.
const FIRST_FREE: u64 = 16 * MIB;
/// As far as `entry.s` maps.
const MAPPED: u64 = 16 << 30;

/// Prints the map and the sum of its RAM; writes one word in each 16 MiB of it and at each range's
/// end, each its own address, then reads them all: two addresses of one byte would show. Then writes to
/// every page of `fill` MiB (0): no two of them are equal, but another machine's are the same.
pub fn test(info: &StartInfo) -> Outcome {
    let mut total = 0;
    for range in info.memory() {
        let end = range.start + range.size;
        say!("memory {:#x}..{end:#x} type {}", range.start, range.kind);
        if range.kind == RAM {
            total += range.size;
        }
    }
    say!("memory total {} KiB", total >> 10);
    for address in probes(info) {
        write(address, !address);
    }
    for address in probes(info) {
        let found = read::<u64>(address);
        ensure!(
            found == !address,
            "at {address:#x} is {found:#x}, not {:#x}",
            !address
        );
    }
    let filled = info.number("fill", 0) * MIB;
    for page in (FIRST_FREE..FIRST_FREE + filled).step_by(PAGE) {
        write(page, page);
    }
    Ok(())
}

fn probes(info: &StartInfo) -> impl Iterator<Item = u64> {
    info.memory()
        .filter(|range| range.kind == RAM)
        .flat_map(|range| {
            let start = range.start.max(FIRST_FREE).next_multiple_of(MIB);
            let end = (range.start + range.size).min(MAPPED);
            let last = (end >= start + 8).then(|| (end - 8) & !7);
            (start..end.saturating_sub(7)).step_by(16 << 20).chain(last)
        })
}
