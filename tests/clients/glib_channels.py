"""Opens every channel that a server offers, through spice-gtk's client library, and says what came of it:
glib_channels.py HOST PORT WANTED [--tone HERTZ] [--say TEXT]

WANTED are the channels to wait for, as TYPE.ID with commas between. What is played is heard for a second
and a half; `--tone` is what to record, and is sent while the server wants it; `--say` is what to send
through every open port, of which as many bytes are awaited in return.

Prints one JSON object: `opened` (a list of TYPE.ID), `playback` (format, samples, hertz), `ports` (by name:
what came), `recording` (the formats asked for), `volume` and `mute` of both sound channels.
"""

import argparse
import ctypes
import json
import math
import struct
import sys

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import GLib, GObject, SpiceClientGLib as Spice  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("host")
parser.add_argument("port")
parser.add_argument("wanted")
parser.add_argument("--tone", type=float, default=0)
parser.add_argument("--say", default="")
options = parser.parse_args()

library = ctypes.CDLL("libspice-client-glib-2.0.so.8")
said = ctypes.create_string_buffer(options.say.encode())
on_written = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: None)

HEARD = 1.5
loop = GLib.MainLoop()
failures = []
report = {"opened": [], "playback": None, "ports": {}, "recording": [], "volume": {}, "mute": {}}
wanted = set(options.wanted.split(","))
heard = []


def name_of(channel):
    return f"{channel.get_property('channel-type')}.{channel.get_property('channel-id')}"


def check():
    """Ends once everything has come that was asked for."""
    if failures:
        loop.quit()
    playback, ports = report["playback"], report["ports"]
    done = (
        wanted <= set(report["opened"])
        and ("5.0" not in wanted or playback and len(heard) >= HEARD * playback["rate"])
        and (not options.say or ports and all(len(got) >= len(options.say) for got in ports.values()))
        and (not options.tone or recorder.sent >= HEARD * 48000)
    )
    if done:
        loop.quit()


class Recorder:
    """Sends a tone while the server wants one."""

    def __init__(self):
        self.sent = 0
        self.running = False

    def start(self, channel, _format, channels, rate):
        report["recording"].append([channels, rate])
        self.running = True
        GLib.timeout_add(10, self.send, channel, channels, rate)

    def stop(self, _channel):
        self.running = False

    def send(self, channel, channels, rate):
        if not self.running:
            return False
        count = rate // 100
        samples = []
        for moment in range(self.sent, self.sent + count):
            sample = int(12000 * math.sin(2 * math.pi * options.tone * moment / rate))
            samples += [sample] * channels
        self.sent += count
        data = struct.pack(f"<{len(samples)}h", *samples)
        buffer = ctypes.create_string_buffer(data, len(data))
        channel.send_data(ctypes.addressof(buffer), len(data), self.sent * 1000 // rate)
        check()
        return True


recorder = Recorder()


def on_playback_start(_channel, _format, channels, rate):
    report["playback"] = {"channels": channels, "rate": rate}


def on_playback_data(_channel, data, size):
    samples = struct.unpack(f"<{size // 2}h", ctypes.string_at(data, size))
    heard.extend(samples[:: report["playback"]["channels"]])
    check()


def on_volume(channel, _property):
    volume = channel.get_property("volume")
    levels = (ctypes.c_uint16 * channel.get_property("nchannels")).from_address(volume) if volume else []
    report["volume"][name_of(channel)] = list(levels)
    report["mute"][name_of(channel)] = channel.get_property("mute")


def on_port_opened(channel, _property):
    if channel.get_property("port-opened") and type(channel) is Spice.PortChannel:
        report["ports"].setdefault(channel.get_property("port-name"), "")
        if options.say:
            # Not by the binding, which frees the bytes before they are sent.
            library.spice_port_channel_write_async(
                ctypes.c_void_p(hash(channel)), said, ctypes.c_size_t(len(options.say)), None, on_written, None
            )


def on_port_data(channel, data, size):
    name = channel.get_property("port-name")
    report["ports"][name] += ctypes.string_at(data, size).decode()
    check()


def on_channel_event(channel, event):
    if event == Spice.ChannelEvent.OPENED:
        report["opened"].append(name_of(channel))
    elif event not in (Spice.ChannelEvent.CLOSED, Spice.ChannelEvent.SWITCHING):
        failures.append(f"{name_of(channel)}: {event.value_nick}")
    check()


# `connect` is overridden on these types; the signal's is GObject's.
on = GObject.Object.connect


def on_channel_new(_session, channel):
    on(channel, "channel-event", on_channel_event)
    if isinstance(channel, Spice.PlaybackChannel):
        on(channel, "playback-start", on_playback_start)
        on(channel, "playback-data", on_playback_data)
        on(channel, "notify::volume", on_volume)
        on(channel, "notify::mute", on_volume)
    elif isinstance(channel, Spice.RecordChannel):
        on(channel, "record-start", recorder.start)
        on(channel, "record-stop", recorder.stop)
    elif isinstance(channel, Spice.PortChannel):
        on(channel, "notify::port-opened", on_port_opened)
        on(channel, "port-data", on_port_data)
    # The manager of USB devices opens its channels itself.
    if not isinstance(channel, Spice.UsbredirChannel):
        Spice.Channel.connect(channel)


session = Spice.Session()
session.set_property("host", options.host)
session.set_property("port", options.port)
on(session, "channel-new", on_channel_new)
manager = Spice.UsbDeviceManager.get(session)
Spice.Session.connect(session)
timeouts = []
GLib.timeout_add_seconds(30, lambda: (timeouts.append(True), loop.quit()))
loop.run()
session.disconnect()

if heard:
    # Without the first tenth of a second, in which decoders find their way.
    rate = report["playback"]["rate"]
    steady = heard[rate // 10 :]
    rises = sum(1 for before, after in zip(steady, steady[1:]) if before < 0 <= after)
    report["playback"]["hertz"] = rises * rate / max(1, len(steady))
    report["playback"]["peak"] = max(abs(sample) for sample in steady)
print(json.dumps(report))
if failures or timeouts:
    sys.exit(f"{failures or 'not everything came in time'}")
