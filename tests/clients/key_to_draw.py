"""How long a key takes to show, in milliseconds: key_to_draw.py HOST PORT KEYS X Y.

Uses spice-gtk's client library. Presses a key, looks at the pixel X,Y of the primary surface at each
"display-invalidate", and notes when it has changed; then waits a while and starts again. Prints a
JSON object: "delays", each key's time in ms (null after 20 s without a change), and what came
meanwhile: "seconds", "bytes" on the display channel, "invalidations" and their "pixels"; and
"connected", the seconds since the start.
"""

import ctypes
import json
import random
import sys
import time

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import GLib, GObject, SpiceClientGLib as Spice  # noqa: E402

KEY_A = 0x1E
PATIENCE_S = 20
# Before the first key: the link's estimators settle, and the screen is busy.
SETTLE_MS = 4000

host, port = sys.argv[1], sys.argv[2]
keys, x, y = (int(word) for word in sys.argv[3:6])
loop = GLib.MainLoop()
begin = time.monotonic()
random.seed(1)


class Screen:
    pixels = None
    stride = 0
    invalidations = 0
    area = 0
    channel = None


class Typist:
    inputs = None
    before = None
    pressed = None
    timeout = 0
    delays = []
    started = None
    bytes_at_start = 0


verdict = "no picture"


def pixel():
    if not Screen.pixels:
        return None
    return ctypes.c_uint32.from_address(Screen.pixels + y * Screen.stride + x * 4).value & 0xFFFFFF


def received():
    return Screen.channel.get_property("total-read-bytes")


def on_primary(_channel, _format, _width, _height, stride, _shmid, data):
    Screen.pixels, Screen.stride = data, stride


def on_primary_gone(_channel):
    Screen.pixels = None


def on_invalidate(_channel, _x, _y, width, height):
    Screen.invalidations += 1
    Screen.area += width * height
    if Typist.pressed is not None and pixel() != Typist.before:
        finish(round((time.monotonic() - Typist.pressed) * 1000, 2))


def finish(delay):
    Typist.delays.append(delay)
    Typist.pressed = None
    GLib.source_remove(Typist.timeout)
    if len(Typist.delays) >= keys:
        loop.quit()
    else:
        GLib.timeout_add(random.randint(100, 400), press)


def give_up():
    Typist.timeout = GLib.timeout_add(1, lambda: False)
    finish(None)
    return False


def press():
    if Typist.started is None:
        Typist.started, Typist.bytes_at_start = time.monotonic(), received()
        Screen.invalidations = Screen.area = 0
    Typist.before = pixel()
    Typist.timeout = GLib.timeout_add(PATIENCE_S * 1000, give_up)
    Typist.pressed = time.monotonic()
    Typist.inputs.key_press(KEY_A)
    Typist.inputs.key_release(KEY_A)
    return False


def start_when_ready():
    global verdict
    if Screen.pixels and Typist.inputs and Screen.invalidations > 0:
        verdict = None
        GLib.timeout_add(SETTLE_MS, press)
        return False
    return True


def on_channel_event(channel, event):
    global verdict
    if event == Spice.ChannelEvent.OPENED:
        if isinstance(channel, Spice.InputsChannel):
            Typist.inputs = channel
    elif event not in (Spice.ChannelEvent.CLOSED, Spice.ChannelEvent.SWITCHING):
        verdict = f"{type(channel).__name__}: {event.value_nick}"
        loop.quit()


def on_channel_new(_session, channel):
    # `connect` is overridden on these types; the signal's is GObject's.
    GObject.Object.connect(channel, "channel-event", on_channel_event)
    if isinstance(channel, Spice.DisplayChannel):
        Screen.channel = channel
        GObject.Object.connect(channel, "display-primary-create", on_primary)
        GObject.Object.connect(channel, "display-primary-destroy", on_primary_gone)
        GObject.Object.connect(channel, "display-invalidate", on_invalidate)
    Spice.Channel.connect(channel)


session = Spice.Session()
session.set_property("host", host)
session.set_property("port", port)
session.set_property("enable-audio", False)
GObject.Object.connect(session, "channel-new", on_channel_new)
Spice.Session.connect(session)
GLib.timeout_add(50, start_when_ready)
GLib.timeout_add_seconds(30 + keys * 5, loop.quit)
loop.run()
if Typist.started is not None:
    print(
        json.dumps(
            {
                "delays": Typist.delays,
                "seconds": round(time.monotonic() - Typist.started, 3),
                "bytes": received() - Typist.bytes_at_start,
                "invalidations": Screen.invalidations,
                "pixels": Screen.area,
                "connected": round(time.monotonic() - begin, 3),
            }
        )
    )
session.disconnect()
if verdict:
    sys.exit(verdict)
