"""What the lab asks of a monitor, one function a job."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import disks
import guest_agent
import kills
import memory
import nets
import randomness
import vsock
from clocks import keeps_time_over_pauses
from console import Failed
from desktop import Desktop
from monitors import MOUNT_OWN, Boot, CarawayGuest, Guest
from pictures import Picture
from session_agent import copies_and_pastes, follows_the_viewer
from slots import takes_a_disk_and_lets_it_go
from viewer import Ryll

# Seconds. Nested under emulation everything takes some twenty times as long as on hardware.
BOOT = 240
DESKTOP_BOOT = 900
SHUTDOWN = 120

RED = b"\xaa\x00\x00"  # the VGA palette's dark red, which the console's escape sequence 41 chooses


@dataclass(frozen=True)
class Job:
    boot: Boot
    steps: Callable[[Guest, Path], None]


def firmware_desktop(guest: Guest, ryll: Path) -> None:
    """SeaBIOS and GRUB to a login; the qxl driver's console in a viewer; a login typed there."""
    guest.serial.login(BOOT)
    guest.serial.wait_for("grep -q qxl /proc/fb", 60)
    guest.serial.run("dmesg | grep -q 'Initialized qxl'")
    with Ryll(ryll, guest.spice_port, guest.out) as viewer:
        console_is_on_screen(guest, viewer)
        login_through_spice(guest, viewer)
        if viewer.gaps():
            raise Failed(f"ryll met messages it does not know: {viewer.gaps()}")
    power_off(guest)


def reboot_directly(guest: Guest, _ryll: Path) -> None:
    """A kernel booted directly reaches its login, and after `reboot` its root again."""
    guest.serial.login(BOOT)
    guest.serial.send("reboot\n")
    guest.serial.expect("Linux version ", SHUTDOWN)
    guest.serial.expect("Welcome to ", BOOT)


def login_directly(guest: Guest, _ryll: Path) -> None:
    """A kernel booted directly reaches its login, takes a disk while it runs, and keeps its time over pauses."""
    guest.serial.login(BOOT)
    if isinstance(guest, CarawayGuest):
        takes_a_disk_and_lets_it_go(guest)
        keeps_time_over_pauses(guest)
    power_off(guest)


