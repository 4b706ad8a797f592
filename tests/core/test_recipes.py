"""Every recipe that comes with gonogo: whole, sourced, safe, and true where it can be computed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import BaseModel

from gonogo.spec import Probe, Spec
from gonogo.spec.part import Part
from gonogo.spec.recipe import (
    SOURCED,
    HubSource,
    PackageSource,
    Recipe,
    load_recipes,
    recipe_schema,
    resolve,
)
from gonogo.spec.recipe_parts import How, Languages, When
from gonogo.spec.recipe_probes import KINDS, Grounding, kind_of
from gonogo.spec.recipes import find_model, recipes, texts
from gonogo.spec.vision_tokens import FAMILIES, image_tokens
from gonogo.words import has_message
from gonogo.words.recipe_page import recipe_lines, recipes_page

ROOT = Path(__file__).parents[2]
PAGES = {"en": ROOT / "docs/recipes.md", "zh": ROOT / "docs/recipes.zh-CN.md"}
SCHEMA_FILE = ROOT / "docs/reference/recipe.schema.json"
RECIPES = load_recipes(texts())
HUB = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe.source, HubSource)}
AUTOGLM = tuple(name for name in RECIPES if name.startswith("autoglm-"))
ASKED_FOR = {
    "autoglm-phone-9b", "autoglm-phone-9b-multilingual", "glm-4-9b", "glm-4.1v-9b-thinking", "glm-4.5", "glm-4.5-air",
    "glm-4.6", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b", "qwen3-30b-a3b",
    "qwen3-235b-a22b", "deepseek-v3.1", "gpt-oss-20b", "gpt-oss-120b", "smollm2-135m",
}  # fmt: skip
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# What an engine adapter gives every model by itself; a recipe that sets one of these would fight it.
THE_ADAPTERS_OWN = {
    "--host", "--port", "--api-key", "--served-model-name", "--model", "--max-model-len", "--context-length",
    "--gpu-memory-utilization", "--mem-fraction-static", "--tensor-parallel-size", "--tp-size",
}  # fmt: skip
NEVER = {"--allowed-local-media-path", "--trust-remote-code"}


@pytest.fixture(params=RECIPES, ids=str)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


@pytest.fixture(params=HUB, ids=str)
def hub_recipe(request: pytest.FixtureRequest) -> Recipe:
    return HUB[request.param]


def parts(value: Any) -> Iterator[BaseModel]:
    """The part and every part inside of it."""
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from parts(getattr(value, name))
    elif isinstance(value, tuple):
        for one in value:
            yield from parts(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from parts(one)


def test_the_recipes_that_were_asked_for_are_all_there() -> None:
    assert set(RECIPES) == ASKED_FOR
    assert dict(recipes()) == dict(RECIPES), "read one by one, they are the same"


def test_reading_one_recipe_reads_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from gonogo.spec import recipes as module

    kept, read = texts(), []

    def reading(name: str) -> str:
        read.append(name)
        return kept[f"{name}.yaml"]

    module._recipe.cache_clear()
    monkeypatch.setattr(module, "_text", reading)
    assert module.recipes()["qwen3-8b"].name == "qwen3-8b"
    assert "no-such-model" not in module.recipes()
    assert read == ["qwen3-8b"]
    module._recipe.cache_clear()


def test_each_fact_names_its_source(recipe: Recipe) -> None:
    stated = {name for name in SOURCED if getattr(recipe, name) is not None}
    assert set(recipe.sources) == stated, "neither a value without a source, nor a source without a value"


def test_no_source_names_a_package_registry_or_a_path_of_one_machine(recipe: Recipe) -> None:
    text = texts()[f"{recipe.name}.yaml"]
    assert not re.search(r"pypi\.org|files\.pythonhosted|(?<![\w.])/(?:work|root|home)/", text)


def test_each_flag_says_why_it_is_there_and_none_is_the_adapters_own(hub_recipe: Recipe) -> None:
    for needs in hub_recipe.engines.values():
        flags = [flag.flag for flag in needs.flags]
        assert len(flags) == len(set(flags))
        assert not set(flags) & THE_ADAPTERS_OWN
        for flag in (*needs.flags, *needs.left_out):
            assert len(flag.why.en) > 20 and CHINESE.search(flag.why.zh), flag.flag
            assert flag.source


def test_no_recipe_lets_clients_read_files_or_runs_code_of_the_models_repository(hub_recipe: Recipe) -> None:
    for needs in hub_recipe.engines.values():
        assert not {flag.flag.replace("_", "-") for flag in needs.flags} & NEVER
    for option in hub_recipe.quantizations:
        assert option.flag not in NEVER


@pytest.mark.parametrize("name", AUTOGLM)
def test_autoglm_leaves_the_dangerous_flags_of_its_readme_out_and_says_why(name: str) -> None:
    left_out = {left.flag for left in RECIPES[name].engines["vllm"].left_out}
    assert left_out >= NEVER | {"--mm-processor-cache-type"}


def test_a_flag_that_carries_json_carries_json(hub_recipe: Recipe) -> None:
    for needs in hub_recipe.engines.values():
        for flag in needs.flags:
            if flag.value is not None and flag.value.startswith("{"):
                assert json.loads(flag.value)


def test_both_languages_are_spoken_in_their_own_script(recipe: Recipe) -> None:
    told = [part for part in parts(recipe) if isinstance(part, Languages)]
    assert told
    for text in told:
        assert CHINESE.search(text.zh), text.zh
        assert not CHINESE.search(text.en), text.en
        assert not re.search(r"[\u3000-\u9fff\uff00-\uffef] [\u3000-\u9fff\uff00-\uffef]", text.zh), "a folded line"


def test_hub_ids_are_owner_and_name(hub_recipe: Recipe) -> None:
    assert isinstance(hub_recipe.source, HubSource)
    for hub_id in (hub_recipe.source.hugging_face, hub_recipe.source.modelscope, hub_recipe.source.shaped_like):
        assert hub_id is None or re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id)


def test_the_default_engine_has_its_versions_and_a_form_of_the_weights(hub_recipe: Recipe) -> None:
    needs = hub_recipe.engines[hub_recipe.engine]
    assert needs.versions is not None
    assert any(option.engine == hub_recipe.engine for option in hub_recipe.quantizations)


def test_no_supported_version_is_all_known_bad(hub_recipe: Recipe) -> None:
    for name, needs in hub_recipe.engines.items():
        for bad in needs.known_bad:
            assert SpecifierSet(bad.versions) and bad.link.startswith("https://")
        if needs.versions is None:
            continue
        lowest = min(Version(one.version) for one in SpecifierSet(needs.versions) if one.operator == ">=")
        assert needs.supports(str(lowest)), f"{hub_recipe.name} {name}: its own lowest version"
        assert needs.known_bad_at(str(lowest)) is None, f"{hub_recipe.name} {name}: {lowest} is known to go wrong"


def test_a_version_is_judged_by_the_recipe() -> None:
    vllm = RECIPES["autoglm-phone-9b"].engines["vllm"]
    assert vllm.supports("0.11.0") is False and vllm.supports("0.12.0") and vllm.supports("0.33.0")
    bad = vllm.known_bad_at("0.11.2")
    assert bad is not None and "issues/91" in bad.link
    assert vllm.known_bad_at("0.12.0") is None
    assert vllm.supports("not a version") is None and vllm.known_bad_at("not a version") is None
    assert RECIPES["gpt-oss-20b"].engines["llama.cpp"].supports("9999") is None, "the recipe does not say"
    sglang = RECIPES["autoglm-phone-9b"].engines["sglang"]
    assert sglang.supports("0.5.9") is False and sglang.supports("0.5.10")
    deepseek = RECIPES["deepseek-v3.1"].engines["vllm"]
    assert deepseek.known_bad_at("0.15.1") is not None and deepseek.known_bad_at("0.16.0") is None


def test_what_is_served_as_gguf_names_its_repository_and_what_is_made_online_its_flag(hub_recipe: Recipe) -> None:
    for option in hub_recipe.quantizations:
        if option.how is How.ONLINE:
            assert option.flag is not None and option.hugging_face is None
        else:
            assert option.hugging_face is not None
    assert isinstance(hub_recipe.source, HubSource)
    published = [option.hugging_face for option in hub_recipe.quantizations if option.how is How.CHECKPOINT]
    assert hub_recipe.source.hugging_face in published


def test_the_vision_model_as_gguf_brings_its_projector() -> None:
    gguf = [option for option in RECIPES["autoglm-phone-9b"].quantizations if option.how is How.GGUF]
    assert gguf and all(any("mmproj" in file for file in option.files) for option in gguf)


def test_context_stays_within_what_the_model_allows(recipe: Recipe) -> None:
    assert recipe.context_tokens <= recipe.trained_context_tokens


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.images is not None])
def test_screens_cost_what_is_computed(name: str) -> None:
    images = RECIPES[name].images
    assert images is not None
    family = FAMILIES[images.family]
    for screen in images.screens:
        assert image_tokens(screen.height, screen.width, family, images.max_pixels) == screen.tokens
        assert image_tokens(screen.height, screen.width, family) == screen.tokens_unbounded


@pytest.mark.parametrize("name", AUTOGLM)
def test_every_screen_fits_the_encoder_with_the_flag_and_a_large_one_does_not_without(name: str) -> None:
    images = RECIPES[name].images
    assert images is not None and images.encoder_tokens == 3721
    assert all(screen.tokens <= images.encoder_tokens for screen in images.screens)
    refused = {(one.width, one.height) for one in images.screens if one.tokens_unbounded > images.encoder_tokens}
    assert refused == {(1216, 2688), (1440, 3200)}


@pytest.mark.parametrize("name", AUTOGLM)
def test_autoglm_sets_the_bound_that_its_budget_is_computed_with(name: str) -> None:
    recipe = RECIPES[name]
    values = {flag.flag: flag.value for flag in recipe.engines["vllm"].flags}
    assert recipe.images is not None
    assert json.loads(values["--mm-processor-kwargs"] or "") == {"max_pixels": recipe.images.max_pixels}
    assert json.loads(values["--limit-mm-per-prompt"] or "") == {"image": recipe.images.most_per_request}
    assert values["--chat-template-content-format"] == "string"
    data_parallel = [flag for flag in recipe.engines["vllm"].flags if flag.when is When.TENSOR_PARALLEL]
    assert [flag.flag for flag in data_parallel] == ["--mm-encoder-tp-mode"]


@pytest.mark.parametrize("name", AUTOGLM)
def test_autoglm_is_probed_for_everything_that_goes_wrong_silently(name: str) -> None:
    recipe = RECIPES[name]
    kinds = {kind_of(probe) for probe in recipe.probes}
    assert kinds == set(KINDS) - {"tool_call"}
    grounding = next(probe for probe in recipe.probes if isinstance(probe, Grounding))
    assert len({picture.width / picture.height for picture in grounding.pictures}) >= 3, "three shapes"
    found = re.search(grounding.answer_pattern, 'do(action="Tap", element=[499, 731])')
    assert found is not None and (found["x"], found["y"]) == ("499", "731")
    leaks = next(probe for probe in recipe.probes if kind_of(probe) == "no_leaked_stop_token")
    assert "</answer>" in leaks.forbidden  # type: ignore[union-attr]


def test_a_grounding_pattern_has_both_coordinates() -> None:
    for recipe in RECIPES.values():
        for probe in recipe.probes:
            if isinstance(probe, Grounding):
                assert {"x", "y"} <= set(re.compile(probe.answer_pattern).groupindex)


def test_no_question_holds_its_own_answer(recipe: Recipe) -> None:
    for probe in recipe.questions:
        assert not re.search(probe.expect_pattern, probe.prompt, re.IGNORECASE), probe.name


def test_a_spec_takes_every_probe_of_its_recipe_and_keeps_it_through_a_store(recipe: Recipe) -> None:
    spec = resolve(Spec(service="a", model=recipe.name), RECIPES)
    assert spec.probes == recipe.probes
    assert spec.expect.context_tokens == recipe.context_tokens
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_a_spec_stored_before_probes_had_kinds_is_the_same_spec_today() -> None:
    probes = [{"name": "sum", "prompt": "2+2?", "expect_pattern": "4", "max_tokens": 8}]
    stored = {"service": "a", "model": "smollm2-135m", "probes": probes}
    spec = Spec.model_validate_json(json.dumps(stored))
    assert spec.probes == (Probe(name="sum", prompt="2+2?", expect_pattern="4", max_tokens=8),)
    assert spec.model_dump(mode="json")["probes"] == probes, "and so is its digest"


def test_a_model_on_a_hub_has_no_file_on_this_machine() -> None:
    for name, recipe in RECIPES.items():
        assert (find_model(name) is None) == isinstance(recipe.source, HubSource)


def test_the_schema_is_a_schema_and_every_recipe_is_valid_in_it(recipe: Recipe) -> None:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(texts()[f"{recipe.name}.yaml"]), schema, cls=jsonschema.Draft202012Validator)


def test_every_field_of_a_recipe_has_a_description() -> None:
    schema = recipe_schema()
    for name, section in [("Recipe", schema), *schema["$defs"].items()]:
        for field, told in section.get("properties", {}).items():
            assert told.get("description"), f"{name}.{field}"


def test_the_schema_on_paper_is_the_schema(request: pytest.FixtureRequest) -> None:
    wanted = json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--accept"):
        SCHEMA_FILE.write_text(wanted, encoding="utf-8")
    assert SCHEMA_FILE.read_text(encoding="utf-8") == wanted, "pytest tests/core/test_recipes.py --accept"


@pytest.mark.parametrize("lang", PAGES)
def test_the_page_on_paper_names_every_recipe_as_the_files_say(lang: Any, request: pytest.FixtureRequest) -> None:
    wanted = recipes_page(RECIPES, lang)
    if request.config.getoption("--accept"):
        PAGES[lang].write_text(wanted, encoding="utf-8")
    told = PAGES[lang].read_text(encoding="utf-8")
    assert told == wanted, "pytest tests/core/test_recipes.py --accept"
    assert all(f"| `{name}` |" in told for name in RECIPES)


@pytest.mark.parametrize("lang", PAGES)
def test_a_recipes_page_tells_every_flag_symptom_and_source(recipe: Recipe, lang: Any) -> None:
    told = "\n".join(line.text for line in recipe_lines(recipe, lang))
    for needs in recipe.engines.values():
        for flag in needs.flags:
            assert flag.flag in told and (flag.why.zh if lang == "zh" else flag.why.en) in told
        for bad in needs.known_bad:
            assert bad.versions in told and bad.link in told
    for source in recipe.sources.values():
        assert source in told
    assert "?" not in {line.text for line in recipe_lines(recipe, lang)}
    for probe in recipe.probes:
        assert f"{probe.name}: " in told


def test_every_kind_of_probe_has_words() -> None:
    assert all(has_message(f"recipe.probe.{kind}") for kind in (*KINDS, "question"))


def test_the_kinds_named_are_the_kinds_of_the_union() -> None:
    schema = recipe_schema()
    kinds = {
        one["properties"]["kind"]["const"] for one in schema["$defs"].values() if "kind" in one.get("properties", {})
    }
    assert kinds == set(KINDS)


def test_the_embedded_recipe_still_says_where_its_file_is() -> None:
    source = RECIPES["smollm2-135m"].source
    assert isinstance(source, PackageSource)


def test_the_embedded_model_is_asked_only_what_so_small_a_text_model_can_do() -> None:
    kinds = {kind_of(probe) for probe in RECIPES["smollm2-135m"].probes}
    assert kinds == {"question", "no_leaked_stop_token", "no_repetition", "warmed_completion"}


def test_parts_of_a_recipe_are_frozen(recipe: Recipe) -> None:
    assert all(part.model_config.get("frozen") for part in parts(recipe) if isinstance(part, Part))
