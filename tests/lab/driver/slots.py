"""A disk that comes to the running guest, and goes: the guest's own driver of PCI Express slots."""

from console import Failed
from monitors import ADDED_DISK, CarawayGuest

# Linux lets five seconds pass before it lets a device go that it is asked for.
PATIENCE = 60


def takes_a_disk_and_lets_it_go(guest: CarawayGuest) -> None:
    guest.put("disk.add", {"id": "more", "path": ADDED_DISK, "format": "raw"})
    guest.serial.wait_for("test -b /dev/vdb", PATIENCE)
    guest.last_event("device.accepted")
    guest.serial.run("dd if=/dev/urandom of=/dev/vdb bs=1M count=4 oflag=direct status=none")
    written = guest.serial.run("dd if=/dev/vdb bs=1M count=4 iflag=direct status=none | sha256sum")
    guest.put("disk.remove", {"id": "more"})
    guest.serial.wait_for("! test -e /dev/vdb", PATIENCE)
    guest.last_event("device.removed")
    # In the same slot it is the same disk.
    guest.put("disk.add", {"id": "more", "path": ADDED_DISK, "format": "raw"})
    guest.serial.wait_for("test -b /dev/vdb", PATIENCE)
    read = guest.serial.run("dd if=/dev/vdb bs=1M count=4 iflag=direct status=none | sha256sum")
    if read != written:
        raise Failed(f"a disk that was taken away and added again has other bytes: {written}, {read}")
