"""The sentences about mistakes: every one in English and Chinese, and the English ones equal in both places."""

from __future__ import annotations

import string
from importlib import resources
from typing import Any

import pytest
import yaml

from gonogo.spec.mistakes import ENGLISH

WORDS: dict[str, Any] = yaml.safe_load(resources.files("gonogo.words").joinpath("spec.yaml").read_text("utf-8"))


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def test_the_catalogue_and_the_code_know_the_same_mistakes() -> None:
    assert set(WORDS) == {f"Mistake.{variant}" for variant in ENGLISH}


@pytest.mark.parametrize("variant", ENGLISH)
def test_a_mistake_says_the_same_in_the_catalogue_and_in_chinese(variant: str) -> None:
    words = WORDS[f"Mistake.{variant}"]
    assert words["en"] == ENGLISH[variant]
    assert fields(words["zh"]) == fields(words["en"])
    assert any("\u4e00" <= letter <= "\u9fff" for letter in words["zh"]) or variant == "Refused"
