"""Presses and releases one key through spice-gtk's client library:
glib_key.py HOST PORT SCANCODE [PASSWORD [LATE]].

All channels but the main one are opened LATE milliseconds after they are offered. Succeeds once the inputs channel is open and the key is sent; fails on any channel's error.
"""

import sys

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import GLib, GObject, SpiceClientGLib as Spice  # noqa: E402

host, port, scancode = sys.argv[1], sys.argv[2], int(sys.argv[3])
password = sys.argv[4] if len(sys.argv) > 4 else ""
late = int(sys.argv[5]) if len(sys.argv) > 5 else 0
loop = GLib.MainLoop()
verdict = "no inputs channel opened"


def on_channel_event(channel, event):
    global verdict
    if event == Spice.ChannelEvent.OPENED:
        if isinstance(channel, Spice.InputsChannel):
            channel.key_press(scancode)
            channel.key_release(scancode)
            verdict = None
            # Let it go out before the connection closes.
            GLib.timeout_add(300, loop.quit)
    elif event != Spice.ChannelEvent.CLOSED and event != Spice.ChannelEvent.SWITCHING:
        verdict = f"{type(channel).__name__}: {event.value_nick}"
        loop.quit()


def on_channel_new(_session, channel):
    # `connect` is overridden on these types; the signal's is GObject's.
    GObject.Object.connect(channel, "channel-event", on_channel_event)
    if late and not isinstance(channel, Spice.MainChannel):
        GLib.timeout_add(late, Spice.Channel.connect, channel)
    else:
        Spice.Channel.connect(channel)


session = Spice.Session()
session.set_property("host", host)
session.set_property("port", port)
if password:
    session.set_property("password", password)
GObject.Object.connect(session, "channel-new", on_channel_new)
Spice.Session.connect(session)
GLib.timeout_add_seconds(15, loop.quit)
loop.run()
session.disconnect()
if verdict:
    sys.exit(verdict)
