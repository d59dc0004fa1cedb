//! virtio-blk: a long list of requests, each answer compared with what must be there.

use core::array;

use super::plan::{BLOCK, BLOCKS, Known, Op, Plan, SECTOR, place};
use super::{Buffer, Device, Queue, physical};
use crate::cpu::read;
use crate::ensure;
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

const TYPE: u16 = 2;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_MQ: u64 = 1 << 12;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const WORDS: usize = SECTOR / 8;

#[repr(C, align(4096))]
struct Request {
    data: [u64; WORDS * BLOCK as usize],
    kind: u32,
    reserved: u32,
    sector: u64,
    range: [u64; 2],
    status: u8,
}

static mut REQUEST: Request = Request {
    data: [0; WORDS * BLOCK as usize],
    kind: 0,
    reserved: 0,
    sector: 0,
    range: [0; 2],
    status: 0,
};

static mut KNOWN: [Known; BLOCKS] = [Known::Nothing; BLOCKS];

/// Does `rounds` (0: for ever) requests of the plan of `seed`, on `queues` queues in turn, and says
/// after each flush how many requests were done before it. `discards=0` gives nothing back.
pub fn test(info: &StartInfo) -> Outcome {
    let wanted = FEATURE_FLUSH | FEATURE_MQ | FEATURE_DISCARD | FEATURE_WRITE_ZEROES;
    if info.number("queues", 1) == 1 {
        let (device, queue) = Device::open(TYPE, wanted, None)?;
        return work(info, &device, &mut [queue]);
    }
    let (device, mut queues) =
        Device::open_queues(TYPE, wanted, None, array::from_fn::<_, 4, _>(|n| n as u16))?;
    work(info, &device, &mut queues)
}

fn work(info: &StartInfo, device: &Device, queues: &mut [Queue]) -> Outcome {
    let sectors: u64 = read(device.config);
    let count: u16 = read(device.config + 34);
    say!("disk sectors {sectors} queues {count}");
    ensure!(sectors >= BLOCKS as u64 * BLOCK, "the disk is too small");
    let rounds = match info.number("rounds", 2000) {
        0 => usize::MAX,
        rounds => rounds as usize,
    };
    let plan = Plan::new(info.number("seed", 1), info.number("discards", 1) != 0);
    for (number, op) in plan.take(rounds).enumerate() {
        let turn = number % queues.len();
        let queue = &mut queues[turn];
        perform(queue, op, sectors)?;
        if op == Op::Flush {
            say!("flushed {number}");
        }
    }
    perform(&mut queues[0], Op::Flush, sectors)
}

fn perform(queue: &mut Queue, op: Op, sectors: u64) -> Outcome {
    let Some(block) = op.block() else {
        return request(queue, FLUSH, 0);
    };
    let sector = place(block, sectors);
    // SAFETY: there is one processor.
    let known = unsafe { &raw mut KNOWN[block] };
    // SAFETY: as above.
    let before = unsafe { known.read_volatile() };
    let after = before.after(op);
    match op {
        Op::Flush => {}
        Op::Write { .. } => {
            each_word(|at, index| after.word(sector + at, index).unwrap_or(0));
            request(queue, OUT, sector)?;
        }
        Op::Discard { .. } => ranged(queue, DISCARD, sector, false)?,
        Op::Zero { unmap, .. } => ranged(queue, WRITE_ZEROES, sector, unmap)?,
        Op::Read { .. } => {
            each_word(|_, _| 0x5555_5555_5555_5555);
            request(queue, IN, sector)?;
            for index in 0..WORDS * BLOCK as usize {
                let at = sector + (index / WORDS) as u64;
                let Some(wanted) = before.word(at, (index % WORDS) as u64) else {
                    break;
                };
                // SAFETY: the device is done with the request.
                let found = unsafe { (&raw const REQUEST.data[index]).read_volatile() };
                ensure!(
                    found == wanted,
                    "sector {at}, word {index}: {found:#x}, not {wanted:#x}"
                );
            }
        }
    }
    // SAFETY: as above.
    unsafe { known.write_volatile(after) };
    Ok(())
}

fn each_word(word: impl Fn(u64, u64) -> u64) {
    for index in 0..WORDS * BLOCK as usize {
        let word = word((index / WORDS) as u64, (index % WORDS) as u64);
        // SAFETY: no request is under way.
        unsafe { (&raw mut REQUEST.data[index]).write_volatile(word) };
    }
}

fn ranged(queue: &mut Queue, kind: u32, sector: u64, unmap: bool) -> Outcome {
    let rest = BLOCK | u64::from(unmap) << 32;
    // SAFETY: no request is under way.
    unsafe { (&raw mut REQUEST.range).write_volatile([sector, rest]) };
    request(queue, kind, 0)
}

fn request(queue: &mut Queue, kind: u32, sector: u64) -> Outcome {
    let request = &raw mut REQUEST;
    // SAFETY: no request is under way.
    let (header, data, range, status) = unsafe {
        (&raw mut (*request).kind).write_volatile(kind);
        (&raw mut (*request).sector).write_volatile(sector);
        (&raw mut (*request).status).write_volatile(0xff);
        (
            &raw const (*request).kind,
            &raw const (*request).data,
            &raw const (*request).range,
            &raw const (*request).status,
        )
    };
    let buffer = |address, length, device_writes| Buffer {
        address,
        length,
        device_writes,
    };
    let head = buffer(physical(header), 16, false);
    let tail = buffer(physical(status), 1, true);
    match kind {
        FLUSH => queue.add(&[head, tail]),
        DISCARD | WRITE_ZEROES => queue.add(&[head, buffer(physical(range), 16, false), tail]),
        _ => {
            let length = (SECTOR * BLOCK as usize) as u32;
            queue.add(&[head, buffer(physical(data), length, kind == IN), tail])
        }
    };
    queue.notify();
    queue.wait()?;
    // SAFETY: the device is done with the request.
    let found = unsafe { status.read_volatile() };
    ensure!(found == OK, "type {kind}, sector {sector}: status {found}");
    Ok(())
}
