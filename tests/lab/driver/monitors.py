"""The ways to run L2. Whichever is taken, a job sees the same `Guest`.

`caraway` runs the program under test on L1's nested KVM; `qemu` runs QEMU there instead and `tcg` runs
it on this machine without L1: the two controls that say whether the lab or the program is at fault.
"""

import http.client
import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from console import STRETCH, Console, Failed

MEMORY = "768M"
COMMAND_LINE = "root=/dev/vda1 ro console=tty0 console=ttyS0,115200"
SPICE_PORT = 5930
API_PORT = 5931
TIME_PORT = 5932
DATA_PORT = 5933
SHELL_PORT = 5934
# How much longer than it was every pause is made out to be; see docs/time.md.
LONGER_PAUSES = 600
# A disk in L1 that is added while the guest runs.
ADDED_DISK = "/run/more.img"
HUNG_AFTER = 60  # seconds without a line from L1, which writes one every 2
# Bytes of L1's own disk, the last of its /dev/vd?, which is empty, and thrown away at the end.
OWN_DISK = 8 << 30
OWN = "/run/own"
# For `Boot.prepare`: that disk as a file system, where files can be read and written past the page cache.
MOUNT_OWN = f"""
module ext4
own=$(ls /dev/vd? | tail -n 1)
mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1,nodiscard "$own"
mkdir {OWN}
mount "$own" {OWN}
"""
IN_L1 = Path(__file__).parent.parent / "in-l1"


# Answers each line with the time.
TIME_SERVER = """
import socketserver, sys, time
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for _ in self.rfile:
            self.wfile.write(b"%.6f\\n" % time.time())
socketserver.TCPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


class L1Lost(Exception):
    """The lab machine itself hung or ended early: nothing is known about the job."""


# The cached directories that the builds filled, by name.
Images = dict[str, Path]


@dataclass(frozen=True)
class Boot:
    """Firmware and GRUB from the disk, or the named kernel of the disk's directory directly."""

    kernel: str | None = None
    # One of the images.
    disk: str = "l2"
    # What a kernel is told beside the usual.
    cmdline: str = ""
    # What Caraway's config has beside the usual; lists are added to those that are there.
    config: dict = field(default_factory=dict)
    # Lines of shell that L1 runs first.
    prepare: str = ""
    # Whether L1's kernel lets Caraway have one.
    io_uring: bool = True
    # A program of `in-l1/` that L1 runs in place of a monitor, with the program under test and the kernel.
    program: str | None = None

    def directory(self, images: Images) -> Path:
        return images[self.disk]


class Guest:
    """A started L2: its serial line, its SPICE port on this machine, and its end.

    `data_port` leads to the virtio console port `lab` of the guest.
    """

    def __init__(self, process: subprocess.Popen, stream: socket.socket, out: Path):
        self._process = process
        self.out = out
        self.serial = Console(stream, out / "serial.log", self.check_alive)
        self.spice_port = 0
        self.data_port = 0

    def check_alive(self) -> None:
        if self._process.poll() is not None:
            raise Failed(f"the monitor ended with {self.exit_code()}")

    def exit_code(self) -> str:
        return str(self._process.returncode)

    def wait(self, timeout: float) -> str:
        """The exit code of the monitor that ran the guest, once it has ended by itself."""
        timeout *= STRETCH
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                raise Failed(f"the monitor still runs {timeout:.0f} s after the guest was told to end")
            self.serial.drain()
        return self.exit_code()

    def screenshot(self, _head: int = 0) -> bytes | None:
        """The monitor's own picture of a head as PNG, if it can make one."""
        return None

    def heads(self) -> list[tuple[int, int, int, int]] | None:
        """X, y, width and height of each head, if the monitor can tell."""
        return None

    def rest(self) -> None:
        """Waits until the screen has been still for a while."""
        time.sleep(2)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.serial.drain()


