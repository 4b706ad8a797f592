"""The gate of limits: what it lets through, what its clients are told, and that what is refused later costs nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gonogo.gateway.policy.counters import LocalCounters
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.gate import REPLY_HEADERS, Admitted, OpenGate
from gonogo.gateway.policy.gate_limits import LimitsGate
from gonogo.gateway.policy.request import Request
from gonogo.security.keys import KeyRow

KEY = KeyRow(
    key_id="k",
    secret_hash="a" * 64,
    name="test",
    service="svc",
    revision=None,
    scopes=("inference",),
    created_at=1.0,
    expires_at=None,
    revoked_at=None,
)
REQUEST = Request(
    path="/v1/chat/completions",
    method="POST",
    request_id="r",
    model="svc",
    stream=False,
    n=1,
    max_tokens=60,
    prompt_tokens=40,
    expected_tokens=60,
    pictures=0,
    prefix=(),
    continuable=False,
    wants_usage=False,
)
FULL = Deny(status=429, code="overloaded", message="full", type="server_error", headers=(("retry-after", "2"),))


@dataclass
class Inner:
    """A gate that says what the test says."""

    answer: Admitted | Deny | BaseException = field(default_factory=Admitted)
    asked: int = 0

    async def admit(self, request: Request, key: KeyRow, revision: str) -> Admitted | Deny:
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Bench:
    def __init__(self, **limits: Any) -> None:
        self.inner = Inner()
        self.gate = LimitsGate(LocalCounters(lambda: 1_000_000), self.inner)
        self.key = replace(KEY, **limits)
        self.count = 0

    async def ask(self, **changes: Any) -> Admitted | Deny:
        self.count += 1
        request = replace(REQUEST, request_id=f"r{self.count}", **changes)
        answer = await self.gate.admit(request, self.key, "svc/1")
        await asyncio.sleep(0)  # what is given back is given back in a task of its own
        return answer


def test_a_key_without_limits_is_told_nothing_and_counted_nowhere() -> None:
    bench = Bench()
    answer = asyncio.run(bench.ask())
    assert isinstance(answer, Admitted) and answer.reply_headers == {}


def test_what_is_let_in_is_told_how_it_stands_beside_what_the_inner_gate_says() -> None:
    bench = Bench(requests_per_minute=3, tokens_per_minute=250)
    bench.inner.answer = Admitted(endpoints=("127.0.0.1:1",))
    answer = asyncio.run(bench.ask())
    assert isinstance(answer, Admitted)
    assert answer.endpoints == ("127.0.0.1:1",)
    assert set(answer.reply_headers) == set(REPLY_HEADERS)
    assert answer.reply_headers["x-ratelimit-remaining-requests"] == "2"
    assert answer.reply_headers["x-ratelimit-remaining-tokens"] == "150"


def test_what_the_limits_refuse_the_inner_gate_is_not_asked() -> None:
    async def run() -> None:
        bench = Bench(tokens_per_minute=150)
        assert isinstance(await bench.ask(), Admitted)
        denied = await bench.ask()
        assert isinstance(denied, Deny) and denied.code == "rate_limit_exceeded"
        assert bench.inner.asked == 1

    asyncio.run(run())


def test_what_the_inner_gate_refuses_gives_back_its_tokens_and_its_place_but_was_asked() -> None:
    async def run() -> None:
        bench = Bench(tokens_per_minute=100, concurrent=1, requests_per_minute=3)
        bench.inner.answer = FULL
        denied = await bench.ask()
        assert isinstance(denied, Deny) and denied.code == "overloaded"
        told = dict(denied.headers)
        assert (told["retry-after"], told["x-ratelimit-remaining-tokens"]) == ("2", "100")
        assert told["x-ratelimit-remaining-requests"] == "2"
        bench.inner.answer = Admitted()
        admitted = await bench.ask()
        assert isinstance(admitted, Admitted), "the place and the tokens are free again"
        assert admitted.reply_headers["x-ratelimit-remaining-requests"] == "1"

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError("ours"), asyncio.CancelledError()])
def test_who_goes_away_while_it_waits_and_what_we_got_wrong_cost_nothing(error: BaseException) -> None:
    async def run() -> None:
        bench = Bench(tokens_per_minute=100, concurrent=1)
        bench.inner.answer = error
        with pytest.raises(type(error)):
            await bench.ask()
        await asyncio.sleep(0)
        bench.inner.answer = Admitted()
        assert isinstance(await bench.ask(), Admitted)

    asyncio.run(run())


def test_a_gate_of_limits_stands_before_an_open_one_too() -> None:
    gate = LimitsGate(LocalCounters(lambda: 0), OpenGate())
    key = replace(KEY, concurrent=1)
    answers = [asyncio.run(gate.admit(replace(REQUEST, request_id=name), key, "svc/1")) for name in "ab"]
    assert isinstance(answers[0], Admitted) and isinstance(answers[1], Deny)
    assert answers[1].type == "requests"
