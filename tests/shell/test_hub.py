"""A checkpoint from a hub: headers only, everything bounded, every refusal named, the second look without network."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from starlette.responses import Response

from gonogo.facts.checkpoint import Checkpoint
from gonogo.facts.judge_checkpoint import problems_of
from gonogo.runtimes.hub import FIRST_BYTES, HubQuestion, read_from_hub
from gonogo.runtimes.hub_client import Limits
from tests.core.safetensors_files import head, header_of, weights_bytes_of
from tests.shell.checkpoints import CONFIG, FIRST, SECOND, SHARDS, shard, sharded
from tests.shell.fake_hub import COMMIT, Door, FakeHub, endless, error, large, small

MODEL = "maker/model-1b"
FAST = Limits(connect_s=2.0, silence_s=0.4, total_s=5.0, tries=2, pause_s=0.01, longest_pause_s=0.2)
GIB = 1024**3


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def hub(door: Door, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    return door.opened(FakeHub(models={MODEL: sharded()}))


@pytest.fixture
def look(hub: FakeHub, tmp_path: Path) -> Callable[..., Checkpoint]:
    def looked(limits: Limits = FAST, progress: Any = None, **question: Any) -> Checkpoint:
        asked = HubQuestion(**{"model": MODEL, "endpoint": hub.endpoint, **question})
        return read_from_hub(asked, cache=tmp_path / "cache", limits=limits, progress=progress)

    return looked


Look = Callable[..., Checkpoint]


def test_every_tensors_shape_and_type_is_read_and_never_a_weight(hub: FakeHub, look: Look) -> None:
    seen = look()
    assert seen.problem is None and seen.tensors is not None and seen.config is not None
    assert {tensor.name: (tensor.kind, list(tensor.shape)) for tensor in seen.tensors} == {**FIRST, **SECOND}
    assert seen.weights_bytes == seen.declared_bytes == sum(tensor.size_bytes for tensor in seen.tensors)
    assert (seen.commit, seen.revision, seen.source) == (COMMIT, "main", hub.endpoint)
    assert dict(seen.config) == CONFIG
    assert (seen.generation_config, seen.chat_template) == ({"temperature": 0.6}, "{{ messages }}")
    assert seen.tokenizer_config == {"eos": "x"}
    assert {file.name: file.sha256 for file in seen.files or ()}[SHARDS[0]] == hub.models[MODEL][SHARDS[0]].sha256
    assert problems_of(seen, {"llama"}) == ()
    assert hub.sent("storage") <= 2 * FIRST_BYTES < seen.weights_bytes / 100
    assert hub.asked("tokenizer.json") == []
    assert {headers["accept-encoding"] for _, _, headers in hub.requests} == {"identity"}, "so that sizes are sizes"


def test_a_model_of_two_hundred_gigabytes_costs_its_headers(hub: FakeHub, look: Look) -> None:
    names = [f"model-{part:05}-of-00040.safetensors" for part in range(1, 41)]
    files = {"config.json": small({"model_type": "llama"})}
    for part, name in enumerate(names):
        header = header_of({f"model.layers.{part}.w{n}": ("BF16", [16384, 16384]) for n in range(10)})
        files[name] = large(head(header), len(head(header)) + weights_bytes_of(header), "0" * 64)
    hub.models[MODEL] = files
    told: list[tuple[str, int, int]] = []
    seen = look(progress=lambda *progress: told.append(progress))
    assert seen.problem is None and seen.weights_bytes == 40 * 10 * 2 * 16384**2 > 200 * 10**9
    assert hub.sent("storage") <= 40 * FIRST_BYTES
    assert [done for _, done, _ in told] == list(range(1, 41)) and {total for *_, total in told} == {40}
    assert sorted(name for name, *_ in told) == names


def test_a_header_longer_than_the_first_part_is_read_to_its_end(hub: FakeHub, look: Look) -> None:
    tensors = {f"model.layers.0.mlp.experts.{n}.down_proj.weight": ("F8_E4M3", [8, 8]) for n in range(3000)}
    hub.models[MODEL] = {"config.json": small({"model_type": "llama"}), "model.safetensors": shard(tensors)}
    seen = look()
    assert len(hub.models[MODEL]["model.safetensors"].start) > 2 * FIRST_BYTES
    assert seen.problem is None and len(seen.tensors or ()) == 3000


def test_the_second_look_asks_nobody_and_a_stale_one_only_for_the_commit(hub: FakeHub, look: Look) -> None:
    first = look()
    hub.requests.clear()
    assert look() == first
    assert look(offline=True) == first
    assert hub.requests == []
    again = look(fresh_s=0)
    assert again.seen_at > first.seen_at and replace(again, seen_at=first.seen_at) == first
    assert [path for _, path, _ in hub.requests] == [f"/api/models/{MODEL}/revision/main"]
    assert look(offline=True).seen_at == again.seen_at


def test_a_new_commit_is_read_anew_and_the_old_one_can_still_be_asked_for(hub: FakeHub, look: Look) -> None:
    old = look()
    hub.commit = "f" * 40
    hub.models[MODEL] = sharded(rope_theta=1e6)
    new = look(fresh_s=0)
    assert new.commit == "f" * 40 and (new.config or {})["rope_theta"] == 1e6
    hub.requests.clear()
    pinned = look(revision=COMMIT)
    assert pinned.commit == COMMIT and pinned.tensors == old.tensors
    assert hub.requests == []


def test_offline_without_an_earlier_look_is_told_and_asks_nobody(
    hub: FakeHub, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind_of(look(offline=True)) == "not_cached"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert kind_of(look()) == "not_cached"
    assert hub.requests == []


def test_an_unreachable_hub_is_answered_from_the_earlier_look_and_says_so(hub: FakeHub, look: Look) -> None:
    first = look()
    hub.faults["/api/models"] = lambda request: error(503)
    seen = look(fresh_s=0)
    assert seen.not_refreshed is not None and seen.not_refreshed.kind == "hub_broken"
    assert replace(seen, not_refreshed=None) == first
    hub.faults["/api/models"] = lambda request: error(404, "RepoNotFound")
    assert kind_of(look(fresh_s=0)) == "not_found"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other version", "huge", "not ours"])
def test_a_damaged_cache_is_read_again(
    hub: FakeHub, look: Look, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look()
    (kept,) = (tmp_path / "cache").rglob(f"{COMMIT}.json")
    content = kept.read_bytes()
    if damage == "huge":
        monkeypatch.setattr("gonogo.runtimes.checkpoint_cache.LARGEST_BYTES", 100)
    kept.write_bytes(
        {
            "cut": content[:-10],
            "flipped": content.replace(b"1024", b"1025", 1),
            "empty": b"",
            "other version": b"0" + content[1:],
            "huge": content,
            "not ours": b"{}",
        }[damage]
    )
    assert kind_of(look(offline=True)) == "not_cached"
    again = look()
    assert replace(again, seen_at=first.seen_at) == first and hub.asked("storage")


def test_a_cache_that_cannot_be_written_only_makes_the_next_look_slower(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    asked = HubQuestion(model=MODEL, endpoint=hub.endpoint)
    assert read_from_hub(asked, cache=tmp_path / "cache", limits=FAST).problem is None


def test_the_cache_keeps_a_few_commits_of_a_model_and_not_all(hub: FakeHub, look: Look, tmp_path: Path) -> None:
    for number in range(7):
        hub.commit = f"{number:040x}"
        assert look(fresh_s=0).problem is None
    assert len([path for path in (tmp_path / "cache").rglob("*.json") if path.parent.name != "revisions"]) == 4


def kind_of(seen: Checkpoint) -> str:
    assert seen.problem is not None and seen.tensors is None
    return seen.problem.kind


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (error(401, message="Invalid credentials in Authorization header"), "unauthorized", "asked without a token"),
        (error(401, "GatedRepo", "Access to model x is restricted."), "gated", "restricted"),
        (error(403, "GatedRepo"), "gated", "403"),
        (error(403), "unauthorized", "403"),
        (error(404, "RepoNotFound", "Repository not found"), "not_found", "404: Repository not found"),
        (error(404, "RevisionNotFound"), "not_found", "no such revision"),
        (error(429, retry_after="3600"), "rate_limited", "asks to wait 3600 s"),
        (error(429, ratelimit='"api";r=0;t=55'), "rate_limited", "asks to wait 55 s"),
        (error(429), "rate_limited", "429"),
        (error(500), "hub_broken", "500"),
        (error(503), "hub_broken", "503"),
        (error(418), "hub_broken", "418"),
        (Response(b"<html>log in to the hotel's network</html>"), "hub_broken", "not JSON"),
        (Response(b"{}"), "hub_broken", "no commit"),
        (Response(json.dumps({"sha": COMMIT}).encode()), "hub_broken", "lists no files"),
        (Response(json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "\x1b[2J"}]}).encode()), "hub_broken", "name"),
        (Response(b"x" * 50, headers={"content-encoding": "gzip"}), "hub_broken", "compresses"),
        (Response(None, 302, {"location": "file:///etc/passwd"}), "hub_unreachable", ""),
        (Response(None, 302, {"location": "/api/models/again/revision/main"}), "hub_unreachable", "redirect"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_way_in_which_a_hub_refuses_has_a_name(
    hub: FakeHub, look: Look, answer: Response, kind: str, told: str
) -> None:
    hub.faults["/api/models"] = lambda request: answer
    seen = look()
    assert kind_of(seen) == kind and seen.problem is not None
    assert told in seen.problem.detail


def test_what_a_stranger_writes_into_an_error_does_not_reach_the_terminal_as_it_is(hub: FakeHub, look: Look) -> None:
    hub.faults["/api/models"] = lambda request: error(404, message="\x9b2Jx" + "y" * 4000)
    seen = look()
    assert seen.problem is not None and seen.problem.detail.isprintable() and len(seen.problem.detail) < 200


def test_a_hub_that_stumbles_once_is_asked_again_but_not_for_ever(hub: FakeHub, look: Look) -> None:
    answers = iter([error(503)])

    def stumble(request: Any) -> Response:
        fault = next(answers, None)
        if fault is not None:
            return fault
        del hub.faults["/api/models"]
        return error(500)

    hub.faults["/api/models"] = stumble
    assert look(limits=replace(FAST, tries=3)).problem is None
    hub.faults["/api/models"] = lambda request: error(500)
    hub.requests.clear()
    assert kind_of(look(fresh_s=0, revision=COMMIT[:-1] + "0")) == "hub_broken"
    assert len(hub.requests) == FAST.tries


def test_a_short_pause_that_the_hub_asks_for_is_kept(hub: FakeHub, look: Look) -> None:
    hub.faults["/api/models"] = lambda request: (hub.faults.clear(), error(429, retry_after="0"))[1]
    assert look().problem is None


def test_a_hub_that_ignores_ranges_is_hung_up_on_after_the_header(hub: FakeHub, look: Look) -> None:
    start = head(header_of({"model.layers.0.w": ("F32", [1024, 1024, 2048])}))
    hub.models[MODEL] = {
        "config.json": small({"model_type": "llama"}),
        "model.safetensors": large(start, 8 * GIB + len(start), "0" * 64),
    }
    hub.faults["/storage/"] = endless(bytes(1024**2), first=start, content_length=8 * GIB + len(start))
    seen = look()
    assert seen.problem is None and seen.weights_bytes == 8 * GIB
    assert hub.sent("storage") < 32 * 1024**2


def test_documents_and_listings_without_end_are_refused(hub: FakeHub, look: Look) -> None:
    hub.faults["/config.json"] = endless(b" " * 1024**2)
    assert kind_of(look()) == "hub_broken"
    assert hub.sent("/config.json") < 32 * 1024**2
    del hub.faults["/config.json"]
    hub.faults["/api/models"] = endless(b" " * 1024**2)
    assert kind_of(look()) == "hub_broken"


def test_all_answers_together_are_bounded_too(hub: FakeHub, look: Look) -> None:
    seen = look(limits=replace(FAST, total_bytes=50_000))
    assert kind_of(seen) == "hub_broken" and "more than 50000 bytes" in str(seen.problem)
    assert look(limits=replace(FAST, total_bytes=500_000)).problem is None


def test_a_hub_that_is_silent_slow_or_drips_is_left_within_the_limits(hub: FakeHub, look: Look) -> None:
    limits = replace(FAST, silence_s=0.3, total_s=0.8, tries=2)
    for every_s in (60.0, 0.1):
        hub.faults["/api/models"] = endless(b" ", every_s=every_s)
        started = time.monotonic()
        seen = look(limits=limits)
        assert kind_of(seen) == "hub_unreachable"
        assert time.monotonic() - started < 4.0


def test_a_hub_that_drips_its_headers_is_left_within_the_limits(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        asked = HubQuestion(model=MODEL, endpoint=f"http://127.0.0.1:{listening.getsockname()[1]}")
        started = time.monotonic()
        seen = read_from_hub(asked, cache=tmp_path, limits=replace(FAST, silence_s=0.3, total_s=0.5, tries=1))
        stop.set()
        thread.join(5)
    assert kind_of(seen) == "hub_unreachable"
    assert time.monotonic() - started < 4.0


def test_a_proxy_that_is_no_address_is_told_without_its_password(
    hub: FakeHub, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "ftp://user:secret@proxy:1")
    seen = look()
    assert kind_of(seen) == "hub_unreachable" and "proxy" in str(seen.problem) and "secret" not in str(seen.problem)


def test_nobody_there_is_told_with_the_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    seen = read_from_hub(HubQuestion(model=MODEL, endpoint=f"http://127.0.0.1:{port}"), cache=tmp_path, limits=FAST)
    assert kind_of(seen) == "hub_unreachable" and "127.0.0.1" in str(seen.problem)


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://hub", "hub.example", "http://", "https://user:secret@hub", "http://[::1", "http://h/?q=1", "http://h:x"],
)
def test_an_address_that_is_none_is_refused_and_a_password_in_it_not_repeated(endpoint: str, tmp_path: Path) -> None:
    seen = read_from_hub(HubQuestion(model=MODEL, endpoint=endpoint), cache=tmp_path, limits=FAST)
    assert kind_of(seen) == "hub_unreachable" and "secret" not in str(seen.problem)


@pytest.mark.parametrize("model", ["", "a/b/c", "../../etc", "a b", "x" * 200, "a/b?c=d", "a--b/c"])
def test_an_id_that_is_none_is_refused_before_anybody_is_asked(hub: FakeHub, look: Look, model: str) -> None:
    assert kind_of(look(model=model)) == "id_mistaken"
    assert hub.requests == []


def test_a_truncated_part_is_asked_for_again_and_then_told(hub: FakeHub, look: Look) -> None:
    headers = {"content-range": "bytes 0-99999/99999999", "content-length": "10"}
    hub.faults["/storage/"] = lambda request: Response(b"0123456789", 206, headers)
    seen = look()
    assert kind_of(seen) == "hub_broken" and "after 10 of" in str(seen.problem)
    assert len(hub.asked("storage")) >= FAST.tries


def test_another_part_than_was_asked_for_is_refused(hub: FakeHub, look: Look) -> None:
    headers = {"content-range": "bytes 100-199/9999", "content-length": "100"}
    hub.faults["/storage/"] = lambda request: Response(bytes(100), 206, headers)
    seen = look()
    assert kind_of(seen) == "hub_broken" and "another part" in str(seen.problem)


def test_a_size_that_differs_from_the_listed_one_is_a_damaged_shard(hub: FakeHub, look: Look) -> None:
    headers = {"content-range": "bytes 0-99999/123456", "content-length": "100000"}
    hub.faults["/storage/"] = lambda request: Response(bytes(100_000), 206, headers)
    seen = look()
    assert kind_of(seen) == "shard_damaged" and "123456 are served" in str(seen.problem)


def test_a_hub_that_lists_no_sizes_is_believed_in_what_it_serves(hub: FakeHub, look: Look) -> None:
    siblings = [{"rfilename": name} for name in hub.models[MODEL]]
    hub.faults["/api/models"] = lambda request: Response(json.dumps({"sha": COMMIT, "siblings": siblings}).encode())
    seen = look()
    assert seen.problem is None and len(seen.tensors or ()) == len({**FIRST, **SECOND})


def test_the_token_goes_to_the_hub_and_never_to_its_storage(
    hub: FakeHub, look: Look, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.needs_token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused = look()
    assert kind_of(refused) == "unauthorized" and "with a token" in str(refused.problem)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert look().problem is None
    assert {headers.get("authorization") for headers in hub.asked("/resolve/")} == {"Bearer hf_secret"}
    assert hub.asked("storage") and all("authorization" not in headers for headers in hub.asked("storage"))
    assert "hf_" not in caplog.text and "hf_" not in repr(refused)


def test_a_redirect_of_the_listing_to_another_host_does_not_take_the_token_along(
    hub: FakeHub, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.faults["/revision/main"] = lambda request: Response(
        None, 307, {"location": f"{hub.storage}/api/models/{MODEL}"}
    )
    assert look().problem is None
    assert all(
        "authorization" not in headers
        for headers in hub.asked("/api/models/")
        if headers["host"].startswith("localhost")
    )
    assert any(headers["host"].startswith("localhost") for headers in hub.asked("/api/models/"))


@pytest.mark.parametrize("token", ["hf_se\x07cret", "hf_sécret"])
def test_a_token_that_no_header_can_hold_is_told_without_it(
    hub: FakeHub, look: Look, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    seen = look()
    assert "cret" not in str(seen.problem)
    assert all("cret" not in headers.get("authorization", "") for headers in hub.asked("/api"))


def test_a_stored_token_is_not_sent_to_another_hub_nor_any_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    from gonogo.runtimes.hub_dialects import dialect_of

    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_stored")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert dialect_of("https://huggingface.co").headers()["authorization"] == "Bearer hf_stored"
    assert "authorization" not in dialect_of("https://mirror.example").headers()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert "authorization" not in dialect_of("https://huggingface.co").headers()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_given")
    assert "authorization" in dialect_of("https://mirror.example").headers()
    assert "authorization" not in dialect_of("http://mirror.example").headers()


def test_the_address_comes_from_the_environment_where_none_is_given(
    hub: FakeHub, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/")
    assert look(endpoint=None).source == hub.endpoint


def test_modelscopes_interface_gives_the_same_checkpoint(
    hub: FakeHub, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    plain, other = look(), look(endpoint=f"modelscope+{hub.endpoint}")
    assert other.problem is None and other.revision == "master" and other.commit != plain.commit
    assert (other.tensors, other.config) == (plain.tensors, plain.config)
    assert [(one.name, one.size_bytes) for one in other.files or ()] == [
        (one.name, one.size_bytes) for one in plain.files or ()
    ]
    assert all("authorization" not in headers for headers in hub.asked("/api/v1/"))
    assert look(endpoint=f"modelscope+{hub.endpoint}", offline=True).commit == other.commit
    del hub.models[MODEL]
    assert kind_of(look(endpoint=f"modelscope+{hub.endpoint}", fresh_s=0)) == "not_found"


def refuse(change: Callable[[dict[str, Any]], Any]) -> Callable[[FakeHub], None]:
    def changed(hub: FakeHub) -> None:
        change(hub.models[MODEL])

    return changed


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (lambda files: files.pop(SHARDS[1]), "shard_missing", SHARDS[1]),
        (lambda files: files.pop("config.json"), "config_unreadable", "no config.json"),
        (lambda files: files.update({"config.json": small(b"{")}), "config_unreadable", "config.json: it is not JSON"),
        (lambda files: files.update({SHARDS[1]: shard(FIRST)}), "shard_damaged", "puts"),
        (lambda files: files.update({SHARDS[1]: large(b"version https://git-lfs", 130)}), "shard_damaged", "Git LFS"),
        (
            lambda files: files.update({SHARDS[0]: large(head(header_of(FIRST)), 5000)}),
            "shard_damaged",
            f"{SHARDS[0]}: its tensors need",
        ),
        (
            lambda files: (
                files.clear(),
                files.update({"config.json": small(CONFIG), "pytorch_model.bin": large(b"", 9)}),
            ),
            "pickle_only",
            "pytorch_model.bin",
        ),
    ],
)
def test_weights_that_cannot_be_used_are_refused_and_the_configuration_is_kept(
    hub: FakeHub, look: Look, change: Callable[[dict[str, Any]], Any], kind: str, told: str
) -> None:
    change(hub.models[MODEL])
    seen = look()
    assert kind_of(seen) == kind and told in str(seen.problem)
    assert (seen.config is not None) == (kind != "config_unreadable")
    assert kind_of(look(offline=True)) == "not_cached", "what was refused is not kept"


def test_the_hub_of_these_tests_is_one_to_the_real_library(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    api = HfApi(endpoint=hub.endpoint, token=False)
    info = api.model_info(MODEL, files_metadata=True)
    assert info.sha == COMMIT
    sizes = {one.rfilename: (one.size, one.lfs.sha256 if one.lfs else None) for one in info.siblings or ()}
    assert sizes[SHARDS[0]] == (hub.models[MODEL][SHARDS[0]].size, hub.models[MODEL][SHARDS[0]].sha256)
    found = api.get_safetensors_metadata(MODEL)
    told = {name: info for file in found.files_metadata.values() for name, info in file.tensors.items()}
    assert {name: (one.dtype, one.shape) for name, one in told.items()} == {**FIRST, **SECOND}
