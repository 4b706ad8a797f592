"""Control's look at its host: what takes processes to see is waited for once, and never again."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from gonogo.control import sight
from gonogo.control.sight import HostSight, Slow
from gonogo.facts.accelerator import Accelerator, Driver
from gonogo.facts.host import Tools
from gonogo.runtimes.look import AcceleratorsSeen
from gonogo.runtimes.paths import StatePaths

LIMIT_S = 10.0


def slow(words: str) -> Slow:
    seen = AcceleratorsSeen(driver=Driver(words=words), accelerators=None, links=None, others=None)
    return Slow(installed=(), accelerators=seen, tools=Tools())


def looker(answers: list[Callable[[], Slow]]) -> classmethod:  # type: ignore[type-arg]
    return classmethod(lambda cls: answers.pop(0)())


def test_a_driver_that_hangs_costs_no_later_look_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, released = threading.Event(), threading.Event()

    def hang() -> Slow:
        hanging.set()
        released.wait(LIMIT_S)
        return slow("after the hang")

    monkeypatch.setattr(Slow, "look", looker([lambda: slow("at first"), hang]))
    monkeypatch.setattr(sight, "INSTALLED_EVERY_S", 0.0)
    host = HostSight(StatePaths.of(tmp_path))
    assert words(host) == "at first"
    assert words(host) == "at first", "known facts while a thread looks again"
    assert hanging.wait(LIMIT_S)
    assert [words(host) for _ in range(3)] == ["at first"] * 3, "and only one thread looks"
    looking = host._looking
    monkeypatch.setattr(sight, "INSTALLED_EVERY_S", 1000.0)
    released.set()
    assert looking is not None
    looking.join(LIMIT_S)
    assert words(host) == "after the hang"


def words(host: HostSight, *own: int) -> str | None:
    driver = host.look(frozenset(), own).driver
    return driver.words if driver is not None else None


def test_accelerators_are_looked_at_again_when_processes_of_ours_came_or_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an ended replica held of a card is free: a plan must not be refused for it for five minutes."""
    looks: list[int] = []

    def look_again() -> AcceleratorsSeen:
        looks.append(len(looks) + 1)
        return replace(gpus, driver=Driver(words=f"look {len(looks)}"))

    card = Accelerator(index=0, name="GPU", memory_total_bytes=1, memory_used_bytes=1)
    gpus = AcceleratorsSeen(driver=Driver(words="at first"), accelerators=(card,), links=None, others=None)
    monkeypatch.setattr(Slow, "look", looker([lambda: Slow(installed=(), accelerators=gpus, tools=Tools())]))
    monkeypatch.setattr(sight, "look_at_accelerators", look_again)
    host = HostSight(StatePaths.of(tmp_path))
    assert [words(host, 7), words(host, 7)] == ["at first", "at first"]
    words(host, 7, 8)
    assert host._looking is not None
    host._looking.join(LIMIT_S)
    assert [words(host, 7, 8), words(host, 8, 7)] == ["look 1", "look 1"]
    assert looks == [1], "nobody came or went since"


def test_a_host_without_accelerators_is_not_asked_for_them_again_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slow, "look", looker([lambda: slow("none")]))
    host = HostSight(StatePaths.of(tmp_path))
    assert [words(host, 7), words(host, 8)] == ["none", "none"]
    assert host._looking is None
