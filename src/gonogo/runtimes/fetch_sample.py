"""How fast a hub gives, by a short read of one file over several connections. What was read is thrown away."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

from gonogo.runtimes.checkpoint_reading import RepositoryError
from gonogo.runtimes.hub_client import HubClient

SAMPLE_BYTES, SAMPLE_S, SAMPLED_AT_ONCE = 4 * 1024**2, 2.0, 4
"""By each connection at most; of all of them together, however slow they are."""


class Sample:
    """One read of a file of `size_bytes`: no more than `most_bytes` of it in all."""

    def __init__(self, client: HubClient, url: str, size_bytes: int, most_bytes: int) -> None:
        self._client, self._url = client, url
        self._piece_bytes = min(SAMPLE_BYTES, size_bytes // SAMPLED_AT_ONCE, most_bytes // SAMPLED_AT_ONCE)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._came_bytes, self._first_at = 0, 0.0

    def bytes_per_s(self) -> float | None:
        """None: too little came to say. Raises RepositoryError where the hub does not give the file at all."""
        if self._piece_bytes == 0:
            return None
        pool = ThreadPoolExecutor(max_workers=SAMPLED_AT_ONCE)
        tries = [pool.submit(self._read, at * self._piece_bytes) for at in range(SAMPLED_AT_ONCE)]
        done, _ = wait(tries, timeout=SAMPLE_S)
        self._ended.set()
        pool.shutdown(wait=False, cancel_futures=True)  # whoever still waits for a silent hub ends with its client
        for one in done:
            if isinstance(problem := one.exception(), RepositoryError):
                raise problem
        with self._lock:
            took_s = max(time.monotonic() - self._first_at, 1e-3)
            return self._came_bytes / took_s if self._came_bytes else None

    def _read(self, first: int) -> None:
        have = 0
        with self._client.opened(self._url, first, first + self._piece_bytes - 1) as stream:
            for content in stream.pieces:
                have += len(content)
                with self._lock:
                    self._first_at = self._first_at or time.monotonic()
                    self._came_bytes += len(content)
                if self._ended.is_set() or have >= self._piece_bytes:
                    return
