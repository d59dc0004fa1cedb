"""Small files that survive kills of Caraway; in-l1/kill-loop has the loop, which runs beside it in L1."""

import os

from console import Failed
from monitors import MOUNT_OWN, Guest

KILLS = int(os.environ.get("LAB_KILLS") or 3)
PREPARE = f"{MOUNT_OWN}\nexport LAB_KILLS={KILLS}"
# Seconds for the first word and for each kill, of which the last ones take longer, as there is more to look at.
START, EACH = 120, 300


def survive_kills(guest: Guest) -> None:
    for _ in range(KILLS):
        found = guest.serial.expect(r"(kill \d+: .*|failed .*)\n", START + EACH)
        if found[1].startswith(b"failed"):
            raise Failed(found[1].decode())
    found = guest.serial.expect(r"(done|failed) (.*)\n", START + EACH)
    if found[1] == b"failed":
        raise Failed(found[2].decode())
    print(f"# {found[2].decode()}", flush=True)
    guest.wait(60)
