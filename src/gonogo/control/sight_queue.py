"""How control sees the queue's server, where the specs name one: asked each 5 s, beside the rounds."""

from __future__ import annotations

import threading
import time
from typing import Iterable, Mapping

from gonogo.facts.queue import QueueFacts
from gonogo.plan.model import DesiredService
from gonogo.runtimes.look_queue import look_at_queue
from gonogo.spec.queue import Queue

EVERY_S = 5.0


def queues_of(services: Iterable[DesiredService]) -> dict[str, Queue]:
    """Service → what it says of the queue, of those that say something."""
    asked = ((one.name, one.desired.spec.queue) for one in services if not one.removed)
    return {name: queue for name, queue in asked if queue is not None}


class QueueSight:
    """What each server said when it was asked last."""

    def __init__(self) -> None:
        self._seen: dict[Queue, tuple[float, QueueFacts]] = {}
        self._asking: dict[Queue, threading.Thread] = {}

    def look(self, queues: Iterable[Queue]) -> Mapping[Queue, QueueFacts]:
        """Blocks for the first look alone, 3 s at most; what is older than `EVERY_S` is asked for again meanwhile."""
        wanted = {queue for queue in queues if queue.url is not None}
        for queue in wanted:
            if queue not in self._seen:
                self._ask(queue)
            elif time.monotonic() - self._seen[queue][0] > EVERY_S:
                self._ask_beside(queue)
        return {queue: self._seen[queue][1] for queue in wanted}

    def forget(self) -> None:
        """Ask anew at the next question."""
        self._seen = {}

    def _ask(self, queue: Queue) -> None:
        self._seen = {**self._seen, queue: (time.monotonic(), look_at_queue(queue))}

    def _ask_beside(self, queue: Queue) -> None:
        asking = self._asking.get(queue)
        if asking is None or not asking.is_alive():
            self._asking[queue] = asking = threading.Thread(target=self._ask, args=(queue,), daemon=True)
            asking.start()
