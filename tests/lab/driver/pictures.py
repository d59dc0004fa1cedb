"""What a screen shows, from whoever has looked at it."""

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    width: int
    height: int
    # A red, a green and a blue byte for each pixel, rows from the top.
    rgb: bytes

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def from_ppm(cls, ppm: bytes) -> "Picture":
        _, size, _, rgb = ppm.split(b"\n", 3)
        width, height = map(int, size.split())
        return cls(width, height, rgb)

    @classmethod
    def from_png(cls, png: bytes) -> "Picture":
        command = ["convert", "png:-", "-alpha", "off", "-depth", "8", "ppm:-"]
        return cls.from_ppm(subprocess.run(command, input=png, capture_output=True, check=True).stdout)

    @classmethod
    def from_bgrx(cls, width: int, height: int, stride: int, data: bytes) -> "Picture":
        """Four bytes a pixel, blue first, and `stride` bytes from row to row."""
        if len(data) < stride * height:
            raise ValueError(f"{len(data)} bytes for {height} rows of {stride}")
        rows = b"".join(data[y * stride : y * stride + width * 4] for y in range(height))
        rgb = bytearray(width * height * 3)
        for channel in range(3):
            rgb[channel::3] = rows[2 - channel :: 4]
        return cls(width, height, bytes(rgb))

    @classmethod
    def from_xwd(cls, dump: bytes) -> "Picture":
        """The format of xwd(1), XWDFile.h: 25 big-endian words, a name, the colours, the pixels."""
        words = struct.unpack_from(">25I", dump)
        header, width, height, order = words[0], words[4], words[5], words[7]
        bits, stride, colours = words[11], words[12], words[19]
        if (order, bits) != (0, 32):
            raise ValueError(f"a dump with {bits} bits a pixel and byte order {order}")
        return cls.from_bgrx(width, height, stride, dump[header + 12 * colours :])

    def crop(self, x: int, y: int, width: int, height: int) -> "Picture":
        if x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise ValueError(f"no {width}x{height}+{x}+{y} in {self.size}")
        rows = ((y + row) * self.width + x for row in range(height))
        return Picture(width, height, b"".join(self.rgb[at * 3 : (at + width) * 3] for at in rows))

    def difference(self, other: "Picture") -> str | None:
        """In how many pixels they differ, and where; nothing if they are the same."""
        if self == other:
            return None
        if self.size != other.size:
            return f"{self.size} and {other.size} pixels"
        at = [i // 3 for i in range(0, len(self.rgb), 3) if self.rgb[i : i + 3] != other.rgb[i : i + 3]]
        xs, ys = [place % self.width for place in at], [place // self.width for place in at]
        return f"{len(at)} pixels differ, within {min(xs)},{min(ys)} to {max(xs)},{max(ys)}"

    def save(self, path: Path) -> None:
        path.write_bytes(b"P6\n%d %d\n255\n" % (self.width, self.height) + self.rgb)
