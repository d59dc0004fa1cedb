"""Watches a display, channel 0 or another, until it is told to stop, through spice-gtk's client library: glib_watch.py HOST PORT OUT.ppm [CHANNEL [CODEC [COMPRESSION]]]

CODEC is the number of the video codec that it prefers, COMPRESSION that of the image compression; 0 is none. Each line of standard input is a file to write what it
shows to at once, as a PPM. Once standard input ends, waits until the display has been still for QUIET_S, writes what it shows to
OUT.ppm, prints a JSON object and leaves. "seconds" is from the moment when the display channel was open to
the last pixel that came, "bytes" what the channel has read, "draws" how often pixels came; "monitors" are
the id, x, y, width and height of each.
"""

import json
import os
import sys
import time

from glib_display import GLib, Primary, Spice, connect, new_session

# The reference notices that a video has ended after a second, and then sends its last picture exactly.
QUIET_S = 2.0
PATIENCE_S = 300

host, port, out = sys.argv[1:4]
watched = int(sys.argv[4]) if len(sys.argv) > 4 else 0
preferred = int(sys.argv[5]) if len(sys.argv) > 5 else 0
compression = int(sys.argv[6]) if len(sys.argv) > 6 else 0
loop = GLib.MainLoop()
verdict = None


class Display:
    channel = None
    opened = None
    primary = None
    last = None
    draws = 0
    told_to_stop = None


def on_invalidate(_channel, _x, _y, _width, _height):
    Display.draws += 1
    Display.last = time.monotonic()


def on_channel_event(channel, event):
    global verdict
    if event == Spice.ChannelEvent.OPENED:
        if channel is Display.channel:
            Display.opened = Display.last = time.monotonic()
            if preferred:
                channel.display_channel_change_preferred_video_codec_types([preferred])
            if compression:
                channel.display_channel_change_preferred_compression(compression)
    elif event not in (Spice.ChannelEvent.CLOSED, Spice.ChannelEvent.SWITCHING):
        verdict = f"{type(channel).__name__}: {event.value_nick}"
        loop.quit()


def on_channel(channel):
    connect(channel, "channel-event", on_channel_event)
    if isinstance(channel, Spice.DisplayChannel) and channel.get_property("channel-id") == watched:
        Display.channel = channel
        Display.primary = Primary(channel)
        connect(channel, "display-invalidate", on_invalidate)


def on_line(_source, _condition):
    if line := sys.stdin.readline():
        # Whoever waits for it must not find half of it.
        Display.primary.save(line.strip() + ".part")
        os.rename(line.strip() + ".part", line.strip())
        return True
    Display.told_to_stop = time.monotonic()
    GLib.timeout_add(50, end_when_still)
    return False


def end_when_still():
    if not Display.primary:
        return True
    still_since = max(Display.last or 0, Display.told_to_stop)
    if time.monotonic() - still_since < QUIET_S:
        return True
    loop.quit()
    return False


def fail():
    global verdict
    verdict = "nobody said when to stop"
    loop.quit()


session = new_session(host, port, on_channel)
Spice.Session.connect(session)
GLib.io_add_watch(sys.stdin.fileno(), GLib.IOCondition.HUP | GLib.IOCondition.IN, on_line)
GLib.timeout_add_seconds(PATIENCE_S, fail)
loop.run()
if verdict is None and not Display.primary:
    verdict = "there is no picture"
if verdict is None:
    Display.primary.save(out)
    seconds = Display.last - Display.opened
    read = Display.channel.get_property("total-read-bytes")
    report = {"seconds": round(seconds, 3), "bytes": read, "draws": Display.draws}
    print(json.dumps(report | {"monitors": Display.primary.monitors()}))
session.disconnect()
if verdict:
    sys.exit(verdict)
