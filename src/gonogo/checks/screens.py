"""The test pictures that probes send: a plain screen with one red square, drawn here so that nothing is shipped. Pure.

Where the square is follows from the picture's name and size alone, so that an answer can be held against it later.
Other shapes in other colours stand beside it: a model that taps anything at all must not pass by chance.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

from gonogo.spec.recipe_probes import Picture

Rgb = tuple[int, int, int]
RED: Rgb = (230, 0, 18)
BACKGROUND: Rgb = (242, 243, 245)
BAR: Rgb = (38, 50, 56)
OTHERS: tuple[Rgb, ...] = ((25, 118, 210), (46, 125, 50), (117, 117, 117), (251, 192, 45))
COLUMNS, ROWS = 3, 4
NOISE_BYTES = 900_000
"""With so much of it in a screen of 1440x3200 a request has 1.3 MB, as Open-AutoGLM's with real screenshots have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """A picture as PNG, and where the middle of its red square is, in pixels from the upper left corner."""

    png: bytes
    x: int
    y: int

    @property
    def data_url(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    left: int
    top: int
    right: int
    bottom: int
    colour: Rgb


def draw(picture: Picture, name: str, *, as_large_as_real: bool = False) -> Screen:
    """The screen of this name. Equal arguments, equal bytes.

    `as_large_as_real`: a part of it is noise, as a photograph on a real screen nearly is, so that the file is as large
    as a real screenshot and what bounds a request's size is tried too; a plain screen has only a few kilobytes.
    """
    dice = hashlib.sha256(f"{name} {picture.width}x{picture.height}".encode()).digest()
    cells = sorted(range(COLUMNS * ROWS), key=lambda cell: (dice[cell], cell))
    boxes = [_box(picture, cell, dice[12 + 2 * place], dice[13 + 2 * place]) for place, cell in enumerate(cells[:5])]
    shapes = [_coloured(box, colour) for box, colour in zip(boxes, (RED, *OTHERS), strict=True)]
    bar = _Box(left=0, top=0, right=picture.width, bottom=max(1, picture.height // 40), colour=BAR)
    rows = _rows(picture, (bar, *shapes))
    if as_large_as_real:
        rows = _with_noise(rows, picture, dice)
    red = shapes[0]
    return Screen(png=_png(picture, rows), x=(red.left + red.right) // 2, y=(red.top + red.bottom) // 2)


def _box(picture: Picture, cell: int, right: int, down: int) -> tuple[int, int, int]:
    """(left, top, side) of a square in this cell of the grid; `right` and `down`, 0 to 255, move it inside of it."""
    top = picture.height // 20
    wide, high = picture.width // COLUMNS, (picture.height - top) // ROWS
    side = max(1, min(wide, high) // 3)
    left = (cell % COLUMNS) * wide + max(0, wide - side) * right // 255
    return left, top + (cell // COLUMNS) * high + max(0, high - side) * down // 255, side


def _coloured(box: tuple[int, int, int], colour: Rgb) -> _Box:
    left, top, side = box
    return _Box(left=left, top=top, right=left + side, bottom=top + side, colour=colour)


def _rows(picture: Picture, boxes: tuple[_Box, ...]) -> bytes:
    """All rows, each with its filter byte. Rows between two edges are the same, so each is made once."""
    edges = sorted({0, picture.height, *(edge for box in boxes for edge in (box.top, box.bottom))})
    made = []
    for begin, end in pairwise(edges):
        row = bytearray(bytes(BACKGROUND) * picture.width)
        for box in boxes:
            if box.top <= begin < box.bottom:
                row[3 * box.left : 3 * box.right] = bytes(box.colour) * (box.right - box.left)
        made.append((b"\x00" + bytes(row)) * (end - begin))
    return b"".join(made)


def _with_noise(rows: bytes, picture: Picture, dice: bytes) -> bytes:
    """The last rows are noise, but not more than the lower eighth of the picture."""
    width = 3 * picture.width
    count = min(NOISE_BYTES // width, picture.height // 8)
    noise = hashlib.shake_256(dice).digest(count * width)
    noisy = b"".join(b"\x00" + noise[at : at + width] for at in range(0, len(noise), width))
    return rows[: len(rows) - len(noisy)] + noisy


def _png(picture: Picture, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
