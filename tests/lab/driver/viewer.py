"""SPICE clients that others wrote: ryll, steered through its control socket, and spice-gtk's library."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path

from console import Failed
from pictures import Picture

SHIFT = 0x2A
ENTER = 0x1C
# PS/2 set 1 codes of a US keyboard, a row from its first key's code on; the second text is with shift.
ROWS = [
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", 'ASDFGHJKL:"~'),
    (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (0x39, " ", " "),
]


class Ryll:
    """A headless ryll connected to `port`. Protocol gaps it meets are collected in `out/gaps`."""

    def __init__(self, program: Path, port: int, out: Path):
        (out / "gaps").mkdir(exist_ok=True)
        self._out = out
        self._gaps = out / "gaps"
        connection = out / "viewer.vv"
        connection.write_text(f"[virt-viewer]\ntype=spice\nhost=127.0.0.1\nport={port}\n")
        control = out / "ryll.sock"
        command = [program, "--headless", "--file", connection, "--control-socket", control]
        command += ["--pedantic", "--pedantic-dir", self._gaps]
        with (out / "ryll.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=out, env={**os.environ, "HOME": str(out)}
            )
        self._number = 0
        self._socket = self._connect(control)
        self._lines = self._socket.makefile("rw")
        self._wait_for_picture()

    def __enter__(self) -> "Ryll":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(Failed):
                (self._out / "ryll-at-failure.png").write_bytes(self.screenshot())
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def screenshot(self) -> bytes:
        """What the client shows, as PNG."""
        surface = self._status()["surfaces"][0]
        number = surface.get("surface_id", 0) if isinstance(surface, dict) else 0
        return base64.b64decode(self._request("screenshot", surface_id=number, format="png")["data_base64"])

    def type(self, text: str) -> None:
        """Types `text` and Enter, at the pace of a quick typist."""
        for character in text:
            code, shifted = key_for(character)
            if shifted:
                self._request("send_key", scancode=SHIFT, state="down")
            self._tap(code)
            if shifted:
                self._request("send_key", scancode=SHIFT, state="up")
        self._tap(ENTER)

    def gaps(self) -> list[str]:
        """The names of the reports on messages that ryll could not make sense of."""
        return sorted(path.name for path in self._gaps.iterdir())

    def _tap(self, code: int) -> None:
        self._request("send_key", scancode=code, state="down")
        time.sleep(0.03)
        self._request("send_key", scancode=code, state="up")
        time.sleep(0.03)

    def _connect(self, control: Path) -> socket.socket:
        deadline = time.monotonic() + 20
        while True:
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(60)
            try:
                stream.connect(str(control))
                return stream
            except OSError as error:
                stream.close()
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    raise Failed(f"ryll does not answer on its control socket: {error}") from error
                time.sleep(0.1)

    def _wait_for_picture(self) -> None:
        self._request("hello", client_name="lab", protocol_version="1.0")
        deadline = time.monotonic() + 60
        while True:
            status = self._status()
            if status.get("spice_connected", True) and status.get("surfaces"):
                return
            if time.monotonic() > deadline:
                raise Failed(f"ryll has no picture after 60 s: {status}")
            time.sleep(0.3)

    def _status(self) -> dict:
        return self._request("status")

    def _request(self, method: str, **params: object) -> dict:
        self._number += 1
        try:
            self._lines.write(json.dumps({"id": self._number, "method": method, "params": params}) + "\n")
            self._lines.flush()
            while line := self._lines.readline():
                answer = json.loads(line)
                if answer.get("id") != self._number:
                    continue  # an event
                if "result" not in answer:
                    raise Failed(f"ryll answers {method} with {line.strip()[:200]}")
                return answer["result"]
        except OSError as error:
            raise Failed(f"ryll's control socket: {error}") from error
        raise Failed(f"ryll ended during {method}")


class GlibViewer:
    """spice-gtk's library, connected to `port`."""

    PROGRAM = Path(__file__).resolve().parents[2] / "clients" / "glib_steer.py"

    def __init__(self, port: int, out: Path):
        self._shot = out / "glib.ppm"
        with (out / "glib.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/bin/python3", "-B", self.PROGRAM, "127.0.0.1", str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def picture(self) -> Picture | None:
        """What the client's primary surface shows; nothing while it has none."""
        if "error" in self._order("shot", str(self._shot)):
            return None
        return Picture.from_ppm(self._shot.read_bytes())

    def ask_for_heads(self, heads: list[tuple[int, int, int, int]]) -> bool:
        """Tells the guest which monitors (x, y, width, height) its user has, if it has an agent by now."""
        return "error" not in self._order("heads", heads)

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _order(self, *order: object) -> dict:
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Failed(f"the client has ended: {error}") from error
        answer = self._process.stdout.readline()
        if not answer:
            raise Failed(f"the client ended at {order}: see glib.log")
        return json.loads(answer)


def key_for(character: str) -> tuple[int, bool]:
    for first, plain, shifted in ROWS:
        for row, with_shift in ((plain, False), (shifted, True)):
            if character in row:
                return first + row.index(character), with_shift
    raise ValueError(f"no key for {character!r}")
