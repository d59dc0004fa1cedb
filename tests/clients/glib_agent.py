"""A viewer's dealings with the guest's agent, through spice-gtk's client library: glib_agent.py HOST PORT
[SECONDS].

Does what the lines on standard input say, for two minutes or so many seconds, and says on standard output what
happens, a line each:

  copy TEXT      offers the text as the viewer's clipboard
  paste          asks for the guest's clipboard; answered by `pasted TEXT`
  send FILE      sends a file; answered by `sent`, or `not sent: WHY`
  resize W H     asks for one monitor of this size

Unasked: `agent` and its capabilities by number, `no agent`, `offered` when the guest offers its
clipboard, `released` when it does not any more, `asked` when the guest wants the viewer's.
"""

import ctypes
import os
import sys

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import Gio, GLib, GObject, SpiceClientGLib as Spice  # noqa: E402

CLIPBOARD, TEXT = 0, 1
CAPABILITIES = 18

loop = GLib.MainLoop()
main = None
text = b""
pending = b""


def say(line):
    print(line, flush=True)


def on_agent(channel, *_):
    if not channel.get_property("agent-connected"):
        say("no agent")
        return
    caps = [n for n in range(CAPABILITIES) if channel.agent_test_capability(n)]
    if caps:
        say("agent " + " ".join(map(str, caps)))


def on_grab(_channel, selection, _types, _count):
    if selection == CLIPBOARD:
        say("offered")
    return True


def on_release(_channel, selection):
    if selection == CLIPBOARD:
        say("released")


def on_request(channel, selection, kind):
    say("asked")
    channel.clipboard_selection_notify(selection, kind, text)
    return True


def on_content(_channel, _selection, kind, data, size):
    content = ctypes.string_at(data, size) if size else b""
    say(f"pasted {content.decode()}" if kind == TEXT else "pasted nothing")


def on_sent(channel, result, *_):
    try:
        channel.file_copy_finish(result)
        say("sent")
    except GLib.Error as error:
        say(f"not sent: {error.message}")


def on_input(descriptor, _condition):
    global pending
    got = os.read(descriptor, 65536)
    if not got:
        loop.quit()
        return False
    *lines, pending = (pending + got).split(b"\n")
    for line in lines:
        obey(line.decode())
    return True


def obey(line):
    global text
    verb, _, rest = line.partition(" ")
    if verb == "copy":
        text = rest.encode()
        main.clipboard_selection_grab(CLIPBOARD, [TEXT])
    elif verb == "paste":
        main.clipboard_selection_request(CLIPBOARD, TEXT)
    elif verb == "send":
        file = Gio.File.new_for_path(rest)
        main.file_copy_async([file], Gio.FileCopyFlags.NONE, None, None, None, on_sent)
    elif verb == "resize":
        width, height = map(int, rest.split())
        main.update_display_enabled(0, True, False)
        main.update_display(0, 0, 0, width, height, False)
        main.send_monitor_config()


def on_channel_event(_channel, event):
    if event not in (Spice.ChannelEvent.OPENED, Spice.ChannelEvent.CLOSED):
        say(f"channel {event.value_nick}")


def on_channel_new(_session, channel):
    global main
    # `connect` is overridden on these types; the signal's is GObject's.
    GObject.Object.connect(channel, "channel-event", on_channel_event)
    if isinstance(channel, Spice.MainChannel):
        main = channel
        for signal, handler in (
            ("main-agent-update", on_agent),
            ("notify::agent-connected", on_agent),
            ("main-clipboard-selection-grab", on_grab),
            ("main-clipboard-selection-release", on_release),
            ("main-clipboard-selection-request", on_request),
            ("main-clipboard-selection", on_content),
        ):
            GObject.Object.connect(channel, signal, handler)
    Spice.Channel.connect(channel)


session = Spice.Session()
session.set_property("host", sys.argv[1])
session.set_property("port", sys.argv[2])
GObject.Object.connect(session, "channel-new", on_channel_new)
Spice.Session.connect(session)
GLib.io_add_watch(sys.stdin.fileno(), GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, on_input)
GLib.timeout_add_seconds(int(sys.argv[3]) if len(sys.argv) > 3 else 120, loop.quit)
loop.run()
session.disconnect()
