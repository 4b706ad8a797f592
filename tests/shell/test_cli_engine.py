"""`gonogo plan` and `gonogo check` choose the engine before a download: release, cards, form of the weights."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest

from gonogo.engines.model import Launch
from gonogo.runtimes.local import LocalRuntime
from gonogo.spec import Replicas, Spec
from gonogo.spec.engine import EngineChoice
from gonogo.store import open_store
from tests.shell.checkpoints import sharded, write_folder
from tests.shell.command_line import Ran, gonogo
from tests.shell.fake_cards import H100, RTX_4090, V100, Card, uuid, with_cards

PHONE = "autoglm-phone-9b"
NEWEST = "0.33.0"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """A hub that nobody may ask: whoever connects is seen, and fails the test. Nothing of a real hub is kept here."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        address = f"http://127.0.0.1:{door.getsockname()[1]}"
        yield {"HF_ENDPOINT": address, "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
        with pytest.raises(BlockingIOError):
            door.accept()


def plan(tmp_path: Path, hub: Mapping[str, str], *words: str, card: Card = RTX_4090, **cards: Any) -> Ran:
    env = {**hub, **with_cards(tmp_path, card, **cards)}
    return gonogo(tmp_path / "state", "plan", *words, "--json", env=env)


def engine(ran: Ran) -> dict[str, Any]:
    """What was chosen, without what the engine has by itself."""
    assert ran.code == 3 and ran.json["error"]["reason"] == "Blocked", ran.out
    blocking = {one["reason"] for one in ran.json["answers"] if one["blocks"] and one["verdict"] == "fail"}
    assert blocking == {"EngineEnvironmentMissing", "WeightsNotFetched"}, "only what a download mends"
    chosen: dict[str, Any] = ran.json["engine"]
    return {name: value for name, value in chosen.items() if value != EngineChoice(name="vllm").model_dump().get(name)}


@pytest.mark.parametrize(
    ("model", "card", "cards", "expected", "weights"),
    [
        (PHONE, RTX_4090, 1, {"version": NEWEST, "share": 0.9, "quantization": "fp8"}, PHONE),
        (PHONE, H100, 1, {"version": NEWEST, "share": 0.9}, PHONE),
        (PHONE, RTX_4090, 2, {"version": NEWEST, "share": 0.9, "tensor": 2}, PHONE),
        ("zai-org/AutoGLM-Phone-9B", H100, 1, {"version": NEWEST, "share": 0.9}, "zai-org/AutoGLM-Phone-9B"),
        ("qwen3-8b", RTX_4090, 1, {"version": NEWEST, "share": 0.9}, "Qwen/Qwen3-8B-FP8"),
        ("glm-4.5-air", H100, 2, {"version": NEWEST, "share": 0.9, "tensor": 2}, "zai-org/GLM-4.5-Air-FP8"),
        ("zai-org/GLM-4.5-Air-FP8", H100, 2, {"version": NEWEST, "share": 0.9, "tensor": 2}, "zai-org/GLM-4.5-Air-FP8"),
    ],
)
def test_the_engine_is_chosen_for_the_cards_here_without_asking_a_hub(
    tmp_path: Path, hub: Mapping[str, str], model: str, card: Card, cards: int, expected: Any, weights: str
) -> None:
    ran = plan(tmp_path, hub, model, card=card, count=cards)
    assert engine(ran) == expected
    assert ran.json["model"] == weights
    assert not (tmp_path / "state").exists(), "a plan changes nothing"


def test_the_weights_that_a_hub_id_names_are_not_exchanged_for_others(tmp_path: Path, hub: Mapping[str, str]) -> None:
    """On this card the recipe takes its FP8 form; who names a repository gets that one or hears that it is too big."""
    spec, expect = tmp_path / "s.yaml", "expect: {concurrent_requests: 4, context_tokens: 16k}"
    spec.write_text(f"model: qwen3-8b\n{expect}\n")
    assert plan(tmp_path, hub, str(spec)).json["model"] == "Qwen/Qwen3-8B-FP8"
    spec.write_text(f"model: Qwen/Qwen3-8B\n{expect}\n")
    ran = plan(tmp_path, hub, str(spec))
    assert (ran.code, ran.json["error"]["reason"]) == (3, "CardsHoldTooFew")


def test_an_older_driver_gets_the_newest_release_that_runs_on_it(tmp_path: Path, hub: Mapping[str, str]) -> None:
    ran = plan(tmp_path, hub, "qwen3-8b", card=H100, driver="575.57.08")
    assert engine(ran)["version"] == "0.19.0", "0.20 is of CUDA 13, which needs 580"


@pytest.mark.parametrize(
    ("model", "cards", "sides", "mend"),
    [
        (PHONE, {"card": H100, "driver": "470.82.01"}, ("470.82.01", "580.65.06"), "install the NVIDIA driver"),
        (PHONE, {"card": V100}, ("transformers>=5.0.0rc0", "compute capability 7.0"), "use cards that vLLM has code"),
    ],
)
def test_what_cannot_be_names_both_sides_and_what_mends_it(
    tmp_path: Path, hub: Mapping[str, str], model: str, cards: Mapping[str, Any], sides: Any, mend: str
) -> None:
    for verb in ("plan", "check"):
        env = {**hub, **with_cards(tmp_path, **cards)}
        ran = gonogo(tmp_path / "state", verb, model, "--json", env=env)
        error = ran.json["error"]
        assert (ran.code, error["reason"]) == (3, "VersionsClash")
        assert all(side in error["message"] for side in sides), error["message"]
        assert mend in error["remedy"]
    assert not (tmp_path / "state").exists()


def test_a_model_that_is_too_big_is_refused_with_the_command_that_says_what_would_do(
    tmp_path: Path, hub: Mapping[str, str]
) -> None:
    ran = plan(tmp_path, hub, "glm-4.5-air")
    error = ran.json["error"]
    assert (ran.code, error["reason"]) == (3, "CardsHoldNone")
    assert "1 × RTX 4090 24GB" in error["message"] and "gonogo fit glm-4.5-air" in error["remedy"]
    assert "free" not in error["message"], "an idle card is not held by anybody"
    held = {**hub, **with_cards(tmp_path, replace(H100, free_mib=11))}
    full = gonogo(tmp_path / "state", "plan", PHONE, "--json", env=held)
    error = full.json["error"]
    assert (full.code, error["reason"]) == (3, "CardsHoldNone")
    assert "0.00 GiB free" in error["message"] and "nvidia-smi says who" in error["remedy"]
    many = tmp_path / "many.yaml"
    many.write_text(f"model: {PHONE}\nexpect: {{concurrent_requests: 400}}\n")
    ran = plan(tmp_path, hub, str(many))
    assert (ran.code, ran.json["error"]["reason"]) == (3, "CardsHoldTooFew")


def test_a_host_without_cards_says_so_and_names_another_engine(tmp_path: Path, hub: Mapping[str, str]) -> None:
    ran = gonogo(tmp_path / "state", "plan", PHONE, "--json", env=hub)
    assert (ran.code, ran.json["error"]["reason"]) == (3, "VersionsClash")
    assert "llama.cpp" in ran.json["error"]["remedy"]


def test_what_was_chosen_is_one_line_for_people_in_both_languages(tmp_path: Path, hub: Mapping[str, str]) -> None:
    env = {**hub, **with_cards(tmp_path, RTX_4090)}
    for verb in ("plan", "check"):
        english = gonogo(tmp_path / "state", verb, PHONE, env=env)
        assert f"{PHONE}: vllm {NEWEST}, 1 card for each replica, 90 % of their" in english.out
    assert "加载时量化为 fp8" in gonogo(tmp_path / "state", "plan", PHONE, "--lang", "zh", env=env).out


def test_a_release_that_was_asked_for_is_planned_for_like_the_newest(tmp_path: Path, hub: Mapping[str, str]) -> None:
    asked = plan(tmp_path, hub, PHONE, "--engine", "vllm==0.30.0")
    assert engine(asked) == {"version": "0.30.0", "share": 0.9, "quantization": "fp8"}
    spec = tmp_path / "s.yaml"
    spec.write_text(f"model: {PHONE}\nengine: {{name: vllm, version: 0.30.0, load_limit_s: 900}}\n")
    assert plan(tmp_path, hub, str(spec)).json["engine"] == {**asked.json["engine"], "load_limit_s": 900}


def test_who_says_one_number_of_the_engine_has_planned(tmp_path: Path, hub: Mapping[str, str]) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(f"model: {PHONE}\nengine: {{name: vllm, version: 0.30.0, share: 0.8}}\n")
    assert engine(plan(tmp_path, hub, str(spec))) == {"version": "0.30.0", "share": 0.8}


def test_a_release_that_nobody_knows_is_refused_before_anything_is_fetched(
    tmp_path: Path, hub: Mapping[str, str]
) -> None:
    ran = plan(tmp_path, hub, PHONE, "--engine", "vllm==9.9.9")
    assert (ran.code, ran.json["error"]["reason"]) == (3, "VersionsClash")


@pytest.mark.parametrize("asked", ["vlm", "vllm=0.33", "vllm==", "vllm==newest", "vllm==0.33.0;x", "", "vllm ==1"])
@pytest.mark.parametrize("verb", ["up", "plan"])
def test_a_mistaken_engine_exits_with_2_and_says_what_is_allowed(tmp_path: Path, verb: str, asked: str) -> None:
    ran = gonogo(tmp_path / "state", verb, "smollm2-135m", "--engine", asked, "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (2, "OptionMistaken")
    assert "llama.cpp | vllm | vllm-cpu | sglang" in ran.json["error"]["message"]
    assert not (tmp_path / "state").exists()


def test_a_hub_id_of_a_recipe_gets_its_context_and_its_questions(tmp_path: Path, hub: Mapping[str, str]) -> None:
    spec = tmp_path / "long.yaml"
    spec.write_text("model: ZhipuAI/AutoGLM-Phone-9B\nexpect: {concurrent_requests: 400}\n")
    refused = plan(tmp_path, hub, str(spec)).json["error"]
    assert (refused["reason"], refused["values"]["tokens"]) == ("CardsHoldTooFew", 25480)


def test_a_folder_in_a_spec_file_is_relative_to_that_file(tmp_path: Path, hub: Mapping[str, str]) -> None:
    sizes = {"intermediate_size": 4096, "num_attention_heads": 8, "max_position_embeddings": 8192}
    write_folder(tmp_path / "mine" / "weights", sharded(**sizes))
    (tmp_path / "mine" / "s.yaml").write_text("service: mine\nmodel: ./weights\n")
    ran = plan(tmp_path, hub, "mine/s.yaml")
    assert ran.json["model"] == str(tmp_path / "mine" / "weights")
    assert ran.json["engine"]["name"] == "vllm"


@contextlib.contextmanager
def deployed(state: Path, spec: Spec) -> Iterator[None]:
    """A deployment whose newest revision is this, and that runs no control."""
    with contextlib.closing(open_store(state / "gonogo.db", clock=time.time)) as store:
        epoch = store.acquire_lease("test")
        with store.change(epoch=epoch, actor="control", principal="test") as change:
            change.add_revision(spec)
    yield


def test_what_is_deployed_is_kept_until_somebody_asks_for_another(tmp_path: Path, hub: Mapping[str, str]) -> None:
    chosen = EngineChoice(name="vllm", version="0.30.0", share=0.85, sequences=12, tensor=1)
    spec = Spec(service="qwen3-8b", model="Qwen/Qwen3-8B-FP8", engine=chosen, replicas=Replicas(min=1, max=1))
    with deployed(tmp_path / "state", spec):
        before = _files(tmp_path / "state")
        again = plan(tmp_path, hub, "qwen3-8b")
        assert _files(tmp_path / "state") == before, "a plan changes nothing"
        assert (again.json["engine"]["version"], again.json["model"]) == ("0.30.0", "Qwen/Qwen3-8B-FP8")
        assert again.json["engine"]["sequences"] == 12
        asked = plan(tmp_path, hub, "qwen3-8b", "--engine", "vllm")
        assert (asked.json["engine"]["version"], asked.json["engine"]["sequences"]) == (NEWEST, None)
        assert plan(tmp_path, hub, "qwen3-4b").json["engine"]["version"] == NEWEST, "another service, another model"


def _files(folder: Path) -> dict[str, bytes]:
    """Every file but what SQLite keeps beside a database that is being read."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_cards_of_another_service_are_not_planned_for_and_its_own_are(tmp_path: Path, hub: Mapping[str, str]) -> None:
    runtime = LocalRuntime(tmp_path / "state")
    launch = Launch(command=("sleep", "600"), environment={}, niceness=0)
    held = runtime.start(launch, ("replica", "other/1/0", 1), tmp_path / "log", devices=(uuid(0),))
    try:
        ran = plan(tmp_path, hub, PHONE)
        assert (ran.code, ran.json["error"]["reason"]) == (3, "CardsAllHeld")
        assert "other/1/0" in ran.json["error"]["message"]
        own = tmp_path / "s.yaml"
        own.write_text(f"service: other\nmodel: {PHONE}\n")
        assert plan(tmp_path, hub, str(own)).json["engine"]["quantization"] == "fp8"
    finally:
        runtime.kill(held.handle)


def test_a_model_that_is_not_to_be_had_costs_no_environment(tmp_path: Path) -> None:
    state, nobody = tmp_path / "state", {"HF_ENDPOINT": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ran = gonogo(state, "up", "owner/nobody-has-it", "--engine", "vllm-cpu", "--yes", "--json", env=nobody)
    assert (ran.code, ran.json["error"]["reason"]) == (4, "ModelHubUnreachable"), ran.out + ran.err
    assert not (state / "environments").exists()