class L1Guest(Guest):
    """An L2 inside L1, seen through L1's ports and shares."""

    def __init__(self, process: subprocess.Popen, stream: socket.socket, out: Path):
        super().__init__(process, stream, out)
        self._console = out / "l1.log"
        self._last_size = 0
        self._last_change = time.monotonic()

    def check_alive(self) -> None:
        super().check_alive()
        size = self._console.stat().st_size if self._console.exists() else 0
        now = time.monotonic()
        if size != self._last_size:
            self._last_size, self._last_change = size, now
        elif now - self._last_change > HUNG_AFTER * STRETCH:
            raise L1Lost(f"L1 wrote nothing for {HUNG_AFTER} s")

    def exit_code(self) -> str:
        code = self.out / "share" / "rc"
        if not code.exists():
            raise L1Lost("L1 ended without saying how its job did")
        return code.read_text().strip()

    def wait(self, timeout: float) -> str:
        timeout *= STRETCH
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            self.check_alive()
            if time.monotonic() > deadline:
                raise Failed(f"the monitor still runs {timeout:.0f} s after the guest was told to end")
            self.serial.drain()
        return self.exit_code()


class CarawayGuest(L1Guest):
    api_port = 0
    time_port = 0
    shell_port = 0

    def get(self, verb: str) -> bytes:
        """The body of a GET on Caraway's API."""
        return self._ask("GET", verb)

    def put(self, verb: str, body: dict | None = None) -> bytes:
        """A PUT on Caraway's API, and what it answers."""
        return self._ask("PUT", verb, body)

    def _ask(self, method: str, verb: str, body: dict | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=90 * STRETCH)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1/{verb}", sent, {"Host": "caraway"})
            answer = connection.getresponse()
            told = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{method} {verb}: {error}") from error
        finally:
            connection.close()
        if answer.status not in (200, 204):
            raise Failed(f"{method} {verb} answered {answer.status}: {told[:200]!r}")
        return told

    def last_event(self, name: str) -> dict:
        """The latest event of this name; they are a stream without an end, read until it pauses."""
        seen = b""
        with socket.create_connection(("127.0.0.1", self.api_port), timeout=3) as stream:
            stream.sendall(b"GET /api/v1/events?since=0 HTTP/1.1\r\nHost: caraway\r\n\r\n")
            try:
                while data := stream.recv(65536):
                    seen += data
            except TimeoutError:
                pass
        records = [json.loads(line) for line in seen.splitlines() if line.startswith(b"{")]
        found = [record for record in records if record["event"] == name]
        if not found:
            raise Failed(f"no event {name}: {seen[-300:]!r}")
        return found[-1]

    def host(self, script: str, timeout: float = 120) -> str:
        """Runs a script in L1, which is the guest's host; its output, or `Failed` when it ends other than by 0."""
        told = b""
        timeout *= STRETCH
        deadline = time.monotonic() + timeout
        with socket.create_connection(("127.0.0.1", self.shell_port), timeout=5) as stream:
            stream.sendall(f"exec 2>&1\n{{\n{script}\n}} </dev/null\necho \"<$?>\"\n".encode())
            stream.shutdown(socket.SHUT_WR)
            while True:
                try:
                    data = stream.recv(65536)
                except TimeoutError:
                    self.check_alive()
                    if time.monotonic() > deadline:
                        raise Failed(f"`{script}` in L1 takes longer than {timeout:.0f} s") from None
                    continue
                if not data:
                    break
                told += data
        output, _, code = told.decode(errors="replace").strip().rpartition("<")
        if code != "0>":
            raise Failed(f"`{script}` in L1 ended with <{code}: {output[-300:]}")
        return output.strip()

    def host_clock(self) -> Callable[[], float]:
        """Asks L1, which is the guest's host, for its wall clock."""
        stream = socket.create_connection(("127.0.0.1", self.time_port), timeout=60)
        reader = stream.makefile("r")

        def ask() -> float:
            stream.sendall(b"\n")
            return float(reader.readline())

        return ask

    def screenshot(self, head: int = 0) -> bytes:
        return self.get(f"display.screenshot?head={head}")

    def heads(self) -> list[tuple[int, int, int, int]]:
        heads = json.loads(self.get("display.info"))["heads"]
        return [(head["x"], head["y"], head["width"], head["height"]) for head in heads]

    def rest(self) -> None:
        """Until the picture has not changed for half a second: X may be drawing still."""
        self.get(f"display.wait?stable=500ms&timeout={60 * STRETCH:.0f}s")


