"""From what a spec asks of its engine to its settings: the recipe's needs, its version, cache bytes, memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gonogo.engines.asked import (
    CPU_RUNTIME_BYTES,
    PAGE_TOKENS,
    SPARE_PAGES,
    cards_of_replica,
    cpu_memory,
    engine_name,
    needs_of,
    recipe_of,
    serving_of,
    settings_of,
)
from gonogo.engines.llamacpp import LlamaCpp
from gonogo.engines.sglang import SGLang
from gonogo.engines.table import cards_here, engine_for, memory_of
from gonogo.engines.vllm import Vllm
from gonogo.facts.model import Tensor
from gonogo.spec import Expect, Spec
from gonogo.spec.engine import EngineChoice
from gonogo.spec.recipes import recipe_of_hub_id
from tests.core import card_worlds as cards
from tests.core import worlds
from tests.core.card_worlds import MODEL, PHONE, card, choice, small_card

GIB = 1024**3
WEIGHTS = (Tensor(name="w", shape=(1024, 1024), kind="BF16", size_bytes=2 * 1024**2),)


def spec(model: str = PHONE, engine: EngineChoice | None = None, **expect: int) -> Spec:
    return Spec(service="s", model=model, engine=engine or choice(), expect=Expect(**expect))


@pytest.mark.parametrize(
    ("asked", "recipe"),
    [
        (PHONE, PHONE),
        ("zai-org/AutoGLM-Phone-9B", PHONE),
        ("ZhipuAI/AutoGLM-Phone-9B", PHONE),
        ("ZAI-ORG/autoglm-phone-9b", PHONE),
        ("zai-org/GLM-4.5-Air-FP8", "glm-4.5-air"),
        ("Qwen/Qwen3-8B-AWQ", "qwen3-8b"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("Qwen/Qwen3", None),
        ("somebody/Qwen3-8B", None),
        ("/models/zai-org/AutoGLM-Phone-9B", None),
        ("./zai-org/AutoGLM-Phone-9B", None),
    ],
)
def test_a_recipe_is_found_by_its_name_and_by_the_ids_of_its_model_and_its_forms(
    asked: str, recipe: str | None
) -> None:
    found = recipe_of(spec(asked))
    assert (found.name if found is not None else None) == recipe


def test_a_recipe_whose_own_model_has_the_id_goes_before_one_that_lists_it() -> None:
    for asked, name in (("openai/gpt-oss-20b", "gpt-oss-20b"), ("openai/gpt-oss-120b", "gpt-oss-120b")):
        found = recipe_of_hub_id(asked)
        assert found is not None and found.name == name


@pytest.mark.parametrize("model", [PHONE, "zai-org/AutoGLM-Phone-9B"])
@pytest.mark.parametrize("engine", ["vllm", "vllm-cpu"])
def test_the_recipes_needs_are_those_of_the_engines_family(model: str, engine: str) -> None:
    needs = needs_of(spec(model, choice(name=engine, share=None)))
    assert needs is not None and "--mm-processor-kwargs" in {flag.flag for flag in needs.flags}
    served = serving_of(spec(model, choice(name=engine, share=None)))
    assert served.images == 1 and served.image_tokens == 3188 and served.encoder_copied


def test_without_a_recipe_nothing_is_said_of_images_and_no_flag_is_added() -> None:
    asked = spec("somebody/else")
    assert needs_of(asked) is None
    assert (serving_of(asked).images, serving_of(asked).image_tokens) == (None, None)


@pytest.mark.parametrize(
    ("engine", "version", "read"),
    [
        ("vllm", "0.33.0", (0, 33, 0)),
        ("vllm", "0.12", (0, 12)),
        ("sglang", "0.5.6.post1", (0, 5, 6, 1)),
        ("sglang", "0.5.6", (0, 5, 6)),
        ("vllm-cpu", "0.32.0+cpu", (0, 32, 0)),
        ("vllm", "0.34.0rc1", (0, 34, 0)),
        ("vllm", None, (0, 33, 0)),
        ("sglang", None, (0, 5, 23)),
    ],
)
def test_versions_are_read_as_packages_have_them(engine: str, version: str | None, read: tuple[int, ...]) -> None:
    assert serving_of(spec(engine=choice(name=engine, version=version, share=None))).version == read


def test_a_post_release_comes_after_the_release_that_it_mends() -> None:
    early, late = (
        serving_of(spec(engine=choice(name="sglang", version=one, share=None))).version
        for one in ("0.5.6", "0.5.6.post1")
    )
    assert early < late < (0, 5, 7)


def test_on_the_processor_the_cache_is_said_in_bytes_for_all_sequences_at_their_longest() -> None:
    engine = choice(name="vllm-cpu", share=None)
    model = replace(MODEL, tensors=WEIGHTS)
    small = settings_of(spec(engine=engine, concurrent_requests=2, context_tokens=1024), model).cache_bytes
    pages = 2 * 1024 // PAGE_TOKENS + SPARE_PAGES
    per_token = 2 * 40 * 2 * 128 * 2
    assert small == pages * PAGE_TOKENS * per_token, "keys and values of 40 layers, 2 heads of 128, in bfloat16"
    asked = settings_of(spec(engine=engine, concurrent_requests=64, context_tokens=1024), model)
    assert asked.serving.sequences == 16, "more than that wait: the processor does not get faster"
    assert asked.cache_bytes == (16 * 8 + SPARE_PAGES) * PAGE_TOKENS * per_token
    assert settings_of(spec(engine=engine)).cache_bytes == 0, "without a model there is nothing to say"
    assert settings_of(spec(), model).cache_bytes is None, "cards are shared out by a share of their memory"


def test_the_plan_on_the_processor_adds_weights_cache_and_what_python_takes() -> None:
    asked = spec(engine=choice(name="vllm-cpu", share=None), concurrent_requests=2, context_tokens=1024)
    model = replace(MODEL, tensors=WEIGHTS)
    plan = memory_of(asked, model, None, 2)
    assert plan == cpu_memory(asked, model)
    sizes = {term.name: term.size_bytes for term in plan.terms}
    assert sizes["weights"] == WEIGHTS[0].size_bytes and sizes["runtime"] == CPU_RUNTIME_BYTES
    assert plan.total_bytes == sum(sizes.values())
    with pytest.raises(ValueError, match="no tensors"):
        memory_of(asked, MODEL, None, 2)


def test_the_plan_on_cards_is_of_all_cards_of_a_replica_whatever_is_in_use_on_them_now() -> None:
    used = small_card(0, memory_free_bytes=1, memory_used_bytes=24 * GIB)
    on_one = memory_of(spec(engine=choice(quantization="fp8"), context_tokens=8192), MODEL, cards.host(used), 1)
    assert 20 * GIB < on_one.total_bytes < 24.5 * GIB
    two = cards.host(small_card(0), small_card(1))
    on_two = memory_of(spec(engine=choice(tensor=2), context_tokens=8192), MODEL, two, 1)
    assert on_two.total_bytes > 1.9 * on_one.total_bytes
    with pytest.raises(ValueError, match="no accelerators"):
        memory_of(spec(), MODEL, worlds.HOST, 1)


def test_old_cards_compute_in_half_precision_and_others_as_the_model_has_it() -> None:
    old = cards_here(cards.host(card(0, "Tesla T4", 15360, compute_capability="7.5")))
    new = cards_here(cards.host(card(0)))
    assert settings_of(spec(), None, old).dtype == "half"
    assert settings_of(spec(), None, new).dtype is None
    assert settings_of(spec(engine=choice(name="vllm-cpu", share=None)), None, old).dtype is None


@pytest.mark.parametrize(
    ("engine", "adapter", "each"),
    [
        (None, LlamaCpp, 0),
        (EngineChoice(name="llama.cpp", version="1"), LlamaCpp, 0),
        (choice(tensor=2, pipeline=2), Vllm, 4),
        (choice(name="vllm-cpu", share=None, tensor=2), Vllm, 0),
        (choice(name="sglang", tensor=8), SGLang, 8),
    ],
)
def test_each_engine_has_its_adapter_and_its_cards(engine: EngineChoice | None, adapter: type, each: int) -> None:
    asked = Spec(service="s", model="m", engine=engine)
    assert type(engine_for(asked)) is adapter
    assert cards_of_replica(asked) == each
    assert engine_name(asked) == (engine.name if engine is not None else "llama.cpp")


def test_nobody_knows_a_revision_any_more_and_its_replica_is_read_as_llama_cpp() -> None:
    assert isinstance(engine_for(None), LlamaCpp)


def test_llama_cpp_has_no_settings_of_this_kind() -> None:
    with pytest.raises(ValueError, match=r"llama\.cpp"):
        settings_of(Spec(service="s", model="m"))
