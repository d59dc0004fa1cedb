"""Watches a display, channel 0 or another, until it is told to stop, through spice-gtk's client library: glib_watch.py HOST PORT OUT.ppm [CHANNEL]

Once standard input ends, waits until the display has been still for QUIET_S, writes what it shows to
OUT.ppm, prints a JSON object and leaves. "seconds" is from the moment when the display channel was open to
the last pixel that came, "bytes" what the channel has read, "draws" how often pixels came; "monitors" are
the id, x, y, width and height of each.
"""

import ctypes
import json
import sys
import time

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import GLib, GObject, SpiceClientGLib as Spice  # noqa: E402

# The reference notices that a video has ended after a second, and then sends its last picture exactly.
QUIET_S = 2.0
PATIENCE_S = 300

host, port, out = sys.argv[1:4]
watched = int(sys.argv[4]) if len(sys.argv) > 4 else 0
loop = GLib.MainLoop()
verdict = None


class Display:
    channel = None
    opened = None
    primary = None
    last = None
    draws = 0
    told_to_stop = None


def on_primary(_channel, _format, width, height, stride, _shmid, data):
    Display.primary = (width, height, stride, data)


def on_primary_gone(_channel):
    Display.primary = None


def on_invalidate(_channel, _x, _y, _width, _height):
    Display.draws += 1
    Display.last = time.monotonic()


def on_channel_event(channel, event):
    global verdict
    if event == Spice.ChannelEvent.OPENED:
        if channel is Display.channel:
            Display.opened = Display.last = time.monotonic()
    elif event not in (Spice.ChannelEvent.CLOSED, Spice.ChannelEvent.SWITCHING):
        verdict = f"{type(channel).__name__}: {event.value_nick}"
        loop.quit()


def on_channel_new(_session, channel):
    # `connect` is overridden on these types; the signal's is GObject's.
    GObject.Object.connect(channel, "channel-event", on_channel_event)
    if isinstance(channel, Spice.DisplayChannel) and channel.get_property("channel-id") == watched:
        Display.channel = channel
        GObject.Object.connect(channel, "display-primary-create", on_primary)
        GObject.Object.connect(channel, "display-primary-destroy", on_primary_gone)
        GObject.Object.connect(channel, "display-invalidate", on_invalidate)
    Spice.Channel.connect(channel)


class Array(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_uint)), ("length", ctypes.c_uint)]


def monitors(channel):
    """The property of that name, whose type the binding does not know."""
    get = ctypes.CDLL("libgobject-2.0.so.0").g_object_get
    array = ctypes.POINTER(Array)()
    get(ctypes.c_void_p(hash(channel)), b"monitors", ctypes.byref(array), ctypes.c_void_p())
    if not array:
        return []
    # Of SpiceDisplayMonitorConfig: id, surface, x, y, width, height.
    fields = [array.contents.data[6 * at : 6 * at + 6] for at in range(array.contents.length)]
    return [[head, *area] for head, _surface, *area in fields]


def on_stop(_source, _condition):
    Display.told_to_stop = time.monotonic()
    GLib.timeout_add(50, end_when_still)
    return False


def end_when_still():
    if Display.primary is None:
        return True
    still_since = max(Display.last or 0, Display.told_to_stop)
    if time.monotonic() - still_since < QUIET_S:
        return True
    loop.quit()
    return False


def save(path):
    width, height, stride, data = Display.primary
    pixels = ctypes.string_at(data, stride * height)
    picture = bytearray(width * height * 3)
    for y in range(height):
        row = pixels[y * stride : y * stride + width * 4]
        for channel in range(3):
            start = y * width * 3 + channel
            picture[start : (y + 1) * width * 3 : 3] = row[2 - channel :: 4]
    with open(path, "wb") as file:
        file.write(b"P6\n%d %d\n255\n" % (width, height))
        file.write(picture)


def fail():
    global verdict
    verdict = "nobody said when to stop"
    loop.quit()


session = Spice.Session()
session.set_property("host", host)
session.set_property("port", port)
session.set_property("enable-audio", False)
GObject.Object.connect(session, "channel-new", on_channel_new)
Spice.Session.connect(session)
GLib.io_add_watch(sys.stdin.fileno(), GLib.IOCondition.HUP | GLib.IOCondition.IN, on_stop)
GLib.timeout_add_seconds(PATIENCE_S, fail)
loop.run()
if verdict is None and Display.primary is None:
    verdict = "there is no picture"
if verdict is None:
    save(out)
    seconds = Display.last - Display.opened
    read = Display.channel.get_property("total-read-bytes")
    report = {"seconds": round(seconds, 3), "bytes": read, "draws": Display.draws}
    print(json.dumps(report | {"monitors": monitors(Display.channel)}))
session.disconnect()
if verdict:
    sys.exit(verdict)
