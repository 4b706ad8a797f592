"""One file while it is fetched, in pieces and in any order: a kill at any moment loses nothing that was written.

`NAME.part` has the file's full length from the start (holes where nothing was fetched yet); `NAME.done` says how far
each segment is: a head that names the content, then 8 bytes a segment. Bytes are written before they are counted. After
a power cut the count may be ahead of the bytes; the hash of the whole file finds that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
from pathlib import Path

from gonogo.facts.checkpoint import RepoFile

SEGMENT_BYTES = 256 * 1024**2
_HEAD = struct.Struct("<8s32sQQ")
_MAGIC = b"gonogo01"
_COUNT = struct.Struct("<Q")
_READ_BYTES = 8 * 1024**2


def identity_of(file: RepoFile, commit: str) -> bytes:
    """What tells one content from another: its hash, else the commit and name under which it lies."""
    if file.sha256 is not None:
        return bytes.fromhex(file.sha256)
    return hashlib.sha256(f"{commit}\0{file.name}\0{file.git_sha1}".encode()).digest()


class PartFile:
    """A file of `size_bytes` that is being fetched into `folder`. Close it. Raises OSError."""

    def __init__(self, folder: Path, name: str, size_bytes: int, identity: bytes, segment_bytes: int) -> None:
        self.path, self._counts_path = part_path(folder, name), counts_path(folder, name)
        self.size_bytes, self._segment_bytes = size_bytes, segment_bytes
        self._head = _HEAD.pack(_MAGIC, identity, size_bytes, segment_bytes)
        self._lock, begun = threading.Lock(), _counts(folder, name, self._head)
        if begun is None:  # counts of bytes that are not there must not outlive the next line
            self._counts_path.unlink(missing_ok=True)
        self._counts = begun or [0] * _segments(size_bytes, segment_bytes)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            self._data = _opened(self.path, opened)
            self._record = _opened(self._counts_path, opened)
            os.ftruncate(self._data, size_bytes)
            self._record_all()
            self._open = opened.pop_all()

    def close(self) -> None:
        self._open.close()

    @property
    def done_bytes(self) -> int:
        with self._lock:
            return sum(self._counts)

    @property
    def whole(self) -> bool:
        return self.done_bytes == self.size_bytes

    def missing(self, segment: int) -> tuple[int, int] | None:
        """First and last byte that the segment lacks; None: it lacks none."""
        end = min((segment + 1) * self._segment_bytes, self.size_bytes)
        first = segment * self._segment_bytes + self._counts[segment]
        return (first, end - 1) if first < end else None

    def write(self, segment: int, piece: bytes | memoryview) -> int:
        """The next bytes of a segment; what goes beyond it is left out. How many were written."""
        lacks = self.missing(segment)
        if lacks is None:
            return 0
        first, last = lacks
        room = memoryview(piece)[: last + 1 - first]
        _write_at(self._data, room, first)
        with self._lock:
            self._counts[segment] += len(room)
            _write_at(self._record, _COUNT.pack(self._counts[segment]), _HEAD.size + segment * _COUNT.size)
        return len(room)

    def forget(self) -> int:
        """Nothing of it counts as fetched any more. How many bytes did."""
        with self._lock:
            lost = sum(self._counts)
            self._counts = [0] * len(self._counts)
            self._record_all()
        return lost

    def keep(self, place: Path) -> None:
        """Move the whole file into place; it is on the disk then."""
        os.fsync(self._data)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.replace(self.path, place)

    def _record_all(self) -> None:
        told = self._head + b"".join(_COUNT.pack(count) for count in self._counts)
        os.ftruncate(self._record, len(told))
        _write_at(self._record, told, 0)


def part_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.part"


def counts_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.done"


def kept_bytes(folder: Path, name: str, identity: bytes) -> int:
    """How many bytes of this content are kept there as a part."""
    told = _read(counts_path(folder, name))
    if len(told) < _HEAD.size:
        return 0
    magic, named, size_bytes, segment_bytes = _HEAD.unpack_from(told)
    head = _HEAD.pack(_MAGIC, identity, size_bytes, segment_bytes)
    return sum(_counts(folder, name, head) or ()) if (magic, named) == (_MAGIC, identity) else 0


def segment_bytes_of(folder: Path, name: str, identity: bytes, otherwise: int) -> int:
    """How large the segments are of which this part was begun: another size would lose what is kept."""
    told = _read(counts_path(folder, name))
    if not told.startswith(_MAGIC + identity) or len(told) < _HEAD.size:
        return otherwise
    begun: int = _HEAD.unpack_from(told)[3]
    return begun if begun > 0 else otherwise


def recorded_identity(folder: Path, name: str) -> bytes | None:
    """Which content the counts of a part are of; they stay when the part is whole and was moved into place."""
    told = _read(counts_path(folder, name))
    return _HEAD.unpack_from(told)[1] if len(told) >= _HEAD.size and told.startswith(_MAGIC) else None


def wrong_content(path: Path, file: RepoFile) -> str | None:
    """Why this is not the file that the hub has on record, in words; None: it is, as far as the hub says."""
    found = path.stat().st_size
    if found != file.size_bytes:
        return f"{found} bytes instead of {file.size_bytes}"
    if file.sha256 is not None:
        digest = _digest(path, hashlib.sha256())
        return None if digest == file.sha256 else f"its SHA-256 is {digest[:12]}…, on record is {file.sha256[:12]}…"
    if file.git_sha1 is not None:
        named = hashlib.sha1(f"blob {found}\0".encode(), usedforsecurity=False)
        digest = _digest(path, named)
        return None if digest == file.git_sha1 else f"git names it {digest[:12]}…, on record is {file.git_sha1[:12]}…"
    return None


def _opened(path: Path, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def _counts(folder: Path, name: str, head: bytes) -> list[int] | None:
    """How far each segment is; None: nothing that can be gone on with."""
    told = _read(counts_path(folder, name))
    _, _, size_bytes, segment_bytes = _HEAD.unpack(head)
    segments = _segments(size_bytes, segment_bytes) if segment_bytes else 0
    try:
        there = part_path(folder, name).stat().st_size
    except OSError:
        return None
    if there != size_bytes or not told.startswith(head) or len(told) != _HEAD.size + segments * _COUNT.size:
        return None
    counts = [count for (count,) in _COUNT.iter_unpack(told[_HEAD.size :])]
    whole = all(
        count <= min(segment_bytes, size_bytes - at * segment_bytes) for at, count in enumerate(counts)
    )  # fmt: skip
    return counts if whole else None


def _segments(size_bytes: int, segment_bytes: int) -> int:
    return max(1, -(-size_bytes // segment_bytes))


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
