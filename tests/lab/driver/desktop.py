"""A random walk over a desktop: after each step the guest, the monitor and a client must show the same.

What the guest shows is its own word: xwd(1) of the root window, or the frame buffer of a text console. It
comes through a virtio console port.
"""

import random
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from console import STRETCH, Failed
from monitors import Guest
from pictures import Picture
from viewer import GlibViewer

# Seconds that the pictures may take until they agree.
PATIENCE = 60 * STRETCH
# Seconds that a drawing may take in the guest, and how it ends after them. What is cut short is compared too.
DRAWING = 60
KILLED = "137"
# So many steps may fail before the walk is given up.
MOST_FAILURES = 5
MODES = ["1024x768", "800x600", "1280x720", "640x480", "1280x1024"]
COLOURS = ["#204060", "#d0c8b0", "#7f7f00", "#000000", "#ffffff", "#a01040"]
CURSORS = ["watch", "crosshair", "gumby", "left_ptr", "xterm", "fleur", "pirate"]
# What moves by itself does so once a minute or when the pointer does.
APPS = ["xclock", "xclock -digital", "xeyes", "xlogo", "xcalc", "oclock", "xbiff"]
# Rows that x11perf's largest windows take.
TALLEST_DRAWING = 640
DRAWINGS = [
    *("rect10", "rect500", "srect100", "eschertilerect100", "oddtilerect500", "seg100", "dseg100", "line500"),
    *("circle100", "fcircle100", "ellipse500", "complex100", "ftext", "tr10itext", "aa24text", "scroll500"),
    *("copywinwin500", "copypixwin100", "copyplane100", "putimage500", "putimagexy100", "shmput500"),
    *("fspcircle100", "triangle100", "trap100", "magpixwin100", "compwinwin100", "comppixwin500"),
]


@dataclass
class Window:
    name: str
    # Whether it is a terminal that prints what is written to the pipe of its name.
    prints: bool


