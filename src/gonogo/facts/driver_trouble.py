"""Which trouble the words of a GPU driver's tool mean. An order of patterns; the words themselves are always kept."""

from __future__ import annotations

import re

NO_TOOL, SILENT, UNREADABLE, CLOSED = "no_tool", "silent", "unreadable", "closed"
"""closed: the driver runs and finds no device, although the PCI bus has one."""
LONGEST_WORDS = 240
_KINDS = (
    ("library_mismatch", r"Driver/library version mismatch"),
    ("not_running", r"couldn't communicate with the NVIDIA driver"),
    ("no_permission", r"Insufficient Permissions"),
    ("library_missing", r"couldn't find libnvidia-ml"),
    ("lost", r"Unable to determine the device handle|GPU is lost|fallen off the bus"),
    ("not_initialised", r"Failed to initialize NVML"),
)
KINDS = (NO_TOOL, SILENT, UNREADABLE, CLOSED, *(kind for kind, _ in _KINDS))


def trouble_of(text: str) -> str:
    """The kind of trouble in what the tool printed instead of readings; `unreadable` when it is none that is known."""
    return next((kind for kind, pattern in _KINDS if re.search(pattern, text, re.IGNORECASE)), UNREADABLE)


def words_of(text: str) -> str:
    """What the tool said, on one line and cut to a length that fits a finding."""
    if text.lstrip().startswith("<?xml"):
        return f"an answer of {len(text)} characters that is cut off or no XML"
    told = " ".join(re.sub(r"[\x00-\x1f\x7f]+", " ", text).split())
    return told[:LONGEST_WORDS] or "it printed nothing"
