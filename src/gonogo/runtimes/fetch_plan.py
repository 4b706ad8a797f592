"""What a fetch would do, before its first byte of weights: files, bytes, what is there already, disk, source, time.

Refused here: a repository that cannot be had or used, and a disk that is too small. The time comes from a short read.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Sequence

from gonogo.checks.model import reason_of
from gonogo.facts.checkpoint import Checkpoint, RepoFile
from gonogo.facts.families import FAMILIES
from gonogo.facts.judge_checkpoint import problems_of
from gonogo.facts.model import ModelProblem
from gonogo.facts.needed_files import needed_files
from gonogo.facts.shards import INDEX_FILE, ShardsError, parse_index
from gonogo.runtimes.checkpoint_cache import CheckpointCache, default_cache
from gonogo.runtimes.checkpoint_reading import LARGEST_INDEX_BYTES, RepositoryError, read_checkpoint
from gonogo.runtimes.fetch_kept import kept_of
from gonogo.runtimes.fetch_parts import identity_of
from gonogo.runtimes.fetch_sample import Sample
from gonogo.runtimes.fetch_transfer import Wanted
from gonogo.runtimes.hub import HubRepository, offline_by_environment, opened_repository
from gonogo.runtimes.hub_client import Limits
from gonogo.runtimes.hub_dialects import Dialect, dialect_of
from gonogo.runtimes.models import ModelFault, ModelStore, folder_name

SAMPLE_SHARE = 16
"""Of what is to be fetched at most so small a part is read to see how fast it comes."""
LEAST_MARGIN_BYTES, MARGIN = 512 * 1024**2, 0.02
"""Room that is left beside the model: a full disk stops more than a fetch."""
Free = Callable[[Path], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOrder:
    """Which model is wanted. `revision`: a branch, tag or commit, None: the hub's main one; `endpoint`: as for
    `HubQuestion`; `only`: GGUF files, empty: safetensors."""

    model: str
    revision: str | None = None
    endpoint: str | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPlan:
    """What will be fetched. `kept_bytes`: of it there already; `bytes_per_s`: as a short read had it, None: unknown.

    `headers` hold the token: never shown.
    """

    order: FetchOrder
    name: str
    source: str
    revision: str
    commit: str
    wanted: tuple[Wanted, ...]
    size_bytes: int
    kept_bytes: int
    free_bytes: int
    bytes_per_s: float | None
    headers: dict[str, str] = field(repr=False)

    @property
    def files(self) -> tuple[RepoFile, ...]:
        return tuple(one.file for one in self.wanted)

    @property
    def left_bytes(self) -> int:
        return self.size_bytes - self.kept_bytes

    @property
    def seconds(self) -> float | None:
        """How long it would take at the rate of the short read. An estimate."""
        return self.left_bytes / self.bytes_per_s if self.bytes_per_s else None


def plan_fetch(
    store: ModelStore,
    order: FetchOrder,
    *,
    cache: Path | None = None,
    limits: Limits | None = None,
    free: Free | None = None,
) -> FetchPlan:
    """Ask the hub and look at the disk. Raises ModelFault."""
    try:
        if offline_by_environment():
            raise RepositoryError("not_cached", "it is not among the models that were fetched")
        dialect = dialect_of(order.endpoint)
        revision = order.revision or dialect.default_revision
        with opened_repository(order.model, dialect, revision, limits) as repository:
            files = _files(order, dialect, revision, repository, cache)
            wanted = tuple(
                Wanted(file=file, identity=identity_of(file, repository.commit), url=repository.url(file.name))
                for file in files
            )
            plan = FetchPlan(
                order=order,
                name=folder_name(order.model, repository.commit, order.only),
                source=dialect.endpoint,
                revision=revision,
                commit=repository.commit,
                wanted=wanted,
                size_bytes=sum(file.size_bytes or 0 for file in files),
                kept_bytes=0,
                free_bytes=0,
                bytes_per_s=None,
                headers=dict(dialect.headers()),
            )
            plan = with_room(store, plan, free)
            return replace(plan, bytes_per_s=_measured(repository, plan) if plan.left_bytes else None)
    except (RepositoryError, ShardsError) as error:
        raise fault_of_problem(order, error.problem) from None


def with_room(store: ModelStore, plan: FetchPlan, free: Free | None = None) -> FetchPlan:
    """The plan with what is kept and free now. Raises ModelFault where the disk does not hold the rest."""
    store.make()
    kept = kept_of(store, plan.name, plan.wanted)
    there = (free or free_bytes)(store.root)
    needed = plan.size_bytes - kept
    margin = max(LEAST_MARGIN_BYTES, int(plan.size_bytes * MARGIN)) if needed else 0
    if needed + margin > there:
        gib = {"needed_gib": (needed + margin) / 1024**3, "free_gib": there / 1024**3, "kept_gib": kept / 1024**3}
        raise ModelFault("ModelDiskTooSmall", {"model": plan.order.model, "path": str(store.root), **gib})
    return replace(plan, kept_bytes=kept, free_bytes=there)


def free_bytes(folder: Path) -> int:
    """What this user may still write there."""
    return shutil.disk_usage(folder).free


def fault_of_problem(order: FetchOrder, problem: ModelProblem) -> ModelFault:
    """A repository's problem as a reason; `kind` stays with it."""
    values = {"asked": order.model, "path": order.endpoint, "detail": problem.detail, "kind": problem.kind}
    return ModelFault(reason_of(problem), values)


def _files(
    order: FetchOrder, dialect: Dialect, revision: str, repository: HubRepository, cache: Path | None
) -> Sequence[RepoFile]:
    """What is needed, with sizes. Raises RepositoryError, ShardsError."""
    names = {file.name for file in repository.files()}
    index = None
    if not order.only:
        seen = _judged(order, dialect, revision, repository, cache)
        problems = problems_of(seen, FAMILIES)
        if problems:
            raise RepositoryError(problems[0].kind, problems[0].detail)
        if INDEX_FILE in names:
            index = parse_index(repository.whole(INDEX_FILE, LARGEST_INDEX_BYTES))
    return [_sized(repository, file) for file in needed_files(repository.files(), index, order.only)]


def _judged(
    order: FetchOrder, dialect: Dialect, revision: str, repository: HubRepository, cache: Path | None
) -> Checkpoint:
    """The checkpoint's headers: as they are kept of an earlier look at this commit, else read now and kept."""
    kept = CheckpointCache(default_cache() if cache is None else cache)
    known = kept.load(dialect.endpoint, order.model, revision)
    if known is not None and known.commit == repository.commit:
        return known
    start = Checkpoint(
        asked=order.model, source=dialect.endpoint, seen_at=time.time(), revision=revision, commit=repository.commit
    )
    found = read_checkpoint(start, repository)
    if found.problem is None:
        kept.store(found)
    return found


def _sized(repository: HubRepository, file: RepoFile) -> RepoFile:
    """A hub that lists no size says it when it is asked for the file."""
    return file if file.size_bytes is not None else replace(file, size_bytes=repository.opened(file.name)[1])


def _measured(repository: HubRepository, plan: FetchPlan) -> float | None:
    """Bytes per second of a short read of the largest file; None: too little came to say.

    Raises RepositoryError where the hub does not give the file at all: that is known before anybody waits for it.
    """
    largest = max(plan.wanted, key=lambda one: one.file.size_bytes or 0)
    most_bytes = plan.left_bytes // SAMPLE_SHARE
    return Sample(repository.client, largest.url, largest.file.size_bytes or 0, most_bytes).bytes_per_s()
