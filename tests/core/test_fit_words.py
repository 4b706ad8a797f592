"""The words of `gonogo fit`: each message and reason that its code uses is there, and none is left over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

import pytest

import gonogo
from gonogo.facts.families import FAMILIES
from gonogo.facts.schemes import SCHEMES
from gonogo.plan.capacity import Fit, Question
from gonogo.plan.choose import _REASONS
from gonogo.words import finding_text, has_message, message, page
from gonogo.words.catalogue import entries

ROOT = Path(gonogo.__file__).parent
SPEAKS = (
    *(
        "cli/fit.py",
        "cli/fit_page.py",
        "cli/fit_model.py",
        "cli/fit_printed.py",
        "cli/fit_pace.py",
        "words/fit_table.py",
    ),
    *("plan/choose.py", "plan/remedies.py", "engines/hardware.py", "plan/answer.py"),
    *("engines/vllm_memory.py", "engines/sglang_memory.py", "engines/transformers_memory.py", "engines/printed.py"),
)
SOURCES = {name: (ROOT / name).read_text(encoding="utf-8") for name in SPEAKS if (ROOT / name).exists()}
TEXT = "\n".join(SOURCES.values())
OF_FIT = [name for name in entries("fit") if name[0].islower()]
REASONS = [name for name in entries("fit") if name[0].isupper()]
CHINESE = re.compile(r"[\u4e00-\u9fff]")
MADE_OF_PARTS: dict[str, tuple[str, ...]] = {
    "fit.{}": tuple(fit.value for fit in Fit if fit is not Fit.DOES_NOT_FIT),
    "fit.known_from.{}": ("tensors", "configuration"),
    "fit.printed.{}": ("planned", "printed", "off"),
    "fit.why.{}": ("unknown", "fewer", "quantized", "tight", "cards", "later"),
}
"""Messages whose names are put together; the parts that their code can give."""


def remedies_in_source() -> set[str]:
    return set(re.findall(r'"(Remedy[A-Z]\w+)"', SOURCES["plan/remedies.py"]))


def terms_in_source() -> set[str]:
    return set(re.findall(r'Term\(\s*name="(\w+)"', TEXT))


def spoken() -> Iterator[str]:
    """Every message that the code names."""
    yield from re.findall(r'"((?:fit|progress|term)\.[\w.]+)"', TEXT)
    for form, parts in MADE_OF_PARTS.items():
        yield from (form.format(part) for part in parts)
    yield from (f"fit.remedy.{name}" for name in remedies_in_source())
    yield from (f"term.{name}" for name in terms_in_source())
    yield from (f"oddity.{family.oddity}" for family in FAMILIES.values() if family.oddity is not None)


@pytest.mark.parametrize("name", sorted(set(spoken()) - {"fit.remedy", "fit.why", "term.", "fit.term"}))
def test_what_the_code_says_has_words_in_both_languages(name: str) -> None:
    assert has_message(name), name
    assert not CHINESE.search(message(name, "en"))


def test_no_message_of_fit_is_left_over() -> None:
    said = set(spoken())
    helped = set(re.findall(r'told\("((?:option|argument)\.\w+)"\)', TEXT))
    for name in OF_FIT:
        if name.startswith("help."):
            if name != "help.fit":
                assert name.removeprefix("help.") in helped, name
        else:
            assert name in said or _put_together(name), name


def _put_together(name: str) -> bool:
    """Whether the code makes this name of a known beginning and a word that it also holds."""
    begins, _, last = name.rpartition(".")
    return bool(re.search(rf'f"{re.escape(begins)}\.{{', TEXT)) and bool(re.search(rf'["_]{last}"|\b{last}=', TEXT))


def test_every_remedy_of_the_code_is_told_and_every_told_one_is_in_the_code() -> None:
    told = {name.removeprefix("fit.remedy.") for name in OF_FIT if name.startswith("fit.remedy.")}
    assert told == remedies_in_source()
    assert len(told) >= 10


def test_every_reason_of_the_code_is_told_and_every_told_one_is_in_the_code() -> None:
    in_source = (
        set(re.findall(r'(?:reason=|reason = |Refusal\(|HardwareError\()"([A-Z]\w+)"', TEXT)) - remedies_in_source()
    )
    in_source |= set(_REASONS.values())
    elsewhere = {name for name in in_source if name not in REASONS}
    for name in elsewhere:
        assert finding_text(name, {}, "en").seen != name, name
    assert set(REASONS) <= in_source


def test_every_question_has_its_reason() -> None:
    assert set(_REASONS) == set(Question)


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_has_a_whole_page_in_both_languages(reason: str) -> None:
    for lang in ("en", "zh"):
        words = entries("fit")[reason][lang]
        assert words["seen"].strip() and words["explain"].strip()
        assert page(reason, lang).asks or page(reason, lang).why
        if lang == "zh":
            assert CHINESE.search(words["seen"]) and CHINESE.search(words["explain"])


def test_chinese_messages_are_chinese_but_for_names_and_numbers() -> None:
    for name in OF_FIT:
        told = entries("fit")[name]["zh"]
        bare = re.sub(r"\{[^}]*\}|\[\[|\]\]", "", told)
        assert CHINESE.search(bare) or not re.search(r"[a-z]{3,}", bare), name


def test_every_scheme_is_known_by_a_name_that_people_use() -> None:
    assert {stored.bits for stored in SCHEMES.values()} == {4, 8}
