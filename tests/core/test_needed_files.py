"""Which files of a repository are fetched: cases as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gonogo.facts.checkpoint import RepoFile
from gonogo.facts.needed_files import LARGEST_BESIDE_BYTES, needed_files, safe_name
from gonogo.facts.shards import Index, ShardsError

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases/fetch/needed_files.yaml").read_text(encoding="utf-8"))


def needed(case: dict[str, Any]) -> list[str]:
    files = [RepoFile(name=name, size_bytes=7) for name in case["files"]]
    shards = case.get("index")
    index = None if shards is None else Index(weight_map={shard: shard for shard in shards}, total_bytes=None)
    return [file.name for file in needed_files(files, index, tuple(case.get("only", ())))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_what_is_needed_is_fetched_and_nothing_else(case: dict[str, Any]) -> None:
    if "needed" in case:
        assert needed(case) == case["needed"]
        return
    kind, told = case["problem"]
    with pytest.raises(ShardsError) as refused:
        needed(case)
    assert refused.value.problem.kind == kind and told in refused.value.problem.detail


def test_a_document_of_gigabytes_is_none() -> None:
    files = [RepoFile(name="model.safetensors", size_bytes=9), RepoFile(name="huge.json", size_bytes=1 << 30)]
    assert [file.name for file in needed_files(files)] == ["model.safetensors"]
    usual = [*files[:1], RepoFile(name="tokenizer.json", size_bytes=LARGEST_BESIDE_BYTES)]
    assert len(needed_files(usual)) == 2


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a//b", "a/../b", ".", "a/.b", "a\\b", "a\nb"])
def test_a_name_that_leaves_its_folder_or_hides_is_not_safe(name: str) -> None:
    assert not safe_name(name)
    assert safe_name("a/b-1.safetensors")
