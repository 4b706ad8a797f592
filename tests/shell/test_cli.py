"""The command line without a control process: input mistakes, keys, logs, pages, and how fast it starts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from gonogo.runtimes.paths import StatePaths
from gonogo.security.keys import ParsedKey, parse
from gonogo.store import open_store
from tests.acceptance import reports
from tests.shell.command_line import command, environment, gonogo, spawned, write_spec

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/up.schema.json").read_text(encoding="utf-8"))
VERBS = (
    "up",
    "check",
    "plan",
    "apply",
    "status",
    "usage",
    "metrics",
    "clients",
    "logs",
    "down",
    "report",
    "explain",
    "docs",
    "keys",
    "render",
)
HELP_LIMIT_S = 0.4


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_help_names_every_verb_in_both_languages(state: Path) -> None:
    english, chinese = spawned(state, "--help"), spawned(state, "--lang", "zh", "--help")
    assert english.code == chinese.code == 0
    for verb in VERBS:
        assert re.search(rf"^  {verb} ", english.out, re.MULTILINE), verb
    assert "部署" in chinese.out and "From nothing" in english.out
    assert not state.exists(), "help touches nothing"


def test_help_starts_fast(state: Path) -> None:
    def used_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert spawned(state, "--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(used_s() for _ in range(3)) < HELP_LIMIT_S


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("up", "smollm2-135"), "RecipeUnknown"),
        (("up", "no-such-file.yaml"), "SpecNotFound"),
        (("up", "no-such-file.json"), "SpecNotFound"),
        (("up", "./no-such-model.gguf"), "SpecNotFound"),
        (("up", "."), "RecipeUnknown"),
        (("up", "--replicas", "0"), "OptionMistaken"),
        (("up", "--replicas", "many"), "WrongUsage"),
        (("up", "--listen", "everywhere"), "ListenMistaken"),
        (("up", "--listen", "127.0.0.1:70000"), "ListenMistaken"),
        (("up", "--hostname", "not a name"), "OptionMistaken"),
        (("up", "--lang", "xx"), "OptionMistaken"),
        (("upp",), "WrongUsage"),
        (("explain", "MemoryTooSmal"), "ReasonUnknown"),
        (("docs", "specc"), "TopicUnknown"),
        (("logs", "--json", "--follow", "control"), "WrongUsage"),
        (("logs", "control"), "LogUnknown"),
        (("keys", "create", "--scope", "everything"), "NotAKeyOption"),
        (("keys", "create", "--expires", "soon"), "NotAKeyOption"),
        (("keys", "create", "--requests-per-minute", "0"), "NotAKeyOption"),
        (("keys", "create", "--tokens-per-day", "many"), "NotAKeyOption"),
        (("keys", "create", "--concurrent", "1000000000001"), "NotAKeyOption"),
        (("keys", "create", "--priority", "vip"), "NotAKeyOption"),
        (("keys", "change", "nobody"), "KeyUnchanged"),
        (("keys", "change", "nobody", "--concurrent", "2"), "KeyUnknown"),
        (("keys", "revoke", "nobody"), "KeyUnknown"),
        (("down", "nothing-of-this-name"), "NoService"),
    ],
)
def test_wrong_input_exits_with_2_and_one_object_in_every_case(
    state: Path, words: tuple[str, ...], reason: str
) -> None:
    ran = gonogo(state, *words, "--json")
    assert ran.code == 2, ran.err
    jsonschema.validate(ran.json, SCHEMA)
    assert ran.json["error"]["reason"] == reason
    assert ran.json["error"]["message"] and ran.json["error"]["remedy"]
    told = gonogo(state, *[word for word in words if word != "--json"]) if "--follow" not in words else None
    if told is not None:
        assert told.code == 2 and told.err.startswith("✗ ")


def test_an_unknown_recipe_names_the_nearest_one(state: Path) -> None:
    assert "did you mean smollm2-135m?" in gonogo(state, "up", "smollm2-135").err


def test_all_mistakes_of_a_spec_are_told_at_once_with_line_and_column(tmp_path: Path, state: Path) -> None:
    (tmp_path / "bad.yaml").write_text("modell: x\nreplicas: 0\ngateway: {port: 99999}\n", encoding="utf-8")
    ran = gonogo(state, "up", "bad.yaml", cwd=tmp_path)
    assert ran.code == 2
    assert "✗ bad.yaml:1:1: there is no field `modell`; did you mean `model`?" in ran.err
    assert "bad.yaml:2:" in ran.err and "bad.yaml:3:" in ran.err
    found = gonogo(state, "up", "bad.yaml", "--json", cwd=tmp_path).json
    assert [one["line"] for one in found["mistakes"]] == sorted(one["line"] for one in found["mistakes"])
    assert len(found["mistakes"]) >= 3
    assert "没有 `modell` 这个字段" in gonogo(state, "up", "bad.yaml", "--lang", "zh", cwd=tmp_path).err


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_unreadable_spec_is_told(tmp_path: Path, state: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("model: x\n", encoding="utf-8")
    file.chmod(0)
    assert gonogo(state, "up", "s.yaml", "--json", cwd=tmp_path).json["error"]["reason"] == "SpecUnreadable"


def test_without_control_status_and_report_exit_with_4_and_start_nothing(state: Path) -> None:
    for words in (("status",), ("report",), ("apply",), ("check", "--live")):
        ran = gonogo(state, *words, "--json")
        assert ran.code == 4, words
        assert ran.json["error"]["reason"] == "ControlNotRunning"
    assert not state.exists()


def test_without_control_plan_and_check_look_for_themselves_and_change_nothing(state: Path) -> None:
    planned = gonogo(state, "plan", "--listen", "127.0.0.1:1", "--json").json
    reasons = {one["reason"] for one in planned["answers"]}
    assert "ModelReadable" in reasons and "MemoryUnknown" not in reasons
    checked = gonogo(state, "check", "--json")
    assert {one["stage"] for one in checked.json["answers"]} == {"preflight"}
    assert not state.exists()


def test_common_options_may_stand_before_the_verb(state: Path) -> None:
    assert gonogo(state, "--json", "--lang", "zh", "explain", "MemoryFits").json["asks"].startswith("所有副本")


def test_explain_prints_the_page_whatever_the_case(state: Path) -> None:
    ran = gonogo(state, "explain", "memorytoosmall")
    assert ran.code == 0
    assert ran.out.startswith("MemoryTooSmall\n")
    assert "What it asks" in ran.out and "free -h" in ran.out
    assert "它问什么" in gonogo(state, "explain", "MemoryTooSmall", env={"LC_ALL": "zh_CN.UTF-8"}).out


def test_docs_print_the_spec_its_schema_the_reasons_and_the_recipes(state: Path) -> None:
    assert "model:" in gonogo(state, "docs", "spec").out
    assert json.loads(gonogo(state, "docs", "spec", "--schema").out)["$schema"]
    assert "MemoryTooSmall" in gonogo(state, "docs", "reasons").out
    assert "smollm2-135m" in gonogo(state, "docs", "recipes").out
    assert {"spec", "reasons", "recipes", "recipe-schema"} <= set(gonogo(state, "docs", "--json").json["topics"])
    assert json.loads(gonogo(state, "docs", "recipe-schema").out)["$defs"]["EngineFlag"]


def test_docs_show_one_recipe_with_every_reason_in_both_languages(state: Path) -> None:
    english, chinese = (
        gonogo(state, "docs", "autoglm-phone-9b"),
        gonogo(state, "docs", "autoglm-phone-9b", "--lang", "zh"),
    )
    for told in (english.out, chinese.out):
        assert "--limit-mm-per-prompt" in told and "issues/91" in told and "5,814" in told
        assert all(len(line) <= 100 for line in told.splitlines())
    assert "left out: --allowed-local-media-path" in english.out
    assert "不使用：--allowed-local-media-path" in chinese.out
    recipe = gonogo(state, "docs", "autoglm-phone-9b", "--json").json["recipe"]
    assert recipe["source"]["modelscope"] == "ZhipuAI/AutoGLM-Phone-9B"
    assert "did you mean qwen3-8b" in gonogo(state, "docs", "qwen3-8").err


@pytest.mark.parametrize("verb", ["up", "plan", "check"])
def test_a_recipe_whose_engine_needs_a_card_is_refused_by_the_two_things_that_clash(state: Path, verb: str) -> None:
    write_spec(state.parent, "autoglm-phone-9b")
    ran = gonogo(state, verb, "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (3, "VersionsClash")
    assert "vLLM" in ran.json["error"]["message"] and "0.33.0" in ran.json["error"]["message"]
    assert "--engine llama.cpp" in ran.json["error"]["remedy"]
    assert "显卡" in gonogo(state, verb, "--lang", "zh").err
    assert not state.exists(), "nothing was started, nothing was downloaded"


def test_keys_are_made_listed_and_revoked_without_control(state: Path) -> None:
    made = gonogo(state, "keys", "create", "--name", "ci", "--service", "svc", "--expires", "12h", "--json").json
    assert isinstance(parse(made["api_key"]), ParsedKey)
    assert made["expires_at"] - made["created_at"] == pytest.approx(12 * 3600, abs=5)
    listed = gonogo(state, "keys", "list", "--json")
    assert [(one["name"], one["state"]) for one in listed.json["keys"]] == [("ci", "live")]
    assert made["api_key"] not in listed.out + gonogo(state, "keys", "list").out
    assert gonogo(state, "keys", "revoke", "ci", "--json").json["key_id"] == made["key_id"]
    assert gonogo(state, "keys", "list", "--json").json["keys"][0]["state"] == "revoked"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_only_the_key_goes_to_standard_output(state: Path) -> None:
    ran = spawned(state, "keys", "create")
    assert isinstance(parse(ran.out.rstrip("\n")), ParsedKey)
    assert "shown once" in ran.err


def test_the_limits_of_a_key_are_given_changed_and_listed_in_both_languages(state: Path) -> None:
    options = ("--requests-per-minute", "60", "--tokens-per-minute", "1000000", "--priority", "batch")
    made = gonogo(state, "keys", "create", "--name", "nightly", *options, "--json").json
    given = {"requests_per_minute": 60, "tokens_per_minute": 1000000, "tokens_per_day": None, "concurrent": None}
    assert (made["limits"], made["priority"]) == (given, "batch")
    changed = gonogo(state, "keys", "change", "nightly", "--tokens-per-minute", "none", "--concurrent", "4", "--json")
    now = {**given, "tokens_per_minute": None, "concurrent": 4}
    assert (changed.json["limits"], changed.json["priority"]) == (now, "batch"), "what no option named stays"
    (listed,) = gonogo(state, "keys", "list", "--json").json["keys"]
    assert (listed["limits"], listed["priority"]) == (now, "batch")
    english, chinese = gonogo(state, "keys", "list").out, gonogo(state, "keys", "list", "--lang", "zh").out
    assert all(words in english for words in ("60 requests/min", "4 at once", "batch"))
    assert all(words in chinese for words in ("每分钟 60 次请求", "同时 4 个", "批处理"))


def test_keys_that_gonogo_made_for_itself_are_counted_and_shown_only_when_asked_for(state: Path) -> None:
    owner = gonogo(state, "keys", "create", "--name", "ci", "--json").json["key_id"]
    store = open_store(StatePaths.of(state).database, clock=time.time)
    with contextlib.closing(store), store.change(epoch=None, actor="tasks", principal=owner) as change:
        made = store.keys()[0]
        ends = time.time() + 600
        change.add_key(replace(made, key_id="queue00000", name="queue for ci", expires_at=ends, acts_for=owner))
        change.add_key(replace(made, key_id="probe00000", name="probe", service="svc", revision=2, expires_at=ends))
    few, all_of_them = (gonogo(state, "keys", "list", *more, "--json").json for more in ((), ("--all",)))
    assert ([one["name"] for one in few["keys"]], few["hidden"]) == (["ci"], 2)
    told = {one["name"]: (one["acts_for"], one["revision"]) for one in all_of_them["keys"]}
    assert told == {"ci": (None, None), "queue for ci": (owner, None), "probe": (None, 2)}
    assert all_of_them["hidden"] == 0
    shown, more = gonogo(state, "keys", "list").out, gonogo(state, "keys", "list", "--all").out
    assert "queue00000" not in shown and "2 that gonogo made for itself" in shown
    assert "queue00000" in more and more.count(owner) == 2 and "--all" not in more
    assert "2 个由 gonogo 自用" in gonogo(state, "keys", "list", "--lang", "zh").out


def test_a_name_that_two_live_keys_have_revokes_neither(state: Path) -> None:
    for _ in range(2):
        assert gonogo(state, "keys", "create", "--name", "same", "--json").code == 0
    ran = gonogo(state, "keys", "revoke", "same", "--json")
    assert ran.code == 2 and ran.json["error"]["reason"] == "KeyAmbiguous"
    assert len(ran.json["error"]["values"]["known"]) == 2


def test_a_whole_key_that_was_pasted_is_revoked_and_never_printed(state: Path) -> None:
    key = gonogo(state, "keys", "create", "--json").json["api_key"]
    ran = gonogo(state, "keys", "revoke", key)
    assert ran.code == 0 and key not in ran.out + ran.err
    shutil.rmtree(state)
    unknown = gonogo(state, "keys", "revoke", key, "--json")
    assert unknown.code == 2 and key not in unknown.out


def test_logs_are_listed_and_shown_by_the_name_of_the_process(state: Path) -> None:
    paths = StatePaths.of(state)
    paths.make()
    paths.log("replica", "svc/1/0").write_text("".join(f"line {number}\n" for number in range(100)), encoding="utf-8")
    paths.log("control", "main").write_text("began\n", encoding="utf-8")
    assert set(gonogo(state, "logs", "--json").json["logs"]) == {"control", "replica-svc-1-0"}
    assert gonogo(state, "logs", "svc/1/0", "--lines", "2").out == "line 98\nline 99\n"
    assert gonogo(state, "logs", "control").out == "began\n"


def test_following_a_log_goes_on_after_it_is_rotated(state: Path) -> None:
    paths = StatePaths.of(state)
    paths.make()
    log = paths.log("control", "main")
    log.write_text("old\n", encoding="utf-8")
    with subprocess.Popen(
        command("logs", "control", "--follow"),
        env={**environment(state), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "old\n"
        time.sleep(0.5)
        with open(log, "a", encoding="utf-8") as opened:
            opened.write("appended\n")
        assert process.stdout.readline() == "appended\n"
        log.rename(log.with_suffix(".log.1"))
        log.write_text("after rotation\n", encoding="utf-8")
        assert process.stdout.readline() == "after rotation\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0


def test_down_without_control_records_the_removal_and_says_so(state: Path) -> None:
    paths = StatePaths.of(state)
    paths.make()
    store = open_store(paths.database, clock=time.time)
    epoch = store.acquire_lease("test")
    with store.change(epoch=epoch, actor="control", principal="test") as change:
        change.add_revision(reports.spec())
    ran = gonogo(state, "down", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["services"] == ["smollm2-135m"]
    [service] = store.services()
    store.close()
    assert service.removed
    assert gonogo(state, "down", "--all", "--json").code == 0


def test_down_where_nothing_runs_says_that_nothing_was_changed(state: Path) -> None:
    ran = gonogo(state, "down")
    assert ran.code == 0 and "Nothing runs, nothing was changed." in ran.out


def test_a_state_directory_that_cannot_be_made_exits_with_4(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("", encoding="utf-8")
    ran = gonogo(tmp_path / "x", "keys", "create", "--json", "--state-dir", str(in_the_way / "state"))
    assert ran.code == 4 and ran.json["error"]["reason"] == "StateUnusable"


def test_render_systemd_prints_a_unit_that_runs_control_in_the_foreground(state: Path) -> None:
    unit = gonogo(state, "render", "systemd", "--state-dir", f"{state}%x").out
    assert re.search(r'^ExecStart="/.+" "-m" "gonogo\.cli\.main" "up" "--foreground"', unit, re.MULTILINE)
    assert "%%x" in unit and "KillMode=process" in unit and "Restart=always" in unit
    if shutil.which("systemd-analyze"):
        file = state.parent / "gonogo.service"
        file.write_text(gonogo(state, "render", "systemd").out, encoding="utf-8")
        checked = subprocess.run(
            ["systemd-analyze", "--user", "verify", str(file)], capture_output=True, text=True, check=False
        )
        assert "gonogo.service:" not in checked.stderr, checked.stderr


def test_no_colour_where_no_colour_is_wanted(state: Path) -> None:
    ran = gonogo(state, "explain", "MemoryFits", env={"NO_COLOR": "1", "FORCE_COLOR": "1"})
    assert "\x1b[3" not in ran.out
