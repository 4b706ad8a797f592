"""Measures reads from one storage tier with a file that has no name: whatever happens, nothing of it stays.

Prints one JSON object per line, as `measure_cpu` does. The page cache is kept out by O_DIRECT; where the file system
refuses that, written pages are dropped before reading (`dropped`); a file system in memory is called what it is.
Below a virtual disk the host may still cache: nobody inside can see or prevent that.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import mmap
import os
import random
import struct
import sys
import tempfile
import time
from typing import Sequence

MIB = 1024**2
BLOCK_BYTES, PAGE_BYTES = 8 * MIB, 4096
SMALLEST_FILE_BYTES = 64 * MIB
KEPT_FREE_BYTES = 512 * MIB
"""So much stays free whatever happens: a measurement must not fill a disk that others use."""
IN_MEMORY = ("tmpfs", "ramfs")
READERS = 16


class TooLittleSpace(Exception):
    """Measuring here would fill the disk."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure for about five times `--seconds` at most. Returns 0, or 1 with a `{"problem": …}` line."""
    options = _parse(arguments)
    try:
        result = _measure(options)
    except TooLittleSpace as error:
        _say(problem=f"too little space: {error}")
        return 1
    except OSError as error:
        _say(problem=f"{options.path}: {error.strerror}")
        return 1
    _say(result=result)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gonogo.runners.measure_storage", description=__doc__)
    parser.add_argument("--path", required=True, help="a directory that exists")
    parser.add_argument("--kind", default="", help="kind of its file system")
    parser.add_argument("--bytes", type=int, default=1024 * MIB, help="size of the file at most")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement; writing may take twice that")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace) -> dict[str, object]:
    size = _size(options.path, options.bytes)
    with tempfile.TemporaryFile(dir=options.path, prefix=".gonogo-measure-", buffering=0) as file:
        handle = file.fileno()
        _say(step="write")
        written, write_speed = _write(handle, size, 2 * options.seconds)
        cache = _keep_cache_out(handle, options.kind)
        _say(step="sequential")
        sequential = _sequential(handle, written, options.seconds)
        _say(step="random")
        _drop(handle)
        count, took = _random(handle, written, options.seconds, seed=1)
        _drop(handle)
        many, together = _random_together(handle, written, options.seconds)
    return {
        "cache": cache,
        "file_bytes": written,
        "write_bytes_per_s": write_speed,
        "sequential_bytes_per_s": sequential,
        "random_reads_per_s": many / together,
        "readers": READERS,
        "read_latency_s": took / count,
    }


def _size(path: str, wanted: int) -> int:
    """What may be written here: as much as is wanted, or half of what is free beyond the reserve."""
    seen = os.statvfs(path)
    free = seen.f_bavail * seen.f_frsize
    size = min(wanted, (free - KEPT_FREE_BYTES) // 2) // BLOCK_BYTES * BLOCK_BYTES
    if size < SMALLEST_FILE_BYTES:
        needed = (KEPT_FREE_BYTES + 2 * SMALLEST_FILE_BYTES) // MIB
        raise TooLittleSpace(f"{free // MIB} MiB free at {path}, {needed} MiB needed")
    return size


def _write(handle: int, size: int, seconds: float) -> tuple[int, float]:
    """Random bytes, which no file system compresses away; until the size is reached or the time is over."""
    block = bytearray(os.urandom(BLOCK_BYTES))
    began, written = time.perf_counter(), 0
    while written < size and (written < SMALLEST_FILE_BYTES or time.perf_counter() - began < seconds):
        block[:8] = struct.pack("<Q", written)
        view = memoryview(block)
        while view:
            done = os.write(handle, view)
            view, written = view[done:], written + done
    os.fsync(handle)
    return written // BLOCK_BYTES * BLOCK_BYTES, written / (time.perf_counter() - began)


def _keep_cache_out(handle: int, kind: str) -> str:
    if kind in IN_MEMORY:
        return "in_memory"
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_DIRECT)
        _read_at(handle, _buffer(PAGE_BYTES), 0)
    except OSError:
        flags = fcntl.fcntl(handle, fcntl.F_GETFL) & ~os.O_DIRECT
        fcntl.fcntl(handle, fcntl.F_SETFL, flags)
        _drop(handle)
        return "dropped"
    return "direct"


def _drop(handle: int) -> None:
    """Pages of this file leave the cache; where they were never in it, this does nothing."""
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _sequential(handle: int, size: int, seconds: float) -> float:
    """Bytes per second, 8 MiB at a time from the start; a file that is read to its end in time is not read twice."""
    buffer, place = _buffer(BLOCK_BYTES), 0
    began = time.perf_counter()
    while place < size and (place == 0 or time.perf_counter() - began < seconds):
        place += _read_at(handle, buffer, place)
    return place / (time.perf_counter() - began)


def _random(handle: int, size: int, seconds: float, seed: int) -> tuple[int, float]:
    """How many pages were read one after the other at random places, and how long that took."""
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
    buffer, pages, choose = _buffer(PAGE_BYTES), size // PAGE_BYTES, random.Random(seed)  # noqa: S311 (places)
    began, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - began < seconds:
        _read_at(handle, buffer, choose.randrange(pages) * PAGE_BYTES)
        count += 1
    return count, time.perf_counter() - began


def _random_together(handle: int, size: int, seconds: float) -> tuple[int, float]:
    """The same by many processes at once: one interpreter alone could not ask a fast disk for enough."""
    reading, writing = os.pipe()
    children = []
    for seed in range(READERS):
        child = os.fork()
        if child == 0:
            count, took = _random(handle, size, seconds, seed + 2)
            os.write(writing, struct.pack("<Qd", count, took))
            os._exit(0)
        children.append(child)
    os.close(writing)
    for child in children:
        os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as results:
        counted = list(struct.iter_unpack("<Qd", results.read()))
    return sum(count for count, _ in counted), max(took for _, took in counted)


def _buffer(size: int) -> memoryview:
    """Memory that begins at a page, as O_DIRECT demands."""
    return memoryview(mmap.mmap(-1, size))


def _read_at(handle: int, buffer: memoryview, place: int) -> int:
    got = os.preadv(handle, [buffer], place)
    if got == 0:
        raise OSError(5, f"nothing could be read at {place}")
    return got


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
