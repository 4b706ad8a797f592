"""What of a model is on this disk already: its own parts, and the same content of other models and other commits.

The same content has the same SHA-256 wherever it lies: a model of which only the README changed, or that is fetched
from ModelScope after half of it came from Hugging Face, is not fetched again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Mapping, Sequence

from gonogo.runtimes.fetch_parts import counts_path, kept_bytes, part_path, recorded_identity
from gonogo.runtimes.fetch_transfer import Wanted
from gonogo.runtimes.models import PARTS, ModelFault, ModelStore


def kept_of(store: ModelStore, name: str, wanted: Sequence[Wanted]) -> int:
    """Bytes that need not be fetched, and need no room either."""
    whole, own = _whole_files(store), (store.work(name), store.path(name))
    begun = (own[0], *_begun_elsewhere(store, name))
    total = 0
    for one in wanted:
        there = any((folder / one.file.name).exists() for folder in own)
        if there or one.file.sha256 in whole:
            total += one.file.size_bytes or 0
        else:
            total += max(_begun_bytes(folder, one) for folder in begun)
    return total


def take_over(store: ModelStore, model: str, name: str, wanted: Sequence[Wanted]) -> None:
    """Bring into the work folder what lies elsewhere in the store. Only for whoever holds the model. Raises OSError."""
    work, whole = store.work(name), _whole_files(store)
    for one in wanted:
        place = work / one.file.name
        if place.exists() or one.file.sha256 not in whole:
            continue
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a file system without hard links: it is fetched
            os.link(whole[one.file.sha256], place)
    for other, owner in _begun_elsewhere(store, name).items():
        with contextlib.ExitStack() as held:
            if owner != model:
                try:
                    held.enter_context(store.held(owner, limit_s=0.0))
                except ModelFault:
                    continue  # it is being fetched right now
            for one in wanted:
                _move(other, work, one)


def _whole_files(store: ModelStore) -> Mapping[str | None, Path]:
    """By their SHA-256: the verified files of whole models."""
    found = ((file.sha256, model.path / file.name) for model in store.all() for file in model.files)
    return {sha256: path for sha256, path in found if sha256 is not None}


def _begun_elsewhere(store: ModelStore, name: str) -> Mapping[Path, str]:
    """The work folders of other commits and other models, and whose they are."""
    return {store.work(begun.name): begun.model for begun in store.unfinished() if begun.name != name}


def _begun_bytes(folder: Path, one: Wanted) -> int:
    if recorded_identity(folder / PARTS, one.file.name) != one.identity:
        return 0
    if (folder / one.file.name).exists():
        return one.file.size_bytes or 0
    return kept_bytes(folder / PARTS, one.file.name, one.identity)


def _move(other: Path, work: Path, one: Wanted) -> None:
    """Move a part, or a whole file, of the same content and name, if more of it is there than here."""
    name = one.file.name
    here = one.file.size_bytes if (work / name).exists() else _begun_bytes(work, one)
    if _begun_bytes(other, one) <= (here or 0):
        return
    place = part_path(work / PARTS, name)
    for folder in (place.parent, (work / name).parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    counts_path(work / PARTS, name).unlink(missing_ok=True)
    if (other / name).exists():
        os.replace(other / name, work / name)
    else:
        os.replace(part_path(other / PARTS, name), place)
    os.replace(counts_path(other / PARTS, name), counts_path(work / PARTS, name))
