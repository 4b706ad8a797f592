"""Files as they are kept: sealed piece by piece, so that one of any size is written and read in little memory.

A file is a row of records: four bytes of length, then a sealed piece. Each piece is bound to the file's id, its place
and whether it is the last, so that a cut, swapped or lengthened file does not read. Not here: whose it is (`files`).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Iterator

from gonogo.security.keyring import Keyring
from gonogo.security.sealing import OVERHEAD_BYTES, Truncated, place

PIECE_BYTES = 256 * 1024
_LENGTH = struct.Struct(">I")
_UNFINISHED = ".part"


class Vault:
    """The folder of the files' contents. Raises OSError, `KeyFileError`, and `SealError` for what does not read."""

    def __init__(self, folder: Path, keyring: Keyring) -> None:
        self._folder, self._keyring = folder, keyring
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, file_id: str) -> Writing:
        """A new file; it is there after `Writing.finish`, whole and on the disk, or not at all."""
        return Writing(self._folder / file_id, file_id, self._keyring)

    def read(self, file_id: str) -> Iterator[bytes]:
        """The content, piece by piece. A file that was cut says so before its last piece."""
        with open(self._folder / file_id, "rb") as file:
            number, record = 0, _record(file)
            while record is not None:
                following = _record(file)
                yield self._keyring.open(record, _bound(file_id, number, following is None))
                number, record = number + 1, following
        if number == 0:
            raise Truncated("a kept file has no content at all: its end was lost")

    def remove(self, file_id: str) -> None:
        (self._folder / file_id).unlink(missing_ok=True)

    def sweep(self, known: frozenset[str], older_than: float) -> int:
        """Remove what no row knows and what was never finished, if it is older (Unix seconds); how many."""
        removed = 0
        for path in self._folder.iterdir():
            if path.name not in known and path.stat().st_mtime < older_than:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


class Writing:
    """A file that is being written. As a context, what was not finished is removed at its end."""

    def __init__(self, path: Path, file_id: str, keyring: Keyring) -> None:
        self._path, self._file_id, self._keyring = path, file_id, keyring
        self._part = path.with_name(path.name + _UNFINISHED)
        descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._file = open(descriptor, "wb")  # noqa: SIM115 (it is closed by `finish` or at the context's end)
        self._held = bytearray()
        self._number = 0
        self.bytes = 0

    def __enter__(self) -> Writing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def add(self, data: bytes) -> None:
        self.bytes += len(data)
        self._held += data
        while len(self._held) > PIECE_BYTES:  # the last piece is only known as such at the end
            self._put(bytes(self._held[:PIECE_BYTES]), last=False)
            del self._held[:PIECE_BYTES]

    def finish(self) -> None:
        """The file is whole, and survives a power cut."""
        self._put(bytes(self._held), last=True)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def _put(self, piece: bytes, *, last: bool) -> None:
        sealed = self._keyring.seal(piece, _bound(self._file_id, self._number, last))
        self._file.write(_LENGTH.pack(len(sealed)) + sealed)
        self._number += 1


def lines(pieces: Iterator[bytes], longest: int) -> Iterator[bytes | None]:
    """The lines of a file without their ends; None for one that is longer than `longest` bytes."""
    held, dropping = bytearray(), False
    for piece in pieces:
        begin = 0
        while (found := piece.find(b"\n", begin)) >= 0:
            held += piece[begin:found]
            yield None if dropping or len(held) > longest else bytes(held)
            held.clear()
            begin, dropping = found + 1, False
        held += piece[begin:]
        if len(held) > longest:
            held.clear()
            dropping = True
    if held or dropping:
        yield None if dropping else bytes(held)


def _record(file: BinaryIO) -> bytes | None:
    head = file.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise Truncated("a kept file is cut off between two of its pieces")
    (length,) = _LENGTH.unpack(head)
    if length > PIECE_BYTES + OVERHEAD_BYTES:
        raise Truncated("a kept file is damaged: a piece of it claims to be larger than any")
    record = file.read(length)
    if len(record) < length:
        raise Truncated("a kept file is cut off within one of its pieces")
    return record


def _bound(file_id: str, number: int, last: bool) -> bytes:
    return place("files", file_id, f"{number}{'.last' if last else ''}")
