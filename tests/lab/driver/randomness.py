"""Random numbers: those of /dev/hwrng, and new ones for a machine that is a copy."""

import json
import re

from console import Failed
from monitors import CarawayGuest, Guest

CONFIG = {"rng": {"source": "/dev/urandom"}}
# Of 20,000 bits each.
BLOCKS = 400
# Of a good source's blocks, FIPS 140-2's tests refuse some 8 in 10,000: this is fifteen times as many.
MOST_REFUSED = 5
# Seconds until two machines have started and drawn.
CLONES = 1000
RESEEDED = "dmesg | grep -c 'reseeded due to virtual machine fork' || true"


def hwrng_is_random(guest: CarawayGuest) -> None:
    if "virtio" not in (name := guest.serial.run("cat /sys/class/misc/hw_random/rng_current")):
        raise Failed(f"/dev/hwrng is {name}")
    told = guest.serial.run(f"rngtest -c {BLOCKS} </dev/hwrng 2>&1 || true", 300)
    passed, refused = (int(re.search(rf"FIPS 140-2 {what}: (\d+)", told)[1]) for what in ("successes", "failures"))
    print(f"# rngtest: {passed} blocks good, {refused} refused", flush=True)
    if passed + refused != BLOCKS or refused > MOST_REFUSED:
        raise Failed(f"rngtest: {told}")


def generation_reseeds(guest: CarawayGuest) -> None:
    """A guest that is told of being a copy draws new random numbers at once."""
    before, reseeded = generation(guest), int(guest.serial.run(RESEEDED))
    guest.put("vm.generation.renew")
    guest.serial.wait_for(f"test $({RESEEDED}) -gt {reseeded}", 60)
    after = generation(guest)
    if after == before:
        raise Failed(f"the generation id is still {before}")
    guest.last_event("vm.generation")
    print(f"# vmgenid: {before} became {after}, and Linux drew new random numbers", flush=True)


def generation(guest: CarawayGuest) -> str:
    return json.loads(guest.get("vm.info"))["generation"]


def clones_differ(guest: Guest) -> None:
    """in-l1/clones tells what two machines draw that began as the same."""
    found = guest.serial.expect(r"(done|failed) (.*)\n", CLONES)
    if found[1] == b"failed":
        raise Failed(found[2].decode())
    print(f"# two clones: {found[2].decode()}", flush=True)
    guest.wait(60)
