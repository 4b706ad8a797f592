"""Runs of agents on paper: what may be asked, how a run ends, what becomes of one whose worker died."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.security.keys import SCOPES
from gonogo.spec.recipe_parts import Program
from gonogo.tasks.agents.asked import LONGEST_TASK, SCOPE, read_agent, require_scope
from gonogo.tasks.agents.nouns import MOST_RESTARTS, MOST_TEXT_BYTES, PROGRAMS, OnWorkerDeath, Run, bounded, cut
from gonogo.tasks.agents.verdict import Why, after_loss, judge
from gonogo.tasks.asked import NotAllowed, Wrong
from gonogo.tasks.nouns import State

ASKED = {"program": "phone-agent", "task": "打开微信", "device": "emulator-5554"}
RUN = Run(
    program="phone-agent",
    device="emulator-5554",
    max_steps=20,
    time_limit_s=600.0,
    on_worker_death=OnWorkerDeath.FAIL,
    number=1,
    attempt=1,
    steps=0,
    key_id=None,
)


def test_what_is_not_said_is_what_the_program_itself_does_and_a_dead_worker_fails_it() -> None:
    asked, run = read_agent(ASKED, "svc")
    assert (run.max_steps, run.time_limit_s, run.on_worker_death) == (100, 1800.0, OnWorkerDeath.FAIL)
    assert (asked.url, asked.model, asked.body["lang"], asked.body["model"]) == (
        "agent:phone-agent",
        "svc",
        "cn",
        "svc",
    )
    assert "微信" not in repr(asked)


def test_the_longest_order_goes_into_a_pipe_that_nobody_reads_yet() -> None:
    longest = read_agent({**ASKED, "task": "😀" * LONGEST_TASK}, "svc")[0].body
    assert len(json.dumps(longest, ensure_ascii=False).encode()) < 60_000


def test_every_program_is_one_that_recipes_name() -> None:
    assert set(PROGRAMS) <= {one.value for one in Program}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"program": "bash"}, "agent.program"),
        ({"program": None}, "agent.program"),
        ({"task": ""}, "agent.task"),
        ({"task": " \n"}, "agent.task"),
        ({"task": 7}, "agent.task"),
        ({"task": "x" * 10_001}, "agent.task"),
        ({"task": "half \ud83d"}, "agent.task"),
        ({"device": ""}, "agent.device"),
        ({"device": "-s"}, "agent.device"),
        ({"device": "a b"}, "agent.device"),
        ({"device": "a\n"}, "agent.device"),
        ({"device": None}, "agent.device"),
        ({"max_steps": 0}, "agent.max_steps"),
        ({"max_steps": 201}, "agent.max_steps"),
        ({"max_steps": 2.5}, "agent.max_steps"),
        ({"max_steps": True}, "agent.max_steps"),
        ({"max_steps": "9"}, "agent.max_steps"),
        ({"time_limit_s": 0.5}, "agent.time_limit_s"),
        ({"time_limit_s": 21_601}, "agent.time_limit_s"),
        ({"time_limit_s": float("nan")}, "agent.time_limit_s"),
        ({"on_worker_death": "resume"}, "agent.on_worker_death"),
        ({"on_worker_death": None}, "agent.on_worker_death"),
        ({"lang": "de"}, "agent.lang"),
        ({"api_key": "x"}, "agent.api_key"),
    ],
)
def test_what_cannot_be_is_refused_with_the_name_of_its_field(changes: Any, param: str) -> None:
    with pytest.raises(Wrong) as wrong:
        read_agent({**ASKED, **changes}, "svc")
    assert wrong.value.param == param and f"`{param}`" in wrong.value.message


@pytest.mark.parametrize(
    ("agent", "model", "param"), [("x", "svc", "agent"), (ASKED, None, "model"), (ASKED, "", "model")]
)
def test_an_agent_is_an_object_and_its_service_is_named(agent: Any, model: Any, param: str) -> None:
    with pytest.raises(Wrong) as wrong:
        read_agent(agent, model)
    assert wrong.value.param == param


def test_only_a_key_with_the_scope_for_it_runs_agents() -> None:
    require_scope(("inference", "agents"))
    with pytest.raises(NotAllowed) as refused:
        require_scope(("inference", "models"))
    assert (refused.value.code, refused.value.param) == ("insufficient_scope", "agent")
    assert SCOPE in SCOPES


@pytest.mark.parametrize("device", ["emulator-5554", "192.168.1.7:5555", "R58M123ABC", "adb-R5.._adb-tls-connect._tcp"])
def test_every_form_of_a_serial_is_one(device: str) -> None:
    assert read_agent({**ASKED, "device": device}, "svc")[1].device == device


@pytest.mark.parametrize(
    ("end", "code", "why", "state", "reason", "told"),
    [
        ({"outcome": "finished"}, 0, None, State.DONE, None, None),
        ({"outcome": "finished"}, -9, None, State.DONE, None, None),
        ({"outcome": "step_limit"}, 0, None, State.FAILED, "step_limit", "within its 20 steps, after 7 steps"),
        ({"outcome": "needs_a_person"}, 0, None, State.FAILED, "needs_a_person", "nobody is there"),
        ({"outcome": "model_error"}, 0, None, State.FAILED, "model_error", "could not be asked"),
        ({"outcome": "answer_unreadable"}, 0, None, State.FAILED, "answer_unreadable", "no action"),
        ({"outcome": "agent_failed"}, 0, None, State.FAILED, "agent_failed", "without success"),
        ({"outcome": "what the model says"}, 0, None, State.FAILED, "agent_failed", "without success"),
        ({}, 0, None, State.FAILED, "agent_failed", "without success"),
        (None, 1, None, State.FAILED, "agent_died", "exit code 1"),
        (None, -11, None, State.FAILED, "agent_died", "signal 11"),
        (None, -15, Why.TIME_LIMIT, State.FAILED, "time_limit", "limit of 600 s, after 7 steps"),
        (None, -15, Why.STEP_LIMIT, State.FAILED, "step_limit", "beyond its 20 steps"),
        (None, -15, Why.NOT_READY, State.FAILED, "not_ready", "did not become ready"),
        (None, -15, Why.PROTOCOL, State.FAILED, "protocol", "what no step is"),
    ],
)
def test_only_a_run_that_said_that_it_finished_is_done(
    end: Any, code: Any, why: Any, state: State, reason: Any, told: Any
) -> None:
    verdict = judge(RUN, 7, end, code, why)
    assert (verdict.state, verdict.reason) == (state, reason)
    assert told is None or told in (verdict.message or "")


def test_a_dead_workers_run_fails_or_starts_again_as_its_owner_declared_and_not_for_ever() -> None:
    fails = after_loss(OnWorkerDeath.FAIL, 3, 1)
    assert (fails.state, fails.reason) == (State.FAILED, "worker_lost")
    assert "after 3 steps" in str(fails.message) and "not started again" in str(fails.message)
    again = [after_loss(OnWorkerDeath.RESTART, 3, losses).state for losses in range(1, MOST_RESTARTS + 2)]
    assert again == [State.QUEUED] * MOST_RESTARTS + [State.DEAD]


@given(st.text(max_size=3 * MOST_TEXT_BYTES))
def test_a_text_is_kept_whole_or_with_both_its_ends(text: str) -> None:
    kept = cut(text, 100)
    assert len(kept) < 200
    assert kept == text or (kept.startswith(text[:50]) and kept.endswith(text[-50:]) and "left out" in kept)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=50_000),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=400), inner),
        max_leaves=5,
    )
)
def test_whatever_a_model_says_is_bounded(value: Any) -> None:
    def size(one: Any) -> int:
        if isinstance(one, dict):
            return sum(size(name) + size(inner) for name, inner in one.items())
        return len(one) if isinstance(one, (str, list)) else 1

    assert size(bounded(value)) <= 32 * (2 * MOST_TEXT_BYTES)


def test_an_action_is_kept_as_it_was() -> None:
    action = {"_metadata": "do", "action": "Tap", "element": [500, 250], "message": "pay"}
    assert bounded(action) == action
