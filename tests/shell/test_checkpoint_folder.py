"""A checkpoint in a folder: the user's own, a download, or a snapshot that the hub's library keeps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import pytest

from gonogo.facts.checkpoint import Checkpoint
from gonogo.facts.shards import INDEX_FILE
from gonogo.runtimes.checkpoint_folder import read_folder
from gonogo.runtimes.gguf_file import read_model
from gonogo.runtimes.hub import HubQuestion, read_from_hub
from tests.shell.checkpoints import CONFIG, FIRST, SECOND, SHARDS, sharded, write_folder
from tests.shell.fake_hub import COMMIT, Door, FakeHub, large, small

MODEL = "maker/model-1b"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", sharded())


def kind_of(seen: Checkpoint) -> str:
    assert seen.problem is not None
    return seen.problem.kind


def test_a_folder_is_read_like_a_hub(folder: Path) -> None:
    seen = read_folder(folder)
    assert seen.problem is None and seen.tensors is not None
    assert {tensor.name: (tensor.kind, list(tensor.shape)) for tensor in seen.tensors} == {**FIRST, **SECOND}
    assert (seen.asked, seen.source, seen.commit, seen.verified) == (str(folder), str(folder), None, None)
    assert (seen.config, seen.chat_template) == (CONFIG, "{{ messages }}")
    assert [file.name for file in seen.files or ()] == sorted(name for name in sharded() if not name.startswith("."))


def test_a_relative_path_means_the_same_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert read_folder(Path("model")).source == str(folder)


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (lambda place: (place / SHARDS[1]).unlink(), "shard_missing", SHARDS[1]),
        (lambda place: os.truncate(place / SHARDS[0], 20_000_000), "shard_damaged", f"{SHARDS[0]}: its tensors need"),
        (lambda place: os.truncate(place / SHARDS[0], 100), "shard_damaged", "its header ends at byte"),
        (lambda place: os.truncate(place / SHARDS[0], 0), "shard_damaged", "0 bytes"),
        (
            lambda place: (place / SHARDS[0]).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "shard_damaged",
            "LFS",
        ),
        (lambda place: (place / "config.json").write_text("{"), "config_unreadable", "config.json"),
        (lambda place: (place / "config.json").write_bytes(b" " * 9_000_000), "config_unreadable", "9000000 bytes"),
        (lambda place: (place / "config.json").unlink(), "config_unreadable", "no config.json"),
        (
            lambda place: ((place / SHARDS[0]).unlink(), os.mkfifo(place / SHARDS[0])),
            "unreadable",
            "not a regular file",
        ),
        (
            lambda place: ((place / SHARDS[0]).unlink(), (place / SHARDS[0]).symlink_to("gone")),
            "shard_missing",
            "a link",
        ),
        (lambda place: (place / SHARDS[1]).write_bytes((place / SHARDS[0]).read_bytes()), "shard_damaged", "it lacks"),
    ],
)
def test_what_is_wrong_with_a_folder_has_a_name(
    folder: Path, change: Callable[[Path], Any], kind: str, told: str
) -> None:
    change(folder)
    seen = read_folder(folder)
    assert kind_of(seen) == kind and told in str(seen.problem) and seen.tensors is None


def test_no_folder_and_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert kind_of(read_folder(tmp_path / "nowhere")) == "missing"
    assert kind_of(read_folder(tmp_path / "file")) == "unreadable"
    assert kind_of(read_folder(Path("nul\0"))) == "unreadable"
    assert kind_of(read_folder(tmp_path)) == "no_weights"


def test_a_folder_of_pickles_is_refused_by_name(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "old", {"config.json": small(CONFIG), "pytorch_model.bin": large(b"\x80\x02", 99)})
    seen = read_folder(place)
    assert kind_of(seen) == "pickle_only" and "pytorch_model.bin" in str(seen.problem) and seen.config == CONFIG


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "config_unreadable"),
        ({SHARDS[0]: None}, "shard_missing"),
        ({"config.json": small(b"{")}, "config_unreadable"),
        ({"config.json": small({**CONFIG, "num_hidden_layers": 40})}, "config_contradicts"),
        (dict.fromkeys((*SHARDS, INDEX_FILE)) | {"pytorch_model.bin": large(b"", 9)}, "pickle_only"),
        (dict.fromkeys(sharded()), "unreadable"),
    ],
)
def test_a_folder_that_cannot_be_served_is_described_by_what_is_wrong_with_it(
    tmp_path: Path, change: dict[str, Any], kind: str
) -> None:
    files = {name: file for name, file in {**sharded(), **change}.items() if file is not None}
    seen = read_model("asked", str(write_folder(tmp_path, files)))
    assert seen.problem is not None and seen.problem.kind == kind


def test_a_whole_folder_is_described_like_any_other_model(tmp_path: Path) -> None:
    sizes = {"intermediate_size": 4096, "num_attention_heads": 8, "max_position_embeddings": 8192}
    seen = read_model("asked", str(write_folder(tmp_path, sharded(**sizes))))
    assert seen.problem is None and seen.config is not None
    assert (seen.architecture, seen.quantization, seen.context_tokens, seen.layers) == ("llama", "BF16", 8192, 4)
    assert seen.chat_template == "{{ messages }}"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the real library makes of the hub of these tests: a snapshot of links to blobs."""
    import huggingface_hub

    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    door = Door()
    hub = door.opened(FakeHub(models={MODEL: sharded()}))
    cache = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    try:
        found = huggingface_hub.snapshot_download(
            MODEL, endpoint=hub.endpoint, cache_dir=cache, token=False, max_workers=2
        )
        local = huggingface_hub.snapshot_download(
            MODEL, endpoint=hub.endpoint, local_dir=tmp_path / "local", token=False
        )
    finally:
        door.close()
    return Path(found), Path(local), cache


