"""Opens every channel by spice-gtk's client library: glib_open.py HOST TLS_PORT CA_FILE SUBJECT.

Succeeds once the main, display and inputs channels are open, by TLS and with a certificate of that
subject; fails on any channel's error, and says which.
"""

import sys

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import GLib, GObject, SpiceClientGLib as Spice  # noqa: E402

host, port, ca_file, subject = sys.argv[1:]
wanted = {"MainChannel", "DisplayChannel", "InputsChannel"}
loop = GLib.MainLoop()
verdict = "not all channels opened"


def on_channel_event(channel, event):
    global verdict
    name = type(channel).__name__
    if event == Spice.ChannelEvent.OPENED:
        wanted.discard(name)
        if not wanted:
            verdict = None
            loop.quit()
    elif event not in (Spice.ChannelEvent.CLOSED, Spice.ChannelEvent.SWITCHING):
        verdict = f"{name}: {event.value_nick}"
        loop.quit()


def on_channel_new(_session, channel):
    # `connect` is overridden on these types; the signal's is GObject's.
    GObject.Object.connect(channel, "channel-event", on_channel_event)
    Spice.Channel.connect(channel)


session = Spice.Session()
session.set_property("host", host)
session.set_property("tls-port", port)
session.set_property("ca-file", ca_file)
session.set_property("cert-subject", subject)
session.set_property("verify", Spice.SessionVerify.SUBJECT)
GObject.Object.connect(session, "channel-new", on_channel_new)
Spice.Session.connect(session)
GLib.timeout_add_seconds(15, loop.quit)
loop.run()
session.disconnect()
if verdict:
    sys.exit(verdict)
