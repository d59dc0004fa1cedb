//! A PCI Express slot: a device comes while the guest runs, is used, and goes again.

use crate::cpu::wait_until;
use crate::ensure;
use crate::failure::{Outcome, why};
use crate::pci::{BEHIND, BUS_NUMBERS, Function};
use crate::say;
use crate::start_info::StartInfo;
use crate::virtio::{blk, net};

const VENDOR: u16 = 0x1b36;
const ROOT_PORT: u16 = 0x000c;
const CAPABILITY_EXPRESS: u8 = 0x10;

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY_AND_MASTER: u32 = 6;
/// PCI status: INTx is driven.
const INTX: u32 = 1 << 19;
const MEMORY_WINDOW: u16 = 0x20;
const FIRST_BUS: u32 = 0x0001_0100;

/// Slot control below, slot status above, from the capability on.
const SLOT: u16 = 0x18;
const BUTTON: u32 = 1 << 16;
const PRESENCE_CHANGED: u32 = 1 << 19;
const LINK_CHANGED: u32 = 1 << 24;
const EVENTS: u32 = BUTTON | PRESENCE_CHANGED | LINK_CHANGED;
const PRESENT: u32 = 1 << 22;
/// Every event interrupts.
const LISTEN: u32 = 0x1029;
const POWERED: u32 = LISTEN | 3 << 6 | 1 << 8;
const DARK: u32 = LISTEN | 3 << 6 | 3 << 8 | 1 << 10;

/// Uses a disk.
pub fn test_disk(info: &StartInfo) -> Outcome {
    serve(info, blk::test)
}

/// Uses a network card until a datagram says that it is enough.
pub fn test_net(info: &StartInfo) -> Outcome {
    serve(info, net::test)
}

/// What a guest does about a slot, as the PCI Express specification has it (6.7); it uses the device by
/// `test`.
fn serve(info: &StartInfo, test: fn(&StartInfo) -> Outcome) -> Outcome {
    let Some(port) = Function::find(VENDOR, ROOT_PORT) else {
        return Err(why(format_args!("no root port")));
    };
    let Some(express) = port.capabilities(CAPABILITY_EXPRESS).next() else {
        return Err(why(format_args!(
            "the root port has no PCI Express capability"
        )));
    };
    let slot = express + SLOT;
    port.set_config(BUS_NUMBERS, FIRST_BUS);
    let window = (BEHIND.start >> 16) | (BEHIND.end - 1) & 0xfff0_0000;
    port.set_config(MEMORY_WINDOW, window);
    port.set_config(COMMAND, COMMAND_MEMORY_AND_MASTER);
    port.set_config(slot, DARK);
    let state = port.config(slot);
    ensure!(state & PRESENT == 0, "the slot is taken: {state:#x}");

    say!("slot waits");
    ensure!(
        wait_until(|| port.config(slot) & PRESENT != 0),
        "nothing comes"
    );
    let state = port.config(slot);
    ensure!(
        state & (PRESENCE_CHANGED | LINK_CHANGED) == PRESENCE_CHANGED | LINK_CHANGED,
        "something came without an event: {state:#x}"
    );
    ensure!(port.config(COMMAND) & INTX != 0, "no interrupt");
    port.set_config(slot, EVENTS | DARK);
    ensure!(port.config(COMMAND) & INTX == 0, "the interrupt stays");
    ensure!(
        !is_there(port),
        "the device is there before its slot has power"
    );

    port.set_config(slot, POWERED);
    ensure!(is_there(port), "the device is not there");
    test(info)?;

    say!("slot runs");
    ensure!(
        wait_until(|| port.config(slot) & BUTTON != 0),
        "nobody asks for the device"
    );
    port.set_config(slot, EVENTS | DARK);
    ensure!(
        wait_until(|| port.config(slot) & PRESENT == 0),
        "the device stays"
    );
    ensure!(!is_there(port), "the device is there after it went");
    Ok(())
}

fn is_there(port: Function) -> bool {
    port.behind().is_some_and(Function::is_there)
}
