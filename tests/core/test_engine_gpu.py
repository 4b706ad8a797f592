"""vLLM's and SGLang's command lines: what the plan says stands there, and no door stands open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from gonogo.engines import sglang, vllm
from gonogo.engines.hardware import parse_hardware
from gonogo.engines.model import Engine
from gonogo.engines.options import Options
from gonogo.engines.serving import Serving
from gonogo.engines.settings import DOORS, EngineSettings, Refused, half_on_old_cards, share_text
from gonogo.facts.model import ModelFacts
from gonogo.plan.capacity import Ask, capacity
from gonogo.plan.ways import ways_of_recipe
from gonogo.spec.recipe import Recipe
from tests.core.gpu_engines import (
    ADAPTERS,
    MODEL,
    NEWEST,
    PYTHON,
    RECIPES,
    SERVING,
    SPEC,
    adapter,
    after,
    launch,
    needs_with,
    placement,
    settings,
)

CASES = Path(__file__).parents[1] / "cases" / "engines"
ENGINES = tuple(ADAPTERS)
OPTIONS: dict[str, Options] = {"vllm": vllm.OPTIONS, "sglang": sglang.OPTIONS}
SERVED = [(engine, name) for name, recipe in RECIPES.items() for engine in ENGINES if engine in recipe.engines]
both = pytest.mark.parametrize("engine", ENGINES)
served = pytest.mark.parametrize(("engine", "recipe"), SERVED)


@both
def test_the_adapter_is_an_engine_by_its_name(engine: str) -> None:
    made: Engine = adapter(engine)
    assert made.name == engine


@both
def test_it_listens_on_loopback_and_serves_the_services_name(engine: str) -> None:
    command = launch(engine).command
    assert command[0] == PYTHON
    assert (after(command, "--host"), after(command, "--port")) == ("127.0.0.1", "18100")
    assert after(command, "--served-model-name") == "phone-agent"
    assert "/models/autoglm" in command


@both
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "localhost", ""])
def test_any_other_address_is_refused(engine: str, address: str) -> None:
    with pytest.raises(Refused) as caught:
        launch(engine, place=placement(address=address))
    assert caught.value.reason == "EngineAddressNotLoopback"


@both
def test_the_plans_numbers_are_the_engines(engine: str) -> None:
    serving = Serving(
        version=(0, 33, 0),
        context_tokens=25480,
        share=0.85,
        sequences=12,
        batch_tokens=4096,
        tensor=2,
        pipeline=2,
        kv_bytes=1,
        graphs=False,
    )
    command = launch(engine, serving=serving, quantization="fp8", dtype="half").command
    names = {
        "vllm": {
            "--max-model-len": "25480",
            "--gpu-memory-utilization": "0.85",
            "--max-num-seqs": "12",
            "--max-num-batched-tokens": "4096",
            "--kv-cache-dtype": "fp8",
        },
        "sglang": {
            "--context-length": "25480",
            "--mem-fraction-static": "0.85",
            "--max-running-requests": "12",
            "--chunked-prefill-size": "4096",
            "--kv-cache-dtype": "fp8_e4m3",
        },
    }[engine]
    shared = {
        "--tensor-parallel-size": "2",
        "--pipeline-parallel-size": "2",
        "--quantization": "fp8",
        "--dtype": "half",
    }
    assert {flag: after(command, flag) for flag in {**names, **shared}} == {**names, **shared}
    assert {"vllm": "--enforce-eager", "sglang": "--disable-cuda-graph"}[engine] in command


@both
def test_what_was_not_planned_is_left_to_the_engine(engine: str) -> None:
    command = launch(engine, serving=Serving(version=(0, 33, 0), context_tokens=4096)).command
    left = ("--gpu-memory-utilization", "--mem-fraction-static", "--max-num-seqs", "--max-running-requests", "--dtype")
    assert not {*left, "--quantization", "--tensor-parallel-size"} & set(command)


@both
def test_only_its_own_cards_are_seen_counted_as_the_driver_counts(engine: str) -> None:
    serving = replace(SERVING, tensor=2)
    environment = launch(engine, serving=serving, place=placement(devices=("2", "3"))).environment
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("2,3", "PCI_BUS_ID")


@both
def test_an_engine_without_cards_sees_none(engine: str) -> None:
    assert launch(engine, place=placement(devices=())).environment["CUDA_VISIBLE_DEVICES"] == ""


@both
@pytest.mark.parametrize(
    ("devices", "reason"),
    [(("0",), "EngineCardsMismatch"), (("0", "0"), "EngineCardsMismatch"), (("0", "1;x"), "EngineCardMistaken")],
)
def test_the_wrong_cards_are_refused(engine: str, devices: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        launch(engine, serving=replace(SERVING, tensor=2), place=placement(devices=devices))
    assert caught.value.reason == reason


@both
def test_local_weights_are_served_without_a_network_and_a_hub_id_with_one(engine: str) -> None:
    local = launch(engine).environment
    assert (local["HF_HUB_OFFLINE"], local["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    named = launch(engine, source="zai-org/AutoGLM-Phone-9B")
    assert "zai-org/AutoGLM-Phone-9B" in named.command
    assert "HF_HUB_OFFLINE" not in named.environment


@both
def test_text_is_utf8_and_only_the_environments_own_packages_are_found(engine: str) -> None:
    environment = launch(engine).environment
    assert (environment["PYTHONUTF8"], environment["PYTHONNOUSERSITE"], environment["PYTHONPATH"]) == ("1", "1", "")


@both
def test_nothing_is_told_to_the_makers(engine: str) -> None:
    environment = launch(engine).environment
    assert environment["DO_NOT_TRACK"] == environment["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert engine != "vllm" or environment["VLLM_NO_USAGE_STATS"] == "1"


@both
def test_media_may_come_from_nowhere_unless_a_host_is_allowed(engine: str) -> None:
    assert after(launch(engine).command, "--allowed-media-domains") == "media.invalid"
    command = launch(engine, media_domains=("a.example", "b.example")).command
    at = command.index("--allowed-media-domains")
    assert command[at + 1 : at + 3] == ("a.example", "b.example")
    assert "media.invalid" not in command


@pytest.mark.parametrize(
    "host", ["", "https://a.example", "a.example/x", "a b", "--trust-remote-code", "*.example", "A"]
)
def test_what_is_no_host_is_not_allowed_as_one(host: str) -> None:
    with pytest.raises(Refused) as caught:
        settings("vllm", media_domains=(host,))
    assert caught.value.reason == "EngineMediaHostMistaken"


def test_vllm_follows_no_redirect_to_another_host() -> None:
    assert launch("vllm").environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


def test_vllm_opens_no_developers_endpoint_and_unpickles_nothing() -> None:
    environment = launch("vllm").environment
    shut = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    assert {environment[name] for name in shut} == {"0"}
    assert "--disable-fastapi-docs" in launch("vllm").command


def test_vllms_processes_talk_to_each_other_on_loopback() -> None:
    """Where it is not set vLLM takes the address of the way to the network (`get_ip` in its `network_utils.py`)."""
    assert launch("vllm").environment["VLLM_HOST_IP"] == "127.0.0.1"


def test_vllm_bounds_answers_and_alternatives_per_request() -> None:
    started = launch("vllm")
    assert started.environment["VLLM_MAX_N_SEQUENCES"] == "8"
    assert after(started.command, "--max-logprobs") == "20"


def test_vllms_shared_memory_has_a_name_of_its_own_at_every_start() -> None:
    starts = [launch("vllm", place=placement(index, seed=seed)) for index in (0, 1) for seed in ("a1", "b2")]
    names = [start.environment["VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME"] for start in starts]
    assert len(set(names)) == 4
    assert names[0] == "gonogo_phone-agent_3_0_a1"


@served
def test_no_recipe_opens_a_door(engine: str, recipe: str) -> None:
    command = launch(engine, recipe, serving=replace(SERVING, tensor=2)).command
    never = {*OPTIONS[engine].never, "--uds", "--allowed-origins", "--mm-processor-cache-type"}
    assert not never & {word.replace("_", "-") for word in command if word.startswith("--")}
    assert "vllm" not in command, "--generation-config vllm makes the engine ignore the model's stop tokens"
    assert not {"/", "0.0.0.0"} & set(command)


@both
@pytest.mark.parametrize("flag", ["--trust-remote-code", "--trust_remote_code", "--api-key"])
def test_a_recipe_that_opens_a_door_is_refused(engine: str, flag: str) -> None:
    with pytest.raises(Refused) as caught:
        launch(engine, needs=needs_with(flag))
    assert caught.value.reason == "EngineFlagRefused"


def test_vllm_refuses_to_have_its_stop_tokens_or_the_hosts_files_given_away() -> None:
    for flag, value in (("--generation-config", "vllm"), ("--allowed_local_media_path", "/")):
        with pytest.raises(Refused) as caught:
            launch("vllm", needs=needs_with(flag, value))
        assert caught.value.reason == "EngineFlagRefused"


@both
@pytest.mark.parametrize(
    "flag", ["--host", "--port", "--quantization", "--served-model-name", "--allowed-media-domains"]
)
def test_a_recipe_may_not_set_what_the_plan_or_the_placement_sets(engine: str, flag: str) -> None:
    with pytest.raises(Refused) as caught:
        launch(engine, needs=needs_with(flag, "0.0.0.0"))
    assert caught.value.reason == "EngineFlagNotARecipes"


@both
def test_a_flag_that_the_recipe_itself_leaves_out_is_refused(engine: str) -> None:
    left = {"flag": "--tool_call_parser", "why": {"en": "a reason", "zh": "理由"}, "source": "nowhere"}
    with pytest.raises(Refused) as caught:
        launch(engine, needs=needs_with("--tool-call-parser", "glm45", left_out=(left,)))
    assert caught.value.reason == "EngineFlagNotARecipes"


@both
def test_a_flag_that_nobody_read_in_the_sources_is_refused(engine: str) -> None:
    with pytest.raises(Refused) as caught:
        launch(engine, needs=needs_with("--no-such-flag"))
    assert caught.value.reason == "EngineFlagNotInVersion"


def test_a_flag_is_refused_where_the_version_does_not_know_it() -> None:
    needs = needs_with("--mm-encoder-tp-mode", "data")
    assert "--mm-encoder-tp-mode" in launch("vllm", needs=needs, version="0.10.2").command
    with pytest.raises(Refused) as caught:
        launch("vllm", needs=needs, version="0.10.0")
    assert caught.value.values == {"flag": "--mm-encoder-tp-mode", "engine": "vLLM", "version": "0.10.0"}


def test_an_underscore_is_a_hyphen() -> None:
    command = launch("vllm", needs=needs_with("--mm_processor_kwargs", '{"max_pixels": 1}')).command
    assert after(command, "--mm-processor-kwargs") == '{"max_pixels": 1}'


@served
def test_every_flag_of_every_recipe_exists_in_every_version_that_the_recipe_allows(engine: str, recipe: str) -> None:
    needs = RECIPES[recipe].engines[engine]
    allowed = SpecifierSet(needs.versions or "", prereleases=True)
    for flag in needs.flags:
        option = OPTIONS[engine].table[flag.flag.replace("_", "-")]
        for edge in (option.since, option.until):
            assert edge is None or not allowed.contains(_just_before(edge)), f"{flag.flag} needs {option.source}"


def _just_before(edge: str) -> str:
    """A version below the edge that any range reaching below it holds."""
    return f"{edge}.dev0" if "post" not in edge else edge.partition(".post")[0]


@both
def test_a_flag_of_parallel_vision_waits_for_a_second_card(engine: str) -> None:
    flag = {"vllm": "--mm-encoder-tp-mode", "sglang": "--mm-enable-dp-encoder"}[engine]
    alone = launch(engine, "autoglm-phone-9b").command
    together = launch(engine, "autoglm-phone-9b", serving=replace(SERVING, tensor=2)).command
    assert (flag in alone, flag in together) == (False, True)


@pytest.mark.parametrize(
    ("recipe", "tensor", "copied", "times"),
    [
        (None, 2, True, 1),
        (None, 2, False, 0),
        (None, 1, True, 0),
        ("autoglm-phone-9b", 2, True, 1),
    ],
)
def test_vllm_holds_the_image_encoder_as_it_was_planned(
    recipe: str | None, tensor: int, copied: bool, times: int
) -> None:
    planned = replace(SERVING, tensor=tensor, encoder_copied=copied)
    assert launch("vllm", recipe, serving=planned).command.count("--mm-encoder-tp-mode") == times


@both
def test_pictures_are_limited_to_what_was_planned(engine: str) -> None:
    command = launch(engine, serving=replace(SERVING, images=2)).command
    flag = {"vllm": "--limit-mm-per-prompt", "sglang": "--limit-mm-data-per-request"}[engine]
    assert after(command, flag) == '{"image": 2}'


@both
def test_pictures_nobody_planned_are_left_to_the_engine(engine: str) -> None:
    command = launch(engine, serving=replace(SERVING, images=None)).command
    assert not {"--limit-mm-per-prompt", "--limit-mm-data-per-request"} & set(command)


def test_sglang_counts_its_work_only_when_told_and_logs_no_health_check() -> None:
    command = launch("sglang").command
    assert "--enable-metrics" in command
    assert after(command, "--log-level-http") == "warning"


def test_the_recipes_own_limit_on_pictures_stands_alone() -> None:
    command = launch("vllm", "autoglm-phone-9b", serving=replace(SERVING, images=1)).command
    assert command.count("--limit-mm-per-prompt") == 1


@pytest.mark.parametrize(
    ("engine", "version", "recipe", "reason"),
    [
        ("vllm", "0.11.0", "autoglm-phone-9b", "EngineVersionKnownBad"),
        ("sglang", "0.5.9", "autoglm-phone-9b", "EngineVersionUnsupported"),
        ("vllm", "0.9.2", None, "EngineVersionTooOld"),
        ("sglang", "0.4.5", None, "EngineVersionTooOld"),
        ("vllm", "newest", None, "EngineVersionUnreadable"),
    ],
)
def test_a_version_that_is_known_to_go_wrong_is_not_started(
    engine: str, version: str, recipe: str | None, reason: str
) -> None:
    with pytest.raises(Refused) as caught:
        launch(engine, recipe, version=version)
    assert caught.value.reason == reason


VERSIONS: list[tuple[str, str, str, bool]] = [
    ("vllm", "0.10.0", "--disable-log-requests", True),
    ("vllm", "0.10.2", "--disable-log-requests", False),
    ("vllm", "0.10.2", "--allowed-media-domains", False),
    ("vllm", "0.11.0", "--allowed-media-domains", True),
    ("vllm", "0.33.0", "--allowed-media-domains", True),
    ("sglang", "0.5.17", "--allowed-media-domains", False),
    ("sglang", "0.5.18", "--allowed-media-domains", True),
    ("sglang", "0.5.6.post1", "--limit-mm-data-per-request", False),
    ("sglang", "0.5.9", "--limit-mm-data-per-request", True),
]


@pytest.mark.parametrize(("engine", "version", "flag", "there"), VERSIONS)
def test_a_flag_stands_where_the_version_knows_it(engine: str, version: str, flag: str, there: bool) -> None:
    command = launch(engine, version=version, serving=replace(SERVING, images=1)).command
    assert (flag in command) is there


@pytest.mark.parametrize(
    ("version", "name", "there"),
    [
        ("0.10.2", "VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME", False),
        ("0.12.0", "VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME", True),
        ("0.18.0", "VLLM_MAX_N_SEQUENCES", False),
        ("0.19.0", "VLLM_MAX_N_SEQUENCES", True),
        ("0.10.2", "VLLM_MEDIA_URL_ALLOW_REDIRECTS", False),
    ],
)
def test_a_variable_stands_where_the_version_knows_it(version: str, name: str, there: bool) -> None:
    assert (name in launch("vllm", version=version).environment) is there


@pytest.mark.parametrize(
    ("engine", "version", "unfenced"),
    [
        ("vllm", "0.33.0", set()),
        ("vllm", "0.12.0", {"choices"}),
        ("vllm", "0.10.2", {"choices", "media_urls"}),
        ("sglang", "0.5.23", {"choices", "local_files", "logprobs"}),
        ("sglang", "0.5.12", {"choices", "local_files", "logprobs", "media_urls"}),
    ],
)
def test_what_a_version_cannot_be_told_is_named_for_the_gateway(engine: str, version: str, unfenced: set[str]) -> None:
    limits = adapter(engine, version=version).limits()
    assert limits.unfenced == unfenced
    assert limits.unfenced <= DOORS, "a door that policy does not know"
    assert (limits.choices is None) == ("choices" in unfenced)
    assert limits.context_tokens == 25480


def test_stages_are_refused_where_sglang_has_none() -> None:
    with pytest.raises(Refused) as caught:
        launch("sglang", version="0.4.6.post1", serving=replace(SERVING, pipeline=2))
    assert caught.value.reason == "EngineFlagNotInVersion"


@both
def test_a_template_and_a_toolkit_are_given_where_they_are_known(engine: str) -> None:
    started = launch(engine, chat_template="/models/t.jinja", cuda_home="/usr/local/cuda-12.9")
    assert after(started.command, "--chat-template") == "/models/t.jinja"
    assert started.environment["CUDA_HOME"] == "/usr/local/cuda-12.9"
    assert "CUDA_HOME" not in launch(engine).environment


@both
def test_without_a_source_there_is_no_command(engine: str) -> None:
    with pytest.raises(ValueError, match="a-model"):
        adapter(engine).launch(SPEC, ModelFacts(asked="a-model"), placement())


@both
def test_the_memory_is_what_was_planned_for_all_cards(engine: str) -> None:
    way = next(way for way in ways_of_recipe(RECIPES["autoglm-phone-9b"]) if way.engine == engine)
    ask = Ask(engine=engine, context_tokens=25480, tensor=2)
    seen = capacity(way.model, parse_hardware("2xRTX4090"), ask)
    made = adapter(engine, "autoglm-phone-9b", seen.serving, planned=seen.memory)
    plan = made.memory(SPEC, MODEL, 1)
    assert seen.memory is not None
    assert plan.term("weights") == 2 * seen.memory.ranks[0].term("weights") > 19 * 1024**3
    assert plan.term("kv_cache") == 2 * seen.memory.ranks[0].cache_bytes
    with pytest.raises(ValueError, match="no memory plan"):
        adapter(engine).memory(SPEC, MODEL, 1)


@both
def test_the_printed_memory_is_read_from_the_log(engine: str) -> None:
    name = {"vllm": "vllm-0.19.0-codellama-7b.log", "sglang": "sglang-qwen3-14b-tp4.log"}[engine]
    measured = adapter(engine).measured((CASES / "printed" / name).read_text())
    assert measured.weights_bytes is not None and measured.weights_bytes > 1024**3
    assert adapter(engine).measured("").weights_bytes is None


@given(st.floats(min_value=0.01, max_value=1.0))
def test_a_share_is_never_rounded_up(share: float) -> None:
    text = share_text(share)
    assert share - 0.0001 - 1e-9 <= float(text) <= share + 1e-9
    assert "e" not in text


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "half"), ((8, 0), None), ((12, 0), None)])
def test_bfloat16_is_not_asked_of_a_card_that_has_none(capability: tuple[int, int], expected: str | None) -> None:
    assert half_on_old_cards(capability) == expected


def test_settings_are_worth_their_defaults() -> None:
    made = EngineSettings(version=NEWEST["vllm"], serving=SERVING)
    assert (made.most_choices, made.most_logprobs, made.media_hosts) == (8, 20, ("media.invalid",))


def test_every_engine_of_a_recipe_but_llamacpp_has_an_adapter() -> None:
    named = {engine for recipe in RECIPES.values() if isinstance(recipe, Recipe) for engine in recipe.engines}
    assert named - {"llama.cpp"} == set(ADAPTERS)
