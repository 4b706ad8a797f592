"""Fetching a model from a hub: whole or not there, gone on with after every interruption, verified, bounded."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import Response

from gonogo.runtimes import fetch_plan, fetch_sample
from gonogo.runtimes.fetch import fetch_model
from gonogo.runtimes.models import MARKER, ModelFault
from tests.shell.checkpoints import SHARDS, filled, small_model
from tests.shell.fake_hub import COMMIT, Door, FakeHub, endless, error, large, small
from tests.shell.fetching import FAST, MODEL, NEEDED, Here, wait_for

OTHER_COMMIT = "f" * 40
SCOPED = "MakerAi/Model-1B"


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def here(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    return Here(hub=door.opened(FakeHub(models={MODEL: small_model()})), folder=tmp_path)


def reason_of(here: Here, **more: object) -> str:
    with pytest.raises(ModelFault) as refused:
        here.fetch(**more)  # type: ignore[arg-type]
    return refused.value.reason


def test_what_is_needed_is_fetched_verified_and_found_without_asking_again(here: Here) -> None:
    found = here.fetch()

    assert tuple(file.name for file in found.files) == NEEDED
    here.model_files(found)
    assert (found.model, found.source, found.commit) == (MODEL, here.hub.endpoint, COMMIT)
    assert here.hub.asked("pytorch_model") == here.hub.asked("original") == here.hub.asked("README") == []
    here.hub.requests.clear()
    assert here.store.find(MODEL) == here.store.find(MODEL.upper(), COMMIT[:8]) == found
    assert here.store.find(MODEL, OTHER_COMMIT) is here.store.find(MODEL, only=("x.gguf",)) is None
    assert here.hub.requests == []


def test_the_plan_says_what_is_fetched_before_any_weight_is(here: Here) -> None:
    plan = here.plan()

    assert [file.name for file in plan.files] == list(NEEDED)
    assert plan.size_bytes == plan.left_bytes == sum(here.hub.models[MODEL][name].size for name in NEEDED)
    assert plan.bytes_per_s is not None and plan.seconds is not None and plan.free_bytes > plan.size_bytes
    assert here.hub.sent("/storage/") < plan.size_bytes / 4


def test_a_silent_hub_does_not_hold_up_the_plan(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.plan()  # the headers of the shards are known from now on
    monkeypatch.setattr(fetch_sample, "SAMPLE_S", 0.2)
    here.hub.faults["/storage/"] = endless(b"", every_s=1.0)
    began = time.monotonic()

    plan = here.plan()

    assert plan.bytes_per_s is plan.seconds is None
    assert time.monotonic() - began < 2.0


def test_a_killed_fetch_leaves_nothing_that_is_found_and_goes_on_where_it_stopped(here: Here) -> None:
    kept = here.killed_half_way()
    assert kept > 3_000_000
    assert here.store.all() == () and here.store.find(MODEL) is None
    assert [one.model for one in here.store.unfinished()] == [MODEL]
    plan = here.plan()
    assert plan.kept_bytes == kept
    here.hub.sent_bytes.clear()

    found = here.fetch(plan)

    here.model_files(found)
    assert here.hub.sent() == plan.size_bytes - kept, "not one byte twice"
    assert here.store.unfinished() == ()


def test_a_fetch_that_is_killed_again_and_again_ends_whole(here: Here) -> None:
    here.hub.bytes_per_s = 2_000_000
    for enough in (300_000, 1_500_000, 3_000_000):
        process = here.started("fetch", MODEL, "--yes")
        wait_for(lambda enough=enough: sum(here.plan_kept()) > enough, process)  # type: ignore[misc]
        process.kill()
        process.communicate()
        assert here.store.find(MODEL) is None
    here.hub.bytes_per_s = None
    here.model_files(here.fetch())


def test_a_file_that_is_not_what_the_hub_has_on_record_is_fetched_again_once_and_then_refused(here: Here) -> None:
    good = here.hub.models[MODEL][SHARDS[1]]
    here.hub.models[MODEL][SHARDS[1]] = replace(good, recorded_sha256="0" * 64)
    size = good.size

    assert reason_of(here) == "ModelHashWrong"
    assert 2 * size <= here.hub.sent(SHARDS[1]) < 2.2 * size
    assert here.store.find(MODEL) is None
    here.hub.models[MODEL][SHARDS[1]] = good
    here.hub.sent_bytes.clear()
    here.model_files(here.fetch())
    assert here.hub.sent(SHARDS[0]) < 100_000, "the other shard was kept"


def test_a_file_that_was_damaged_on_the_way_once_is_fetched_again(here: Here) -> None:
    plan, file = here.plan(), here.hub.models[MODEL][SHARDS[1]]
    damaged: list[str] = []

    def damage(request: Request) -> Response:
        first, last = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        content = bytearray(file.part(first, last))
        if not damaged:
            damaged.append(request.headers["range"])
            content[100] ^= 1
        return Response(bytes(content), 206, {"content-range": f"bytes {first}-{last}/{file.size}"})

    here.hub.faults[f"/-/{SHARDS[1]}"] = damage
    found = here.fetch(plan)
    assert damaged
    here.model_files(found)


def test_a_small_file_that_is_not_what_git_has_on_record_is_refused(here: Here) -> None:
    plan = here.plan()
    here.hub.faults["resolve/" + COMMIT + "/chat_template.jinja"] = lambda request: Response(b"{{ evil_one }}")
    assert reason_of(here, plan=plan) == "ModelHashWrong"


def test_answers_that_end_too_early_are_gone_on_with(here: Here) -> None:
    plan, file = here.plan(), here.hub.models[MODEL][SHARDS[0]]
    asked: list[int] = []

    def short(request: Request) -> Response:
        first, last = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        asked.append(first)
        end = min(last, first + 299_999)
        return Response(file.part(first, end), 206, {"content-range": f"bytes {first}-{end}/{file.size}"})

    here.hub.faults[f"/-/{SHARDS[0]}"] = short
    here.model_files(here.fetch(plan))
    assert len(asked) == len(set(asked)) == 17, "each answer goes on where the one before ended"


def test_connections_that_break_are_gone_on_with_and_a_hub_that_gives_nothing_is_left(here: Here) -> None:
    plan = here.plan()
    broken = endless(b"x" * 10, every_s=0.05, content_length=20)
    here.hub.faults[f"/-/{SHARDS[0]}"] = lambda request: error(503)
    assert reason_of(here, plan=plan) == "ModelHubBroken"
    assert FAST.tries <= len(here.hub.asked(SHARDS[0])) < 40
    here.hub.faults[f"/-/{SHARDS[0]}"] = broken
    assert reason_of(here, plan=plan) in ("ModelHubBroken", "ModelShardDamaged")
    here.hub.faults.clear()
    here.model_files(here.fetch(plan))


def test_a_hub_that_drips_is_hung_up_on(here: Here) -> None:
    plan = here.plan()
    size = here.hub.models[MODEL][SHARDS[0]].size
    here.hub.faults[f"/-/{SHARDS[0]}"] = endless(b"x", every_s=0.05, content_length=size)
    began = time.monotonic()
    assert reason_of(here, plan=plan) == "ModelHubBroken"
    assert time.monotonic() - began < 20.0


def test_a_hub_that_ignores_ranges_gives_the_whole_file_in_one_answer(here: Here) -> None:
    here.hub.ignores_ranges = True
    here.model_files(here.fetch())


def test_a_hub_that_stops_to_give_ranges_half_way_is_begun_again(here: Here) -> None:
    kept = here.killed_half_way()
    assert kept > 3_000_000
    here.hub.ignores_ranges = True
    here.model_files(here.fetch())


def test_a_hub_that_counts_requests_is_waited_for_as_long_as_it_says(here: Here) -> None:
    plan = here.plan()
    refused: list[float] = []

    def too_many(request: Request) -> Response:
        refused.append(time.monotonic())
        if len(refused) == 3:
            del here.hub.faults["/storage/"]
        return error(429, retry_after="0")

    here.hub.faults["/storage/"] = too_many
    here.model_files(here.fetch(plan))
    here.hub.faults["/resolve/"] = lambda request: error(429, retry_after="3600")
    here.store.remove(plan.name, MODEL)
    began = time.monotonic()
    assert reason_of(here, plan=plan) == "ModelRateLimited"
    assert len(refused) >= 3 and time.monotonic() - began < 20.0


def test_a_shard_of_another_length_than_listed_is_refused_at_once(here: Here) -> None:
    plan, file = here.plan(), here.hub.models[MODEL][SHARDS[0]]
    longer = large(file.start + b"x", file.size + 1, file.sha256)
    here.hub.models[MODEL][SHARDS[0]] = longer
    assert reason_of(here, plan=plan) == "ModelShardDamaged"


def test_the_commit_of_the_plan_is_fetched_although_the_branch_moves_on_meanwhile(here: Here) -> None:
    before = dict(here.hub.models[MODEL])
    plan = here.plan()

    def progress(have: int) -> None:
        if here.hub.commit == COMMIT:
            here.hub.moved(OTHER_COMMIT, config__json=small({"model_type": "other"}))

    progress(0)
    found = here.fetch(plan, progress=progress)

    assert found.commit == COMMIT
    here.hub.models[MODEL] = before
    here.model_files(found)


def test_a_commit_that_moved_between_two_tries_costs_only_what_changed(here: Here) -> None:
    here.killed_half_way()
    kept = sum(here.plan_kept())
    here.hub.moved(OTHER_COMMIT, chat_template__jinja=small(b"{{ better }}"))
    plan = here.plan()
    assert plan.commit == OTHER_COMMIT and kept - 1000 < plan.kept_bytes <= kept
    here.hub.sent_bytes.clear()

    found = here.fetch(plan)

    here.model_files(found)
    assert here.hub.sent("/storage/") <= plan.size_bytes - plan.kept_bytes
    assert here.store.unfinished() == (), "nothing is left of the commit before"
    here.hub.moved("e" * 40, chat_template__jinja=small(b"{{ best }}"))
    plan = here.plan()
    here.hub.sent_bytes.clear()
    again = here.fetch(plan)
    here.model_files(again)
    assert here.hub.sent("/storage/") == 0 and plan.left_bytes < 1000
    here.store.remove(found.name, MODEL)
    here.model_files(again)


def test_modelscopes_interface_gives_the_same_files_and_goes_on_with_what_came_from_hugging_face(here: Here) -> None:
    kept = here.killed_half_way()
    here.hub.models[SCOPED] = here.hub.models[MODEL]
    plan = here.plan(SCOPED, endpoint=f"modelscope+{here.hub.endpoint}")
    assert kept - 1000 < plan.kept_bytes <= kept
    here.hub.requests.clear()
    here.hub.sent_bytes.clear()

    found = here.fetch(plan)

    here.model_files(found, SCOPED)
    assert here.hub.sent() == plan.size_bytes - plan.kept_bytes
    assert (found.model, found.revision) == (SCOPED, "master")
    assert here.hub.asked("/storage/") == [] and here.hub.asked("/api/v1/models/")
    assert here.store.find(MODEL) is None


def test_a_private_mirror_gets_the_token_and_its_storage_on_another_host_does_not(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here.hub.needs_token = "hf_secret"
    assert reason_of(here) == "ModelUnauthorized"
    here.hub.gated = True
    assert reason_of(here) == "ModelGated"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    plan = here.plan()
    found = here.fetch(plan)

    assert "hf_secret" not in repr(plan)
    here.model_files(found)
    asked = [headers for _, path, headers in here.hub.requests if "/storage/" in path]
    assert asked and all("authorization" not in headers for headers in asked)
    assert all(headers["host"].startswith("localhost") for headers in asked)
    assert {headers.get("authorization") for headers in here.hub.asked("/resolve/")[-4:]} == {"Bearer hf_secret"}
    kept = "".join(path.read_text(errors="replace") for path in here.state.rglob("*.json"))
    assert "hf_secret" not in kept + caplog.text


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        ((SHARDS[1],), "ModelShardMissing"),
        (("config.json",), "ModelConfigUnreadable"),
        ((*SHARDS, "model.safetensors.index.json"), "ModelPickleOnly"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_weight_is_fetched(
    here: Here, without: tuple[str, ...], reason: str
) -> None:
    for name in without:
        del here.hub.models[MODEL][name]
    assert reason_of(here) == reason
    assert here.hub.sent("/storage/") < 500_000
    assert here.store.all() == () and here.store.unfinished() == ()


def test_a_disk_that_is_too_small_is_told_with_numbers_before_anything_is_fetched(here: Here) -> None:
    size = here.plan().size_bytes
    here.hub.sent_bytes.clear()
    for free, refused in (
        (size + fetch_plan.LEAST_MARGIN_BYTES - 1, True),
        (size + fetch_plan.LEAST_MARGIN_BYTES, False),
    ):
        try:
            here.plan(free=lambda _, free=free: free)
            assert not refused
        except ModelFault as fault:
            assert refused and fault.reason == "ModelDiskTooSmall"
            assert fault.values["free_gib"] == free / 1024**3
            assert here.hub.sent("/storage/") == 0


def test_a_disk_that_becomes_full_is_told_and_gone_on_with(here: Here, tmp_path: Path) -> None:
    mount = tmp_path / "tiny"
    mount.mkdir()
    mounting = ("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount))
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        there = Here(hub=here.hub, folder=mount)
        plan = there.plan(free=lambda _: 1 << 40)
        with pytest.raises(ModelFault) as refused:
            fetch_model(there.store, plan, lambda _: None, limits=FAST, free=lambda _: 1 << 40)
        assert refused.value.reason == "ModelDiskFull"
        assert there.store.all() == () and sum(there.plan_kept()) > 3_000_000
        subprocess.run(("mount", "-o", "remount,size=40m", str(mount)), check=True)
        here.hub.sent_bytes.clear()
        fetch_model(there.store, plan, lambda _: None, limits=FAST, free=lambda _: 1 << 40)
        there.model_files(there.store.all()[0])
        assert here.hub.sent("/storage/") < plan.size_bytes - 3_000_000
    finally:
        subprocess.run(("umount", str(mount)), check=True)


def test_of_two_at_once_the_second_waits_and_finds_it_fetched(here: Here) -> None:
    plans = [here.plan(), here.plan()]
    here.hub.sent_bytes.clear()
    here.hub.bytes_per_s = 3_000_000
    results: list[bool] = []
    waited = threading.Event()

    def fetch(at: int) -> None:
        results.append(
            fetch_model(here.store, plans[at], lambda _: None, limits=FAST, waiting=waited.set)[1]
        )  # fmt: skip

    threads = [threading.Thread(target=fetch, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [False, True] and waited.is_set()
    assert here.hub.sent() == plans[0].size_bytes


def test_a_model_that_lost_a_file_does_not_count_and_only_that_file_is_fetched_again(here: Here) -> None:
    found = here.fetch()
    (found.path / SHARDS[1]).unlink()
    assert here.store.find(MODEL) is None and here.store.all() == ()
    plan = here.plan()
    here.hub.sent_bytes.clear()

    again = here.fetch(plan)

    here.model_files(again)
    assert here.hub.sent(SHARDS[0]) == 0 and here.hub.sent(SHARDS[1]) == here.hub.models[MODEL][SHARDS[1]].size


def test_a_folder_without_marker_or_with_a_strange_one_is_no_model(here: Here) -> None:
    found = here.fetch()
    told = json.loads((found.path / MARKER).read_text())
    changes: tuple[dict[str, object], ...] = (
        {"files": {}},
        {"files": {"../x": {"size_bytes": 1}}},
        {"size_bytes": None},
    )
    for change in changes:
        (found.path / MARKER).write_text(json.dumps({**told, **change}))
        assert here.store.find(MODEL) is None, change
    for text in ("", "[]", "{", "null"):
        (found.path / MARKER).write_text(text)
        assert here.store.all() == ()


def test_of_a_gguf_repository_the_named_file_is_fetched_and_nothing_else(here: Here) -> None:
    files = {name: filled(large(b"GGUF", 500_000), seed) for seed, name in enumerate(("m-Q4_0.gguf", "m-Q8_0.gguf"))}
    here.hub.models["maker/m-GGUF"] = {"README.md": small(b"#"), **files}
    found = here.fetch(here.plan("maker/m-GGUF", only=("m-Q4_0.gguf",)))
    here.model_files(found, "maker/m-GGUF")
    assert [file.name for file in found.files] == ["m-Q4_0.gguf"] and here.hub.asked("Q8_0") == []
    assert here.store.find("maker/m-GGUF") is None
    assert here.store.find("maker/m-GGUF", only=("m-Q4_0.gguf",)) == found
    other = here.fetch(here.plan("maker/m-GGUF", only=("m-Q8_0.gguf",)))
    assert other.path != found.path and len(here.store.all()) == 2