def test_what_the_hubs_library_downloaded_is_read_and_held_against_the_hashes_on_record(snapshot: Any) -> None:
    linked, local, _ = snapshot
    assert (linked / SHARDS[0]).is_symlink() and not (local / SHARDS[0]).is_symlink()
    told: list[tuple[str, int, int]] = []
    for place in (linked, local):
        seen = read_folder(place, verify=True, progress=lambda *progress: told.append(progress))
        assert seen.problem is None and seen.verified == SHARDS
        assert seen.commit == (COMMIT if place is linked else None)
    assert any(done == total == (linked / SHARDS[0]).stat().st_size for _, done, total in told)
    _flip_a_byte(local / SHARDS[1])
    assert read_folder(local).problem is None, "its header is whole"
    seen = read_folder(local, verify=True)
    assert kind_of(seen) == "shard_damaged" and SHARDS[1] in str(seen.problem) and "SHA-256" in str(seen.problem)
    (linked / SHARDS[1]).resolve().unlink()
    assert kind_of(read_folder(linked)) == "shard_missing"


def test_offline_a_model_that_the_library_has_downloaded_whole_is_found_there(
    snapshot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, _, cache = snapshot
    asked = HubQuestion(model=MODEL, offline=True)
    seen = read_from_hub(asked, cache=tmp_path / "ours")
    assert seen.problem is None and (seen.asked, seen.commit, seen.revision) == (MODEL, COMMIT, "main")
    assert (
        kind_of(
            read_from_hub(
                HubQuestion(model=MODEL, offline=True, endpoint="https://other.example"), cache=tmp_path / "ours"
            )
        )
        == "not_cached"
    )
    next(cache.rglob(SHARDS[1])).resolve().unlink()
    assert kind_of(read_from_hub(asked, cache=tmp_path / "ours")) == "not_cached", "half a download is none"


def test_hashes_can_be_given_and_what_has_none_is_not_called_verified(folder: Path) -> None:
    files = sharded()
    assert read_folder(folder, verify=True).verified == ()
    expected = {SHARDS[0]: files[SHARDS[0]].sha256}
    assert read_folder(folder, verify=True, expected=expected).verified == (SHARDS[0],)
    assert kind_of(read_folder(folder, verify=True, expected={SHARDS[1]: "0" * 64})) == "shard_damaged"


def _flip_a_byte(path: Path) -> None:
    with path.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"\1")