def random_desktop(guest: Guest, _ryll: Path) -> None:
    """A desktop on each of X's two drivers; after every step of a random walk all pictures of it agree."""
    steps, seed = (int(os.environ.get(name) or usual) for name, usual in (("LAB_STEPS", 24), ("LAB_SEED", 1)))
    drivers = (os.environ.get("LAB_X") or "kms qxl").split()
    guest.serial.login(DESKTOP_BOOT)
    with Desktop(guest, seed) as desktop:
        for driver in drivers:
            desktop.start(driver)
            desktop.walk(steps // len(drivers))
            if driver == "kms":
                desktop.show_heads()
        desktop.report()
    power_off(guest)


def caraways(guest: Guest) -> CarawayGuest:
    """The guest of a job that is about Caraway alone, with somebody logged in."""
    if not isinstance(guest, CarawayGuest):
        raise Failed("only Caraway has what this job is about")
    guest.serial.login(DESKTOP_BOOT)
    return guest


def disks_by_io_uring(guest: Guest, _ryll: Path) -> None:
    """Every format and cache mode keeps what fio writes."""
    caraway = caraways(guest)
    if not disks.has_io_uring(caraway):
        raise Failed("Caraway has no io_uring")
    disks.every_format_keeps_what_is_written(caraway, disks.IMAGES)
    disks.vmdk_is_read(caraway)
    power_off(guest)


def disks_by_system_calls(guest: Guest, _ryll: Path) -> None:
    """Where io_uring is refused, raw images keep what fio writes too."""
    caraway = caraways(guest)
    if disks.has_io_uring(caraway):
        raise Failed("Caraway has an io_uring all the same")
    disks.every_format_keeps_what_is_written(caraway, disks.PLAIN_IMAGES)
    power_off(guest)


def other_devices(guest: Guest, _ryll: Path) -> None:
    """Network, random numbers, the guest's agent and memory, as a stock Debian uses them."""
    caraway = caraways(guest)
    nets.talks_through_a_tap(caraway)
    nets.takes_a_card_and_lets_it_go(caraway)
    randomness.hwrng_is_random(caraway)
    randomness.generation_reseeds(caraway)
    guest_agent.carries_out_commands(caraway)
    vsock.carries_many_connections(caraway)
    nets.talks_through_passt(caraway)
    memory.goes_back_to_the_host(caraway)
    power_off(guest)


def session_agent(guest: Guest, _ryll: Path) -> None:
    """The clipboard and the size of a session whose agent is the stock spice-vdagent."""
    caraway = caraways(guest)
    caraway.serial.run("lab-session", 600)
    copies_and_pastes(caraway)
    follows_the_viewer(caraway)
    power_off(guest)


def clones(guest: Guest, _ryll: Path) -> None:
    """Two machines that begin as the same draw different random numbers."""
    randomness.clones_differ(guest)


def small_files_survive(guest: Guest, _ryll: Path) -> None:
    """What a guest made durable is there after `kill -9`, and a mount is all the repair it needs."""
    kills.survive_kills(guest)


def console_is_on_screen(guest: Guest, viewer: Ryll) -> None:
    # A colour the whole console takes tells it from any other picture; a blinking cursor would make
    # two pictures differ that are taken a moment apart.
    guest.serial.run("echo 0 >/sys/class/graphics/fbcon/cursor_blink")
    guest.serial.run(r"printf '\033[?25l\033[41m\033[2J\033[H' >/dev/tty1")
    wanted = guest.serial.run("cat /sys/class/graphics/fb0/virtual_size").replace(",", "x")
    deadline = time.monotonic() + 30
    while True:
        problem = compare_screens(guest, viewer, wanted)
        if problem is None:
            return
        if time.monotonic() > deadline:
            raise Failed(problem)
        time.sleep(1)


def compare_screens(guest: Guest, viewer: Ryll, wanted: str) -> str | None:
    """What is wrong with the red console in the viewer, or with the monitor's own screenshot."""
    before = guest.screenshot()
    seen = viewer.screenshot()
    after = guest.screenshot()
    (guest.out / "ryll.png").write_bytes(seen)
    shown = Picture.from_png(seen)
    if shown.size != wanted:
        return f"ryll shows {shown.size} pixels where the guest's console has {wanted}"
    red = shown.rgb.count(RED) * len(RED) / len(shown.rgb)
    if red < 0.95:
        return f"only {red:.0%} of ryll's picture is the console's red"
    if before is None or after is None:
        return None
    (guest.out / "caraway.png").write_bytes(after)
    if before != after:
        return "the screen does not come to rest"
    difference = Picture.from_png(after).difference(shown)
    if difference:
        return f"display.screenshot and ryll: {difference}"
    return None


def login_through_spice(guest: Guest, viewer: Ryll) -> None:
    viewer.type("root")
    # login has turned the echo off once it waits for the password; what comes earlier it throws away.
    guest.serial.wait_for("pgrep -t tty1 -x login >/dev/null && stty -a -F /dev/tty1 | grep -qw -e -echo", 60)
    viewer.type("caraway")
    guest.serial.wait_for("pgrep -t tty1 -x bash >/dev/null", 60)
    viewer.type("echo Typed in a viewer >/dev/ttyS0")
    guest.serial.expect("Typed in a viewer", 60)


def power_off(guest: Guest) -> None:
    guest.serial.send("poweroff\n")
    code = guest.wait(SHUTDOWN)
    if code != "0":
        raise Failed(f"the monitor ended with {code} after `poweroff`")


# Those of every test run, the longest first, so that no processor waits at the end.
DEFAULT = ["pvh", "grub", "bzimage"]
JOBS = {
    "pvh": Job(Boot("vmlinux"), reboot_directly),
    "grub": Job(Boot(), firmware_desktop),
    "bzimage": Job(Boot("vmlinuz"), login_directly),
    "desktop": Job(Boot("vmlinux", "desktop"), random_desktop),
    "disks": Job(Boot("vmlinux", "virtio", prepare=MOUNT_OWN), disks_by_io_uring),
    "plain-disks": Job(Boot("vmlinux", "virtio", prepare=MOUNT_OWN, io_uring=False), disks_by_system_calls),
    "devices": Job(
        Boot(
            "vmlinux",
            "virtio",
            config=nets.CONFIG | randomness.CONFIG | guest_agent.CONFIG | memory.CONFIG | vsock.CONFIG,
            prepare=nets.PREPARE,
        ),
        other_devices,
    ),
    "vdagent": Job(Boot(disk="agent"), session_agent),
    "clones": Job(Boot(program="clones"), clones),
    "kills": Job(Boot(disk="kills", prepare=kills.PREPARE, program="kill-loop"), small_files_survive),
}
# Several jobs by one name.
GROUPS = {"virtio": ["disks", "devices", "plain-disks", "vdagent", "clones", "kills"]}
