//! virtio-balloon: memory that was used, given back as the host asks, or because it is not used.

use super::{Buffer, Device, Queue, physical};
use crate::cpu::{read, write};
use crate::ensure;
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

pub(super) const TYPE: u16 = 5;
const STATS: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// Where the memory begins that comes and goes: above this program and its tables.
const START: u64 = 32 * MIB;
/// Page numbers in a chain, as in Linux.
const NUMBERS: usize = 256;
/// Bytes that are reported at a time.
const REPORT: u64 = 2 * MIB;

static mut PAGES: [u32; NUMBERS] = [0; NUMBERS];
/// An entry of the statistics: what is free, and how much that is.
static mut ENTRY: [u8; 10] = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Uses `mib` (64) MiB, then follows the host's target until it has changed `changes` (1) times. What
/// comes back must be empty, and is used again.
pub fn test(info: &StartInfo) -> Outcome {
    let most = info.number("mib", 64) * MIB / PAGE;
    let (device, [mut inflate, mut deflate, mut stats]) =
        Device::open_queues(TYPE, STATS | DEFLATE_ON_OOM, None, [0, 1, 2])?;
    let mut said = 0;
    tell_stats(&mut stats, &mut said);
    touch(0, most);
    say!("balloon touched {} MiB", most * PAGE / MIB);
    let (mut held, mut changes) = (0, 0);
    while changes < info.number("changes", 1) {
        if stats.take().is_some() {
            tell_stats(&mut stats, &mut said);
        }
        let target = u64::from(read::<u32>(device.config)).min(most);
        if target == held {
            core::hint::spin_loop();
            continue;
        }
        if held < target {
            move_pages(&mut inflate, held, target)?;
        } else {
            move_pages(&mut deflate, target, held)?;
            for page in target..held {
                let word = read::<u64>(START + page * PAGE);
                ensure!(word == 0, "page {page} comes back with {word:#x}");
            }
            touch(target, held);
        }
        held = target;
        write(device.config + 4, held as u32);
        changes += 1;
        say!("balloon holds {} MiB", held * PAGE / MIB);
    }
    Ok(())
}

/// Uses `mib` (64) MiB and then tells that it does not any more.
pub fn test_report(info: &StartInfo) -> Outcome {
    let most = info.number("mib", 64) * MIB;
    let (device, [_, _, _, mut reports]) =
        Device::open_queues(TYPE, STATS | REPORTING, None, [0, 1, 2, 3])?;
    ensure!(
        device.features & REPORTING != 0,
        "the device takes no reports"
    );
    touch(0, most / PAGE);
    say!("balloon touched {} MiB", most / MIB);
    for at in (0..most).step_by(REPORT as usize) {
        reports.add(&[Buffer {
            address: START + at,
            length: REPORT as u32,
            device_writes: true,
        }]);
        reports.notify();
        reports.wait()?;
    }
    say!("balloon reported {} MiB", most / MIB);
    let word = read::<u64>(START);
    ensure!(word == 0, "a reported page still has {word:#x}");
    Ok(())
}

fn touch(from: u64, to: u64) {
    for page in from..to {
        write(START + page * PAGE, page | 1 << 63);
    }
}

/// Says that as much is free as statistics were given so far.
fn tell_stats(queue: &mut Queue, said: &mut u64) {
    *said += 1;
    let entry = &raw mut ENTRY;
    for (at, byte) in said.to_le_bytes().into_iter().enumerate() {
        // SAFETY: the device is done with the entry, which has room for the number.
        unsafe { (&raw mut (*entry)[2 + at]).write_volatile(byte) };
    }
    queue.add(&[Buffer {
        address: physical(entry),
        length: 10,
        device_writes: false,
    }]);
    queue.notify();
}

/// Puts these pages in, or takes them out.
fn move_pages(queue: &mut Queue, from: u64, to: u64) -> Outcome {
    for first in (from..to).step_by(NUMBERS) {
        let count = (to - first).min(NUMBERS as u64);
        for index in 0..count {
            // As Linux finds them: from the top down.
            let page = START / PAGE + first + count - 1 - index;
            // SAFETY: the device is done with them, and there are at most NUMBERS.
            unsafe { (&raw mut PAGES[index as usize]).write_volatile(page as u32) };
        }
        queue.add(&[Buffer {
            address: physical(&raw const PAGES),
            length: 4 * count as u32,
            device_writes: false,
        }]);
        queue.notify();
        queue.wait()?;
    }
    Ok(())
}
