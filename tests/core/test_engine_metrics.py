"""What vLLM and SGLang say while they run: metrics become progress, and a good answer means something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.engines import sglang, vllm
from gonogo.engines.readiness import serves
from tests.core.gpu_engines import ADAPTERS, adapter

CASES = Path(__file__).parents[1] / "cases" / "engines"
ENGINES = tuple(ADAPTERS)
both = pytest.mark.parametrize("engine", ENGINES)


METRICS: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("vllm", version, {"tokens": (977, 8125), "requests": (3, 1), "steps": 4, "used": 0.25})
        for version in ("0.10.0", "0.12.0", "0.18.0")
    ),
    ("vllm", "0.32.0-cpu-idle", {"tokens": (0, 0), "requests": (0, 0), "steps": 0, "used": 0.0}),
    (
        "vllm",
        "0.32.0-cpu-busy",
        {"tokens": (13845, 313), "requests": (4, 0), "steps": 1974, "used": 0.0009766221082829762},
    ),
    ("sglang", "0.5.3", {"tokens": (977, 8125), "requests": (3, 2), "steps": None, "used": 0.42}),
    ("sglang", "0.5.6.post1", {"tokens": (977, 8125), "requests": (3, 2), "steps": None, "used": 0.42}),
    ("sglang", "0.5.12", {"tokens": (977, 8125), "requests": (3, 2), "steps": 10234, "used": 0.42}),
    ("sglang", "0.5.23", {"tokens": (977, 8125), "requests": (3, 2), "steps": 10234, "used": 0.42}),
    ("sglang", "0.5.23-idle", {"tokens": (0, 0), "requests": (0, 0), "steps": None, "used": 0.0}),
]


@pytest.mark.parametrize(("engine", "name", "expected"), METRICS, ids=lambda value: str(value)[:24])
def test_metrics_are_progress(engine: str, name: str, expected: dict[str, Any]) -> None:
    seen = adapter(engine).progress((CASES / engine / "metrics" / f"{name}.txt").read_text())
    assert seen is not None
    assert (seen.tokens_generated, seen.prompt_tokens) == expected["tokens"]
    assert (seen.requests_running, seen.requests_waiting) == expected["requests"]
    assert (seen.steps, seen.cache_used) == (expected["steps"], expected["used"])


def test_every_recorded_metrics_text_is_read() -> None:
    recorded = {(path.parents[1].name, path.stem) for path in CASES.glob("*/metrics/*.txt")}
    assert {(engine, name) for engine, name, _ in METRICS} == {one for one in recorded if one[0] in ENGINES}


def test_two_engines_of_one_replica_are_added_and_the_fuller_cache_counts() -> None:
    both_engines = "".join(
        f'vllm:num_requests_running{{engine="{engine}"}} {running}\nvllm:num_requests_waiting{{engine="{engine}"}} 1\n'
        f'vllm:generation_tokens_total{{engine="{engine}"}} 10\nvllm:prompt_tokens_total{{engine="{engine}"}} 20\n'
        f'vllm:kv_cache_usage_perc{{engine="{engine}"}} 0.{running}\n'
        for engine, running in ((0, 2), (1, 5))
    )
    seen = adapter("vllm").progress(both_engines)
    assert seen is not None
    assert (seen.requests_running, seen.requests_waiting, seen.tokens_generated) == (7, 2, 20)
    assert seen.cache_used == 0.5


def test_requests_of_a_pipeline_and_of_priorities_are_counted_once() -> None:
    text = (
        'sglang:num_running_reqs{pp_rank="0",priority=""} 4.0\nsglang:num_running_reqs{pp_rank="0",priority="-1"} 4.0\n'
        'sglang:num_running_reqs{pp_rank="1",priority=""} 4.0\nsglang:num_queue_reqs{pp_rank="0",priority=""} 1.0\n'
    )
    seen = adapter("sglang").progress(text)
    assert seen is not None
    assert (seen.requests_running, seen.requests_waiting) == (4, 1)


@both
@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "llamacpp:tokens_predicted_total 5\n",
        "vllm:num_requests_running 5\n",
        "sglang:num_running_reqs NaN\nsglang:num_queue_reqs 1\n",
        "vllm:num_requests_running -1\nvllm:num_requests_waiting 0\nvllm:prompt_tokens_total 0\n"
        "vllm:generation_tokens_total 0\n",
    ],
)
def test_metrics_of_something_else_are_no_progress(engine: str, text: str) -> None:
    assert adapter(engine).progress(text) is None


@both
@given(text=st.text(alphabet='vllm:sgang_{}"\\=,.0123456789eE+-NaIf \n', max_size=300))
def test_whatever_metrics_hold_reading_them_never_fails(engine: str, text: str) -> None:
    adapter(engine).progress(text + "\nvllm:num_requests_running{" + text + "} 1e999\n")


def test_readiness_says_what_a_good_answer_means() -> None:
    assert (vllm.READINESS.generates, sglang.READINESS.generates) == (False, True)
    assert (vllm.READINESS.answers(200), vllm.READINESS.answers(503)) == (True, False)
    assert vllm.READINESS.refused_while_loading and not sglang.READINESS.refused_while_loading


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (json.dumps({"object": "list", "data": [{"id": "tiny-glm", "object": "model"}]}), True),
        (json.dumps({"data": [{"id": "another"}]}), False),
        (json.dumps({"data": []}), False),
        (json.dumps({"error": "x"}), None),
        ("<html>", None),
        ("[]", None),
        ('{"data": [1]}', None),
        ("[" * 100_000, None),
    ],
)
def test_another_model_than_asked_is_noticed(body: str, expected: bool | None) -> None:
    assert serves(body, "tiny-glm") is expected
