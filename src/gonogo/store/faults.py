"""What can go wrong with the store, as one would tell a user: what was seen, the numbers, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping


class StoreError(Exception):
    """The store could not do it; nothing was changed. The text says what was seen and what to do."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(f"{seen}: {remedy}")
        self.seen = seen
        self.remedy = remedy

    @property
    def refusal(self) -> tuple[str, Mapping[str, object]]:
        """A reason code and the values of its words."""
        return "StateUnusable", {"words": self.seen, "remedy": self.remedy}


class StoreFull(StoreError):
    """No room to write. Reading goes on."""

    def __init__(self, path: Path, free_bytes: int) -> None:
        super().__init__(
            f"no room to write to {path}: {free_bytes} bytes are free on its file system",
            f"make room on the file system that holds {path.parent} and try again; nothing was lost",
        )
        self.path = path
        self.free_bytes = free_bytes

    @property
    def refusal(self) -> tuple[str, Mapping[str, object]]:
        values = {"path": str(self.path), "folder": str(self.path.parent), "free_kib": self.free_bytes // 1024}
        return "StoreFull", values


class StoreUnreadable(StoreError):
    """The file is missing, not ours to read, damaged, or no database of ours."""

    def __init__(self, path: Path, words: str) -> None:
        super().__init__(
            f"{path} cannot be read ({words})",
            f"check that it is yours and whole; put back a copy of {path.parent}, or name another state directory",
        )
        self.path = path
        self.words = words


class StoreNotWritable(StoreError):
    """The file can be read, not written."""

    def __init__(self, path: Path, words: str) -> None:
        super().__init__(
            f"{path} cannot be written ({words})",
            f"give this user write permission on {path.parent} and the files in it, and mount it read-write",
        )
        self.path = path


class StoreBusy(StoreError):
    """Somebody else held the write lock for the whole time that we wait."""

    def __init__(self, path: Path, waited_s: float) -> None:
        super().__init__(
            f"{path} was locked by another process for {waited_s:g} s",
            f"try again; if it stays so, `fuser {path}` names the process",
        )
        self.path = path


class StoreFuture(StoreError):
    """The store was written by a newer gonogo."""

    def __init__(self, path: Path, seen_version: int, expected_version: int) -> None:
        super().__init__(
            f"{path} has schema version {seen_version}, this gonogo knows versions up to {expected_version}",
            "use the newer gonogo that wrote it, or another state directory",
        )
        self.path = path
        self.seen_version = seen_version
        self.expected_version = expected_version


class StaleEpoch(Exception):
    """The writer's lease was taken over: `seen` is its epoch, `current` the one that counts. Nothing was changed."""

    def __init__(self, seen: int, current: int) -> None:
        super().__init__(f"this control process holds lease epoch {seen}, the current one is {current}: it must stop")
        self.seen = seen
        self.current = current


class LeaseNeeded(Exception):
    """A change that only the holder of the lease may make was tried without an epoch."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs the lease: without an epoch only keys and removal requests may be written")


class UnknownRevision(LookupError):
    """No such revision is kept."""

    def __init__(self, service: str, number: int) -> None:
        super().__init__(f"service {service} has no revision {number}")
        self.service = service
        self.number = number


class UnknownKey(LookupError):
    """No key with that id is kept."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key has the id {key_id}")
        self.key_id = key_id
