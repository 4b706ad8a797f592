"""One record of a process that watches others, on its standard error, which is a log file. Standard library only."""

from __future__ import annotations

import sys
import time
from contextlib import suppress


def tell(text: str) -> None:
    """Write it with the time. On a full disk the record is lost, and not the process that wrote it."""
    with suppress(OSError):
        print(f"{time.strftime('%FT%TZ', time.gmtime())} {text}", file=sys.stderr, flush=True)
