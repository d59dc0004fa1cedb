"""Shows display 0 through spice-gtk's client library and does what it is told: glib_steer.py HOST PORT

Takes orders from standard input, a JSON array each, and answers each with a line of JSON:
["shot", PATH] writes a PPM and answers with the monitors (id, x, y, width and height of each);
["heads", [[x, y, width, height], …]] asks the guest for these monitors and no others. {"error": TEXT}
says that it can't. Leaves when standard input ends, or the server.
"""

import json
import os
import sys

from glib_display import GLib, Primary, Spice, connect, new_session

# Monitors that a guest may have been asked for before.
MOST_HEADS = 4

host, port = sys.argv[1:3]
loop = GLib.MainLoop()
verdict = None


class Client:
    main = None
    primary = None
    unread = b""


def on_channel_event(channel, event):
    global verdict
    if event not in (Spice.ChannelEvent.OPENED, Spice.ChannelEvent.CLOSED, Spice.ChannelEvent.SWITCHING):
        verdict = f"{type(channel).__name__}: {event.value_nick}"
        loop.quit()


def on_channel(channel):
    connect(channel, "channel-event", on_channel_event)
    if isinstance(channel, Spice.MainChannel):
        Client.main = channel
    if isinstance(channel, Spice.DisplayChannel) and channel.get_property("channel-id") == 0:
        Client.primary = Primary(channel)


def shot(path):
    if not Client.primary:
        return {"error": "there is no picture"}
    Client.primary.save(path)
    return {"monitors": Client.primary.monitors()}


def heads(wanted):
    for number in range(MOST_HEADS):
        enabled = number < len(wanted)
        if enabled:
            Client.main.update_display(number, *wanted[number], False)
        Client.main.update_display_enabled(number, enabled, False)
    if not Client.main.send_monitor_config():
        return {"error": "the server takes no wishes for monitors"}
    return {}


ORDERS = {"shot": shot, "heads": heads}


def on_input(source, condition):
    data = os.read(source, 65536) if condition & GLib.IOCondition.IN else b""
    if not data:
        loop.quit()
        return False
    *lines, Client.unread = (Client.unread + data).split(b"\n")
    for line in lines:
        order, *operands = json.loads(line)
        print(json.dumps(ORDERS[order](*operands)), flush=True)
    return True


session = new_session(host, port, on_channel)
Spice.Session.connect(session)
GLib.io_add_watch(sys.stdin.fileno(), GLib.IOCondition.HUP | GLib.IOCondition.IN, on_input)
loop.run()
session.disconnect()
if verdict:
    sys.exit(verdict)
