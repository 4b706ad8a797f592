"""What engines printed here, kept for later plans: a small file in the state directory, by engine, version and card."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from gonogo.engines.serving import Corrections

FILE, LARGEST_BYTES = "lessons.json", 1_000_000
MOST_ENTRIES = 500
LARGEST_SIZE, LARGEST_FACTOR = 1 << 40, 100.0


def lessons(state_dir: Path) -> dict[str, Corrections]:
    """All that is kept; a file that is missing or damaged is as none."""
    found: dict[str, Corrections] = {}
    for key, entry in _read(state_dir / FILE).items():
        size, factor = entry.get("non_torch_bytes"), entry.get("graphs_factor")
        whole = size is None or (isinstance(size, int) and 0 <= size < LARGEST_SIZE)
        likely = factor is None or (isinstance(factor, float) and 0 < factor < LARGEST_FACTOR)
        if whole and likely:
            found[key] = Corrections(non_torch_bytes=size, graphs_factor=factor)
    return found


def keep_lesson(state_dir: Path, key: str, learned: Corrections) -> Path:
    """Add one; the file is replaced as a whole. Raises OSError."""
    path = state_dir / FILE
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    entries = _read(path)
    entries.pop(key, None)
    entries[key] = {"non_torch_bytes": learned.non_torch_bytes, "graphs_factor": learned.graphs_factor}
    kept = dict(list(entries.items())[-MOST_ENTRIES:])
    handle, temporary = tempfile.mkstemp(dir=state_dir, prefix=".lessons-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1, ensure_ascii=False)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        entries = json.loads(content) if len(content) <= LARGEST_BYTES else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {key: entry for key, entry in entries.items() if isinstance(key, str) and isinstance(entry, dict)}