def start_tcg(images: Images, boot: Boot, out: Path) -> Guest:
    ours, theirs = socket.socketpair()
    spice, data = free_port(), free_port()
    command = qemu_command(images, boot, spice, f"host=127.0.0.1,port={data}") + ["-accel", "tcg", "-cpu", "max"]
    command += ["-drive", f"file={boot.directory(images)}/disk.raw,format=raw,if=none,id=root,snapshot=on"]
    command += ["-chardev", f"socket,id=serial,fd={theirs.fileno()}"]
    guest = Guest(spawn(command, out, theirs), ours, out)
    guest.spice_port, guest.data_port = spice, data
    return guest


def start_qemu(images: Images, boot: Boot, out: Path) -> Guest:
    data = f"host=10.0.2.15,port={DATA_PORT}"
    command = qemu_command(images, boot, SPICE_PORT, data) + ["-accel", "kvm", "-cpu", "host"]
    command += ["-drive", "file=/dev/vda,format=raw,if=none,id=root"]
    command += ["-chardev", "stdio,id=serial,signal=off"]
    return start_l1(L1Guest, images, boot, out, "exec " + shlex.join(command))


def start_caraway(program: Path, images: Images, boot: Boot, out: Path) -> Guest:
    if boot.program:
        command = [IN_L1 / boot.program, program, images["l2"] / "vmlinux", boot.directory(images)]
        return start_l1(L1Guest, images, boot, out, boot.prepare + f"\nexec {shlex.join(map(str, command))}")
    source = {"firmware": "seabios"}
    if boot.kernel:
        source = {
            "kernel": str(boot.directory(images) / boot.kernel),
            "initrd": str(boot.directory(images) / "initrd.img"),
            "cmdline": f"{COMMAND_LINE} {boot.cmdline}".strip(),
        }
    config = {
        "name": "lab",
        "cpus": 1,
        "memory": MEMORY,
        "boot": source,
        "display": {"device": "qxl", "heads": 4},
        "spice": {"listen": [f"10.0.2.15:{SPICE_PORT}"], "auth": "none"},
        "disks": [{"id": "root", "path": "/dev/vda", "format": "raw"}],
        "serial": {"to": "stdio"},
        "channels": [
            {"name": "com.redhat.spice.0", "to": "spice-agent"},
            {"name": "lab", "to": "unix:/run/lab.sock"},
        ],
        "hotplug": {"slots": 2},
    }
    for key, value in boot.config.items():
        config[key] = config.get(key, []) + value if isinstance(value, list) else value
    (out / "share").mkdir()
    (out / "share" / "vm.json").write_text(json.dumps(config, indent=2) + "\n")
    # Sockets can't live on 9p, nor be forwarded as they are.
    job = "".join(
        f"socat TCP-LISTEN:{port},fork,reuseaddr UNIX-CONNECT:/run/{name}.sock >>/run/out/socat.log 2>&1 &\n"
        for port, name in ((API_PORT, "api"), (DATA_PORT, "lab"))
    )
    job += f"/usr/bin/python3 -c {shlex.quote(TIME_SERVER)} {TIME_PORT} </dev/null >/dev/null 2>/run/out/time.log &\n"
    job += f"truncate -s 64M {ADDED_DISK}\n"
    job += f"socat -t 3600 TCP-LISTEN:{SHELL_PORT},fork,reuseaddr EXEC:/bin/bash >>/run/out/socat.log 2>&1 &\n"
    job += boot.prepare + "\n"
    job += "echo $$ >/run/caraway.pid\n"
    launcher = "" if boot.io_uring else f"{IN_L1}/without-io-uring "
    job += f"exec {launcher}{shlex.quote(str(program))} run /run/out/vm.json --api /run/api.sock"
    job += f" --longer-pauses {LONGER_PAUSES}s\n"
    return start_l1(CarawayGuest, images, boot, out, job)


