"""A steady load of requests in threads, every answer recorded: what fails is counted, not averaged away."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import httpx

from tests.acceptance.deployment import Deployment


@dataclass(frozen=True)
class Answer:
    """One request: when it began and ended (monotonic seconds), its status (0: no answer) and what went wrong."""

    began: float
    ended: float
    status: int
    error: str = ""


@dataclass
class Load:
    """`workers` clients that ask one after the other until stopped."""

    deployment: Deployment
    workers: int = 2
    tokens: int = 4
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.workers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    def wait_for_more(self, count: int, limit_s: float = 120.0) -> None:
        """Wait until so many more answers came."""
        wanted, deadline = len(self.answers) + count, time.monotonic() + limit_s
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, (
                f"{len(self.answers)} answers, wanted {wanted}; failed: {self.failed[:3]}"
            )
            time.sleep(0.02)

    def _ask(self, client: httpx.Client) -> tuple[int, str]:
        """One request: its status, and what went wrong."""
        answer = self.deployment.ask(client, tokens=self.tokens)
        return answer.status_code, "" if answer.status_code == 200 else answer.text[:300]

    def _work(self) -> None:
        with self.deployment.client() as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    status, text = self._ask(client)
                    seen = Answer(began, time.monotonic(), status, text)
                except httpx.HTTPError as error:
                    seen = Answer(began, time.monotonic(), 0, f"{type(error).__name__}: {error}")
                self.answers.append(seen)
                if seen.status != 200:
                    time.sleep(0.05)


class Streams(Load):
    """The same with streams; one that does not come to its end has failed, whatever its status."""

    def _ask(self, client: httpx.Client) -> tuple[int, str]:
        question = {
            "model": self.deployment.service,
            "messages": [{"role": "user", "content": "Count to twenty."}],
            "max_tokens": self.tokens,
            "stream": True,
        }
        with client.stream("POST", "/v1/chat/completions", json=question) as answer:
            text = answer.read().decode("utf-8", "replace")
        whole = answer.status_code == 200 and text.rstrip().endswith("data: [DONE]")
        return (200, "") if whole else (answer.status_code if answer.status_code != 200 else 0, text[-300:])
