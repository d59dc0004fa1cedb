"""Commands that the stock qemu-guest-agent carries out."""

import base64
import json
import time

from console import Failed
from monitors import CarawayGuest

CONFIG = {"channels": [{"name": "org.qemu.guest_agent.0", "to": "guest-agent"}]}
# Written while the file systems are frozen: it is there once they no longer are.
FILE = "/root/frozen"


def carries_out_commands(guest: CarawayGuest) -> None:
    guest.serial.wait_for("systemctl is-active -q qemu-guest-agent", 120)
    begun = time.monotonic()
    command(guest, "guest-ping")
    print(f"# guest agent: ping answered in {(time.monotonic() - begun) * 1000:.0f} ms", flush=True)
    freezes(guest)
    executes(guest)


def freezes(guest: CarawayGuest) -> None:
    frozen = command(guest, "guest-fsfreeze-freeze", timeout="60s")
    if frozen < 1 or (status := command(guest, "guest-fsfreeze-status")) != "frozen":
        raise Failed(f"{frozen} file systems are frozen, the state is {status}")
    guest.serial.send(f"echo kept >{FILE} & sleep 2; pgrep -P $! >/dev/null; kill -0 $! && echo wai''ting\n")
    guest.serial.expect("waiting", 60)
    thawed = command(guest, "guest-fsfreeze-thaw", timeout="60s")
    guest.serial.wait_for(f"test \"$(cat {FILE})\" = kept", 60)
    if (status := command(guest, "guest-fsfreeze-status")) != "thawed":
        raise Failed(f"after the thaw of {thawed} the state is {status}")
    print(f"# guest agent: {frozen} file systems frozen, a write waited, {thawed} thawed, the write went on", flush=True)


def executes(guest: CarawayGuest) -> None:
    script = {"path": "/bin/sh", "arg": ["-c", "uname -n; cat; exit 3"], "capture-output": True}
    told = base64.b64encode(b"from the host\n").decode()
    pid = command(guest, "guest-exec", {**script, "input-data": told})["pid"]
    deadline = time.monotonic() + 60
    while not (status := command(guest, "guest-exec-status", {"pid": pid}))["exited"]:
        if time.monotonic() > deadline:
            raise Failed(f"guest-exec: {status}")
        time.sleep(0.5)
    output = base64.b64decode(status["out-data"])
    if status["exitcode"] != 3 or output != b"caraway-guest\nfrom the host\n":
        raise Failed(f"guest-exec ended with {status}")
    print(f"# guest agent: exec ended with 3 and said {output!r}", flush=True)


def command(guest: CarawayGuest, name: str, arguments: dict | None = None, timeout: str = "30s") -> object:
    body = {"execute": name, "timeout": timeout}
    if arguments is not None:
        body["arguments"] = arguments
    return json.loads(guest.put("agent.command", body))["return"]
