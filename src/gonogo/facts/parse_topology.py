"""Reads `nvidia-smi topo -m`: how each pair of GPUs is joined. Network cards and affinities in it are left out."""

from __future__ import annotations

import re

from gonogo.facts.accelerator import AcceleratorLink

COMMAND = ("nvidia-smi", "topo", "-m")
PATHS = frozenset(["PIX", "PXB", "PHB", "NODE", "SYS", "SOC"])
NVLINK = "NVLink"
MOST_ACCELERATORS = 64
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def parse_topology(text: str) -> tuple[AcceleratorLink, ...] | None:
    """One link per pair, the lower index first; None when it is no matrix. (): a single GPU is joined to nobody."""
    rows = [_ESCAPES.sub("", line).split() for line in text.splitlines()[: 4 * MOST_ACCELERATORS]]
    header = next((row for row in rows if row[:1] == ["GPU0"] and "X" not in row), None)
    if header is None:
        return None
    columns = [int(word[3:]) for word in header if re.fullmatch(r"GPU\d{1,2}", word)]
    links = []
    for row in rows:
        if not row or not re.fullmatch(r"GPU\d{1,2}", row[0]) or row is header:
            continue
        first, cells = int(row[0][3:]), row[1 : len(columns) + 1]
        for second, cell in zip(columns, cells, strict=False):
            link = _link(first, second, cell)
            if link is not None and first < second:
                links.append(link)
    return tuple(links) if links or len(columns) == 1 else None


def _link(first: int, second: int, cell: str) -> AcceleratorLink | None:
    bonded = re.fullmatch(r"NV(\d{1,3})", cell)
    if bonded:
        return AcceleratorLink(first=first, second=second, kind=NVLINK, nvlinks=int(bonded.group(1)))
    return AcceleratorLink(first=first, second=second, kind=cell) if cell in PATHS else None
