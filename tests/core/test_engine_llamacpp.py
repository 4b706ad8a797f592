"""The llama.cpp adapter: its command line, planned beside printed memory, and what its texts are read as."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gonogo.engines.llamacpp import (
    BATCH_TOKENS,
    MIB,
    LlamaCpp,
    connections,
    context_tokens,
    memory_plan,
    slots,
)
from gonogo.engines.model import Placement
from gonogo.engines.table import ENGINES, engine_for
from gonogo.facts.model import ModelFacts, ModelProblem, Tensor
from gonogo.facts.replica import ReplicaName
from gonogo.spec import Expect, Replicas, Spec
from gonogo.spec.engine import EngineChoice

CASES = Path(__file__).parent.parent / "cases" / "engines" / "llamacpp"
MEMORY = sorted((CASES / "memory").glob("*.json"))
EXITS: dict[str, str | None] = json.loads((CASES / "exits" / "expected.json").read_text())
PRINTED_TO = 0.0051 * MIB
"""llama.cpp prints mebibytes with two decimals."""


def _model(given: dict[str, object]) -> ModelFacts:
    fields = {**given, "kv_heads": tuple(given["kv_heads"])}  # type: ignore[arg-type]
    weights = fields.pop("weights_bytes")
    tensor = Tensor(name="all of them", shape=(1,), kind="F32", size_bytes=weights)  # type: ignore[arg-type]
    return ModelFacts(asked="a-model", path="/models/a.gguf", tensors=(tensor,), **fields)  # type: ignore[arg-type]


def _smollm2() -> ModelFacts:
    return _model(json.loads((CASES / "memory" / "smollm2-2048-2-128.json").read_text())["model"])


def _spec(concurrent: int = 4, context: int = 2048, replicas: Replicas | None = None) -> Spec:
    expect = Expect(concurrent_requests=concurrent, context_tokens=context)
    return Spec(service="chat", model="a-model", expect=expect, replicas=replicas)


def _placement(replicas: int | None = None) -> Placement:
    name = ReplicaName(service="chat", revision=3, index=0)
    return Placement(name=name, host="here", address="127.0.0.1", port=18100, threads=1, replicas=replicas)


def _option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize("case", MEMORY, ids=lambda path: path.stem)
def test_the_memory_plan_is_what_the_engine_printed(case: Path) -> None:
    given = json.loads(case.read_text())
    plan = memory_plan(_model(given["model"]), given["context"], given["slots"], given["batch"])
    printed = LlamaCpp().measured(case.with_suffix(".log").read_text())
    assert printed.weights_bytes is not None and abs(plan.term("weights") - printed.weights_bytes) <= PRINTED_TO
    assert printed.kv_cache_bytes is not None and abs(plan.term("kv_cache") - printed.kv_cache_bytes) <= PRINTED_TO
    assert printed.output_bytes is not None and abs(plan.term("output") - printed.output_bytes) <= PRINTED_TO
    assert printed.compute_bytes is not None
    assert abs(plan.term("compute") - printed.compute_bytes) <= PRINTED_TO


def test_the_plan_of_an_architecture_nobody_held_against_is_larger() -> None:
    known = memory_plan(_smollm2(), 2048, 2, 128)
    other = memory_plan(replace(_smollm2(), architecture="plamo2"), 2048, 2, 128)
    assert other.term("compute") > 2 * known.term("compute")
    assert "not held against" in next(term.source for term in other.terms if term.name == "compute")


def test_a_window_of_unknown_layout_is_planned_as_if_there_were_none() -> None:
    plan = memory_plan(replace(_smollm2(), architecture="phi3", sliding_window=256), 2048, 2, 128)
    assert plan.term("kv_cache") == memory_plan(_smollm2(), 2048, 2, 128).term("kv_cache")


def test_a_model_without_attention_has_a_plan_that_says_what_it_leaves_out() -> None:
    plan = memory_plan(replace(_smollm2(), architecture="mamba", heads=None, kv_heads=None), 2048, 2, 128)
    assert plan.term("kv_cache") == 0
    assert "not counted" in next(term.source for term in plan.terms if term.name == "kv_cache")


def test_a_model_that_was_not_read_has_no_plan() -> None:
    broken = ModelFacts(asked="a-model", problem=ModelProblem(kind="missing", detail="there is no such file"))
    with pytest.raises(ValueError, match="a-model"):
        LlamaCpp().memory(_spec(), broken, 2)
    with pytest.raises(ValueError, match="a-model"):
        LlamaCpp().launch(_spec(), broken, _placement())


def test_every_term_names_its_source_and_the_sum_is_the_total() -> None:
    plan = LlamaCpp().memory(_spec(), _smollm2(), 2)
    assert [term.name for term in plan.terms] == ["weights", "kv_cache", "compute", "output", "runtime"]
    assert all(term.source for term in plan.terms)
    assert plan.total_bytes == sum(plan.term(term.name) for term in plan.terms)


@pytest.mark.parametrize(
    ("concurrent", "replicas", "expected"), [(4, 2, 2), (5, 2, 3), (1, 2, 1), (4096, 2, 16), (4, 0, 4)]
)
def test_slots_share_the_expected_requests_among_the_replicas(concurrent: int, replicas: int, expected: int) -> None:
    assert slots(_spec(concurrent), replicas) == expected


def test_a_slot_holds_at_least_the_context_that_was_asked_for() -> None:
    assert [context_tokens(_spec(context=asked)) for asked in (128, 256, 257, 2048)] == [256, 256, 512, 2048]


def test_more_connections_than_four_times_the_load_are_answered() -> None:
    assert [connections(_spec(concurrent)) for concurrent in (1, 64, 4096)] == [128, 288, 1024]


def test_a_locked_environment_runs_our_program_as_a_file_and_nothing_from_outside_gets_in() -> None:
    launch = LlamaCpp("/env/bin/python", "/gonogo/runners/llamacpp.py").launch(
        _spec(), _smollm2(), _placement(replicas=2)
    )
    assert launch.command[:5] == ("/env/bin/python", "-I", "-B", "-u", "/gonogo/runners/llamacpp.py")


def test_the_command_is_words_for_a_loopback_process() -> None:
    launch = LlamaCpp("/env/bin/python").launch(_spec(), _smollm2(), _placement(replicas=2))
    assert launch.command[:3] == ("/env/bin/python", "-m", "gonogo.runners.llamacpp")
    expected = {
        "--model": "/models/a.gguf",
        "--alias": "chat",
        "--address": "127.0.0.1",
        "--port": "18100",
        "--context": "2048",
        "--slots": "2",
        "--threads": "1",
        "--batch": str(BATCH_TOKENS),
        "--http-threads": "128",
    }
    assert dict(zip(launch.command[3::2], launch.command[4::2], strict=True)) == expected
    assert launch.niceness == 5


@pytest.mark.parametrize(("placed", "asked", "expected"), [(None, None, "2"), (1, None, "4"), (None, 4, "1")])
def test_slots_follow_placement_then_spec_then_two(placed: int | None, asked: int | None, expected: str) -> None:
    spec = _spec(replicas=None if asked is None else Replicas(min=asked, max=asked))
    assert _option(LlamaCpp().launch(spec, _smollm2(), _placement(placed)).command, "--slots") == expected


def test_the_command_agrees_with_the_memory_plan() -> None:
    spec = _spec(concurrent=6, context=1000)
    command = LlamaCpp().launch(spec, _smollm2(), _placement(replicas=2)).command
    numbers = [int(_option(command, name)) for name in ("--context", "--slots", "--batch")]
    assert memory_plan(_smollm2(), *numbers) == LlamaCpp().memory(spec, _smollm2(), 2)


def test_progress_is_seen_in_the_middle_of_a_request() -> None:
    idle = LlamaCpp().progress((CASES / "metrics" / "idle.txt").read_text())
    busy = LlamaCpp().progress((CASES / "metrics" / "busy.txt").read_text())
    assert idle is not None and busy is not None
    assert (busy.requests_running, busy.requests_waiting, busy.tokens_generated) == (2, 2, 0)
    assert (busy.prompt_tokens, busy.steps) == (42, 48)
    assert (idle.work, busy.work) == (0, 90)


@pytest.mark.parametrize("text", ["", "<html>", "llamacpp:tokens_predicted_total 5\n", "llamacpp:n_decode_total e.e\n"])
def test_metrics_of_something_else_are_no_progress(text: str) -> None:
    assert LlamaCpp().progress(text) is None


@pytest.mark.parametrize("name", sorted(EXITS))
def test_the_log_says_why_the_engine_died(name: str) -> None:
    assert LlamaCpp().explain_exit((CASES / "exits" / f"{name}.log").read_text()) == EXITS[name]


def test_each_recorded_exit_has_an_expectation() -> None:
    assert {path.stem for path in (CASES / "exits").glob("*.log")} == set(EXITS)


def test_an_exit_that_only_the_runner_knows_has_the_runners_reason() -> None:
    said = "gonogo.runner: starting with /models/a.gguf\ngonogo.runner: EngineAddressNotLoopback: 10.0.0.1 is not\n"
    assert LlamaCpp().explain_exit(said) == "EngineAddressNotLoopback"
    assert LlamaCpp().explain_exit("") is None


def test_sizes_of_an_earlier_start_in_the_same_log_are_not_added() -> None:
    log = (CASES / "memory" / "smollm2-2048-2-128.log").read_text()
    assert LlamaCpp().measured(log + log) == LlamaCpp().measured(log)
    assert LlamaCpp().measured(log + "gonogo.runner: starting with x\n").weights_bytes is None


def test_every_engine_of_the_table_answers_to_its_name() -> None:
    for name in (*ENGINES, "llama.cpp"):
        spec = Spec(service="s", model="/m", engine=EngineChoice(name=name))
        assert engine_for(spec).name == {"llama.cpp": "llamacpp", "vllm-cpu": "vllm"}.get(name, name)
    assert engine_for(None, "/env/bin/python") == LlamaCpp("/env/bin/python")
