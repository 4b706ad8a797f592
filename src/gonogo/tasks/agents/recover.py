"""What becomes of runs whose worker died: their processes are ended for certain, then their owners' wishes count.

In this order: every process with the run's marks is killed and seen to be gone, its key is revoked, its folder with
screens of the device is removed, and in one transaction the device is free and the task failed, or waits again.
"""

from __future__ import annotations

import shutil
from typing import Callable

from gonogo.tasks.agents import runs
from gonogo.tasks.agents.keys import RunKeys
from gonogo.tasks.agents.processes import end_all
from gonogo.tasks.agents.tools import folder_of
from gonogo.tasks.places import Queue


def recover(queue: Queue, wall: Callable[[], float]) -> int:
    """How many were settled. One whose processes do not end keeps its device. Raises `StoreError`s."""
    with queue.database.reading() as c:
        lost = runs.lost(c)
    settled = 0
    for one in lost:
        if not end_all(queue.paths.root, one.task_id):
            continue
        if one.key_id is not None:
            RunKeys(queue.paths, wall).revoke(one.key_id)
        shutil.rmtree(folder_of(queue.paths, one.task_id), ignore_errors=True)
        with queue.database.writing() as c:
            runs.settle(c, one, wall())
        settled += 1
    return settled
