"""`gonogo models` as a user meets it: the plan, what it refuses, Ctrl-C, and what it prints."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Iterator

import pytest
from starlette.responses import Response

from gonogo.cli.model_fetch import Source, fetched
from gonogo.cli.model_wish import MODEL_SCOPE_ENDPOINT, endpoint_of, wish_of
from gonogo.cli.refusal import Refusal
from gonogo.cli.session import open_session
from tests.free_ports import free_port
from tests.shell.checkpoints import SHARDS, small_model, write_folder
from tests.shell.fake_hub import COMMIT, Door, FakeHub
from tests.shell.fetching import MODEL, NEEDED, PATIENCE_S, Here, wait_for


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def here(door: Door, tmp_path: Path) -> Here:
    return Here(hub=door.opened(FakeHub(models={MODEL: small_model()})), folder=tmp_path)


def test_a_model_is_fetched_listed_found_again_and_taken_away(here: Here) -> None:
    ran = here.ran("fetch", MODEL)

    name = f"maker--model-1b--{COMMIT[:12]}"
    path = here.store.path(name)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == f"{MODEL} at {COMMIT[:12]}, from {here.hub.endpoint}"
    assert lines[1] == f"  {len(NEEDED)} files, 8.3 MiB"
    assert lines[2].startswith(f"  to {path} (") and "estimated" in lines[3]
    assert str(path) in lines and f"{name} was fetched" in ran.out
    here.hub.requests.clear()
    again = here.ran("fetch", MODEL, "--json")
    assert (again.code, again.json["fetched"], again.json["plan"]) == (0, False, None)
    assert again.json["model"]["path"] == str(path) and here.hub.requests == []
    listed = here.ran("list", "--json").json
    assert [one["name"] for one in listed["models"]] == [name] and listed["unfinished"] == []
    assert name in here.ran("list").out
    assert here.ran("remove", name, "--json").json == {"removed": name}
    assert not path.exists() and here.ran("list", "--json").json["models"] == []
    assert here.ran("remove", name, "--json").json["error"]["reason"] == "ModelNotFetched"
    assert here.ran("remove", "../../etc").code == 2


def test_a_branch_is_asked_for_at_the_hub_and_a_commit_is_not(here: Here) -> None:
    assert here.ran("fetch", MODEL, "--json").json["plan"]["commit"] == COMMIT
    here.hub.requests.clear()
    assert here.ran("fetch", MODEL, "--revision", COMMIT, "--json").json["fetched"] is False
    assert here.hub.requests == []
    ran = here.ran("fetch", MODEL, "--revision", "main", "--json").json
    assert ran["fetched"] is False and here.hub.asked("/revision/main") != []


def test_ctrl_c_says_how_much_is_kept_and_the_command_that_goes_on(here: Here) -> None:
    here.hub.bytes_per_s = 1_000_000
    process = here.started("fetch", MODEL, "--yes", "--from", here.hub.endpoint)
    wait_for(lambda: sum(here.plan_kept()) > 1_000_000, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130, err
    assert " of 8.3 MiB are here and are kept" in err
    assert f"gonogo models fetch {MODEL} --from {here.hub.endpoint}" in err
    listed = here.ran("list", "--json").json
    assert listed["models"] == [] and listed["unfinished"][0]["disk_bytes"] > 500_000
    assert "unfinished: " in here.ran("list").out
    assert here.ran("remove", listed["unfinished"][0]["name"]).code == 0
    assert here.store.unfinished() == ()


def test_progress_is_told_when_it_takes_longer(here: Here) -> None:
    here.hub.bytes_per_s = 1_200_000
    ran = here.ran("fetch", MODEL)
    assert ran.code == 0 and " of 8.3 MiB (" in ran.err and " left" in ran.err


def test_a_hub_that_is_away_names_the_command_for_modelscope_and_does_not_go_there_by_itself(here: Here) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    ran = here.ran("fetch", "autoglm-phone-9b", "--json", HF_ENDPOINT=away)

    assert (ran.code, ran.json["error"]["reason"]) == (4, "ModelHubAway")
    assert "gonogo models fetch autoglm-phone-9b --from modelscope" in ran.json["error"]["remedy"]
    assert "ZhipuAI/AutoGLM-Phone-9B" in ran.json["error"]["remedy"]
    assert here.hub.requests == []
    other = here.ran("fetch", MODEL, "--from", away, "--json").json["error"]
    assert other["reason"] == "ModelHubUnreachable"


def test_a_recipe_is_asked_for_by_the_id_that_it_has_on_that_hub(here: Here) -> None:
    wish = wish_of("autoglm-phone-9b")
    assert (wish.hugging_face, wish.modelscope) == ("zai-org/AutoGLM-Phone-9B", "ZhipuAI/AutoGLM-Phone-9B")
    assert wish_of("zai-org/AutoGLM-Phone-9B").modelscope == wish_of("ZhipuAI/AutoGLM-Phone-9B").modelscope
    here.hub.models = {wish.modelscope or "": small_model()}

    ran = here.ran("fetch", "autoglm-phone-9b", "--from", f"modelscope+{here.hub.endpoint}", "--json")

    assert ran.json["model"]["model"] == "ZhipuAI/AutoGLM-Phone-9B", ran.out
    here.hub.requests.clear()
    for asked in ("autoglm-phone-9b", "zai-org/AutoGLM-Phone-9B", "ZhipuAI/AutoGLM-Phone-9B"):
        assert here.ran("fetch", asked, "--json").json["fetched"] is False
    assert here.hub.requests == []


def test_a_form_of_a_recipe_has_its_own_repository_and_files() -> None:
    gguf = wish_of("autoglm-phone-9b", "q4_k_m")
    assert gguf.hugging_face == "Luckybala/AutoGLM-Phone-9B-Q4_K_M.gguf" and gguf.modelscope is None
    assert gguf.only == ("AutoGLM-Phone-9B-Q4_K_M.gguf", "AutoGLM-Phone-9B-mmproj.gguf")
    fp8 = wish_of("glm-4.5-air", "fp8")
    assert (fp8.hugging_face, fp8.modelscope, fp8.only) == ("zai-org/GLM-4.5-Air-FP8", "ZhipuAI/GLM-4.5-Air-FP8", ())


def test_from_is_a_hub_or_an_address() -> None:
    assert endpoint_of(None) is endpoint_of("hf") is None
    assert endpoint_of("modelscope") == MODEL_SCOPE_ENDPOINT
    assert endpoint_of("https://mirror.example") == "https://mirror.example"
    with pytest.raises(Refusal):
        endpoint_of("mirror.example")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("no-such-recipe",), 2, "ModelNotKnown"),
        (("smollm2-135m",), 3, "ModelInPackage"),
        (("autoglm-phone-9b", "--quantization", "q1"), 2, "NoWayLeft"),
        ((MODEL, "--quantization", "fp8"), 2, "OptionMistaken"),
        ((MODEL, "--from", "mirror.example"), 2, "OptionMistaken"),
        ((MODEL, "--from", "ftp://mirror.example"), 2, "OptionMistaken"),
        (("autoglm-phone-9b", "--quantization", "q4_k_m", "--from", "modelscope"), 2, "ModelIdNotKnownThere"),
        (("maker/no-such-model",), 2, "ModelNotFound"),
        ((MODEL, "--revision", "no-such-branch"), 2, "ModelNotFound"),
        ((MODEL, "--file", "m-Q4_0.gguf"), 3, "ModelShardMissing"),
        (("./no-such-folder",), 2, "ModelMissing"),
    ],
)
def test_what_cannot_be_had_is_told_by_its_reason(here: Here, words: tuple[str, ...], code: int, reason: str) -> None:
    ran = here.ran("fetch", *words, "--json")
    assert (ran.json["error"]["reason"], ran.code) == (reason, code), ran.out
    assert here.ran("fetch", *words, "--lang", "zh").err.count("?") == 0


def test_offline_nothing_is_asked_and_what_is_whole_is_found(here: Here) -> None:
    ran = here.ran("fetch", MODEL, "--json", HF_HUB_OFFLINE="1")
    assert (ran.code, ran.json["error"]["reason"]) == (4, "ModelNotCached") and here.hub.requests == []
    here.ran("fetch", MODEL)
    assert here.ran("fetch", MODEL, "--json", HF_HUB_OFFLINE="1").code == 0


def test_a_hash_that_is_wrong_twice_is_told_with_the_file(here: Here) -> None:
    here.hub.faults["/chat_template.jinja"] = lambda request: Response(b"{{ evil_one }}")
    error = here.ran("fetch", MODEL, "--json").json["error"]
    assert error["reason"] == "ModelHashWrong" and "chat_template.jinja came twice" in error["message"]
    assert here.ran("list", "--json").json["models"] == []


def test_a_folder_is_judged_and_used_where_it_lies(here: Here) -> None:
    folder = write_folder(here.folder / "mine", small_model())

    ran = here.ran("fetch", str(folder), "--json")

    assert ran.code == 0, ran.out
    assert (ran.json["model"]["path"], ran.json["fetched"], ran.json["plan"]) == (str(folder), False, None)
    assert here.hub.requests == [] and not here.store.root.exists()
    (folder / SHARDS[0]).unlink()
    refused = here.ran("fetch", str(folder), "--json")
    assert (refused.code, refused.json["error"]["reason"]) == (3, "ModelShardMissing")


def test_a_folder_that_was_copied_into_the_store_is_found_without_a_hub(here: Here, tmp_path: Path) -> None:
    here.ran("fetch", MODEL)
    found = here.store.all()[0]
    other = Here(hub=here.hub, folder=tmp_path / "other")
    other.store.make()
    found.path.rename(other.store.path(found.name))
    here.hub.requests.clear()
    session = open_session(str(other.state), json=True, lang=None)

    obtained = fetched(session, wish_of(MODEL), Source())

    assert obtained.model is not None and obtained.model.files == found.files and not obtained.now
    assert here.hub.requests == []
