"""Reads the header of a GGUF file: metadata and the table of tensors, never the weights. Pure: bytes come in by `read`.

Written for files from strangers: every count and length is held against a limit and against the file's size before
anything is kept, so that a damaged header costs neither memory nor time. Long arrays (the vocabulary) are counted,
not kept. What llama.cpp refuses is refused here too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Callable, Mapping, Union

from gonogo.facts.model import ModelProblem, Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_KEYS, MOST_TENSORS, MOST_ELEMENTS = 65_536, 65_536, 16_777_216
LONGEST_NAME, LONGEST_TEXT, LONGEST_KEPT_ARRAY = 1024, 4_194_304, 4096
MOST_DIMENSIONS, DEFAULT_ALIGNMENT, LARGEST_ALIGNMENT = 4, 32, 65_536
LARGEST_SIZE = 1 << 62
WINDOW_BYTES = 1 << 18
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

Scalar = Union[str, int, float, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One GGML type: so many elements of a row are stored in a block of so many bytes."""

    name: str
    block_elements: int
    block_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """An array of the metadata: its length, and its numbers when there are at most 4096."""

    length: int
    numbers: tuple[Union[int, float, bool], ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """All that precedes the weights. `data_start`: where they begin, in bytes."""

    metadata: Mapping[str, Union[Scalar, Array]]
    tensors: tuple[Tensor, ...]
    data_start: int


class GgufError(Exception):
    """The file cannot be used; `problem` says why."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.problem = ModelProblem(kind=kind, detail=detail)


def parse_gguf(read: Callable[[int, int], bytes], file_bytes: int, kinds: Mapping[int, Kind]) -> Header:
    """The header of a file of `file_bytes`; `read(offset, count)` gives its bytes. Raises GgufError, nothing else."""
    cursor = _Cursor(read, file_bytes)
    if file_bytes == 0:
        raise GgufError("truncated", "the file is empty")
    magic = cursor.take(min(4, file_bytes))
    if magic != MAGIC[: len(magic)]:
        raise GgufError("not_gguf", f"it begins with {magic!r}, not with {MAGIC!r}")
    version = cursor.number("I")
    if version not in VERSIONS:
        big_endian = struct.unpack(">I", struct.pack("<I", version))[0] in VERSIONS
        raise GgufError("corrupt", "it is big-endian" if big_endian else f"GGUF version {version}, not 2 or 3")
    tensor_count = cursor.count("Q", MOST_TENSORS, "tensors")
    key_count = cursor.count("Q", MOST_KEYS, "metadata keys")
    metadata = _metadata(cursor, key_count)
    return _tensors(cursor, tensor_count, metadata, kinds)


class _Cursor:
    """Reads on through the file in windows; never past its end."""

    def __init__(self, read: Callable[[int, int], bytes], file_bytes: int) -> None:
        self._read, self.end = read, file_bytes
        self.position, self._base, self._window = 0, 0, b""

    def take(self, count: int) -> bytes:
        start = self.position - self._base
        if start < 0 or start + count > len(self._window):
            self._fill(count)
            start = 0
        self.position += count
        return self._window[start : start + count]

    def skip(self, count: int) -> None:
        if count > self.end - self.position:
            self._too_short(count)
        self.position += count

    def number(self, code: str) -> int:
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def count(self, code: str, limit: int, what: str) -> int:
        value = self.number(code)
        if value > limit:
            raise GgufError("corrupt", f"{value} {what} at byte {self.position}, at most {limit} are possible")
        return value

    def text(self, limit: int, what: str) -> str:
        return self.take(self.count("Q", limit, f"bytes of {what}")).decode("utf-8", "replace")

    def _fill(self, count: int) -> None:
        if count > self.end - self.position:
            self._too_short(count)
        wanted = min(max(count, WINDOW_BYTES), self.end - self.position)
        self._base, self._window = self.position, self._read(self.position, wanted)
        if len(self._window) < count:  # the file shrank while it was read
            self._too_short(count)

    def _too_short(self, count: int) -> None:
        raise GgufError("truncated", f"the header needs {self.position + count} bytes, the file has {self.end}")


def _metadata(cursor: _Cursor, count: int) -> Mapping[str, Union[Scalar, Array]]:
    metadata: dict[str, Union[Scalar, Array]] = {}
    for _ in range(count):
        name = cursor.text(LONGEST_NAME, "a metadata key")
        if name in metadata:
            raise GgufError("corrupt", f"the metadata key {name!r} comes twice")
        kind = cursor.number("I")
        if kind == _STRING:
            metadata[name] = cursor.text(LONGEST_TEXT, f"the value of {name!r}")
        elif kind == _ARRAY:
            metadata[name] = _array(cursor, name)
        else:
            metadata[name] = _scalars(cursor, kind, 1, name)[0]
    return metadata


def _array(cursor: _Cursor, name: str) -> Array:
    kind = cursor.number("I")
    length = cursor.count("Q", MOST_ELEMENTS, f"elements of {name!r}")
    if kind == _STRING:
        for _ in range(length):
            cursor.skip(cursor.count("Q", LONGEST_TEXT, f"bytes of an element of {name!r}"))
        return Array(length=length, numbers=None)
    if length <= LONGEST_KEPT_ARRAY:
        return Array(length=length, numbers=_scalars(cursor, kind, length, name))
    cursor.skip(struct.calcsize("<" + _code(kind, name)) * length)
    return Array(length=length, numbers=None)


def _scalars(cursor: _Cursor, kind: int, count: int, name: str) -> tuple[Union[int, float, bool], ...]:
    form = f"<{count}{_code(kind, name)}"
    return struct.unpack(form, cursor.take(struct.calcsize(form)))


def _code(kind: int, name: str) -> str:
    code = _SCALARS.get(kind)
    if code is None:
        raise GgufError("corrupt", f"the metadata key {name!r} has the unknown type {kind}")
    return code


def _tensors(
    cursor: _Cursor, count: int, metadata: Mapping[str, Union[Scalar, Array]], kinds: Mapping[int, Kind]
) -> Header:
    alignment = _alignment(metadata)
    tensors: list[Tensor] = []
    names: set[str] = set()
    expected = 0
    for _ in range(count):
        tensor, offset = _tensor(cursor, kinds)
        if tensor.name in names:
            raise GgufError("corrupt", f"the tensor {tensor.name!r} comes twice")
        if offset != expected:
            raise GgufError("corrupt", f"the tensor {tensor.name!r} lies at {offset}, expected at {expected}")
        names.add(tensor.name)
        tensors.append(tensor)
        expected = _aligned(offset + tensor.size_bytes, alignment)
    data_start = _aligned(cursor.position, alignment)
    needed = data_start + offset + tensors[-1].size_bytes if tensors else cursor.position
    if needed > cursor.end:
        raise GgufError("truncated", f"its tensors need {needed} bytes, the file has {cursor.end}")
    return Header(metadata=metadata, tensors=tuple(tensors), data_start=data_start)


def _tensor(cursor: _Cursor, kinds: Mapping[int, Kind]) -> tuple[Tensor, int]:
    """One line of the table of tensors, and where its data begins in bytes after the header."""
    name = cursor.text(LONGEST_NAME, "a tensor's name")
    dimensions = cursor.count("I", MOST_DIMENSIONS, f"dimensions of the tensor {name!r}")
    shape = tuple(cursor.number("Q") for _ in range(dimensions)) or (1,)
    number, offset = cursor.number("I"), cursor.number("Q")
    kind = kinds.get(number)
    if kind is None:
        raise GgufError("corrupt", f"the tensor {name!r} has the unknown type {number}")
    elements = 1
    for length in shape:
        elements *= length
        if not 0 < elements < LARGEST_SIZE:
            raise GgufError("corrupt", f"the tensor {name!r} has the impossible shape {list(shape)}")
    if shape[0] % kind.block_elements:
        raise GgufError("corrupt", f"a row of the tensor {name!r} is no whole number of {kind.name} blocks")
    size = elements // kind.block_elements * kind.block_bytes
    return Tensor(name=name, shape=shape, kind=kind.name, size_bytes=size), offset


def _alignment(metadata: Mapping[str, Union[Scalar, Array]]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or not 0 < value <= LARGEST_ALIGNMENT or value & (value - 1):
        raise GgufError("corrupt", f"general.alignment is {value!r}")
    return value


def _aligned(number: int, alignment: int) -> int:
    return -(-number // alignment) * alignment
