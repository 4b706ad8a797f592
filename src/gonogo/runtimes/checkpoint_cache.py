"""Checkpoints that were read from a hub, on disk: a file for each (hub, id, commit), and one for each revision's name.

A file that is damaged, too large or of another version counts as not there: it is read from the hub again. Nothing
here raises for a disk that is full or cannot be written; the next look is slower, that is all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping, Union
from urllib.parse import quote

from gonogo.facts.checkpoint import Checkpoint, RepoFile
from gonogo.facts.model import Tensor

LARGEST_BYTES = 128 * 1024**2
MOST_COMMITS = 4
_VERSION = 2
_DOCUMENTS = ("config", "generation_config", "preprocessor_config", "quantization_config", "tokenizer_config")
_PLAIN = ("asked", "source", "revision", "commit", "seen_at", "chat_template", "declared_bytes", *_DOCUMENTS)


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/gonogo/models`, else `~/.cache/gonogo/models`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "gonogo" / "models"


class CheckpointCache:
    """The cache in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, source: str, model: str, revision: str) -> Union[Checkpoint, None]:
        """What was last seen of `revision` (a name, or a commit); None: nothing that can be used."""
        place = self._place(source, model)
        told = _read(place / "revisions" / _name(revision))
        commit = told.get("commit") if isinstance(told, dict) else revision
        seen_at = told.get("seen_at") if isinstance(told, dict) else None
        found = _read(place / _name(str(commit)))
        try:
            checkpoint = _checkpoint(found)
        except (KeyError, TypeError, ValueError):
            return None
        if (checkpoint.source, checkpoint.asked, checkpoint.commit) != (source, model, commit):
            return None
        at = seen_at if isinstance(seen_at, (int, float)) else checkpoint.seen_at
        return replace(checkpoint, revision=revision, seen_at=float(at))

    def store(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that was read without a problem, and that its revision is this commit now."""
        place = self._place(checkpoint.source, checkpoint.asked)
        told = {name: getattr(checkpoint, name) for name in _PLAIN}
        told["files"] = [[file.name, file.size_bytes, file.sha256, file.git_sha1] for file in checkpoint.files or ()]
        told["tensors"] = [[one.name, list(one.shape), one.kind, one.size_bytes] for one in checkpoint.tensors or ()]
        _write(place / _name(str(checkpoint.commit)), told)
        self.seen(checkpoint)
        _only_newest(place)

    def seen(self, checkpoint: Checkpoint) -> None:
        """The hub was asked again at `seen_at`: the revision is still this commit."""
        place = self._place(checkpoint.source, checkpoint.asked) / "revisions" / _name(str(checkpoint.revision))
        _write(place, {"commit": checkpoint.commit, "seen_at": checkpoint.seen_at})

    def _place(self, source: str, model: str) -> Path:
        hub = hashlib.sha256(source.encode()).hexdigest()[:16]
        return self._folder / hub / quote(model, safe="")[:200]


def _name(text: str) -> str:
    quoted = quote(text, safe="")
    if len(quoted) > 100 or not quoted.strip("."):
        quoted = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{quoted}.json"


def _checkpoint(found: Union[Mapping[str, Any], None]) -> Checkpoint:
    """Raises KeyError, TypeError or ValueError where it is not one."""
    if found is None:
        raise ValueError("nothing there")
    plain: dict[str, Any] = {name: found[name] for name in _PLAIN}
    return Checkpoint(
        **plain,
        files=tuple(
            RepoFile(name=name, size_bytes=size, sha256=digest, git_sha1=blob)
            for name, size, digest, blob in found["files"]
        ),
        tensors=tuple(
            Tensor(name=name, shape=tuple(shape), kind=kind, size_bytes=size)
            for name, shape, kind, size in found["tensors"]
        ),
    )


def _read(path: Path) -> Union[Mapping[str, Any], None]:
    """The JSON after the first line, which is its SHA-256 and this format's version."""
    try:
        with open(path, "rb") as opened:
            content = opened.read(LARGEST_BYTES + 1)
    except (OSError, ValueError):
        return None
    head, _, body = content.partition(b"\n")
    if len(content) > LARGEST_BYTES or head != _head(body):
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, told: Mapping[str, Any]) -> None:
    """Whole or not at all: a reader never sees half of it."""
    body = json.dumps(told, separators=(",", ":")).encode()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(_head(body) + b"\n" + body)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise


def _head(body: bytes) -> bytes:
    return f"{_VERSION} {hashlib.sha256(body).hexdigest()}".encode()


def _only_newest(place: Path) -> None:
    with contextlib.suppress(OSError):
        found = sorted(place.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in found[MOST_COMMITS:]:
            path.unlink()
