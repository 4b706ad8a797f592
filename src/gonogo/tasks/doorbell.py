"""Rings: tells the workers that something waits in the ledger. A ring that is lost is rung again by the reconciler."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable

from redis.exceptions import RedisError

from gonogo.store.faults import StoreError
from gonogo.tasks.broker import DRAIN, MOST_RINGS, QUEUE, RING_KEPT_S

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection


class Bell:
    """The doorbell of one broker, for several threads. Never raises for a broker that is away.

    `app` gives the Celery app, at the first ring: importing Celery takes longer than all else of the part `tasks`.
    `url`: where the bell hangs now. One thread rings at a time, so that a broker that is silent holds up no more.
    """

    def __init__(self, app: Callable[[], Celery], url: Callable[[], str]) -> None:
        self._app, self._url = app, url
        self._guard = threading.Lock()
        self._wanted = False
        self._hung_at = ""
        self._connection: Connection | None = None

    def ring(self) -> bool:
        """Wake a worker. True: a ring is on its way, this one or earlier ones that nobody has answered yet."""
        self._wanted = True
        if not self._guard.acquire(blocking=False):
            return True
        try:
            rung = True
            while rung and self._wanted:
                self._wanted = False
                rung = self._ring()
            return rung
        finally:
            self._guard.release()

    def close(self) -> None:
        with self._guard:
            self._hang_up()

    def _ring(self) -> bool:
        from kombu.exceptions import OperationalError

        try:
            url = self._url()
            if url != self._hung_at:
                self._hang_up()
            if self._connection is None:
                self._connection, self._hung_at = self._app().connection_for_write(url), url
            waiting: Any = self._connection.default_channel.client.llen(QUEUE)
            if waiting < MOST_RINGS:
                self._app().send_task(
                    DRAIN, queue=QUEUE, expires=RING_KEPT_S, ignore_result=True, connection=self._connection
                )
            return True
        except (OperationalError, RedisError, OSError, ValueError, StoreError):  # ValueError: no password in its file
            self._hang_up()
            return False

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
