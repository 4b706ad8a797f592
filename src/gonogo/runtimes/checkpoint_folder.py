"""Reads a checkpoint from a folder on this machine: one of the user's, or a snapshot in the hub library's cache.

The hashes that a hub had on record are known where the library that downloaded left them: a cached snapshot's files
are links to blobs that are named after their SHA-256, and a download into a folder leaves `.cache/huggingface`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Iterator, Mapping, Union

from gonogo.facts.checkpoint import Checkpoint, RepoFile
from gonogo.facts.model import ModelProblem
from gonogo.runtimes.checkpoint_reading import Progress, Read, RepositoryError, read_checkpoint

MOST_FILES, MOST_DEPTH = 20_000, 4
_PIECE_BYTES = 8 * 1024**2
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_DOWNLOADS = Path(".cache") / "huggingface" / "download"


def read_folder(
    folder: Path,
    *,
    asked: Union[str, None] = None,
    verify: bool = False,
    expected: Union[Mapping[str, str], None] = None,
    progress: Union[Progress, None] = None,
) -> Checkpoint:
    """What the folder holds. Never raises for a bad one: `problem` says what is wrong.

    `verify` reads all weights and holds each file against the SHA-256 on record: `expected` (name → hex digest, as a
    hub's `Checkpoint.files` has them), else what the library that downloaded it left. Files without one are left out.
    """
    place = folder.absolute()
    start = Checkpoint(
        asked=str(folder) if asked is None else asked,
        source=str(place),
        commit=place.name if _COMMIT.fullmatch(place.name) else None,
        seen_at=time.time(),
    )
    repository = Folder(place, expected or {})
    seen = read_checkpoint(start, repository, progress)
    if not verify or seen.problem is not None or seen.files is None:
        return seen
    return _verified(seen, repository, seen.files, progress)


class Folder:
    """The files of one folder."""

    at_once = 1

    def __init__(self, place: Path, expected: Mapping[str, str]) -> None:
        self._place, self._expected = place, expected

    def files(self) -> tuple[RepoFile, ...]:
        found = sorted(self._walk(self._place, ""))
        return tuple(
            RepoFile(name=name, size_bytes=self._size(name), sha256=self._expected.get(name) or self._recorded(name))
            for name in found
        )

    def whole(self, name: str, most_bytes: int) -> bytes:
        with self._descriptor(name) as (descriptor, size_bytes):
            if size_bytes > most_bytes:
                raise RepositoryError(
                    "config_unreadable", f"{name} has {size_bytes} bytes, at most {most_bytes} are read"
                )
            return _read(descriptor, 0, size_bytes)

    def opened(self, name: str) -> tuple[Read, int]:
        def read(offset: int, count: int) -> bytes:
            with self._descriptor(name) as (descriptor, _):
                return _read(descriptor, offset, count)

        with self._descriptor(name) as (_, size_bytes):
            return read, size_bytes

    def sha256(self, name: str, progress: Union[Progress, None]) -> str:
        """The file's digest; `progress` hears how many of its bytes are read."""
        digest = hashlib.sha256()
        with self._descriptor(name) as (descriptor, size_bytes):
            done = 0
            while piece := _read(descriptor, done, _PIECE_BYTES):
                digest.update(piece)
                done += len(piece)
                if progress is not None:
                    progress(name, done, size_bytes)
        return digest.hexdigest()

    def _walk(self, folder: Path, below: str, depth: int = 0) -> Iterator[str]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            raise RepositoryError("missing", "there is no such folder") from None
        except (OSError, ValueError) as error:
            raise RepositoryError("unreadable", f"{folder}: {_words(error)}") from None
        if len(found) > MOST_FILES:
            raise RepositoryError(
                "unreadable", f"{folder} holds {len(found)} files, at most {MOST_FILES} are looked at"
            )
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth < MOST_DEPTH:
                    yield from self._walk(folder / entry.name, f"{below}{entry.name}/", depth + 1)
            else:
                yield below + entry.name

    def _size(self, name: str) -> Union[int, None]:
        try:
            return os.stat(self._place / name).st_size
        except OSError:  # a link to a blob that is not there
            return None

    def _recorded(self, name: str) -> Union[str, None]:
        try:
            blob = os.path.basename(os.readlink(self._place / name))
        except OSError:
            return self._downloaded(name)
        return blob if _SHA256.fullmatch(blob) else None

    def _downloaded(self, name: str) -> Union[str, None]:
        """Three lines: commit, ETag (of a large file: its SHA-256), time."""
        try:
            with open(self._place / _DOWNLOADS / f"{name}.metadata", encoding="ascii", errors="replace") as opened:
                lines = opened.read(1024).splitlines()
        except OSError:
            return None
        etag = lines[1].strip() if len(lines) > 1 else ""
        return etag if _SHA256.fullmatch(etag) else None

    @contextmanager
    def _descriptor(self, name: str) -> Iterator[tuple[int, int]]:
        """The open file and its size. A link without a target is a shard that is not there."""
        try:
            descriptor = os.open(self._place / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise RepositoryError("shard_missing", f"{name} is a link to a file that is not there") from None
        except (OSError, ValueError) as error:
            raise RepositoryError("unreadable", f"{name}: {_words(error)}") from None
        try:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                raise RepositoryError("unreadable", f"{name} is not a regular file")
            yield descriptor, seen.st_size
        except OSError as error:
            raise RepositoryError("unreadable", f"{name}: {_words(error)}") from None
        finally:
            os.close(descriptor)


def _verified(
    seen: Checkpoint, repository: Folder, files: tuple[RepoFile, ...], progress: Union[Progress, None]
) -> Checkpoint:
    """The weights only: they are what a transfer damages. Documents were read as JSON already."""
    known = {file.name: file.sha256 for file in files if file.sha256 is not None and file.name.endswith(".safetensors")}
    for name, recorded in known.items():
        try:
            found = repository.sha256(name, progress)
        except RepositoryError as error:
            return replace(seen, problem=error.problem)
        if found != recorded:
            detail = f"{name}: its SHA-256 is {found[:12]}…, on record is {recorded[:12]}…"
            return replace(seen, problem=ModelProblem(kind="shard_damaged", detail=detail))
    return replace(seen, verified=tuple(known))


def _read(descriptor: int, offset: int, count: int) -> bytes:
    """Up to `count` bytes; fewer only at the file's end."""
    pieces, have = [], 0
    while have < count and (piece := os.pread(descriptor, count - have, offset + have)):
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