class Desktop:
    """The desktop of a guest, and the client that looks at it."""

    def __init__(self, guest: Guest, seed: int):
        self._guest = guest
        self._seed = seed
        self._random = random.Random(seed)
        self._windows: list[Window] = []
        self._named = 0
        self._size = (1024, 768)
        self._driver = ""
        self._taken: Counter[str] = Counter()
        self._steps = 0
        self._failures: list[str] = []
        self._viewer = GlibViewer(guest.spice_port, guest.out)
        self._data = socket.create_connection(("127.0.0.1", guest.data_port), timeout=120 * STRETCH)

    def __enter__(self) -> "Desktop":
        return self

    def __exit__(self, *_: object) -> None:
        self._viewer.close()
        self._data.close()

    def start(self, driver: str) -> None:
        """Starts X with this driver, the desktop of a new walk; no window is open."""
        self._windows.clear()
        self._run(f"lab-desktop {driver}", 600)
        self._driver = driver
        self._compare("start")

    def walk(self, steps: int) -> None:
        walked = list(STEPS)
        weights = [weight for weight, _ in STEPS.values()]
        for _ in range(steps):
            name = self._random.choices(walked, weights)[0]
            begun = time.monotonic()
            said = STEPS[name][1](self) or ""
            self._compare(f"{name} {said}")
            self._taken[name] += 1
            self._log(f"{name} {said} ({time.monotonic() - begun:.1f} s)")

    def report(self) -> None:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self._taken.items()))
        print(f"# seed {self._seed}, {self._steps} comparisons: {counts}", flush=True)
        if self._failures:
            raise Failed("; ".join(self._failures))

    # The steps. Each says what it did.

    def open_terminal(self) -> str:
        window = self._name("term", True)
        lines = self._random.randint(3, 40)
        self._run(f"rm -f /run/{window.name}; mkfifo /run/{window.name}")
        cells = f"{self._random.randint(30, 90)}x{self._random.randint(8, 25)}"
        loop = f"while :; do cat /run/{window.name}; done"
        self._open(window, f"xterm -geometry {cells}{self._corner()} -title {window.name} -e sh -c '{loop}'")
        self._print(window, lines)
        return f"{window.name} with {lines} lines"

    def print_lines(self) -> str | None:
        terminals = [window for window in self._windows if window.prints]
        if not terminals:
            return self.open_terminal()
        window, lines = self._random.choice(terminals), self._random.randint(1, 60)
        self._print(window, lines)
        return f"{lines} lines in {window.name}"

    def open_app(self) -> str:
        app = self._random.choice(APPS)
        window = self._name(app.split()[0], False)
        size = f"{self._random.randint(60, 400)}x{self._random.randint(60, 300)}"
        self._open(window, f"{app} -geometry {size}{self._corner()} -title {window.name}")
        return window.name

    def open_photo(self) -> str:
        window = self._name("photo", False)
        size = f"{self._random.randint(20, 320)} {self._random.randint(20, 240)}"
        self._run(f"lab-photo {size} {self._steps} {window.name} >/run/{window.name}")
        self._open(window, f"xwud -noclick -in /run/{window.name} -geometry {self._corner()}")
        return f"{window.name} {size}"

    def close(self) -> str | None:
        if not self._windows:
            return self.open_app()
        window = self._random.choice(self._windows)
        self._windows.remove(window)
        self._run(f"xdotool search --name '{window.name}$' windowclose")
        return window.name

    def move(self) -> str:
        x, y = self._place()
        return self._on_window(f"windowmove {x} {y}")

    def resize(self) -> str:
        return self._on_window(f"windowsize {self._random.randint(40, 700)} {self._random.randint(40, 500)}")

    def raise_window(self) -> str:
        return self._on_window("windowraise")

    def drag(self) -> str:
        """Moves by the title bar, so that the window is seen on its way."""
        if not self._windows:
            return self.open_app()
        window = self._random.choice(self._windows)
        found = self._run(f"xdotool search --name '{window.name}$' getwindowgeometry --shell")
        at = dict(line.split("=") for line in found.splitlines() if "=" in line)
        x, y = int(at["X"]) + 20, int(at["Y"]) - 8
        ways = [(self._random.randint(-60, 60), self._random.randint(-40, 60)) for _ in range(4)]
        moves = "".join(f" mousemove_relative -- {across} {down} sleep 0.2" for across, down in ways)
        self._run(f"xdotool mousemove {x} {max(y, 1)} mousedown 1{moves} mouseup 1")
        return window.name

    def paint_root(self) -> str:
        if self._random.random() < 0.5:
            how = f"-solid '{self._random.choice(COLOURS)}'"
        else:
            x, y = self._random.randint(2, 16), self._random.randint(2, 16)
            front, back = self._random.sample(COLOURS, 2)
            how = f"-mod {x} {y} -fg '{front}' -bg '{back}'"
        self._run(f"xsetroot {how}")
        return how

    def draw(self) -> str:
        """x11perf draws in a window of its own, which then goes."""
        what = self._random.choice(DRAWINGS)
        if self._size[1] < TALLEST_DRAWING:
            # It reads back what it drew, and X refuses what is below the screen.
            what = what.replace("500", "100")
        # When it is asked to end, it waits for X to have drawn all.
        limited = f"timeout -s KILL {DRAWING} x11perf -repeat 1 -reps {self._random.randint(2, 30)} -{what}"
        # The shell may say more before that, of a program that was killed and of others that ended.
        ended = self._run(f"{limited} >/dev/null 2>&1; echo $?", 120).splitlines()[-1]
        if ended not in ("0", KILLED):
            raise Failed(f"`{limited}` ended with {ended}")
        return what if ended == "0" else f"{what}, cut short"

    def point(self) -> str:
        x, y = self._place()
        cursor = self._random.choice(CURSORS)
        self._run(f"xsetroot -cursor_name {cursor}; xdotool mousemove {x} {y}")
        return f"{cursor} at {x},{y}"

    def change_mode(self) -> str:
        mode = self._random.choice(MODES)
        outputs = self._outputs()
        # The kernel's driver has its monitors side by side, wherever X would like to see them.
        others = "".join(f" --output {right} --right-of {left}" for left, right in zip(outputs, outputs[1:]))
        self._run(f"xrandr --output {outputs[0]} --mode {mode}{others}", 120)
        self._size = tuple(map(int, mode.split("x")))
        return mode

    def resize_from_client(self) -> str:
        """The client wishes for another size, and the guest's settings follow."""
        width, height = self._random.randrange(640, 1400, 8), self._random.randrange(480, 1000)
        return self._follow([(0, 0, width, height)])

    def change_heads(self) -> str:
        # Of the kernel's driver, see `show_heads`.
        count = self._random.choice([1, 2, 2, 4, 4]) if self._driver == "qxl" else 1
        size = self._random.choice([(640, 480), (800, 600)])
        return self._follow([(number * size[0], 0, *size) for number in range(count)])

    def show_heads(self) -> None:
        """Several monitors on the kernel's driver, which has to start anew after them.

        X has one frame buffer for all of them. The driver draws that once for each, side by side, and what
        changes later for the first only; what it says of them when there are fewer again is wrong. So what is
        seen is not X's picture, with QEMU neither, but is what was drawn. Four would be 10240 pixels across,
        which is more than the card's frame buffer has room for.
        """
        for count in (2, 3):
            said = self._follow([(number * 640, 0, 640, 480) for number in range(count)])
            self._compare(f"heads {said}", with_guest=False)

    def visit_console(self) -> str:
        """To a text console and back."""
        self._run("chvt 1", 120)
        self._run(f"printf '\\033[?25l\\033[4{self._random.randint(1, 6)}m\\033[2J\\033[Hstep {self._steps}' >/dev/tty1")
        self._compare("console")
        self._run("chvt 7", 120)
        return ""

    def suspend(self) -> str:
        """Every driver suspends, and resumes some seconds later without anybody to wake it."""
        self._run("echo devices >/sys/power/pm_test; echo freeze >/sys/power/state; echo none >/sys/power/pm_test", 180)
        return ""

    def sleep_display(self) -> str:
        self._run("xset dpms force off; sleep 1; xset dpms force on; xset -dpms", 120)
        return ""

    def reconnect(self) -> str:
        self._viewer.close()
        self._viewer = GlibViewer(self._guest.spice_port, self._guest.out)
        return ""

    def _name(self, kind: str, prints: bool) -> Window:
        self._named += 1
        return Window(f"{kind}{self._named}", prints)

    def _open(self, window: Window, command: str) -> None:
        self._run(
            f"setsid {command} >/dev/null 2>&1 </dev/null &\n"
            f"timeout 240 xdotool search --sync --onlyvisible --name '{window.name}$' >/dev/null",
            250,
        )
        self._windows.append(window)

    def _print(self, window: Window, lines: int) -> None:
        start = self._random.randint(1, 10**6)
        self._run(f"seq {start} {start + lines - 1} | sed 's/.*/line & of {window.name} &&&/' >/run/{window.name}")

    def _on_window(self, action: str) -> str:
        if not self._windows:
            return self.open_app()
        window = self._random.choice(self._windows)
        self._run(f"xdotool search --name '{window.name}$' {action}")
        return f"{window.name} {action}"

    def _corner(self) -> str:
        x, y = self._place()
        return f"+{x}+{y}"

    def _place(self) -> tuple[int, int]:
        return self._random.randint(0, self._size[0] - 60), self._random.randint(20, self._size[1] - 60)

    def _outputs(self) -> list[str]:
        """The connected ones."""
        listed = self._run("xrandr | grep ' connected'")
        return [line.split()[0] for line in listed.splitlines()]

    def _follow(self, heads: list[tuple[int, int, int, int]]) -> str:
        wanted = [f"{width}x{height}" for _, _, width, height in heads]
        deadline = time.monotonic() + PATIENCE
        while not self._viewer.ask_for_heads(heads):
            if time.monotonic() > deadline:
                raise Failed("the client has nobody to tell of its monitors")
            time.sleep(1)
        while len(outputs := self._outputs()) != len(heads) or self._preferred() != wanted:
            if time.monotonic() > deadline:
                raise Failed(f"the guest has {outputs} with {self._preferred()}, not {wanted}")
            time.sleep(1)
        absent = self._run("xrandr | grep ' disconnected' | cut -d' ' -f1").split()
        gone = "".join(f" --output {name} --off" for name in absent)
        places = [
            f" --output {name} --mode {mode} --pos {x}x{y}" for name, mode, (x, y, _, _) in zip(outputs, wanted, heads)
        ]
        self._run(f"xrandr {''.join(places)}{gone}", 120)
        self._size = heads[0][2:]
        return ", ".join(wanted)

    def _preferred(self) -> list[str]:
        """The size that each connected output had rather, which a plus sign tells."""
        listed = self._run("xrandr | awk '/ connected/ {wait=1} /\\+/ && /^ / && wait {print $1; wait=0}'")
        return listed.split()

    def _run(self, command: str, timeout: float = 120) -> str:
        return self._guest.serial.run(f"export DISPLAY=:0; {command}", timeout)

    # What is seen.

    def _compare(self, step: str, with_guest: bool = True) -> None:
        self._steps += 1
        step = f"{self._driver} step {self._steps}: {step}"
        self._guest.rest()
        deadline = time.monotonic() + PATIENCE
        # What moves by itself may have moved between one picture and the next.
        while (problem := self._disagreement(with_guest)) is not None:
            if time.monotonic() > deadline:
                self._log(f"{step}: {problem}")
                self._failures.append(f"{step}: {problem}")
                self._keep()
                if len(self._failures) >= MOST_FAILURES:
                    self.report()
                return
            time.sleep(1)
            self._guest.rest()

    def _disagreement(self, with_guest: bool) -> str | None:
        """What is wrong with the pictures of now, which are left in `self._pictures`."""
        self._pictures: dict[str, Picture] = {}
        if with_guest:
            self._pictures["guest"] = self._guests_picture()
        client = self._viewer.picture()
        if client is None:
            return "the client shows nothing"
        self._pictures["client"] = client
        seen = dict(self._pictures)
        heads = self._guest.heads()
        if heads is None:
            return both("the client's", client, "the guest's own", seen.get("guest", client))
        for number, area in enumerate(heads):
            shot = self._pictures[f"screenshot{number}"] = Picture.from_png(self._guest.screenshot(number))
            for name, whole in seen.items():
                try:
                    part = whole.crop(*area)
                except ValueError as error:
                    return f"the {name}'s picture has {error}"
                problem = both(f"head {number} of the {name}'s", part, "display.screenshot", shot)
                if problem:
                    return problem
        return None if heads else "no head"

    def _guests_picture(self) -> Picture:
        # A large picture does not fit into what is on the way: it is read before the command can end.
        self._guest.serial.start("lab-picture")
        try:
            kind, *numbers = self._receive_line().split()
            packed = self._receive(int(numbers.pop()))
        except TimeoutError:
            self._guest.serial.finish("lab-picture", 5)
            raise Failed("the guest sent no picture") from None
        self._guest.serial.finish("lab-picture", 60)
        data = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
        if kind == "xwd":
            return Picture.from_xwd(data)
        size, stride = numbers
        width, height = map(int, size.split("x"))
        return Picture.from_bgrx(width, height, int(stride), data)

    def _receive_line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            line += self._receive(1)
        return line.decode()

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._data.recv(count - len(data))
            if not more:
                raise Failed("the guest's data port is closed")
            data += more
        return data

    def _keep(self) -> None:
        folder = self._guest.out / f"step-{self._steps}"
        folder.mkdir(exist_ok=True)
        for name, picture in self._pictures.items():
            picture.save(folder / f"{name}.ppm")

    def _log(self, line: str) -> None:
        with (self._guest.out / "steps.txt").open("a") as log:
            log.write(f"{self._steps}: {line}\n")


def both(one: str, picture: Picture, other: str, compared: Picture) -> str | None:
    difference = picture.difference(compared)
    return difference and f"{one} and {other}: {difference}"


# How likely each step is, and what it does.
STEPS: dict[str, tuple[int, Callable[[Desktop], str | None]]] = {
    "terminal": (8, Desktop.open_terminal),
    "print": (16, Desktop.print_lines),
    "app": (8, Desktop.open_app),
    "photo": (8, Desktop.open_photo),
    "close": (8, Desktop.close),
    "move": (10, Desktop.move),
    "drag": (8, Desktop.drag),
    "resize": (6, Desktop.resize),
    "raise": (5, Desktop.raise_window),
    "root": (5, Desktop.paint_root),
    "draw": (10, Desktop.draw),
    "pointer": (6, Desktop.point),
    "mode": (4, Desktop.change_mode),
    "client resize": (4, Desktop.resize_from_client),
    "heads": (4, Desktop.change_heads),
    "console": (3, Desktop.visit_console),
    "suspend": (2, Desktop.suspend),
    "dpms": (2, Desktop.sleep_display),
    "reconnect": (3, Desktop.reconnect),
}
