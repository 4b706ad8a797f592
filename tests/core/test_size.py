"""How many replicas: as asked, else two where two fit."""

from __future__ import annotations

from dataclasses import replace

from gonogo.engines.size import replicas_wanted
from tests.core import worlds
from tests.core.worlds import GIB, revision, running, world

UNASKED = revision(1, replicas=None)


def tight() -> worlds.HostFacts:
    return replace(worlds.HOST, memory_available_bytes=GIB // 4)


def test_as_many_as_were_asked_for() -> None:
    assert replicas_wanted(revision(1, replicas=worlds.Replicas(min=3, max=5)), world()) == 3


def test_two_where_two_fit() -> None:
    assert replicas_wanted(UNASKED, world()) == 2


def test_one_where_memory_holds_one() -> None:
    assert replicas_wanted(UNASKED, world(host=tight())) == 1


def test_one_on_a_single_core() -> None:
    assert replicas_wanted(UNASKED, world(host=replace(worlds.HOST, cores=1))) == 1


def test_the_number_does_not_flap_when_others_take_the_memory_later() -> None:
    small = tuple(replace(one, memory=None) for one in running("svc/1/0", "svc/1/1"))
    assert replicas_wanted(UNASKED, world(host=tight(), replicas=small)) == 2
