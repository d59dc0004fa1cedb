"""What spice-gtk's client library shows of a display channel; for the programs beside this one."""

import ctypes

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import GLib, GObject, SpiceClientGLib as Spice  # noqa: E402, F401


def connect(emitter, signal, callback):
    """`connect` is overridden on the library's types; the signal's is GObject's."""
    GObject.Object.connect(emitter, signal, callback)


def new_session(host, port, on_channel):
    """A session that opens each channel after `on_channel(channel)` has seen it; `Spice.Session.connect` starts it."""
    session = Spice.Session()
    session.set_property("host", host)
    session.set_property("port", port)
    session.set_property("enable-audio", False)

    def on_channel_new(_session, channel):
        on_channel(channel)
        Spice.Channel.connect(channel)

    connect(session, "channel-new", on_channel_new)
    return session


class _Array(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_uint)), ("length", ctypes.c_uint)]


class Primary:
    """The primary surface of a display channel, as long as there is one."""

    def __init__(self, channel):
        self._channel = channel
        self._surface = None
        connect(channel, "display-primary-create", self._on_create)
        connect(channel, "display-primary-destroy", self._on_destroy)

    def __bool__(self):
        return self._surface is not None

    def _on_create(self, _channel, _format, width, height, stride, _shmid, data):
        self._surface = (width, height, stride, data)

    def _on_destroy(self, _channel):
        self._surface = None

    def monitors(self):
        """Id, x, y, width and height of each; the binding does not know the property's type."""
        get = ctypes.CDLL("libgobject-2.0.so.0").g_object_get
        array = ctypes.POINTER(_Array)()
        get(ctypes.c_void_p(hash(self._channel)), b"monitors", ctypes.byref(array), ctypes.c_void_p())
        if not array:
            return []
        # Of SpiceDisplayMonitorConfig: id, surface, x, y, width, height.
        fields = [array.contents.data[6 * at : 6 * at + 6] for at in range(array.contents.length)]
        return [[head, *area] for head, _surface, *area in fields]

    def save(self, path):
        """Writes a PPM."""
        width, height, stride, data = self._surface
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
