"""Reads the pictures that probes send as a model would, by their pixels: 8-bit RGB without filters, as we write."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """A decoded picture: `rows` of 3 × `width` bytes."""

    width: int
    height: int
    rows: tuple[bytes, ...]

    @classmethod
    def of(cls, png: bytes) -> Pixels:
        """Raises AssertionError when it is not a PNG that every decoder reads."""
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        width, height, content, at = 0, 0, b"", 8
        while at < len(png):
            (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
            data = png[at + 8 : at + 8 + length]
            (sum_,) = struct.unpack(">I", png[at + 8 + length : at + 12 + length])
            assert zlib.crc32(kind + data) == sum_
            if kind == b"IHDR":
                width, height, *rest = struct.unpack(">IIBBBBB", data)
                assert rest == [8, 2, 0, 0, 0], "8 bits, RGB, not interlaced"
            elif kind == b"IDAT":
                content += data
            at += 12 + length
        raw, stride = zlib.decompress(content), 3 * width + 1
        assert len(raw) == stride * height
        lines = [raw[start : start + stride] for start in range(0, len(raw), stride)]
        assert {line[0] for line in lines} == {0}, "no filter"
        return cls(width=width, height=height, rows=tuple(line[1:] for line in lines))

    def middle_of(self, colour: Rgb) -> tuple[int, int]:
        """The middle of the one rectangle of this colour, in pixels."""
        wanted = bytes(colour)
        lines = [y for y, row in enumerate(self.rows) if row.find(wanted * 2) >= 0]
        row = self.rows[lines[0]]
        left = row.find(wanted * 2) // 3
        right = row.rfind(wanted) // 3 + 1
        assert all(self.rows[y][3 * left : 3 * right] == wanted * (right - left) for y in lines), "one rectangle"
        return (left + right) // 2, (lines[0] + lines[-1] + 1) // 2
