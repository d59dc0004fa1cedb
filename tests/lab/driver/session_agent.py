"""What the stock spice-vdagent does for the user of a viewer, which is spice-gtk's library."""

import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from console import STRETCH, Failed
from monitors import CarawayGuest
from viewer import GlibViewer

PATIENCE = 120 * STRETCH
XCLIP = "DISPLAY=:0 xclip -selection clipboard"
# Seconds that the client of the clipboard stays.
LIFETIME = 3600
# Of the firmware's modes, which are all that X's driver has. The screen begins with another.
SIZES = [(1280, 720), (800, 600)]
CURRENT = r"DISPLAY=:0 xrandr 2>/dev/null | sed -n 's/.* current \([0-9]*\) x \([0-9]*\),.*/\1x\2/p'"


class Clipboard:
    """The client, told what to do by lines; glib_agent.py has what they are."""

    PROGRAM = Path(__file__).resolve().parents[2] / "clients" / "glib_agent.py"

    def __init__(self, guest: CarawayGuest):
        with (guest.out / "glib.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/bin/python3", "-B", self.PROGRAM, "127.0.0.1", str(guest.spice_port), str(LIFETIME)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> "Clipboard":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def say(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def wait_for(self, start: str) -> str:
        """The next line that begins so; others are passed over."""
        deadline = time.monotonic() + PATIENCE
        passed = []
        while True:
            try:
                line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed(f"the client does not say `{start}`, but {passed}") from None
            if line.startswith(start):
                return line
            passed.append(line)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))


def copies_and_pastes(guest: CarawayGuest) -> None:
    """Text goes from the viewer's clipboard to the guest's, and back."""
    with Clipboard(guest) as viewer:
        viewer.wait_for("agent ")
        there = f"from the viewer {secrets.token_hex(8)}"
        viewer.say(f"copy {there}")
        guest.serial.wait_for(f"test \"$({XCLIP} -o -t UTF8_STRING)\" = '{there}'", 120)
        back = f"from the guest {secrets.token_hex(8)}"
        guest.serial.run(f"printf %s '{back}' | {XCLIP} -i >/dev/null 2>&1")
        viewer.wait_for("offered")
        viewer.say("paste")
        if (pasted := viewer.wait_for("pasted ")) != f"pasted {back}":
            raise Failed(f"the guest copied `{back}`, the viewer {pasted}")
    print(f"# clipboard: `{there}` and `{back}`", flush=True)


def follows_the_viewer(guest: CarawayGuest) -> None:
    """The agent gives the session the size that the viewer asks for, and the viewer sees it."""
    viewer, took = GlibViewer(guest.spice_port, guest.out), []
    try:
        for width, height in SIZES:
            wanted = f"{width}x{height}"
            if guest.serial.run(CURRENT) == wanted:
                raise Failed(f"the guest has {wanted} before it is asked for")
            until(lambda: viewer.ask_for_heads([(0, 0, width, height)]), "there is no agent to ask")
            begun = time.monotonic()
            until(lambda: shown(viewer) == wanted, f"the viewer asks for {wanted}, and does not see it")
            took.append(f"{wanted} seen after {time.monotonic() - begun:.1f} s")
            if (now := guest.serial.run(CURRENT)) != wanted:
                raise Failed(f"the viewer sees {wanted}, the guest's X has {now}")
    finally:
        viewer.close()
    print(f"# resize by the agent: {', '.join(took)}", flush=True)


def shown(viewer: GlibViewer) -> str | None:
    """The size of what the viewer shows."""
    picture = viewer.picture()
    return picture and picture.size


def until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(otherwise)
        time.sleep(0.2)
