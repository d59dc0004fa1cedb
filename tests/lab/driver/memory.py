"""The guest's memory as its host has it: what the guest does without goes back, by its own wish or its host's."""

import json
import re
import time
from collections.abc import Callable

from console import STRETCH, Failed
from monitors import CarawayGuest

MIB = 1 << 20
# What the guest has, and what it is to keep, one after the other.
WHOLE = 768 * MIB
TARGETS = [384 * MIB, 320 * MIB, 384 * MIB]
# How far from its target the resident size may be.
TOLERANCE = 0.05
# A file in the guest's memory.
FILL = 320
CONFIG = {"balloon": {"stats_interval": "1s", "free_page_reporting": True, "deflate_on_oom": True}}
PATIENCE = 120 * STRETCH
# For a guest that has to find the pages first.
BALLOON_PATIENCE = 300 * STRETCH


def goes_back_to_the_host(guest: CarawayGuest) -> None:
    free_pages_are_reported(guest)
    balloon_keeps_to_its_target(guest)
    statistics_are_the_guests(guest)


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


def balloon_keeps_to_its_target(guest: CarawayGuest) -> None:
    """A guest that uses all the memory it has got is as large on its host as the balloon lets it be."""
    # Linux leaves some memory free, and with huge pages much: a twentieth of all.
    guest.serial.run("echo 4096 >/proc/sys/vm/min_free_kbytes")
    told, before = [], 0
    for target in TARGETS:
        begun = time.monotonic()
        guest.put("balloon.set", {"target": target})
        wait_for_actual(guest, target)
        took = time.monotonic() - begun
        if target > before:
            # Copies of what is on the disk fill what is free.
            guest.serial.run(f"dd if=/dev/vda of=/dev/null bs=1M count={target // MIB} status=none", 900)
        before, size = target, resident(guest)
        told.append(f"{size / MIB:.1f} MiB resident at a target of {target / MIB:.0f} (after {took:.0f} s)")
        if abs(size - target) > TOLERANCE * target:
            raise Failed(f"the balloon is more than {TOLERANCE:.0%} from its target: {', '.join(told)}")
    print(f"# balloon: {', '.join(told)}", flush=True)


def wait_for_actual(guest: CarawayGuest, target: int) -> None:
    deadline = time.monotonic() + BALLOON_PATIENCE
    while (told := status(guest))["actual"] != target:
        if time.monotonic() > deadline:
            raise Failed(f"the balloon does not come to {target}: {told}")
        time.sleep(1)


def statistics_are_the_guests(guest: CarawayGuest) -> None:
    total = int(guest.serial.run("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) * 1024
    told = status(guest)
    if told["stats"]["total"] != total or told["stats_age_ms"] > 10_000 * STRETCH:
        raise Failed(f"the guest has {total} bytes of memory, its statistics say {told}")


def status(guest: CarawayGuest) -> dict:
    return json.loads(guest.get("balloon.info"))


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
