"""Fetches a model by its plan: into a folder aside, gone on with after any interruption, moved into place last.

Killed at any moment it leaves nothing that looks whole. Two at once: the second waits and finds it fetched.
"""

from __future__ import annotations

import os
import time
from typing import Callable

from gonogo.runtimes.checkpoint_reading import RepositoryError
from gonogo.runtimes.fetch_kept import take_over
from gonogo.runtimes.fetch_parts import wrong_content
from gonogo.runtimes.fetch_plan import FetchPlan, Free, fault_of_problem, with_room
from gonogo.runtimes.fetch_transfer import Progress, Transfer, TransferLimits
from gonogo.runtimes.hub_client import HubClient
from gonogo.runtimes.models import (
    MARKER,
    ORDER,
    PARTS,
    Fetched,
    ModelFault,
    ModelStore,
    fault_of,
    marker_text,
    order_text,
)
from gonogo.runtimes.whole_folders import remove_tree, settle, write_whole


def fetch_model(
    store: ModelStore,
    plan: FetchPlan,
    progress: Progress,
    *,
    limits: TransferLimits | None = None,
    free: Free | None = None,
    waiting: Callable[[], None] | None = None,
) -> tuple[Fetched, bool]:
    """The model of a plan, and whether it was fetched now. Raises ModelFault, KeyboardInterrupt; what came is kept."""
    order = plan.order
    with store.held(order.model, waiting=waiting):
        found = store.find(order.model, plan.commit, order.only)
        if found is not None:
            return found, False
        try:
            _begin(store, plan)
            with_room(store, plan, free)
            _transfer(store, plan, progress, limits or TransferLimits())
            return _finish(store, plan), True
        except RepositoryError as error:
            raise fault_of_problem(order, error.problem) from None
        except OSError as error:
            raise fault_of(error, store.work(plan.name)) from None


def _begin(store: ModelStore, plan: FetchPlan) -> None:
    """The folder aside, with what lies elsewhere in the store, and with what is right in a folder that lost a file."""
    work, final, order = store.work(plan.name), store.path(plan.name), plan.order
    if final.exists() and not work.exists():
        (final / MARKER).unlink(missing_ok=True)
        os.rename(final, work)
        for file in plan.files:
            if (work / file.name).exists() and wrong_content(work / file.name, file) is not None:
                remove_tree(work / file.name)
    remove_tree(final)
    (work / PARTS).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(work / PARTS / ORDER, order_text(order.model, plan.source, order.only, plan.size_bytes))
    take_over(store, order.model, plan.name, plan.wanted)


def _transfer(store: ModelStore, plan: FetchPlan, progress: Progress, limits: TransferLimits) -> None:
    client = HubClient(plan.headers, limits.hub)
    try:
        Transfer(client, store.work(plan.name), limits).run(plan.wanted, progress)
    finally:
        client.close()


def _finish(store: ModelStore, plan: FetchPlan) -> Fetched:
    work = store.work(plan.name)
    fetched = Fetched(
        name=plan.name,
        path=store.path(plan.name),
        model=plan.order.model,
        source=plan.source,
        revision=plan.revision,
        commit=plan.commit,
        only=plan.order.only,
        files=plan.files,
        size_bytes=plan.size_bytes,
        fetched_at=time.time(),
    )
    write_whole(work / MARKER, marker_text(fetched))
    os.rename(work, fetched.path)
    settle(store.root)
    remove_tree(fetched.path / PARTS)
    found = store.find(fetched.model, fetched.commit, fetched.only)
    if found is None:
        raise ModelFault("ModelFolderUnwritable", {"path": str(fetched.path), "words": "a file went while it was kept"})
    store.sweep(found)
    return found
