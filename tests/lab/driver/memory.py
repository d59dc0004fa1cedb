"""The guest's memory as its host has it: what the guest does without goes back."""

import re
import time
from collections.abc import Callable

from console import STRETCH, Failed
from monitors import CarawayGuest

MIB = 1 << 20
# What the guest has.
WHOLE = 768 * MIB
# A file in the guest's memory.
FILL = 320
CONFIG = {"balloon": {"free_page_reporting": True}}
PATIENCE = 120 * STRETCH


def free_pages_are_reported(guest: CarawayGuest) -> None:
    guest.serial.run("sync; echo 3 >/proc/sys/vm/drop_caches")
    before = settled(guest)
    guest.serial.run(f"dd if=/dev/urandom of=/dev/shm/fill bs=1M count={FILL} status=none", 300)
    filled = resident(guest)
    grown = filled - before
    if grown < 0.5 * FILL * MIB:
        raise Failed(f"a file of {FILL} MiB made only {grown / MIB:.0f} more resident")
    guest.serial.run("rm /dev/shm/fill")
    begun = time.monotonic()
    left = until(guest, lambda now: filled - now > 0.9 * grown, f"less than 90 % of {grown / MIB:.0f} MiB come back")
    took = time.monotonic() - begun
    print(
        f"# free page reporting: {before / MIB:.0f} MiB resident, {filled / MIB:.0f} with {FILL} MiB of a file,"
        f" {left / MIB:.0f} within {took:.0f} s of its removal",
        flush=True,
    )


def resident(guest: CarawayGuest) -> int:
    """Bytes that the host has for the guest's memory, which is the largest thing that Caraway has mapped."""
    told = guest.host("grep -E '^(Size|Rss):' /proc/$(cat /run/caraway.pid)/smaps")
    sizes = [int(kib) * 1024 for kib in re.findall(r"(\d+) kB", told)]
    size, here = max(zip(sizes[::2], sizes[1::2]))
    if not 0 <= size - WHOLE < 64 * MIB:
        raise Failed(f"the largest mapping has {size} bytes")
    return here


def settled(guest: CarawayGuest) -> int:
    """What is resident once that no longer falls."""
    last = resident(guest)
    while True:
        time.sleep(3)
        now = resident(guest)
        if now > last - 2 * MIB:
            return now
        last = now


def until(guest: CarawayGuest, holds: Callable[[int], bool], otherwise: str) -> int:
    deadline = time.monotonic() + PATIENCE
    while not holds(now := resident(guest)):
        if time.monotonic() > deadline:
            raise Failed(f"{otherwise}: {now / MIB:.0f} MiB are resident")
        time.sleep(1)
    return now
