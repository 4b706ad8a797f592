"""Control's look at its host: what takes processes to see is waited for once, and never again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Callable

import pytest

from gonogo.control import sight
from gonogo.control.sight import HostSight, Slow
from gonogo.facts.accelerator import Driver
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


def words(host: HostSight) -> str | None:
    driver = host.look(frozenset(), []).driver
    return driver.words if driver is not None else None
