"""From a lost replica to the next one: for how long another is looked for, which ones not, and what it is asked for.

Not here: an attempt itself, and when one counts as lost (`relayed`); what a transcript must know first, and how an
answer goes on (`gonogo.engines.stream`).
"""

from __future__ import annotations

import asyncio
import time
from typing import Mapping

from gonogo.engines.stream import Continuation, Finished, NotContinued, Transcript
from gonogo.gateway.relay.record import Attempt, Loss, Record
from gonogo.gateway.relay.upstream import Inner, NotAnswered
from gonogo.gateway.relay.watch import Watch

WITHIN_S = 5.0
"""From the loss of a replica until another must have taken the request."""
ASK_AGAIN_S = 0.1
PICK_HEADER, REVISION_HEADER = "x-gateway-destination-endpoint", "x-gonogo-revision"


class TakeOver:
    """Of one stream. `headers` go along with every request to the inner listener; where it is sent to changes.

    `losses`: every lost attempt, for a drill that asks where the time went.
    """

    def __init__(self, inner: Inner, watch: Watch, headers: Mapping[str, str], continuations: int) -> None:
        self._inner, self._watch = inner, watch
        self._continuations = continuations
        self.headers = dict(headers)
        self._picked = self.headers.pop(PICK_HEADER, None)
        self._lost_at: float | None = None
        self._lost_replicas: set[str] = set()
        self.losses: list[Loss] = []

    @property
    def under_way(self) -> bool:
        """Whether a replica was lost, and none has given a piece since."""
        return self._lost_at is not None

    @property
    def sent_to(self) -> str | None:
        """The endpoint that is asked first, if one is known."""
        return self.headers.get(PICK_HEADER, "").partition(",")[0] or None

    async def aim(self) -> None:
        """Not at a replica that was lost: while its health checks still pass it has the fewest requests of all."""
        picked = self._picked if self._lost_at is None else None
        where = await self._watch.endpoints(self.headers.get(REVISION_HEADER, ""), picked, self._lost_replicas)
        self.headers.pop(PICK_HEADER, None)
        if where is not None:
            self.headers[PICK_HEADER] = where

    def lost(self, attempt: Attempt) -> None:
        """This attempt broke off now."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if attempt.replica is not None:
            self._lost_replicas.add(attempt.replica)
        if attempt.end != "refused":
            self.losses.append(Loss(replica=attempt.replica, end=attempt.end, noticed=now))

    def asked(self) -> None:
        """The rest is asked for now."""
        if self.losses:
            self.losses[-1].asked = time.monotonic()

    def gave(self, now: float) -> None:
        """A piece came: the take-over, if there was one, is done."""
        if self._lost_at is not None and self.losses:
            self.losses[-1].first = now
        self._lost_at = None

    async def next(
        self, transcript: Transcript, record: Record, going: Continuation
    ) -> Continuation | Finished | NotContinued:
        """What follows `going`, whose attempt, the record's last one, was lost."""
        assert self._lost_at is not None
        if record.attempts[-1].end == "refused":  # nobody took it: that is no attempt of the budget, but it has an end
            if time.monotonic() - self._lost_at > WITHIN_S:
                return NotContinued(reason="no_replica")
            await asyncio.sleep(ASK_AGAIN_S)
            record.attempts.pop()
            if going.how == "first":
                record.attempts.clear()
                return going
        elif record.continued >= self._continuations:
            return NotContinued(reason="budget")
        while True:
            try:
                return await self._resumed(transcript)
            except NotAnswered as error:
                if error.refused:
                    return NotContinued(reason="question_refused")
                if time.monotonic() - self._lost_at > WITHIN_S:
                    return NotContinued(reason="no_replica")
                await asyncio.sleep(ASK_AGAIN_S)

    async def _resumed(self, transcript: Transcript) -> Continuation | Finished | NotContinued:
        """Ask what the transcript must know, of any healthy replica. Raises `NotAnswered`."""
        resume = transcript.resume()
        try:
            question = next(resume)
            while True:
                question = resume.send(await self._inner.ask(question, self.headers))
        except StopIteration as end:
            result: Continuation | Finished | NotContinued = end.value
            return result
