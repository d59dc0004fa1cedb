"""What a stock guest writes to disks of every format and mode, by fio's checksums and by qemu-img's own reading."""

import json
import time
from dataclasses import dataclass

from console import STRETCH, Failed
from monitors import OWN as FOLDER
from monitors import CarawayGuest

SIZE = 24  # MiB of each disk
# MiB of it that fio writes, from OFFSET on; the rest stays what it was.
WRITTEN, OFFSET = 12, 8
# Linux lets five seconds pass before it lets a device go that it is asked for.
PATIENCE = 120 * STRETCH


@dataclass(frozen=True)
class Image:
    format: str
    cache: str
    backed: bool = False

    @property
    def name(self) -> str:
        return f"{self.format}-{self.cache}{'-backed' if self.backed else ''}"

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.name}.{self.format}"

    def config(self) -> dict:
        """The entry of `disks`."""
        more = {"backing": [{"path": f"{FOLDER}/base.raw"}]} if self.backed else {}
        return {"id": self.name, "path": self.path, "format": self.format, "cache": self.cache, **more}

    def make(self) -> str:
        """In L1's shell. All have the same content: random bytes, so that nothing is found right by chance."""
        if self.backed:
            return f"qemu-img create -q -f qcow2 -b {FOLDER}/base.raw -F raw {self.path}"
        return f"qemu-img convert -f raw -O {self.format} {FOLDER}/base.raw {self.path}"


CACHES = ["writeback", "none", "writethrough", "directsync", "unsafe"]
IMAGES = [
    *(Image("raw", cache) for cache in CACHES),
    *(Image("qcow2", cache) for cache in CACHES),
    *(Image("qcow2", cache, backed=True) for cache in ("writeback", "none", "directsync")),
]
# Without io_uring other code reads and writes raw images.
PLAIN_IMAGES = [Image("raw", cache) for cache in CACHES]


def has_io_uring(guest: CarawayGuest) -> bool:
    """Whether Caraway has a ring for its root disk, which is a raw one."""
    return "io_uring" in guest.host("ls -l /proc/$(cat /run/caraway.pid)/fd")


def every_format_keeps_what_is_written(guest: CarawayGuest, images: list[Image]) -> None:
    base = guest.host(
        f"head -c {SIZE}M /dev/urandom >{FOLDER}/base.raw && sha256sum {FOLDER}/base.raw | cut -d' ' -f1"
    )
    for image in images:
        keeps_what_is_written(guest, image)
    if guest.host(f"sha256sum <{FOLDER}/base.raw | cut -d' ' -f1") != base:
        raise Failed("a backing file was written to")


def keeps_what_is_written(guest: CarawayGuest, image: Image) -> None:
    """fio's checksums, a discard and zeroes; then the guest and qemu-img read the same from the image."""
    guest.host(image.make())
    guest.put("disk.add", image.config())
    disk = wait_for_disk(guest, image.name)
    # The fifth field is the error, then KiB read and KiB a second, and from the 47th on the same written: fio(1).
    told = guest.serial.run(
        f"DISK={disk} SIZE={WRITTEN}m OFFSET={OFFSET}m fio /etc/lab/verify.fio --output-format=terse >/run/fio 2>&1"
        " && grep '^3;' /run/fio | cut -d';' -f5,6,7,47,48 || { tail -n 5 /run/fio; false; }",
        900,
    )
    error, read, read_speed, wrote, write_speed = map(int, told.split(";"))
    if error or wrote != WRITTEN * 1024 or read != wrote:
        raise Failed(f"fio on {image.name}: error {error}, {wrote} KiB written, {read} verified")
    guest.serial.run(f"blkdiscard -o 10M -l 2M {disk} && blkdiscard -z -o 21M -l 1M {disk}")
    # What a discard leaves there is not promised.
    guest.serial.run(f"dd if=/dev/zero of={disk} bs=1M seek=10 count=2 oflag=direct conv=notrunc status=none")
    seen = guest.serial.run(f"dd if={disk} bs=1M iflag=direct status=none | sha256sum | cut -d' ' -f1", 300)
    let_go(guest, image.name)
    if image.format != "raw":
        guest.host(f"qemu-img check -q -f {image.format} {image.path}")
    kept = guest.host(
        f"qemu-img convert -f {image.format} -O raw {image.path} {FOLDER}/seen.raw"
        f" && sha256sum <{FOLDER}/seen.raw | cut -d' ' -f1; rm {image.path} {FOLDER}/seen.raw",
        300,
    )
    if seen != kept:
        raise Failed(f"the guest reads {seen} from {image.name}, qemu-img {kept}")
    print(
        f"# {image.name}: {WRITTEN} MiB written at {write_speed / 1024:.1f} and verified at {read_speed / 1024:.1f} MiB/s;"
        " qemu-img reads the same",
        flush=True,
    )


def vmdk_is_read(guest: CarawayGuest) -> None:
    path = f"{FOLDER}/flat.vmdk"
    made = guest.host(
        f"qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat {FOLDER}/base.raw {path}"
        f" && sha256sum <{FOLDER}/base.raw | cut -d' ' -f1"
    )
    guest.put("disk.add", {"id": "flat", "path": path, "readonly": True})
    disk = wait_for_disk(guest, "flat")
    if guest.serial.run(f"blockdev --getro {disk}") != "1":
        raise Failed("the guest may write to a vmdk image")
    seen = guest.serial.run(f"sha256sum <{disk} | cut -d' ' -f1", 300)
    if seen != made:
        raise Failed(f"the vmdk image has {made}, the guest reads {seen}")
    let_go(guest, "flat")
    print("# vmdk: read-only, every byte read right", flush=True)


def wait_for_disk(guest: CarawayGuest, name: str) -> str:
    disk = f"/dev/disk/by-id/virtio-{name[:20]}"
    guest.serial.wait_for(f"test -b {disk}", 120)
    return disk


def let_go(guest: CarawayGuest, name: str) -> None:
    """Takes a disk away; its image is nobody's then."""
    guest.put("disk.remove", {"id": name})
    deadline = time.monotonic() + PATIENCE
    while any(disk["id"] == name for disk in json.loads(guest.get("disk.list"))["disks"]):
        if time.monotonic() > deadline:
            raise Failed(f"the guest keeps {name} after {PATIENCE} s")
        time.sleep(0.5)
