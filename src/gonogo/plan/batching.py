"""Which waiting requests go next: batches under a budget of tokens, by priority, fair between keys. Pure.

The engine's own continuous batching stays; this decides what it is fed: by the gateway's admission, and by workers that
drain a queue. A request costs its prompt *and* its expected answer. What holds, whatever arrives (property tests):

* A batch never costs more than the budget, nor holds more requests than allowed. `min_batch` never overrides that: it
  only lets a smaller batch wait, at most until its oldest request has waited `longest_wait_s`.
* Nobody starves: a request that finds `n` others waiting is in one of the next `turn × (n + 1)` batches, since whoever
  waits longest, of any priority and key, begins the next batch once `turn - 1` of them passed it by. While it does not
  fit into the room that is left, the room is kept for it: nothing is taken, and that counts as no batch.
* Otherwise interactive requests go before batch ones, and among equals the key that was given the fewest tokens first:
  with `turn` ≥ 3, two keys that always have requests waiting are given the same within three budgets.
* A request that costs more than the whole budget is refused by its name at once, and holds nobody up.

Not here: the clock (`now` is given, seconds of a monotonic one), which replica a request goes to, what an engine holds.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Iterator, Mapping, Sequence

UNKNOWN_PROMPT_TOKENS, UNKNOWN_OUTPUT_TOKENS = 512, 256
"""What a length that nobody knows is counted as, unless the caller assumes otherwise."""
TURN = 4


class Priority(IntEnum):
    """Who goes first: lower before higher."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One request that waits since `since` (seconds, monotonic). A length of None is not known."""

    request_id: str
    prompt_tokens: int | None
    output_tokens: int | None
    key: str = ""
    priority: Priority = Priority.INTERACTIVE
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What goes next, and its cost in tokens. Empty with `wait_s`: ask again in so long; with None: nothing can go."""

    requests: tuple[Waiting, ...] = ()
    tokens: int = 0
    wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLarge:
    """A refusal: this request alone costs more than any batch may."""

    request_id: str
    tokens: int
    max_tokens: int

    def __str__(self) -> str:
        return (
            f"request {self.request_id} needs {self.tokens} tokens, prompt and expected answer together, and a batch "
            f"has {self.max_tokens}: shorten the prompt, ask for fewer tokens, or raise max_tokens"
        )


class RequestTooLarge(ValueError):
    """`schedule` met it at the head of its list; the text names the request."""


class DynamicBatchScheduler:
    """Holds what waits, and forms batches of it. Deterministic: the same calls give the same batches.

    `max_tokens` of a batch; `min_batch` requests are waited for, `longest_wait_s` at most; `turn`: the oldest request
    is in one of so many batches (1: in the next). Raises ValueError for numbers that cannot be meant.
    """

    def __init__(
        self,
        max_tokens: int = 4096,
        min_batch: int = 1,
        *,
        longest_wait_s: float = 0.05,
        turn: int = TURN,
        unknown_prompt_tokens: int = UNKNOWN_PROMPT_TOKENS,
        unknown_output_tokens: int = UNKNOWN_OUTPUT_TOKENS,
    ) -> None:
        if min(max_tokens, min_batch, turn) < 1 or not longest_wait_s >= 0:
            raise ValueError("max_tokens, min_batch and turn are one or more, longest_wait_s is not negative")
        if min(unknown_prompt_tokens, unknown_output_tokens) < 0:
            raise ValueError("a length that is assumed is not negative")
        self.max_tokens, self.min_batch = max_tokens, min_batch
        self._longest_wait_s, self._turn = longest_wait_s, turn
        self._unknown = unknown_prompt_tokens, unknown_output_tokens
        self._passed_by = 0
        self._waiting: dict[str, Waiting] = {}
        self._queues: dict[tuple[Priority, str], dict[str, Waiting]] = {}
        self._served: dict[str, int] = {}
        self._floor = 0

    def schedule(self, requests: Sequence[Mapping[str, Any]]) -> int:
        """How many of the first requests go together: `requests[:n]` never costs more than `max_tokens`; [] gives 0.

        Each has `input_ids`, and `max_new_tokens` where it is known. Without a time nothing can be waited for, so that
        `min_batch` plays no part. Raises RequestTooLarge when the first one alone costs too much.
        """
        spent = 0
        for position, request in enumerate(requests):
            output = request.get("max_new_tokens")
            cost = len(request["input_ids"]) + (self._unknown[1] if output is None else int(output))
            if spent + cost > self.max_tokens:
                if position == 0:
                    raise RequestTooLarge(str(TooLarge(request_id="0", tokens=cost, max_tokens=self.max_tokens)))
                return position
            spent += cost
        return len(requests)

    def cost(self, request: Waiting) -> int:
        """Tokens of its prompt and its expected answer; what is not known is counted as assumed. At least 1."""
        prompt, output = request.prompt_tokens, request.output_tokens
        total = (self._unknown[0] if prompt is None else prompt) + (self._unknown[1] if output is None else output)
        return max(1, total)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """What all that waits costs together."""
        return sum(self.cost(request) for request in self._waiting.values())

    def add(self, request: Waiting) -> TooLarge | None:
        """Let it wait, behind all that wait; or say why it never could go. Raises ValueError for an id twice."""
        if request.request_id in self._waiting:
            raise ValueError(f"request {request.request_id} waits already")
        cost = self.cost(request)
        if cost > self.max_tokens:
            return TooLarge(request_id=request.request_id, tokens=cost, max_tokens=self.max_tokens)
        if not any((priority, request.key) in self._queues for priority in Priority):
            # Who was away has saved nothing up: it begins level with the one that was given least.
            self._served[request.key] = max(self._served.get(request.key, 0), self._floor)
        self._waiting[request.request_id] = request
        self._queues.setdefault((request.priority, request.key), {})[request.request_id] = request
        return None

    def remove(self, request_id: str) -> bool:
        """Forget one that waits, as its client went away; whether it waited."""
        request = self._waiting.get(request_id)
        if request is None:
            return False
        if request_id == next(iter(self._waiting)):
            self._passed_by = 0
        del self._waiting[request_id]
        queue = self._queues[request.priority, request.key]
        del queue[request_id]
        if not queue:
            del self._queues[request.priority, request.key]
        return True

    def take(self, now: float, *, tokens: int | None = None, most: int | None = None) -> Batch:
        """The next batch, which waits no longer. `tokens`: the room, where less than the budget; `most` requests."""
        batch = self.propose(now, tokens=tokens, most=most)
        self.went(batch)
        return batch

    def propose(self, now: float, *, tokens: int | None = None, most: int | None = None) -> Batch:
        """What `take` would give. All of it waits on, until the same batch is said to have gone (`went`)."""
        room = self.max_tokens if tokens is None else min(tokens, self.max_tokens)
        most = len(self._waiting) if most is None else min(most, len(self._waiting))
        if most <= 0:
            return Batch()
        wait_s = self._wait_s(now)
        if wait_s > 0:
            return Batch(wait_s=wait_s)
        chosen = tuple(self._chosen(room, most))
        return Batch(requests=chosen, tokens=sum(self.cost(request) for request in chosen))

    def went(self, batch: Batch) -> None:
        """These wait no longer, and count as given to their keys. One that was removed meanwhile counts too."""
        oldest = next(iter(self._waiting), None)
        for request in batch.requests:
            self._served[request.key] = self._served.get(request.key, self._floor) + self.cost(request)
            self.remove(request.request_id)
        if batch.requests:
            self._passed_by += int(oldest is not None and oldest in self._waiting)
            self._raise_floor()

    def batches(self, requests: Sequence[Waiting]) -> tuple[tuple[Batch, ...], tuple[TooLarge, ...]]:
        """All of them in batches, nothing waited for, and who was refused. Takes what waited before along."""
        refused = tuple(refusal for refusal in map(self.add, requests) if refusal is not None)
        formed = []
        while self._waiting:
            formed.append(self.take(float("inf")))
        return tuple(formed), refused

    def _wait_s(self, now: float) -> float:
        if len(self._waiting) >= self.min_batch:
            return 0.0
        oldest = min(request.since for request in self._waiting.values())
        return self._longest_wait_s - (now - oldest)

    def _chosen(self, room: int, most: int) -> Iterator[Waiting]:
        served = dict(self._served)
        first: Waiting | None = None
        if self._passed_by >= self._turn - 1:
            first = next(iter(self._waiting.values()))
            cost = self.cost(first)
            if cost > room:
                return
            room, most = room - cost, most - 1
            served[first.key] += cost
            yield first
        for priority in Priority:
            for request in self._fair(priority, served):
                if most == 0 or room == 0:
                    return
                cost = self.cost(request)
                if cost <= room and request is not first:
                    room, most = room - cost, most - 1
                    served[request.key] += cost
                    yield request

    def _fair(self, priority: Priority, served: Mapping[str, int]) -> Iterator[Waiting]:
        """Those of this priority, each time the next of the key that was given least, whether or not the last one went.

        A key that is a whole budget ahead fills no gaps: where the others' requests are large it would for ever.
        """
        heads = [
            (served[key], number, key, iter(queue.values()))
            for number, ((of, key), queue) in enumerate(self._queues.items())
            if of is priority
        ]
        heapq.heapify(heads)
        furthest = heads[0][0] + self.max_tokens if heads else 0
        while heads:
            given, number, key, requests = heads[0]
            request = next(requests, None) if given <= furthest else None
            if request is None:
                heapq.heappop(heads)
                continue
            yield request
            heapq.heapreplace(heads, (served[key], number, key, requests))

    def _raise_floor(self) -> None:
        """The floor is what the least served of those that wait was given; who is below it and away is forgotten."""
        waiting = {key for _, key in self._queues}
        least = min((self._served[key] for key in waiting), default=max(self._served.values(), default=0))
        self._floor = max(self._floor, least)
        self._served = {key: given for key, given in self._served.items() if key in waiting or given > self._floor}
