"""A file system of its own, in memory and as small as a test wants it. Where nothing may be mounted, the test skips."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Iterator

import pytest


@contextlib.contextmanager
def small_disk(place: Path, size: int | str) -> Iterator[Path]:
    """`place` is made, and is the disk inside the block. `size`: in bytes, or as `mount` writes it (`2m`)."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "gonogo-test", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system needs mount permission: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
