"""The Celery app: `celery -A gonogo.tasks worker`, and the guide's task. The state directory is $GONOGO_STATE_DIR's.

A worker's task is `gonogo.drain`: the bell has rung, see in the ledger what there is to do. `process_glm_request` is
the guide's: its `delay` records a task in the ledger and rings; its result is the ledger's.
"""

from __future__ import annotations

import multiprocessing
import time
from functools import lru_cache
from typing import Any, Mapping

from celery import Celery, Task
from celery.signals import worker_shutting_down

from gonogo.runtimes.paths import StatePaths, default_state_dir
from gonogo.store import open_store
from gonogo.store.store import Store
from gonogo.tasks.asked import read_request
from gonogo.tasks.asked_queue import AskedQueue
from gonogo.tasks.broker import DRAIN, broker_url, settings
from gonogo.tasks.doorbell import Bell
from gonogo.tasks.owners import local_owner
from gonogo.tasks.places import Queue, open_queue
from gonogo.tasks.requests import Wish, new_task, record
from gonogo.tasks.workshop import Workshop

app = Celery("glm_tasks")
app.conf.update(settings(StatePaths.of(default_state_dir())))

_STOPPING = multiprocessing.Event()
"""Set in the worker's main process, seen in its children, which are forked from it: end what you do, soon."""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    _STOPPING.set()


@app.task(name=DRAIN, ignore_result=True)  # type: ignore[untyped-decorator]
def drain() -> int:
    """Do what waits in the ledger; how many tasks ended."""
    return _workshop().drain()


class Recorded(Task):  # type: ignore[misc]
    """A task that is recorded in the ledger before anybody is told of it."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **_options: Any) -> Any:
        """Record it, and ring. Options of Celery's (countdown, retries, queues) have no meaning here.

        Raises `asked.Wrong` for what is no request, `owners.NoSuchKey`, `StoreError`s.
        """
        queue = _queue()
        body = chat_body(*(args or ()), **(kwargs or {}))
        asked = read_request("/v1/chat/completions", {**_only_model(), **body})
        wish = Wish(asked=asked, owner=local_owner(_store()))
        new = new_task(wish, queue.bodies, time.time(), task_id)
        with queue.database.writing() as c:
            task = record(c, new, wish, queue.bodies)
        _bell().ring()
        return self.AsyncResult(task.task_id)


@app.task(base=Recorded, name="glm_tasks.process_glm_request")  # type: ignore[untyped-decorator]
def process_glm_request(input_data: Any) -> Any:
    """Ask the model now, in this process, by way of the ledger all the same."""
    return process_glm_request.delay(input_data).get()


def chat_body(input_data: Any) -> Mapping[str, Any]:
    """What the guide's readers hand over: a prompt, `{"prompt": …}`, or a body of /v1/chat/completions."""
    if isinstance(input_data, str):
        return {"messages": [{"role": "user", "content": input_data}]}
    if isinstance(input_data, dict) and "messages" not in input_data and isinstance(input_data.get("prompt"), str):
        others = {name: value for name, value in input_data.items() if name != "prompt"}
        return {**others, "messages": [{"role": "user", "content": input_data["prompt"]}]}
    return dict(input_data)


# Celery makes its processes itself: what they keep between two rings has no other place than a function's memory.
@lru_cache(maxsize=1)
def _workshop() -> Workshop:
    return Workshop(_queue(), _STOPPING.is_set)


@lru_cache(maxsize=1)
def _queue() -> Queue:
    return open_queue(StatePaths.of(default_state_dir()))


@lru_cache(maxsize=1)
def _bell() -> Bell:
    paths = _queue().paths
    asked = AskedQueue(paths.database)
    return Bell(lambda: app, lambda: broker_url(paths, asked.now()))


@lru_cache(maxsize=1)
def _store() -> Store:
    return open_store(_queue().paths.database, clock=time.time)


def _only_model() -> Mapping[str, str]:
    """Who names no model means the one that there is; with several, the gateway says which."""
    serving = list(_store().policy_view().serving)
    return {"model": serving[0]} if len(serving) == 1 else {}
