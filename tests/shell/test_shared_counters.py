"""Counting in the real Valkey: the same arithmetic as in memory, one count for many servers, and what survives what."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest
from hypothesis import HealthCheck, example, given, settings
from redis.exceptions import OutOfMemoryError

from gonogo.facts.part import COUNTERS_DB
from gonogo.gateway.policy.counters import HOLD_MS, End, LocalCounters, Taken, Taking
from gonogo.gateway.policy.ledger import ASKED_LATELY_S, Held, Hold, Ledger, MemoryLedger, Room
from gonogo.gateway.policy.limits import CONCURRENT
from gonogo.gateway.policy.shared import SharedCounters, SharedLedger, scripts, scripts_with
from gonogo.gateway.policy.valkey import ANSWER_LIMIT_S, Away, Valkey
from tests.core.limit_histories import Ask, Finish, Pass, Step, histories, limits
from tests.core.test_limits import Bench
from tests.shell.valkey_parts import Valkey as Server
from tests.shell.valkey_parts import reads

GIVEN_BACK = Finish(request=1, tokens=0, over=True, final=True)
MOVED = """local function wall_now_ms()
  return tonumber(redis.call('GET', 'wall of the test'))
end
"""


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as own:
        yield own


class Told(list[str]):
    """What a policy server wrote into its log."""


def connection(server: Server, told: Told | None = None, **other: Any) -> Valkey:
    said = Told() if told is None else told
    return Valkey(server.socket, COUNTERS_DB, other.pop("scripts", scripts()), tell=said.append, **other)


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def shared(valkey: Valkey) -> SharedCounters:
    return SharedCounters(valkey, LocalCounters(monotonic_ms))


def taking(name: str, of: Mapping[str, int], tokens: int = 1, key: str = "k") -> Taking:
    return Taking(request_id=name, key_id=key, limits=of, tokens=tokens)


@example({CONCURRENT: 1}, [Ask(tokens=1), Pass(ms=HOLD_MS + 1), Ask(tokens=1)])
@example({"tokens_per_minute": 100}, [Ask(tokens=9), Pass(ms=5000), Ask(tokens=9), GIVEN_BACK, Ask(tokens=0)])
@example(
    {"tokens_per_day": 9},
    [Ask(tokens=9), Pass(ms=HOLD_MS), Finish(request=0, tokens=1, over=True, final=True), Ask(tokens=0)],
)
@given(limits, histories)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_valkey_and_memory_count_the_same_whatever_the_clock_does(
    shared_server: Server, of: Mapping[str, int], steps: list[Step]
) -> None:
    asyncio.run(_same(shared_server, of, steps))


async def _same(server: Server, of: Mapping[str, int], steps: list[Step]) -> None:
    bench = Bench()
    client = server.client()
    for key in client.scan_iter():
        client.delete(key)
    valkey = connection(server, scripts=scripts_with(MOVED), boot_clock=lambda: bench.real_ms * 1_000_000)
    await valkey.start()
    counters = SharedCounters(valkey, LocalCounters(lambda: 0))
    try:
        client.set("wall of the test", bench.wall_ms)
        await counters.finish([End(request_id="nobody", tokens=None)])
        for step in steps:
            client.set("wall of the test", bench.wall_ms)
            if isinstance(step, Pass):
                bench.step(of, step)
            elif isinstance(step, Ask):
                name = f"r{len(bench.asked)}"
                theirs = await counters.take(taking(name, of, step.tokens))
                ours = await bench.counters.take(taking(name, of, step.tokens))
                bench.asked.append((name, step.tokens, ours.admitted))
                assert theirs == ours
            elif isinstance(step, Finish) and bench.asked:
                end = End(request_id=bench.asked_at(step)[0], tokens=step.tokens, over=step.over, final=step.final)
                await counters.finish([end])
                await bench.counters.finish([end])
        assert valkey.there, "everything was counted there"
    finally:
        await valkey.stop()


def test_a_ledger_in_valkey_and_one_in_memory_hold_the_same(server: Server) -> None:
    asyncio.run(_same_ledger(server))


async def _same_ledger(server: Server) -> None:
    valkey = connection(server)
    await valkey.start()
    now = time.time()
    ledgers: list[Ledger] = [
        SharedLedger(valkey, MemoryLedger(time.time), time.time),
        MemoryLedger(time.time),
    ]
    room = Room(tokens=100, sequences=2)

    def hold(name: str, tokens: int, life_s: float = 60) -> Hold:
        return Hold(request_id=name, revision="svc/1", key_id="k", tokens=tokens, expires_at=now + life_s)

    found = []
    for ledger in ledgers:
        both = ("10.0.0.1:1", "10.0.0.2:1")
        found.append(
            [
                await ledger.reserve(hold("a", 90), both, room),
                await ledger.reserve(hold("b", 20), both, room),
                await ledger.reserve(hold("c", 10), both, room),
                await ledger.reserve(hold("d", 1), both, room),
                await ledger.reserve(hold("d", 1), both, room),
                await ledger.reserve(hold("e", 1), both, room),
                dict(await ledger.held("svc/1")),
                await ledger.release(["a", "unknown"]),
                await ledger.release(["a"]),
                await ledger.reserve(hold("b", 100), both, room),
                await ledger.reserve(hold("d", 101), both, room),
                dict(await ledger.held("svc/1")),
                dict(await ledger.held("svc/2")),
            ]
        )
    await valkey.stop()
    assert found[0] == found[1]
    assert found[0][6] == {"10.0.0.1:1": Held(tokens=100, sequences=2), "10.0.0.2:1": Held(tokens=21, sequences=2)}


def test_a_hold_whose_end_nobody_heard_of_expires(server: Server) -> None:
    async def run() -> None:
        valkey = connection(server)
        await valkey.start()
        ledger = SharedLedger(valkey, MemoryLedger(time.time), time.time)
        room = Room(tokens=10, sequences=1)

        async def reserve(name: str) -> str | None:
            hold = Hold(request_id=name, revision="svc/1", key_id="k", tokens=5, expires_at=time.time() + 0.2)
            return await ledger.reserve(hold, ["here"], room)

        assert (await reserve("a"), await reserve("b")) == ("here", None)
        assert [name for name in ["b"] if (await asyncio.sleep(0.3)) is None and await reserve(name)] == ["b"]
        await valkey.stop()

    asyncio.run(run())


ASKER = """
import asyncio, sys, time
from pathlib import Path
from gonogo.gateway.policy.counters import LocalCounters, Taking
from gonogo.gateway.policy.shared import SharedCounters, scripts
from gonogo.gateway.policy.valkey import Valkey

