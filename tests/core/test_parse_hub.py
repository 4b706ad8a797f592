"""What hubs answer: files with sizes and hashes in both dialects, and nothing a stranger writes is another error."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.facts.checkpoint import RepoFile
from gonogo.facts.parse_hub import HubAnswerError, Listing, parse_hugging_face, parse_model_scope

COMMIT, DIGEST = "a" * 40, "b" * 64
Parse = Callable[[bytes], Listing]


def hugging_face(*siblings: Any, **changes: Any) -> bytes:
    return json.dumps({"sha": COMMIT, "siblings": list(siblings), **changes}).encode()


def model_scope(*files: Any, **changes: Any) -> bytes:
    return json.dumps({"Code": 200, "Data": {"Files": list(files)}, **changes}).encode()


def test_hugging_faces_answer_gives_the_commit_and_each_files_size_and_hash() -> None:
    found = parse_hugging_face(
        hugging_face(
            {"rfilename": "model.safetensors", "size": 9, "blobId": "x", "lfs": {"sha256": DIGEST, "size": 9}},
            {"rfilename": "config.json", "size": 5, "blobId": COMMIT},
            {"rfilename": "odd.json", "size": 5, "blobId": "y"},
            {"rfilename": "no-size"},
            {"rfilename": "odd", "size": -1, "lfs": {"sha256": "short"}},
        )
    )
    assert found.commit == COMMIT and found.files == (
        RepoFile(name="config.json", size_bytes=5, git_sha1=COMMIT),
        RepoFile(name="model.safetensors", size_bytes=9, sha256=DIGEST),
        RepoFile(name="no-size"),
        RepoFile(name="odd"),
        RepoFile(name="odd.json", size_bytes=5),
    )


def test_modelscopes_answer_gives_files_without_folders_and_a_commit_that_changes_with_them() -> None:
    file = {
        "Path": "a/config.json",
        "Name": "config.json",
        "Type": "blob",
        "Size": 5,
        "Sha256": DIGEST,
        "Revision": COMMIT,
    }
    found = parse_model_scope(model_scope({"Path": "a", "Type": "tree"}, file))
    assert found.files == (RepoFile(name="a/config.json", size_bytes=5, sha256=DIGEST),)
    assert found.revisions == {"a/config.json": COMMIT}
    assert parse_model_scope(model_scope(file)).commit == found.commit
    assert parse_model_scope(model_scope({**file, "Revision": "c" * 40})).commit != found.commit


@pytest.mark.parametrize(
    ("parse", "content", "told"),
    [
        (parse_hugging_face, b"<html>", "not JSON"),
        (parse_hugging_face, hugging_face(sha="main"), "no commit"),
        (parse_hugging_face, hugging_face(siblings={}), "no files"),
        (parse_hugging_face, hugging_face(*[{}] * 20_001), "no files"),
        (parse_hugging_face, hugging_face("config.json"), "without a usable name"),
        (parse_hugging_face, hugging_face({"rfilename": "a\nb"}), "without a usable name"),
        (parse_hugging_face, hugging_face({"rfilename": "a"}, {"rfilename": "a"}), "twice"),
        (parse_model_scope, model_scope(Code=10010205001, Data=None), "Code 10010205001"),
        (parse_model_scope, model_scope({"Path": ""}), "without a usable name"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(parse: Parse, content: bytes, told: str) -> None:
    with pytest.raises(HubAnswerError, match=told):
        parse(content)


WORDS = st.sampled_from(
    ["sha", "siblings", "rfilename", "size", "lfs", "sha256", "Code", "Data", "Files", "Path", "Type"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(COMMIT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("parse", [parse_hugging_face, parse_model_scope])
@given(value=JSON, content=st.binary(max_size=60))
def test_arbitrary_answers_are_never_another_error(parse: Parse, value: Any, content: bytes) -> None:
    for told in (content, json.dumps(value).encode(), hugging_face(value), model_scope(value)):
        with contextlib.suppress(HubAnswerError):
            parse(told)
