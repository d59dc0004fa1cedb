"""Small files that survive kills of Caraway; in-l1/kill-loop has the loop, which runs beside it in L1."""

import os
import time

from console import Failed
from monitors import MOUNT_OWN, Guest

KILLS = int(os.environ.get("LAB_KILLS") or 3)
PREPARE = f"{MOUNT_OWN}\nexport LAB_KILLS={KILLS}"
# Seconds for the first word and for each kill, of which the last ones take longer, as there is more to look at.
START, EACH = 120, 300
# How many kills between two words of progress.
TELL = 10


def survive_kills(guest: Guest) -> None:
    begun = time.monotonic()
    for number in range(1, KILLS + 1):
        found = guest.serial.expect(r"(kill \d+: .*|failed .*)\n", START + EACH)
        if found[1].startswith(b"failed"):
            raise Failed(found[1].decode())
        if number % TELL == 0 and number < KILLS:
            print(f"# {found[1].decode()} after {time.monotonic() - begun:.0f} s", flush=True)
    found = guest.serial.expect(r"(done|failed) (.*)\n", START + EACH)
    if found[1] == b"failed":
        raise Failed(found[2].decode())
    print(f"# {found[2].decode()}", flush=True)
    guest.wait(60)
