"""The catalogue: words for every reason of every check, in both languages, with the values that the checks supply."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Iterator, Mapping

import pytest
import yaml

from gonogo.checks.catalogue import CHECKS, HOST_CHECKS, of_host
from gonogo.checks.finding import Condition, Stage
from gonogo.checks.model import PROBLEMS
from gonogo.facts.accelerator import AcceleratorLink, OtherAccelerator
from gonogo.facts.gateway import StateFacts
from gonogo.facts.host import HostFacts, PortHolder, Tools
from gonogo.facts.measured import AcceleratorMeasured, LinkMeasured, Measured, StorageMeasured
from gonogo.facts.model import ModelFacts, ModelProblem
from gonogo.facts.parse_accelerators import parse_accelerators
from gonogo.facts.part import PARTS as PROCESSES
from gonogo.facts.replica import Deaths, Health
from gonogo.facts.world import World
from gonogo.plan.decide import ask
from gonogo.spec import Gateway, Quantization, Revision
from gonogo.spec.profile import load_profile
from gonogo.spec.profiles import texts as profile_texts
from gonogo.store.kinds import KINDS
from gonogo.words import choose_language, explain, finding_text, has_message, message, page, reasons
from gonogo.words.catalogue import FOLDER, UnknownReason, entries, files
from gonogo.words.events import event_text
from gonogo.words.fill import fill, placeholders, required_placeholders
from tests.core import worlds
from tests.core.test_checks_engine import every_world

AGREED: Mapping[str, list[str]] = yaml.safe_load(
    (FOLDER.parents[2] / "tests/cases/words/values.yaml").read_text(encoding="utf-8")
)
GUIDE = load_profile(profile_texts()["guide"].replace("# hot:", "hot:"))
EVERY = (*CHECKS, *HOST_CHECKS)
OF_CHECKS = tuple(sorted({(reason, check.name) for check in EVERY for reason in check.reasons}))
ALSO_PASSING = {"AcceleratorMemoryEnough", "AcceleratorSpeedEnough", "TierFastEnough", "LinkAsItsKind", "ExternalReady"}
"""Of checks that ask several things at once, or of two kinds of replicas: the first reason of each."""
LANGS = ("en", "zh")
PARTS = ("asks", "why", "see", "mend")


def texts() -> Iterator[tuple[str, str, str]]:
    """Every template of the catalogue: where it stands, the language, the text."""
    for file in files():
        for name, entry in entries(file).items():
            for lang in LANGS:
                words = entry[lang]
                if isinstance(words, str):
                    yield f"{file}: {name}", lang, words
                    continue
                for part in ("seen", "remedy"):
                    if part in words:
                        yield f"{file}: {name}.{part}", lang, words[part]


@pytest.mark.parametrize(("reason", "check"), OF_CHECKS)
def test_every_reason_of_every_check_has_words_and_a_whole_page_in_both_languages(reason: str, check: str) -> None:
    for lang in LANGS:
        words = _entry(reason)[lang]
        assert words["seen"].strip()
        told = page(reason, lang)
        assert all(getattr(told, part) for part in PARTS), f"{reason} {lang}"


@pytest.mark.parametrize(("reason", "check"), OF_CHECKS)
def test_words_name_no_value_that_the_check_does_not_supply(reason: str, check: str) -> None:
    allowed = {*AGREED[check], *AGREED["every check"]}
    for lang in LANGS:
        words = _entry(reason)[lang]
        for part in ("seen", "remedy"):
            assert placeholders(words.get(part, "")) <= allowed, f"{reason}.{part} {lang}"


@pytest.mark.parametrize("condition", [condition.value for condition in Condition])
def test_there_are_no_words_for_a_reason_that_no_check_gives(condition: str) -> None:
    given = {reason for check in EVERY if check.condition.value == condition for reason in check.reasons}
    told = {reason for file in files() if file.partition("_")[0] == condition for reason in reasons(file)}
    assert told == given - {"NotApplicable"}


def test_every_check_has_a_title_and_no_title_is_left_over() -> None:
    assert set(entries("check")) == {f"check.{check.name}" for check in EVERY}


def test_every_kind_of_event_has_a_sentence_and_no_sentence_is_left_over() -> None:
    told = {name.split(".")[1] for name in entries("event")}
    assert told == set(KINDS)


def test_a_failing_or_unknown_reason_says_what_to_do() -> None:
    passing = {check.reasons[0] for check in EVERY} | {"NotApplicable"} | ALSO_PASSING
    for reason, _ in OF_CHECKS:
        if reason not in passing:
            assert finding_text(reason, {}, "en").remedy, reason
            assert finding_text(reason, {}, "zh").remedy, reason


def test_no_check_leaves_a_hole_in_its_sentence_whatever_the_world_looks_like() -> None:
    for revision, seen in _worlds():
        for stage in Stage:
            for answer in ask((*CHECKS, *of_host(GUIDE, measured=True)), stage, revision, seen):
                finding = answer.finding
                given = {name for name, value in finding.values.items() if value is not None}
                for lang in LANGS:
                    words = _entry(finding.reason)[lang]
                    needed = required_placeholders(words["seen"])
                    if finding.verdict.value != "pass":
                        needed |= required_placeholders(words.get("remedy", ""))
                    assert needed <= given, f"{finding.reason} {lang}: {sorted(needed - given)}"


def test_both_languages_use_the_same_values() -> None:
    for file in files():
        for name, entry in entries(file).items():
            for part in ("seen", "remedy"):
                english, chinese = (_part(entry[lang], part) for lang in LANGS)
                assert placeholders(english) == placeholders(chinese), f"{file}: {name}.{part}"


def test_every_template_can_be_filled_with_nothing_and_with_odd_values() -> None:
    for where, lang, text in texts():
        bare = fill(text, {})
        assert ("?" in bare) or not required_placeholders(text), f"{where} {lang}"
        for odd in ("no number", None, 3, 2.5, True):
            assert "{" not in fill(text, dict.fromkeys(placeholders(text), odd)).replace("{context_tokens", ""), where


def test_chinese_words_are_chinese_and_english_ones_are_not() -> None:
    chinese = re.compile(r"[\u4e00-\u9fff]")
    for where, lang, text in texts():
        if lang == "en":
            assert not chinese.search(text), where
    for reason in reasons():
        assert chinese.search(page(reason, "zh").asks), reason


def test_a_missing_value_shows_as_a_question_mark() -> None:
    assert fill("needs {needed_gib:.2f} GiB", {}) == "needs ? GiB"
    assert fill("needs {needed_gib:.2f} GiB", {"needed_gib": None}) == "needs ? GiB"


def test_a_part_in_double_brackets_goes_when_its_value_is_missing() -> None:
    assert fill("died[[: {why}]]", {"why": ""}) == "died"
    assert fill("died[[: {why}]]", {"why": "signal 9"}) == "died: signal 9"


def test_counted_words_know_one_and_many() -> None:
    assert fill("{n:replica|replicas}", {"n": 1}) == "1 replica"
    assert fill("{n:replica|replicas}", {"n": 2}) == "2 replicas"


def test_values_are_never_read_as_templates() -> None:
    assert (
        fill("answered {answer}", {"answer": "{asked} [[x]] {0.__class__}"}) == "answered {asked} [[x]] {0.__class__}"
    )
    assert fill("{a.__class__}", {"a": 1}) == "?"


def test_a_reason_without_words_shows_its_code_and_values() -> None:
    assert finding_text("NewReason", {"number": 7}, "en").seen == "NewReason: number 7"


def test_a_finding_that_does_not_apply_names_the_check_that_says_more() -> None:
    assert finding_text("NotApplicable", {"why": "model_readable"}, "en").seen == "not asked: see “Model files”"
    assert finding_text("NotApplicable", {"why": "model_readable"}, "zh").seen == "未提问：见“模型文件”"


def test_the_terms_of_the_memory_plan_are_named_in_the_language() -> None:
    values = {"needed_gib": 1, "replicas": 2, "available_gib": 3, "terms": "weights 0.09 + kv_cache 0.02"}
    assert "权重 0.09 + KV 缓存 0.02" in finding_text("MemoryFits", values, "zh").seen


def test_explain_is_a_page_with_headings() -> None:
    text = explain("MemoryTooSmall", "en")
    assert text.startswith("MemoryTooSmall\n\nWhat it asks\n")
    assert "How to mend it" in text and "free -h" in text
    assert "如何处理" in explain("MemoryTooSmall", "zh")


def test_an_unknown_reason_names_the_nearest_ones() -> None:
    with pytest.raises(UnknownReason) as caught:
        explain("MemoryTooSmal", "en")
    assert caught.value.nearest[0] == "MemoryTooSmall"


def test_a_message_that_does_not_exist_still_says_something() -> None:
    assert message("no.such.message", "en", number=7) == "no.such.message number=7"
    assert not has_message("no.such.message")


def test_an_event_is_told_by_its_action_where_there_are_words_for_that() -> None:
    started = {"kind": "ActionStarted", "service": "svc", "revision": 1}
    ensure = {"action": "EnsureReplica", "replica": "svc/1/0", "why": "wanted"}
    assert event_text({**started, "detail": ensure}, "en") == "starting replica svc/1/0 (wanted)"
    assert event_text({**started, "detail": {"action": "New"}}, "en") == "New was begun"
    assert event_text({"kind": "Odd", "detail": {"n": 1}}, "en") == "Odd {'n': 1}"


@pytest.mark.parametrize(
    ("why", "english", "chinese"),
    [
        ("killed", "somebody killed it, or the system did", "被外部或系统杀掉"),
        ("EngineOutOfMemory", "the engine ran out of memory (EngineOutOfMemory)", "EngineOutOfMemory）"),
        ("EngineChildDied", "a child process of the engine died", "EngineChildDied）"),
        ("SomethingNew", "SomethingNew", "SomethingNew"),
        ("DiskTooFull", "DiskTooFull", "DiskTooFull"),
    ],
)
def test_what_a_replica_died_of_is_told_in_words_with_its_code(why: str, english: str, chinese: str) -> None:
    event = {"kind": "ReplicaDied", "service": "svc", "detail": {"replica": "svc/1/0", "why": why}}
    assert event_text(event, "en").startswith(f"replica svc/1/0 died: {english}")
    assert chinese in event_text(event, "zh")
    values = {"replica": "svc/1/0", "restarts": 3, "why": why, "last_lines": ""}
    assert english in finding_text("ReplicaCrashLooping", values, "en").seen
    assert "?" not in event_text(event, "en"), "words that need numbers are left out"


LANGUAGE_CASES = [
    (None, {}, "en"),
    ("zh", {}, "zh"),
    ("en", {"LANG": "zh_CN.UTF-8"}, "en"),
    (None, {"GONOGO_LANG": "zh"}, "zh"),
    (None, {"GONOGO_LANG": "en", "LC_ALL": "zh_CN.UTF-8"}, "en"),
    (None, {"LC_ALL": "zh_TW.UTF-8"}, "zh"),
    (None, {"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
    (None, {"LC_ALL": "", "LC_MESSAGES": "zh_CN", "LANG": "en_GB"}, "zh"),
    (None, {"LANG": "zh_CN.UTF-8"}, "zh"),
    (None, {"LANG": "de_DE.UTF-8"}, "en"),
]


@pytest.mark.parametrize(("asked", "environment", "expected"), LANGUAGE_CASES)
def test_the_language_is_what_was_asked_for_then_the_locale_and_english_when_in_doubt(
    asked: str | None, environment: dict[str, str], expected: str
) -> None:
    assert choose_language(asked, environment) == expected


def _worlds() -> Iterator[tuple[Revision, World]]:
    """Good ones, empty ones, and ones in which much is wrong at once."""
    revision = worlds.revision()
    good = worlds.world(replicas=worlds.running("svc/1/0", "svc/1/1"), probes=worlds.probes(revision))
    yield revision, good
    yield revision, worlds.published(good, worlds.service(revision, revision))
    yield revision, worlds.published(good, worlds.service(revision, revision), nack="no such field")
    yield revision, World(observation=1, at=worlds.NOW)
    yield revision, replace(good, host=HostFacts(name="here"), replicas=None, gateway=None, parts=None, state=None)
    for kind in PROBLEMS:
        problem = ModelProblem(kind=kind, detail="detail")
        model = ModelFacts(asked="tiny", path="/m", file_bytes=7, problem=problem)
        yield revision, replace(good, models={"tiny": model})
        if kind in ("missing", "unknown", "hub_unreachable", "pickle_only", "gated"):
            yield revision, replace(good, models={"tiny": replace(model, path=None, file_bytes=None)})
    yield revision, replace(good, models={"tiny": replace(worlds.MODEL, context_tokens=None, architecture_known=False)})
    for held in ("q4_1", "q8_0", None):
        held_model = replace(worlds.MODEL, quantization=held)
        yield worlds.revision(quantization=Quantization.Q8_0), replace(good, models={"tiny": held_model})
    deaths = Deaths(count=4, last_at=worlds.NOW, why="no memory", last_log_lines=("killed",))
    yield revision, replace(good, replicas=(), deaths={"svc/1/0": deaths})
    yield revision, replace(good, replicas=(), deaths={"svc/1/0": replace(deaths, count=1)})
    yield revision, replace(good, replicas=(worlds.replica("svc/1/0", Health.HUNG, listens_on=("0.0.0.0",)),))
    wrong: dict[str, Any] = dict.fromkeys((name.partition(":")[0] for name in worlds.RIGHT), None)
    yield revision, replace(good, probes=worlds.probes(revision, **wrong))
    holder = PortHolder(address="0.0.0.0", port=8443, pid=None, command=None)
    poor = replace(worlds.HOST, memory_available_bytes=1, listening=(holder,), open_files_limit=10, clock_jump_s=900.0)
    state = StateFacts(path="/s", owner_only=False, exposed_paths=("/s/x",), writable=False, write_error="full")
    state = replace(state, chain_length=9, chain_broken_at=4)
    expired = replace(worlds.CERTIFICATE, not_after=worlds.NOW - 1)
    yield revision, replace(good, host=poor, state=state, certificate=expired)
    yield worlds.revision(gateway=Gateway(address="0.0.0.0", hostnames=("other",))), good
    for host in _hosts():
        yield revision, replace(good, host=host)
    yield from every_world()


def test_every_process_that_status_lists_has_a_name_in_both_languages() -> None:
    for role in (*PROCESSES, "control", "gateway", "keeper", "replica"):
        for language in ("en", "zh"):
            assert has_message(f"role.{role}") and message(f"role.{role}", language), role


def _hosts() -> Iterator[HostFacts]:
    """Hosts with GPUs of every recorded sort, measured and not."""
    seen = StorageMeasured(tier="hot", path="/x", problem="full")
    for case in sorted((FOLDER.parents[2] / "tests/cases/facts/accelerators").glob("*.txt")):
        read = parse_accelerators(case.read_text())
        yield replace(worlds.HOST, driver=read.driver, accelerators=read.accelerators)
    for name, flops in (("NVIDIA H100 80GB HBM3", 1e12), ("NVIDIA H100 80GB HBM3", 9e14), ("Odd", 1e12), ("Odd", None)):
        card = AcceleratorMeasured(index=0, name=name, flops_fp16=flops, copy_bytes_per_s=3e12)
        links = (LinkMeasured(first=0, second=1, bytes_per_s=1e9), LinkMeasured(first=1, second=0, bytes_per_s=4e11))
        measured = Measured(at=0.0, accelerators=(card,), storage=(seen,), links=links)
        paths = (AcceleratorLink(first=0, second=1, kind="NVLink", nvlinks=18),)
        yield replace(worlds.HOST, accelerators=(), measured=measured, accelerator_links=paths, tools=Tools())
    other = OtherAccelerator(maker="AMD", name="AMD Instinct MI300X", count=8, seen_by="rocm-smi")
    yield replace(worlds.HOST, accelerators=(), others=(other,), os_id=("debian", "12"), clock_kept=False)


def _entry(reason: str) -> Mapping[str, Any]:
    for file in files():
        if reason in entries(file):
            return entries(file)[reason]
    raise AssertionError(f"no words for {reason}")


def _part(words: Any, part: str) -> str:
    if isinstance(words, str):
        return words if part == "seen" else ""
    return str(words.get(part, ""))