def qemu_command(images: Images, boot: Boot, spice: int, data: str) -> list[str]:
    command = ["qemu-system-x86_64", "-M", "q35", "-smp", "1", "-m", MEMORY, "-nodefaults", "-display", "none"]
    command += ["-vga", "none", "-device", "qxl-vga", "-device", "virtio-blk-pci,drive=root"]
    command += ["-spice", f"port={spice},disable-ticketing=on", "-serial", "chardev:serial"]
    command += ["-device", "virtio-serial-pci", "-chardev", "spicevmc,id=agent,name=vdagent"]
    command += ["-device", "virtserialport,chardev=agent,name=com.redhat.spice.0"]
    command += ["-chardev", f"socket,id=data,server=on,wait=off,{data}"]
    command += ["-device", "virtserialport,chardev=data,name=lab"]
    if boot.kernel:
        command += ["-kernel", str(boot.directory(images) / boot.kernel)]
        command += ["-initrd", str(boot.directory(images) / "initrd.img")]
        command += ["-append", COMMAND_LINE]
    return command


def start_l1(kind: type[L1Guest], images: Images, boot: Boot, out: Path, job: str) -> L1Guest:
    """Boots L1, which runs the shell script `job` with the guest's serial line as its terminal."""
    share = out / "share"
    share.mkdir(exist_ok=True)
    # The modules of its kernel, as `module NAME` wants them.
    modules = f"mkdir -p /run/kernel/lib; ln -s {images['l2']}/modules /run/kernel/lib/\n"
    modules += 'module() { modprobe -d /run/kernel "$@"; }\n'
    (share / "job").write_text(modules + job + "\n")
    ours, theirs = socket.socketpair()
    ports = {inside: free_port() for inside in (SPICE_PORT, API_PORT, TIME_PORT, DATA_PORT, SHELL_PORT)}
    forward = ",".join(f"hostfwd=tcp:127.0.0.1:{outside}-:{inside}" for inside, outside in ports.items())
    readonly = "security_model=none,readonly=on,multidevs=remap"
    # One CPU: QEMU's nested SVM hangs now and then with two.
    command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"]
    command += ["-m", "2048", "-display", "none", "-nodefaults", "-no-reboot"]
    command += ["-kernel", str(images["l2"] / "vmlinux"), "-initrd", str(images["l1"] / "initrd.gz")]
    command += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"]
    command += ["-serial", f"file:{out}/l1.log"]
    command += ["-chardev", f"socket,id=serial,fd={theirs.fileno()}", "-serial", "chardev:serial"]
    command += ["-fsdev", f"local,id=host,path=/,{readonly}", "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]
    command += ["-fsdev", f"local,id=out,path={share},security_model=none"]
    command += ["-device", "virtio-9p-pci,fsdev=out,mount_tag=out"]
    own = out / "own.raw"
    own.touch()
    os.truncate(own, OWN_DISK)
    for name, disk in (("root", boot.directory(images) / "disk.raw"), ("own", own)):
        if disk.exists():
            command += ["-drive", f"file={disk},format=raw,if=none,id={name},snapshot=on"]
            command += ["-device", f"virtio-blk-pci,drive={name}"]
    command += ["-netdev", f"user,id=net,restrict=on,{forward}", "-device", "virtio-net-pci,netdev=net,romfile="]
    command += ["-device", "isa-debug-exit,iobase=0x501,iosize=1"]
    guest = kind(spawn(command, out, theirs), ours, out)
    guest.spice_port, guest.data_port = ports[SPICE_PORT], ports[DATA_PORT]
    if isinstance(guest, CarawayGuest):
        guest.api_port = ports[API_PORT]
        guest.time_port, guest.shell_port = ports[TIME_PORT], ports[SHELL_PORT]
    return guest


def spawn(command: list[str], out: Path, line: socket.socket) -> subprocess.Popen:
    with (out / "qemu.log").open("ab") as log:
        log.write((shlex.join(command) + "\n").encode())
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[line.fileno()]
        )
    line.close()
    return process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