async def main(socket, mine, count, limit):
    valkey = Valkey(Path(socket), 1, scripts(), tell=lambda text: print(text, file=sys.stderr))
    await valkey.start(within_s=10)
    counters = SharedCounters(valkey, LocalCounters(lambda: time.monotonic_ns() // 10**6))
    of = {"requests_per_minute": limit, "tokens_per_minute": 10 * limit, "concurrent": limit}
    async def one(number):
        taking = Taking(request_id=f"{mine}-{number}", key_id="k", limits=of, tokens=10)
        return (await counters.take(taking)).admitted
    admitted = 0
    for begin in range(0, count, 16):
        admitted += sum(await asyncio.gather(*(one(begin + n) for n in range(16))))
    print(admitted, valkey.opened)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def test_two_policy_processes_together_let_exactly_the_limit_through(server: Server) -> None:
    limit = 100
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", ASKER, str(server.socket), str(number), str(3 * limit), str(limit)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    answers = [one.communicate(timeout=60) for one in asked]
    found = [[int(word) for word in out.split()] for out, err in answers]
    assert sum(admitted for admitted, _ in found) == limit, answers
    assert all(opened == 1 for _, opened in found), "none counted by itself"


def test_counters_survive_a_kill_and_a_restart_of_policy_servers_and_of_valkey(server: Server) -> None:
    async def used() -> Taken:
        told = Told()
        valkey = connection(server, told)
        await valkey.start(within_s=10)
        taken = await shared(valkey).take(taking(os.urandom(4).hex(), {"tokens_per_day": 1000, CONCURRENT: 100}, 10))
        assert told == [], told
        await valkey.stop()
        return taken

    assert [one.used for one in asyncio.run(used()).standings] == [10, 1]
    assert [one.used for one in asyncio.run(used()).standings] == [20, 2], "another policy server goes on"
    assert server.end(signal.SIGTERM) == 0
    server.start()
    assert [one.used for one in asyncio.run(used()).standings] == [30, 3]
    time.sleep(1.2)  # what is older than a second is on disk (appendfsync everysec)
    server.end(signal.SIGKILL)
    server.start()
    assert [one.used for one in asyncio.run(used()).standings] == [40, 4]
    server.end(signal.SIGKILL)
    shutil.rmtree(server.directory / "appendonlydir")
    server.start()
    assert [one.used for one in asyncio.run(used()).standings] == [10, 1], "one that begins empty counts from zero"


def test_a_stopped_valkey_holds_a_request_up_for_its_bound_once_and_then_nobody(server: Server) -> None:
    asyncio.run(_stopped(server))


async def _stopped(server: Server) -> None:
    told = Told()
    valkey = connection(server, told)
    await valkey.start()
    counters = shared(valkey)
    of = {"requests_per_minute": 5}
    first = await counters.take(taking("a", of))
    assert first.standings[0].used == 1
    server.stop()
    began = time.monotonic()
    held_up = await asyncio.gather(*(counters.take(taking(f"b{number}", of)) for number in range(8)))
    assert time.monotonic() - began < ANSWER_LIMIT_S + 2, "the bound, and what a busy machine adds"
    assert [one.admitted for one in held_up] == [True] * 5 + [False] * 3, (
        "counted here: the limit holds for this server"
    )
    assert not valkey.there
    server.go_on()
    await reads(lambda: valkey.there)
    again = await counters.take(taking("c", {"requests_per_minute": 100}))
    assert 2 <= again.standings[0].used <= 10, "it goes on with what Valkey had, and what lay in its socket meanwhile"
    await valkey.stop()
    assert len(told) == 2 and "counts by itself" in told[0] and "count together" in told[1], told


def test_a_valkey_that_is_not_there_at_first_or_dies_is_told_of_once(server: Server) -> None:
    async def run() -> None:
        told = Told()
        server.end(signal.SIGKILL)
        valkey = connection(server, told)
        await valkey.start(within_s=5)
        counters = shared(valkey)
        of = {"requests_per_minute": 1}
        assert [(await counters.take(taking(name, of))).admitted for name in "ab"] == [True, False]
        await asyncio.sleep(0.5)
        assert len(told) == 1
        await asyncio.to_thread(server.start)
        await reads(lambda: valkey.there)
        assert (await counters.take(taking("c", of))).admitted
        server.end(signal.SIGKILL)
        await reads(lambda: not valkey.there)
        assert not (await counters.take(taking("d", of))).admitted, "this server's own count still stands"
        assert len(told) == 3
        await valkey.stop()

    asyncio.run(run())


def test_a_valkey_that_refuses_to_write_is_told_of_and_counting_goes_on_here() -> None:
    async def run(server: Server) -> None:
        told = Told()
        valkey = connection(server, told)
        await valkey.start()
        counters = shared(valkey)
        assert (await counters.take(taking("a", {"requests_per_minute": 1}))).admitted
        client = server.client()
        client.eval("for i = 1, 6000 do redis.call('SET', 'filler' .. i, string.rep('x', 1000)) end", 0)
        with pytest.raises(OutOfMemoryError):
            client.set("filler", "x")
        assert (await counters.take(taking("b", {"requests_per_minute": 1}))).admitted, "counted here, from zero"
        assert not (await counters.take(taking("c", {"requests_per_minute": 1}))).admitted
        assert len(told) == 1 and "refuses" in told[0], told
        client.delete(*(f"filler{number}" for number in range(6001)))
        taken = await counters.take(taking("d", {"requests_per_minute": 3}))
        assert (taken.standings[0].used, told[1:]) == (2, ["Valkey is there again: policy servers count together"])
        await valkey.stop()

    with Server("--maxmemory", "4mb") as small:
        asyncio.run(run(small))


def test_a_valkey_that_ends_each_connection_at_once_is_asked_ever_more_seldom(tmp_path: Path) -> None:
    opened: list[float] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(time.monotonic())
        for _ in range(1 + len(scripts())):
            await reader.read(65536)
            writer.write(b"+OK\r\n")
        writer.close()

    async def run() -> None:
        told = Told()
        async with await asyncio.start_unix_server(answer, str(tmp_path / "v.sock")):
            valkey = Valkey(tmp_path / "v.sock", COUNTERS_DB, scripts(), tell=told.append)
            await valkey.start()
            await reads(lambda: len(opened) >= 4)
            await valkey.stop()
        pauses = [after - before for before, after in pairwise(opened)]
        assert pauses[0] >= 0.1 and pauses[1] >= 0.2 and pauses[2] >= 0.4, pauses
        assert len(told) <= 2 * len(opened)

    asyncio.run(run())


def test_a_request_that_was_cancelled_leaves_the_answers_of_the_others_in_order(server: Server) -> None:
    async def run() -> None:
        valkey = connection(server)
        await valkey.start()
        waiting = [asyncio.create_task(valkey.call("ECHO", str(number))) for number in range(10)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [one for number, one in enumerate(answers) if number != 3] == [
            str(number).encode() for number in range(10) if number != 3
        ]
        with pytest.raises(Away):
            await valkey.call("NO SUCH COMMAND")
        await valkey.stop()
        with pytest.raises(Away):
            await valkey.call("PING")

    asyncio.run(run())


def test_when_prompts_should_be_computed_is_known_in_valkey_as_in_memory(server: Server) -> None:
    async def run() -> None:
        valkey = connection(server)
        await valkey.start()
        room, found = Room(tokens=100, sequences=9), []
        for ledger in (SharedLedger(valkey, MemoryLedger(time.time), time.time), MemoryLedger(time.time)):
            for number, prompt_s in enumerate((20.0, 10.0, 0.0)):
                hold = Hold(
                    request_id=f"p{number}",
                    revision="svc/7",
                    key_id="k",
                    tokens=5,
                    expires_at=time.time() + 60,
                    prompt_s=prompt_s,
                )
                await ledger.reserve(hold, ["here" if prompt_s else "there"], room)
            held = await ledger.held("svc/7")
            await ledger.release(["p0", "p1"])
            await ledger.reserve(replace(hold, request_id="p3"), ["here"], room)
            after = await ledger.held("svc/7")
            found.append([each.prompts_s for each in (held["here"], held["there"], after["here"])])
        await valkey.stop()
        for here, there, after in found:
            assert 20.0 < here <= 30.0
            assert (there, after) == (0.0, 0.0)

    asyncio.run(run())


def test_that_somebody_asked_is_known_in_valkey_as_in_memory(server: Server) -> None:
    async def run() -> None:
        valkey = connection(server)
        await valkey.start()
        for ledger in (SharedLedger(valkey, MemoryLedger(time.time), time.time), MemoryLedger(time.time)):
            line = Hold(request_id="l", revision="svc/8", key_id="k", tokens=5, expires_at=time.time() + 60)
            await ledger.reserve(line, ["here"], Room(tokens=10, sequences=2))
            assert not await ledger.asked("svc/8")
            talk = replace(line, request_id="t", asks=True)
            assert await ledger.reserve(talk, ["here"], Room(tokens=1, sequences=1)) is None
            assert not await ledger.asked("svc/8"), "it did not go on"
            await ledger.reserve(talk, ["here"], Room(tokens=10, sequences=2))
            assert await ledger.asked("svc/8") and not await ledger.asked("svc/9")
        left_ms = await valkey.call("PTTL", "asked:svc/8")
        await valkey.stop()
        assert 0 < left_ms <= ASKED_LATELY_S * 1000

    asyncio.run(run())
