"""`gonogo fit` as its users run it: one object, exit codes, 80 columns, both languages, every known model offline."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from pathlib import Path

import pytest

from gonogo.facts.catalogue import known_models
from gonogo.spec.recipes import recipes
from tests.shell.command_line import Ran, gonogo, spawned

COLUMNS = 80
SLOWEST_S = 5.0
CHINESE = re.compile(r"[\u4e00-\u9fff]")
ENGLISH_WORDS = re.compile(r"\b[a-z]{2,}(?: [a-z]{2,}){2,}\b")
"""Three small words in a row: a sentence, not a name or a flag."""
NAMES = sorted(known_models())
SHOWN = (
    ("autoglm-phone-9b", "1xRTX4090"),
    ("autoglm-phone-9b", "1xT4"),
    ("zai-org/GLM-4.5-Air", "8xH100", "-n", "64", "--context-tokens", "32k"),
    ("gpt-oss-20b", "1xRTX4090", "--terms"),
    ("Qwen/Qwen3-32B", "1xH100", "--terms", "--share", "0.95"),
    ("deepseek-ai/DeepSeek-V3", "8xH100"),
    ("deepseek-ai/DeepSeek-V4-Flash", "8xH200"),
    ("moonshotai/Kimi-K2-Instruct", "16xH100", "--context-tokens", "1"),
    ("nvidia/Llama-3.1-70B-Instruct-FP8", "2xA100-80GB", "-n", "20", "--context-tokens", "16k"),
    ("google/gemma-3-27b-it", "2xA10", "--context-tokens", "8k"),
    ("meta-llama/Meta-Llama-3.1-405B", "1024xB200", "-n", "1000000"),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4", "8xRTX PRO 6000"),
    ("Qwen/Qwen3-14B", "3xRTX3090", "--tensor", "3"),
    ("meta-llama/Llama-3.3-70B-Instruct", "4xRTX3090", "--context-tokens", "8k"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct (GGUF Q4_1)", "1xL4"),
)
REFUSED: dict[str, tuple[str, ...]] = {
    "HardwareMistaken": ("Qwen/Qwen3-8B", "--on", "!"),
    "CardCountImpossible": ("Qwen/Qwen3-8B", "--on", "0xH100"),
    "CardUnknown": ("Qwen/Qwen3-8B", "--on", "8xRTX 4080"),
    "CardNotPlanned": ("Qwen/Qwen3-8B", "--on", "8xMI300X"),
    "ModelNotKnown": ("Qwen3-9B-of-mine", "--on", "1xH100"),
    "NoWayLeft": ("Qwen/Qwen3-8B", "--on", "1xH100", "--quantization", "int3"),
    "OptionMistaken": ("Qwen/Qwen3-8B", "--on", "1xH100", "--engine", "tensorrt"),
    "WrongUsage": ("Qwen/Qwen3-8B", "--on", "1xH100", "--tensors", "2"),
    "LogUnreadable": ("Qwen/Qwen3-8B", "--on", "1xH100", "--printed", "no-such-file.log"),
}
OPTIONS = (
    *(("-n", "0"), ("-n", "-1"), ("-n", "1000001"), ("--context-tokens", "0"), ("--context-tokens", "1e9")),
    *(("--context-tokens", "many"), ("--context-tokens", "99999999"), ("--engine-version", "newest")),
    *(("--engine-version", "1"), ("--share", "0"), ("--share", "1"), ("--share", "nan"), ("--kv-cache", "int4")),
    *(("--tensor", "0"), ("--tensor", "-1"), ("--tensor", "2"), ("--engine-version", "0.0.1")),
    *(("--answer-tokens", "0"), ("--answer-tokens", "-5"), ("--ttft-ms", "0"), ("--itl-ms", "nan")),
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def fit(state: Path, *words: str) -> Ran:
    home = {"HOME": str(state.parent), "XDG_CACHE_HOME": str(state.parent), "COLUMNS": str(COLUMNS)}
    return gonogo(state, "fit", *words, env=home)


def width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def test_it_is_one_object_and_the_exit_code_says_whether_it_fits(state: Path) -> None:
    yes = fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "--json")
    assert yes.code == 0
    assert yes.json["fit"] == "fits" and yes.json["holds_demand"] is True
    assert yes.json["hardware"]["card"] == "H100 SXM 80GB"
    no = fit(state, "deepseek-ai/DeepSeek-V3", "--on", "1xT4", "--json")
    assert no.code == 3
    assert (no.json["fit"], no.json["error"]["reason"]) == ("does_not_fit", "FitsNot")
    assert no.json["options"] == [] and no.json["fallen"]
    few = fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "-n", "100000", "--json")
    assert (few.code, few.json["error"]["reason"]) == (3, "FitTooFew")
    unknown = fit(state, "deepseek-ai/DeepSeek-V4-Flash", "--on", "8xH200", "--json")
    assert (unknown.code, unknown.json["error"]["reason"]) == (3, "FitUnknown")
    assert unknown.json["fit"] == "unknown"


def test_the_addition_in_the_object_adds_up(state: Path) -> None:
    for name, on in (("Qwen/Qwen3-8B", "1xH100"), ("zai-org/GLM-4.5", "8xH200"), ("openai/gpt-oss-20b", "1xRTX4090")):
        for option in fit(state, name, "--on", on, "--json").json["options"]:
            memory = option["capacity"]["memory"]
            terms = sum(term["size_bytes"] for term in memory["terms"])
            assert memory["budget_bytes"] - terms == memory["cache_bytes"]
            assert option["requests_in_all"] == option["replicas"] * option["capacity"]["requests"]
            assert option["cards_needed"] <= int(on.split("x")[0])


def test_it_runs_as_a_process_of_its_own_and_starts_nothing(state: Path) -> None:
    ran = spawned(state, "fit", "autoglm-phone-9b", "--on", "1xRTX4090", "--json", env={"HOME": str(state.parent)})
    assert ran.code == 0 and ran.json["model"] == "autoglm-phone-9b"
    assert not state.exists()


@pytest.mark.parametrize("reason", sorted(REFUSED))
def test_every_refusal_is_told_in_both_languages(state: Path, reason: str) -> None:
    plain = fit(state, *REFUSED[reason], "--json")
    assert plain.code == 2, plain.out
    assert plain.json["error"]["reason"] == reason
    english, chinese = (fit(state, *REFUSED[reason], "--lang", lang) for lang in ("en", "zh"))
    assert english.code == chinese.code == 2
    assert english.err.startswith("✗ ") and "  → " in english.err and not CHINESE.search(english.err)
    if reason != "WrongUsage":
        assert chinese.err.startswith("✗ ") and "  → " in chinese.err and CHINESE.search(chinese.err)
    assert "Traceback" not in english.err + chinese.err


@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
def test_an_option_out_of_its_bounds_is_refused_with_what_was_given(state: Path, option: tuple[str, str]) -> None:
    ran = fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", *option, "--json")
    assert ran.code == 2
    assert ran.json["error"]["reason"] in ("OptionMistaken", "WrongUsage")
    assert option[1] in ran.json["error"]["message"]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("words", SHOWN, ids=lambda words: f"{words[0]} {words[1]}")
def test_no_line_is_longer_than_80_columns(state: Path, words: tuple[str, ...], lang: str) -> None:
    model, on, *more = words
    ran = fit(state, model, "--on", on, *more, "--lang", lang)
    assert ran.code in (0, 2, 3), ran.err
    for line in ran.out.splitlines():
        assert width(line) <= COLUMNS, line
    assert "?" not in ran.out.replace(" ? ", ""), "no value is missing"


@pytest.mark.parametrize("words", SHOWN, ids=lambda words: f"{words[0]} {words[1]}")
def test_what_is_told_in_chinese_has_no_english_sentence(state: Path, words: tuple[str, ...]) -> None:
    model, on, *more = words
    told = fit(state, model, "--on", on, *(word for word in more if word != "--terms"), "--lang", "zh")
    for line in (*told.out.splitlines(), *told.err.splitlines()):
        assert not ENGLISH_WORDS.search(line.replace(model, "")), line
    english = fit(state, model, "--on", on, *more, "--lang", "en")
    assert not CHINESE.search(english.out + english.err)


def test_every_known_model_answers_offline_and_soon(state: Path) -> None:
    slow: dict[str, float] = {}
    for name in NAMES:
        begun = time.process_time()
        ran = fit(state, name, "--on", "8xH100", "--offline", "--json")
        slow[name] = time.process_time() - begun
        answer = ran.json
        assert ran.code in (0, 3), name
        assert answer["fit"] in ("fits", "tight", "does_not_fit", "unknown"), name
        assert answer["parameters"] > 1e8 and (answer["options"] or answer["fallen"]), name
        assert (answer["oddity"] is not None) <= (answer["fit"] in ("unknown", "does_not_fit")), name
    assert max(slow.values()) < SLOWEST_S, max(slow, key=lambda name: slow[name])


def test_every_recipe_of_a_hub_answers_for_its_usual_request(state: Path) -> None:
    for name, recipe in recipes().items():
        if recipe.engine == "llama.cpp":
            continue
        answer = fit(state, name, "--on", "8xH200", "--json").json
        assert answer["fit"] in ("fits", "tight"), name
        assert answer["asked"]["context_tokens"] == recipe.context_tokens


def test_a_promise_that_the_cards_are_not_sure_to_keep_exits_with_3(state: Path) -> None:
    words = ("Qwen/Qwen3-8B", "--on", "1xH100", "-n", "16", "--context-tokens", "8k")
    kept = fit(state, *words, "--itl-ms", "100000", "--json")
    assert kept.code == 0 and kept.json["options"][0]["pace"]["kept"]["cards"] == 1
    alone = kept.json["options"][0]["pace"]["alone"]["itl_ms"]["high"]
    more = fit(state, *words, "--itl-ms", str(alone + 1), "--json")
    assert (more.code, more.json["error"]["reason"]) == (3, "FitTooSlow")
    assert more.json["error"]["values"]["cards"] > 1
    none = fit(state, *words, "--ttft-ms", "1")
    assert none.code == 3 and "not even one request alone" in none.out and "first token" in none.out
    chinese = fit(state, *words, "--ttft-ms", "1", "--lang", "zh")
    assert "单个请求也无法守约" in chinese.out and "不能确保" in chinese.err


@pytest.mark.parametrize("option", [("--kv-cache", "int4"), ("--context-tokens", "many"), ("--prices", "none.yaml")])
def test_a_mistaken_option_is_told_before_a_hub_is_asked(state: Path, option: tuple[str, str]) -> None:
    ran = fit(state, "nobody/no-model", "--on", "1xH100", "--hub", "http://127.0.0.1:9", *option, "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (2, "OptionMistaken")
    assert "hub" not in ran.err


def test_a_price_of_ones_own_replaces_ours_and_a_mistake_in_it_is_shown_with_its_line(state: Path) -> None:
    mine = state.parent / "prices.yaml"
    mine.write_text(
        "prices:\n  - card: H100 SXM 80GB\n    on_demand: {usd_per_hour: 0.5, source: mine, date: '2026-11-01'}\n"
    )
    ran = fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "--prices", str(mine), "--json")
    pace = ran.json["options"][0]["pace"]
    assert (pace["price_on_demand"]["usd_per_hour"], pace["price_on_demand"]["source"]) == (0.5, "mine")
    assert pace["price_spot"] is None
    mine.write_text("prices:\n  - card: H100 SXM 80GB\n    on_demand: {usd_per_hour: -1, source: mine, date: now}\n")
    refused = fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "--prices", str(mine))
    assert refused.code == 2 and "prices.yaml:3" in refused.err


def test_the_answer_of_a_request_may_be_as_long_as_the_user_says(state: Path) -> None:
    short, long = (
        fit(
            state, "Qwen/Qwen3-8B", "--on", "1xH100", "--context-tokens", "8k", "--answer-tokens", tokens, "--json"
        ).json
        for tokens in ("100", "4000")
    )
    assert (short["options"][0]["pace"]["prompt_tokens"], long["options"][0]["pace"]["prompt_tokens"]) == (8092, 4192)


def test_the_recipe_of_the_embedded_engine_is_sent_to_the_check(state: Path) -> None:
    ran = fit(state, "smollm2-135m", "--on", "1xH100")
    assert ran.code == 3 and "gonogo check smollm2-135m" in ran.err


def test_a_form_is_named_in_any_letters(state: Path) -> None:
    upper, lower = (
        fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "--quantization", name, "--json").json for name in ("FP8", "fp8")
    )
    assert upper == lower and upper["options"]


def test_cards_that_are_not_used_and_replicas_of_more_than_a_machine_are_told(state: Path) -> None:
    told = fit(state, "Qwen/Qwen3-14B", "--on", "3xH100", "--tensor", "2").out
    assert "1 card stays unused" in told
    assert "unused" not in fit(state, "Qwen/Qwen3-14B", "--on", "2xH100", "--tensor", "2").out
    large = fit(state, "deepseek-ai/DeepSeek-V3", "--on", "16xH100", "--context-tokens", "8k").out
    assert "16 cards in one replica" in large


def test_a_hub_id_is_found_whatever_its_letters(state: Path) -> None:
    one, other = (fit(state, name, "--on", "1xH100", "--json").json for name in ("Qwen/Qwen3-8B", "qwen/qwen3-8b"))
    assert one["options"] == other["options"]


def test_the_engine_and_the_form_that_are_asked_for_are_the_only_ones(state: Path) -> None:
    answer = fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "--engine", "sglang", "--json").json
    assert {one["engine"] for one in (*answer["options"], *answer["fallen"])} == {"sglang"}
    answer = fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "--quantization", "fp8", "--json").json
    assert {one["quantization"] for one in (*answer["options"], *answer["fallen"])} == {"fp8"}


def test_a_prompt_that_cannot_be_read_in_one_step_is_told_with_the_longest_that_can(state: Path) -> None:
    words = ("ibm-granite/granite-3.1-8b-instruct", "--on", "1xL40S", "--engine", "transformers")
    seen = fit(state, *words, "--context-tokens", "131072", "--json").json["options"][0]["capacity"]
    assert seen["fit"] == "tight" and seen["strained"] and 100_000 < seen["prompt_tokens"] < 131_072
    told = " ".join(fit(state, *words, "--context-tokens", "131072").out.split())
    assert f"one of more than {seen['prompt_tokens']:,} tokens does not fit beside its cache" in told
    assert "prefill_chunk_size" in fit(state, *words, "--context-tokens", "131072", "--lang", "zh").out
    short = fit(state, *words, "--context-tokens", "65536", "--json").json["options"][0]["capacity"]
    assert short["fit"] == "fits" and not short["strained"]


def test_where_each_number_comes_from_is_told_on_demand(state: Path) -> None:
    plain = fit(state, "openai/gpt-oss-20b", "--on", "1xH100").out
    sources = fit(state, "openai/gpt-oss-20b", "--on", "1xH100", "--terms").out
    assert "sampler" not in plain and "sampler" in sources
    for term in ("weights", "activation peak", "outside torch", "CUDA graphs", "= KV cache"):
        assert term in plain, term


def test_what_is_kept_between_calls_changes_nothing_that_was_not_asked(state: Path) -> None:
    first, second = (fit(state, "Qwen/Qwen3-8B", "--on", "1xH100", "--json").out for _ in range(2))
    assert first == second
    assert json.loads(first)["weights_known_from"] == "configuration"


def test_help_is_in_both_languages_and_names_every_option(state: Path) -> None:
    english, chinese = (fit(state, "--help", "--lang", lang) for lang in ("en", "zh"))
    for option in ("--on", "--concurrent-requests", "--context-tokens", "--engine", "--quantization", "--share"):
        assert option in english.out and option in chinese.out
    assert english.code == 0 and not CHINESE.search(english.out)
