"""A program: forks as an engine does, and says who is who. Usage: fake_family.py [MIB [left]].

A child, a grandchild, and with `left` one more whose parent is gone at once. They say their pids as one line of JSON on
standard output and wait to be ended. With MIB all of them hold that much memory together, and the child computes for a
second before anything is said.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time


def main() -> None:
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    held = mmap.mmap(-1, max(1, mib) << 20)
    held.write(b"x" * (mib << 20))
    read, write = os.pipe()
    if os.fork() == 0:
        _child(held, mib, write)
    if sys.argv[2:] == ["left"] and os.fork() == 0:
        if os.fork() == 0:
            _say(write, "left")
        os._exit(0)
    wanted = {"child", "grandchild", *sys.argv[2:]}
    found: dict[str, int] = {}
    with os.fdopen(read) as lines:
        while set(found) != wanted:
            name, pid = lines.readline().split()
            found[name] = int(pid)
    print(json.dumps({"leader": os.getpid(), **found}), flush=True)
    _wait()


def _child(held: mmap.mmap, mib: int, write: int) -> None:
    if os.fork() == 0:
        _touch(held)
        _say(write, "grandchild")
    _touch(held)
    began = time.process_time()
    while mib and time.process_time() - began < 1.0:
        pass
    _say(write, "child")


def _touch(held: mmap.mmap) -> None:
    sum(held[at] for at in range(0, len(held), mmap.PAGESIZE))


def _say(write: int, name: str) -> None:
    os.write(write, f"{name} {os.getpid()}\n".encode())
    _wait()


def _wait() -> None:
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
