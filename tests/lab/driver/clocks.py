"""The guest's wall clock against its host's, over pauses."""

import time
from collections.abc import Callable

from console import Failed
from monitors import LONGER_PAUSES, CarawayGuest

TRIES = 25
# Seconds that the guest's clock may be wrong by after a pause.
PRECISION = 0.1
# Answers each line with the time, until the end of its input.
TELL = "bash -c 'while read -r line; do echo \"at $EPOCHREALTIME\"; done'\n"
# Sets the clock so many microseconds forward: clock_gettime(2) and settimeofday(2) in one process, as
# it takes long to start one.
SET_FORWARD = (
    """perl -e '$now = pack "qq"; syscall(228, 0, $now) == 0 or die; ($s, $ns) = unpack "qq", $now;"""
    """ $us = $s * 1000000 + int($ns / 1000) + {};"""
    """ syscall(164, pack("qq", int($us / 1000000), $us % 1000000), 0) == 0 or die'"""
)
# What Linux says when time went wrong for it.
COMPLAINTS = "clock.*skew|soft lockup|rcu.*stall|hung_task|blocked for more"
# What it says of counters that drift from kvmclock; here they are those of an emulated processor, which a busy
# machine can make drift by itself.
DRIFT = "Marking TSC unstable"


def keeps_time_over_pauses(guest: CarawayGuest) -> None:
    """Two pauses that the host's clock says took ten minutes more than they did."""
    host = guest.host_clock()
    guest.serial.send(TELL)

    def guests() -> float:
        guest.serial.send("\n")
        return float(guest.serial.expect(r"at ([0-9.]+)\n", 60)[1])

    def behind(pauses: int) -> float:
        """Seconds that the guest is behind the host, whose clock the pauses have moved on."""
        return ahead_of_us(host) + pauses * LONGER_PAUSES - ahead_of_us(guests)

    # Linux starts with the whole seconds of the CMOS clock; time servers set the rest, as this does.
    fraction = behind(0)
    guest.serial.send("\x04")
    guest.serial.run("true")
    guest.serial.run(SET_FORWARD.format(round(fraction * 1e6)))
    guest.serial.send(TELL)
    report = [f"before: {behind(0):+.4f} s"]
    pause(guest, "vm.resume")
    caught_up = behind(1)
    report.append(f"after a pause, caught up: {caught_up:+.4f} s")
    pause(guest, "vm.resume?clock=continue")
    continued = behind(2) - caught_up
    length = guest.last_event("vm.resumed")["paused_ms"] / 1000
    report.append(f"after a pause of {length:.3f} s, continued: {continued:+.4f} s more")
    pause(guest, "vm.resume")
    again = behind(3)
    report.append(f"after a pause, caught up again: {again:+.4f} s")
    # The guest's watchdogs look at its clocks every few seconds.
    time.sleep(10)
    guest.serial.send("\x04")
    guest.serial.run("true")
    source = guest.serial.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
    report.append(f"clocksource: {source}")
    complaints = guest.serial.run(f"dmesg | grep -iE '{COMPLAINTS}' || true")
    rtc, own = guest.serial.run("cat /sys/class/rtc/rtc0/since_epoch; date +%s").split()
    drift = guest.serial.run(f"dmesg | grep -c '{DRIFT}' || true")
    report.append(f"counters found to drift: {drift}")
    report.append(f"the CMOS clock is ahead of the system's by {int(rtc) - int(own)} s")
    (guest.out / "clocks.txt").write_text("\n".join(report) + "\n")
    print("".join(f"# {line}\n" for line in report), end="", flush=True)
    wrong = [abs(caught_up), abs(again), abs(continued - length)]
    if max(wrong) > PRECISION:
        raise Failed(f"the guest's clock is wrong: {'; '.join(report)}")
    if abs(int(rtc) - int(own)) > 2:
        raise Failed(f"the guest's CMOS clock is wrong: {'; '.join(report)}")
    if complaints:
        raise Failed(f"the guest complains of its time: {complaints}")


def pause(guest: CarawayGuest, resume: str) -> None:
    guest.put("vm.pause")
    time.sleep(1)
    guest.put(resume)


def ahead_of_us(clock: Callable[[], float]) -> float:
    """Seconds that `clock` is ahead of ours: it was read between asking and hearing of it."""
    least, most = float("-inf"), float("inf")
    for _ in range(TRIES):
        asked = time.time()
        shown = clock()
        heard = time.time()
        least, most = max(least, shown - heard), min(most, shown - asked)
    return (least + most) / 2
