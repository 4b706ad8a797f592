"""Rings: tells the workers that something waits in the ledger. A ring that is lost is rung again by the reconciler."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable

from redis.exceptions import RedisError

from gonogo.tasks.broker import DRAIN, MOST_RINGS, QUEUE, RING_KEPT_S

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection


class Bell:
    """The doorbell of one broker, for several threads. Never raises for a broker that is away.

    `app` gives the Celery app, at the first ring: importing Celery takes longer than all else of the part `tasks`.
    """

    def __init__(self, app: Callable[[], Celery]) -> None:
        self._app = app
        self._guard = threading.Lock()
        self._connection: Connection | None = None

    def ring(self) -> bool:
        """Wake a worker. True: a ring is on its way, this one or earlier ones that nobody has answered yet."""
        from kombu.exceptions import OperationalError

        with self._guard:
            try:
                if self._connection is None:
                    self._connection = self._app().connection_for_write()
                waiting: Any = self._connection.default_channel.client.llen(QUEUE)
                if waiting < MOST_RINGS:
                    self._app().send_task(
                        DRAIN, queue=QUEUE, expires=RING_KEPT_S, ignore_result=True, connection=self._connection
                    )
                return True
            except (OperationalError, RedisError, OSError):
                self._hang_up()
                return False

    def close(self) -> None:
        with self._guard:
            self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
