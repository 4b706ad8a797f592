"""What of a model is on this disk already: its own parts, and the same content of other models and other commits.

The same content has the same SHA-256 wherever it lies: a model of which only the README changed, or that is fetched
from ModelScope after half of it came from Hugging Face, is not fetched again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator, Sequence

from gonogo.runtimes.fetch_parts import counts_path, kept_bytes, part_path, recorded_identity
from gonogo.runtimes.fetch_transfer import Wanted
from gonogo.runtimes.models import PARTS, ModelFault, ModelStore


def kept_of(store: ModelStore, name: str, wanted: Sequence[Wanted]) -> int:
    """Bytes that need not be fetched, and need no room either."""
    return sum(_kept(store, name, one) for one in wanted)


def take_over(store: ModelStore, model: str, name: str, wanted: Sequence[Wanted]) -> None:
    """Bring into the work folder what lies elsewhere in the store. Only for whoever holds the model. Raises OSError."""
    work = store.work(name)
    for one in wanted:
        place = work / one.file.name
        if place.exists() or kept_bytes(work / PARTS, one.file.name, one.identity):
            continue
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = next(_whole_elsewhere(store, one), None)
        if whole is not None:
            with contextlib.suppress(OSError):  # a file system without hard links: it is fetched
                os.link(whole, place)
            continue
        for other, owner in _begun_elsewhere(store, work):
            with contextlib.ExitStack() as held:
                if owner != model:
                    try:
                        held.enter_context(store.held(owner, limit_s=0.0))
                    except ModelFault:
                        continue
                if _moved(other, work, one):
                    break


def _kept(store: ModelStore, name: str, one: Wanted) -> int:
    size_bytes, work = one.file.size_bytes or 0, store.work(name)
    there = any((folder / one.file.name).exists() for folder in (work, store.path(name)))
    if there or next(_whole_elsewhere(store, one), None) is not None:
        return size_bytes
    folders = (work, *(other for other, _ in _begun_elsewhere(store, work)))
    return max((_begun_bytes(folder, one) for folder in folders), default=0)


def _whole_elsewhere(store: ModelStore, one: Wanted) -> Iterator[Path]:
    """Verified files of whole models with the same SHA-256."""
    if one.file.sha256 is not None:
        for model in store.all():
            yield from (model.path / file.name for file in model.files if file.sha256 == one.file.sha256)


def _begun_elsewhere(store: ModelStore, work: Path) -> Iterator[tuple[Path, str]]:
    for begun in store.unfinished():
        if store.work(begun.name) != work:
            yield store.work(begun.name), begun.model


def _begun_bytes(folder: Path, one: Wanted) -> int:
    if recorded_identity(folder / PARTS, one.file.name) != one.identity:
        return 0
    if (folder / one.file.name).exists():
        return one.file.size_bytes or 0
    return kept_bytes(folder / PARTS, one.file.name, one.identity)


def _moved(other: Path, work: Path, one: Wanted) -> bool:
    """Move a part, or a whole file, of the same content and name. Its counts go last: they say what it is."""
    if not _begun_bytes(other, one):
        return False
    name = one.file.name
    place = part_path(work / PARTS, name)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (other / name).exists():
        os.replace(other / name, work / name)
    else:
        os.replace(part_path(other / PARTS, name), place)
    os.replace(counts_path(other / PARTS, name), counts_path(work / PARTS, name))
    return True
