"""Reads a checkpoint from a hub by its id: its configuration and the headers of its weights, never the weights.

Seen once, it is kept (`checkpoint_cache.py`) and answers offline. What a hub is and how it is asked: `hub_dialects.py`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Union

from gonogo.facts.checkpoint import Checkpoint, RepoFile
from gonogo.facts.parse_hub import HubAnswerError, Listing
from gonogo.runtimes.checkpoint_cache import CheckpointCache, default_cache
from gonogo.runtimes.checkpoint_folder import read_folder
from gonogo.runtimes.checkpoint_reading import CONFIG, Progress, Read, RepositoryError, read_checkpoint
from gonogo.runtimes.hub_dialects import Dialect, dialect_of

if TYPE_CHECKING:  # a kept look is shown without them: they take 0.1 s to load
    from gonogo.runtimes.hub_client import HubClient, Limits

FIRST_BYTES = 100_000
"""Of each shard at first: 97 % of headers are shorter (huggingface_hub, `parse_safetensors_file_metadata`)."""
LARGEST_LISTING_BYTES = 16 * 1024**2
FRESH_S = 24 * 3600.0
NOTHING_SEEN = ("hub_unreachable", "hub_broken", "rate_limited")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubQuestion:
    """Which model, where. `revision`: a branch, tag or commit; None: the hub's main one. `endpoint`: the hub's address.

    A look younger than `fresh_s` is not repeated; a commit never changes. `offline` asks no network, ever.
    """

    model: str
    revision: Union[str, None] = None
    endpoint: Union[str, None] = None
    offline: bool = False
    fresh_s: float = FRESH_S


def read_from_hub(
    question: HubQuestion,
    *,
    cache: Union[Path, None] = None,
    limits: Union[Limits, None] = None,
    progress: Union[Progress, None] = None,
) -> Checkpoint:
    """What the hub, or an earlier look at it, says. Never raises for a bad hub: `problem` says what is wrong."""
    now = time.time()
    try:
        dialect = dialect_of(question.endpoint)
    except RepositoryError as error:
        return Checkpoint(asked=question.model, source=str(question.endpoint), seen_at=now, problem=error.problem)
    revision = question.revision or dialect.default_revision
    start = Checkpoint(asked=question.model, source=dialect.endpoint, revision=revision, seen_at=now)
    kept = CheckpointCache(default_cache() if cache is None else cache)
    known = kept.load(start.source, start.asked, revision)
    if question.offline or offline_by_environment():
        return known or _downloaded(start) or _refused(start, "not_cached", "no earlier look at it is kept here")
    if known is not None and (known.commit == revision or 0 <= now - known.seen_at < question.fresh_s):
        return known
    found = _asked(start, known, dialect, limits, progress)
    if found.problem is None:
        kept.store(found) if known is None or known.commit != found.commit else kept.seen(found)
    elif known is not None and found.problem.kind in NOTHING_SEEN:
        return replace(known, not_refreshed=found.problem)
    return found


class HubRepository:
    """A model's files on a hub, at one commit."""

    at_once = 8

    def __init__(self, client: HubClient, dialect: Dialect, model: str, listing: Listing) -> None:
        self.client, self.commit = client, listing.commit
        self._dialect, self._model, self._listing = dialect, model, listing
        self._sizes = {file.name: file.size_bytes for file in listing.files}

    def files(self) -> tuple[RepoFile, ...]:
        return self._listing.files

    def whole(self, name: str, most_bytes: int) -> bytes:
        return self.client.whole(self.url(name), most_bytes)

    def opened(self, name: str) -> tuple[Read, int]:
        """The start is read at once; more of the file only when its header is longer."""
        listed = self._sizes.get(name)
        if listed == 0:
            return (lambda _offset, _count: b""), 0
        part = self.client.start_of(self.url(name), min(FIRST_BYTES, listed or FIRST_BYTES))
        size_bytes = listed if part.file_bytes is None else part.file_bytes
        if size_bytes is None:
            raise RepositoryError("hub_broken", f"it does not say how large {name} is")
        if listed is not None and listed != size_bytes:
            raise RepositoryError("shard_damaged", f"{name}: {listed} bytes are listed, {size_bytes} are served")
        start = part.content

        def read(offset: int, count: int) -> bytes:
            if offset + count <= len(start):
                return start[offset : offset + count]
            return self.client.start_of(self.url(name), offset + count).content[offset:]

        return read, size_bytes

    def url(self, name: str) -> str:
        """Where a file lies, at this commit whatever the branch becomes."""
        return self._dialect.file_url(self._model, self._listing, name)


@contextlib.contextmanager
def opened_repository(
    model: str, dialect: Dialect, revision: str, limits: Union[Limits, None] = None
) -> Iterator[HubRepository]:
    """The files that `revision` of a model has now. Left after `limits.total_s`. Raises RepositoryError."""
    from gonogo.runtimes.hub_client import HubClient, Limits

    limits = limits or Limits()
    _possible(model)
    client = HubClient(dialect.headers(), limits)
    late = threading.Timer(limits.total_s + limits.silence_s, client.close)  # for answers that come drop by drop
    late.daemon = True
    late.start()
    try:
        content = client.whole(dialect.listing_url(model, revision), LARGEST_LISTING_BYTES)
        yield HubRepository(client, dialect, model, dialect.listing(content))
    except HubAnswerError as error:
        raise RepositoryError("hub_broken", str(error)) from None
    finally:
        late.cancel()
        client.close()


def _asked(
    start: Checkpoint,
    known: Union[Checkpoint, None],
    dialect: Dialect,
    limits: Union[Limits, None],
    progress: Union[Progress, None],
) -> Checkpoint:
    """Ask the hub; the files only when its commit is another than the known one."""
    try:
        with opened_repository(start.asked, dialect, str(start.revision), limits) as repository:
            if known is not None and known.commit == repository.commit:
                return replace(known, seen_at=start.seen_at, not_refreshed=None)
            return read_checkpoint(replace(start, commit=repository.commit), repository, progress)
    except RepositoryError as error:
        return replace(start, problem=error.problem)


def _possible(model: str) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(model, CONFIG)
    except HFValidationError:
        detail = f"{model[:100]!r} is not NAME or OWNER/NAME of letters, digits, '-', '_' and '.'"
        raise RepositoryError("id_mistaken", detail) from None


def _downloaded(start: Checkpoint) -> Union[Checkpoint, None]:
    """The same model as the hub's own library has downloaded it, if all of it is there. It keeps no hubs apart."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if start.source != constants.ENDPOINT:
        return None
    try:
        path = try_to_load_from_cache(start.asked, CONFIG, revision=start.revision)
    except (HFValidationError, OSError):
        return None
    if not isinstance(path, str):
        return None
    found = read_folder(Path(path).parent, asked=start.asked)
    return replace(found, revision=start.revision) if found.problem is None else None


def offline_by_environment() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids to ask any hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _refused(start: Checkpoint, kind: str, detail: str) -> Checkpoint:
    return replace(start, problem=RepositoryError(kind, detail).problem)
