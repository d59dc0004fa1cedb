"""The guest's serial line, as a person with a terminal would use it."""

import os
import re
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path


# Everything may take so many times longer than usual: for a machine with other work.
STRETCH = float(os.environ.get("LAB_STRETCH") or 1)


class Failed(Exception):
    """What a job found wrong, in words for its `not ok` line."""


class Console:
    """One end of a byte stream; everything read is also appended to `log`.

    `check_alive` is called while waiting, so that it can raise when waiting has become pointless.
    """

    def __init__(self, stream: socket.socket, log: Path, check_alive: Callable[[], None]):
        self._stream = stream
        self._log = log.open("ab", buffering=0)
        self._check_alive = check_alive
        self._unread = b""

    def expect(self, pattern: str, timeout: float) -> re.Match[bytes]:
        """Reads until `pattern` matches (seconds to wait: `timeout`) and drops what stood before."""
        wanted = re.compile(pattern.encode())
        timeout *= STRETCH
        deadline = time.monotonic() + timeout
        while True:
            found = wanted.search(self._unread)
            if found:
                self._unread = self._unread[found.end() :]
                return found
            if time.monotonic() > deadline:
                raise Failed(f"no /{pattern}/ on serial within {timeout:.0f} s")
            if not self._read():
                self._check_alive()

    def drain(self) -> None:
        """Logs what is still on its way after the guest ended."""
        while self._read():
            pass

    def send(self, text: str) -> None:
        self._stream.sendall(text.encode())

    def login(self, timeout: float) -> None:
        """Waits for the login prompt, logs in as root and prepares the shell for `run`."""
        self.expect("login: ", timeout)
        self.send("root\n")
        self.expect("Password: ", 60)
        self.send("caraway\n")
        self.expect("# ", 60)
        # No echo, prompt or kernel message may stand between a command and its output. The quotes
        # keep the echoed command from looking like its own answer.
        self.send("exec sh\n")
        self.expect("# ", 60)
        self.send("stty -echo; dmesg -n 1; PS1=; echo rea''dy\n")
        self.expect(r"ready\n", 60)

    def run(self, command: str, timeout: float = 60) -> str:
        """Runs `command` in the shell; its output, or `Failed` when it ends other than by 0."""
        self.start(command)
        return self.finish(command, timeout)

    def start(self, command: str) -> None:
        """Has the shell begin `command`; `finish` must follow."""
        self.send(f"{command}\necho \"<$?>\"\n")

    def finish(self, command: str, timeout: float) -> str:
        """Waits for the command that was started; see `run`."""
        found = self.expect(r"(?s)(.*?)<(\d+)>\n", timeout)
        output = found[1].decode(errors="replace").strip()
        if found[2] != b"0":
            raise Failed(f"`{command}` in the guest ended with {found[2].decode()}: {output[-200:]}")
        return output

    def wait_for(self, condition: str, timeout: float) -> None:
        """Asks the shell again and again until `condition` holds."""
        timeout *= STRETCH
        deadline = time.monotonic() + timeout
        while "yes" not in self.run(f"if {condition}; then echo yes; fi"):
            if time.monotonic() > deadline:
                raise Failed(f"`{condition}` does not hold in the guest after {timeout:.0f} s")
            time.sleep(1)

    def _read(self) -> bool:
        readable, _, _ = select.select([self._stream], [], [], 0.5)
        if not readable:
            return False
        data = self._stream.recv(65536)
        if not data:
            # A closed line stays readable for ever.
            time.sleep(0.5)
            return False
        self._log.write(data)
        # Each terminal on the way may add carriage returns of its own.
        self._unread += data.replace(b"\r", b"")
        return True
