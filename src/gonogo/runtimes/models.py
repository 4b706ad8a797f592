"""The models that were fetched, below the state directory: which there are, where, and whether each is whole.

A model counts as there only with its marker, written and moved into place last, and with every file that the marker
names at its size; anything else is unfinished and is gone on with or swept away. Not here: fetching (`fetch.py`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from gonogo.facts.checkpoint import RepoFile
from gonogo.facts.needed_files import safe_name
from gonogo.runtimes.whole_folders import LONGEST_WAIT_S, StillHeld, held, make_private, remove_tree

MARKER, ORDER = "gonogo-model.json", "order.json"
UNFINISHED, PARTS = ".fetching-", ".parts"
LARGEST_MARKER_BYTES = 8 * 1024**2
SHOWN_OF_COMMIT = 12


class ModelFault(Exception):
    """A model could not be fetched, kept or found: a reason code with words, and its values."""

    def __init__(self, reason: str, values: Mapping[str, object]) -> None:
        super().__init__(f"{reason} {dict(values)}")
        self.reason, self.values = reason, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One whole model in one folder. `source`: the hub's address, or the folder of one that is used in place.

    `commit`: None for a folder that does not know. `only`: the GGUF files that were asked for; empty: safetensors.
    `fetched_at` in Unix seconds.
    """

    name: str
    path: Path
    model: str
    source: str
    revision: str | None
    commit: str | None
    only: tuple[str, ...]
    files: tuple[RepoFile, ...]
    size_bytes: int
    fetched_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """One that was begun: what is kept of it, and what it has in all."""

    name: str
    model: str
    source: str
    only: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelStore:
    """All of them: `root` is `models` below the state directory."""

    root: Path

    def make(self) -> None:
        """Create the folders, for the owner alone. Raises ModelFault."""
        try:
            make_private((self.root.parent, self.root))
        except OSError as error:
            raise fault_of(error, self.root) from None

    def path(self, name: str) -> Path:
        return self.root / name

    def work(self, name: str) -> Path:
        """Where a model lies while it is fetched."""
        return self.root / f"{UNFINISHED}{name}"

    def find(self, model: str, commit: str | None = None, only: Sequence[str] = ()) -> Fetched | None:
        """A whole one by its hub id, the one that was fetched last; `commit`: only that one (its start is enough)."""
        found = [
            one
            for one in self.all()
            if one.model.casefold() == model.casefold()
            and set(one.only) == set(only)
            and (commit is None or (one.commit or "").startswith(commit))
        ]
        return max(found, key=lambda one: one.fetched_at, default=None)

    def named(self, name: str) -> Fetched | None:
        """A whole one by its folder's name; None: there is none, it is not whole, or the name leads elsewhere."""
        if name != os.path.basename(name) or name.startswith("."):
            return None
        return read_marker(self.path(name))

    def all(self) -> tuple[Fetched, ...]:
        """Every whole model, by name."""
        names = (path.name for path in self._folders())
        return tuple(found for name in names if (found := self.named(name)) is not None)

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Every model that was begun and is not whole, by name."""
        begun = (_read_order(path) for path in self._folders() if path.name.startswith(UNFINISHED))
        return tuple(one for one in begun if one is not None)

    def remove(self, name: str, model: str) -> None:
        """Take one away, whole or begun: it stops counting as there before its files go. Raises ModelFault."""
        with self.held(model):
            try:
                (self.path(name) / MARKER).unlink(missing_ok=True)
                remove_tree(self.path(name))
                remove_tree(self.work(name))
            except OSError as error:
                raise fault_of(error, self.path(name)) from None

    def sweep(self, kept: Fetched) -> None:
        """Take away what was begun of other commits of the same files. Only for whoever holds the model."""
        for one in self.unfinished():
            if one.model == kept.model and one.only == kept.only:
                remove_tree(self.work(one.name))

    @contextlib.contextmanager
    def held(
        self, model: str, limit_s: float = LONGEST_WAIT_S, waiting: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Nobody else fetches or removes this model meanwhile. Raises ModelFault when somebody does for `limit_s`."""
        self.make()
        try:
            with held(self.root / f".{folder_name(model)}.lock", limit_s, waiting):
                yield
        except StillHeld:
            raise ModelFault("ModelBusy", {"model": model, "seconds": int(limit_s)}) from None

    def _folders(self) -> Sequence[Path]:
        try:
            return sorted(path for path in self.root.iterdir() if path.is_dir())
        except OSError:
            return ()


def folder_name(model: str, commit: str | None = None, only: Sequence[str] = ()) -> str:
    """What the folder of a model is called: `owner--name--commit`, and of chosen GGUF files a mark of them."""
    parts = [model.replace("/", "--")]
    if commit is not None:
        parts.append(commit[:SHOWN_OF_COMMIT])
    if only:
        parts.append(hashlib.sha256("\0".join(sorted(only)).encode()).hexdigest()[:8])
    return "--".join(parts)


def fault_of(error: OSError, path: Path) -> ModelFault:
    """An error of the file system as a reason."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelFault("ModelDiskFull", {"path": str(path), "words": error.strerror or ""})
    return ModelFault(
        "ModelFolderUnwritable", {"path": str(error.filename or path), "words": error.strerror or str(error)}
    )


def marker_text(fetched: Fetched) -> str:
    """What the marker of a model holds."""
    told = {
        "model": fetched.model,
        "source": fetched.source,
        "revision": fetched.revision,
        "commit": fetched.commit,
        "only": list(fetched.only),
        "size_bytes": fetched.size_bytes,
        "fetched_at": fetched.fetched_at,
        "files": {
            file.name: {"size_bytes": file.size_bytes, "sha256": file.sha256, "git_sha1": file.git_sha1}
            for file in fetched.files
        },
    }
    return json.dumps(told, indent=1)


def order_text(model: str, source: str, only: Sequence[str], size_bytes: int) -> str:
    """What is kept beside the parts of a model while it is fetched."""
    return json.dumps({"model": model, "source": source, "only": list(only), "size_bytes": size_bytes})


def read_marker(folder: Path) -> Fetched | None:
    """The model in a folder, if every file that its marker names is there at its size."""
    told = _read(folder / MARKER)
    try:
        files = tuple(
            RepoFile(name=str(name), size_bytes=int(one["size_bytes"]), sha256=one["sha256"], git_sha1=one["git_sha1"])
            for name, one in told["files"].items()
        )
        found = Fetched(
            name=folder.name,
            path=folder,
            model=str(told["model"]),
            source=str(told["source"]),
            revision=told["revision"],
            commit=told["commit"],
            only=tuple(map(str, told["only"])),
            files=files,
            size_bytes=int(told["size_bytes"]),
            fetched_at=float(told["fetched_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return found if files and all(_there(folder, file) for file in files) else None


def _there(folder: Path, file: RepoFile) -> bool:
    try:
        return safe_name(file.name) and (folder / file.name).stat().st_size == file.size_bytes
    except OSError:
        return False


def _read_order(work: Path) -> Unfinished | None:
    told = _read(work / PARTS / ORDER)
    try:
        return Unfinished(
            name=work.name.removeprefix(UNFINISHED),
            model=str(told["model"]),
            source=str(told["source"]),
            only=tuple(map(str, told["only"])),
            size_bytes=int(told["size_bytes"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(LARGEST_MARKER_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
