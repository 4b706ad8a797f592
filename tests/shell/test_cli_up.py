"""`gonogo up`, `apply`, `plan`, `check` and `report` against a small control process on the real socket."""

from __future__ import annotations

import ast
import json
import os
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Iterator

import jsonschema
import pytest
from rich.cells import cell_len

from gonogo.security.keys import ParsedKey, matches, parse, usable
from gonogo.store import open_store
from tests.acceptance import reports
from tests.shell.command_line import command, environment, gonogo, spawned, write_spec
from tests.shell.fake_control import FakeControl, running

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/up.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_spec(tmp_path)
    return tmp_path / "state"


@pytest.fixture
def control(state: Path) -> Iterator[FakeControl]:
    with running(state) as fake:
        yield fake


def test_up_prints_one_object_that_its_schema_describes(state: Path, control: FakeControl) -> None:
    ran = spawned(state, "up", "--json")
    assert ran.code == 0, ran.err
    jsonschema.validate(ran.json, SCHEMA)
    assert ran.json["service"] == "smollm2-135m"
    assert ran.json["findings"]["fail"] == 0
    assert ran.json["processes"]["gateway"] == [4102]
    assert Path(ran.json["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert stat.S_IMODE(os.stat(ran.json["report"]).st_mode) == 0o600


def test_up_waits_until_what_was_proven_before_has_its_replicas_again_and_proves_it_once_more(
    state: Path, control: FakeControl
) -> None:
    assert gonogo(state, "up", "--json").code == 0
    asked, control.polls_until_ready = control.polls, control.polls + 4
    ran = gonogo(state, "up", "--json")
    assert ran.code == 0 and ran.json["changed"] is False
    assert control.polls > asked + 4
    assert control.proven_again == 1


def test_up_tells_control_when_the_command_began_and_on_whose_behalf(state: Path, control: FakeControl) -> None:
    before = time.time()
    assert spawned(state, "up", "--json").code == 0
    asked = control.specs[0]
    assert before - 1 <= asked["started_at"] <= time.time()
    assert asked["principal"]
    assert asked["spec"]["probes"], "the recipe's probes belong to the spec"


def test_the_key_that_up_shows_is_kept_as_a_hash_and_opens_that_service_alone(
    state: Path, control: FakeControl
) -> None:
    shown = gonogo(state, "up", "--json").json["api_key"]
    parsed = parse(shown)
    assert isinstance(parsed, ParsedKey)
    store = open_store(control.paths.database, clock=time.time)
    [row] = store.keys()
    store.close()
    assert row.service == "smollm2-135m"
    assert matches(parsed, row.secret_hash) and usable(row, time.time())
    for file in control.paths.root.rglob("*"):
        assert not file.is_file() or shown.encode() not in file.read_bytes(), file


def test_a_second_up_proves_again_and_prints_lines_that_still_work(state: Path, control: FakeControl) -> None:
    assert gonogo(state, "up", "--json").code == 0
    again = gonogo(state, "up")
    assert again.code == 0, again.err
    assert "Nothing changed: smollm2-135m was already at revision 1, and was proven again." in again.out
    assert "Bearer $GONOGO_API_KEY" in again.out
    assert 'os.environ["GONOGO_API_KEY"]' in again.out
    made = next(line for line in again.out.splitlines() if line.startswith("export GONOGO_API_KEY="))
    words = shlex.split(made.partition("$(")[2].removesuffix(")"))
    key = gonogo(state, *words[1:])
    assert isinstance(parse(key.out.strip()), ParsedKey)
    assert gonogo(state, "up", "--json").json["api_key"] is None


def test_the_printed_curl_line_and_sdk_snippet_are_whole(tmp_path: Path) -> None:
    state = tmp_path / "a state's dir"
    write_spec(tmp_path)
    with running(state) as control:
        out = gonogo(state, "up").out.splitlines()
    curl = shlex.split(next(line for line in out if line.startswith("curl ")))
    assert curl[curl.index("--cacert") + 1] == str(control.paths.ca_file)
    assert "https://127.0.0.1:8443/v1/chat/completions" in curl, "as control says"
    headers = [curl[index + 1] for index, word in enumerate(curl) if word == "-H"]
    [authorization] = [header for header in headers if header.startswith("Authorization: Bearer ")]
    assert isinstance(parse(authorization.removeprefix("Authorization: Bearer ")), ParsedKey)
    assert json.loads(curl[curl.index("-d") + 1])["model"] == "smollm2-135m"
    begin = out.index("import os, ssl, openai")
    end = out.index("print(answer.choices[0].message.content)")
    tree = ast.parse("\n".join(out[begin : end + 1]))
    assert str(control.paths.ca_file) in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_the_checklist_is_grouped_by_condition_and_fits_80_columns(state: Path, control: FakeControl) -> None:
    control.report = reports.good(no_repetition={"longest_repeat": 9, "repeated_words": 2, "answer": "the sea " * 9})
    out = gonogo(state, "check", env={"COLUMNS": "80"}).out + gonogo(state, "up", env={"COLUMNS": "80"}).out
    checklist = out.split("Endpoint")[0].splitlines()
    heads = [line for line in checklist if line in ("Hardware", "Software", "Model", "Network", "Security")]
    assert heads[-5:] == ["Hardware", "Software", "Model", "Network", "Security"]
    assert max(map(cell_len, checklist)) <= 80
    assert any(line.startswith(" ✗ RepetitionSeen") for line in checklist)
    assert any("gonogo explain RepetitionSeen" in line for line in checklist)


def test_chinese_output_fits_80_columns_too(state: Path, control: FakeControl) -> None:
    ran = gonogo(state, "up", "--lang", "zh", env={"COLUMNS": "80"})
    checklist = ran.out.split("端点")[0].splitlines()
    assert "硬件" in checklist and "安全" in checklist
    assert max(map(cell_len, checklist)) <= 80
    assert "已验证" in ran.out


def test_progress_is_plain_lines_on_standard_error_without_colours(state: Path, control: FakeControl) -> None:
    ran = gonogo(state, "up", "--json")
    assert "smollm2-135m: revision 1 was asked for" in ran.err
    assert "starting the gateway" in ran.err
    assert "\x1b" not in ran.err


def test_a_blocked_plan_exits_with_3_and_changes_nothing(state: Path, control: FakeControl) -> None:
    answers = [one for one in reports.broken()["answers"] if one["stage"] == "preflight"]
    error = {"reason": "Blocked", "values": {"answers": answers}, "exit_code": 3}
    control.refuse_spec = (422, {"error": error})
    ran = gonogo(state, "up", "--json")
    assert ran.code == 3
    jsonschema.validate(ran.json, SCHEMA)
    assert ran.json["error"]["reason"] == "Blocked"
    assert ran.json["error"]["values"]["count"] == 2
    assert {one["reason"] for one in ran.json["answers"]} >= {"MemoryTooSmall", "CpuUnknown"}
    assert control.specs == []
    told = gonogo(state, "up")
    assert told.code == 3
    assert "✗ MemoryTooSmall" in told.out and "? CpuUnknown" in told.out
    assert "2 findings block this plan" in told.err


def test_another_apply_in_progress_is_told_with_who_holds_it(state: Path, control: FakeControl) -> None:
    error = {"reason": "ApplyInProgress", "values": {"holder": "ada", "since": 1.0}, "exit_code": 3}
    control.refuse_spec = (409, {"error": error})
    ran = gonogo(state, "up")
    assert ran.code == 3
    assert "another apply is in progress, by ada" in ran.err


def test_a_rejected_revision_exits_with_4_and_says_why(state: Path, control: FakeControl) -> None:
    control.ending = "rejected"
    values = {"replica": "svc/1/0", "restarts": 3, "why": "no memory", "last_lines": "killed"}
    control.rejected = {"reason": "ReplicaCrashLooping", "detail": {"values": values}}
    ran = gonogo(state, "up", "--json")
    assert ran.code == 4
    jsonschema.validate(ran.json, SCHEMA)
    assert "ReplicaCrashLooping: svc/1/0 died 3 times: no memory" in ran.json["error"]["message"]


def test_a_service_that_answers_wrong_when_proven_again_exits_with_4(state: Path, control: FakeControl) -> None:
    assert gonogo(state, "up", "--json").code == 0
    control.live_answers = reports.broken()["answers"]
    ran = gonogo(state, "up", "--json")
    assert ran.code == 4
    assert ran.json["error"]["reason"] == "ProbesFailed"


def test_ctrl_c_says_what_was_changed_and_how_to_take_it_down(state: Path, control: FakeControl) -> None:
    control.polls_until_end = 10**9
    with subprocess.Popen(
        command("up"),
        env=environment(state),
        cwd=state.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while not control.specs and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "smollm2-135m revision 1 was asked for, and the control process goes on with it." in err
    assert "gonogo down smollm2-135m" in err
    assert "Traceback" not in err


def test_a_bug_of_ours_leaves_its_traceback_in_a_file_and_exits_with_1(state: Path, control: FakeControl) -> None:
    control.broken_status = {"services": "no list"}
    ran = spawned(state, "status", "--json")
    assert ran.code == 1
    assert ran.json["error"]["reason"] == "OurBug"
    file = Path(ran.json["error"]["values"]["file"])
    assert file.parent == control.paths.logs
    assert "Traceback" in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = gonogo(state, "status")
    assert told.code == 1 and "crash-" in told.err and "Traceback" not in told.err


def test_options_override_the_spec(state: Path, control: FakeControl) -> None:
    ran = gonogo(
        state,
        "up",
        "--json",
        "--replicas",
        "1",
        "--listen",
        "0.0.0.0:9443",
        "--hostname",
        "a.test",
        "--hostname",
        "b.test",
    )
    assert ran.code == 0, ran.err
    spec = control.specs[0]["spec"]
    assert spec["replicas"] == {"min": 1, "max": 1, "external": None, "ca_file": None, "health_path": None}
    assert (spec["gateway"]["address"], spec["gateway"]["port"]) == ("0.0.0.0", 9443)
    assert spec["gateway"]["hostnames"] == ["a.test", "b.test"]
    assert spec["expect"]["context_tokens"] == 2048


def test_a_spec_in_the_working_directory_is_taken_and_its_paths_become_absolute(
    tmp_path: Path, state: Path, control: FakeControl
) -> None:
    (tmp_path / "gonogo.yaml").write_text("service: mine\nmodel: models/m.gguf\n", encoding="utf-8")
    assert gonogo(state, "apply", "--json", cwd=tmp_path).code == 0
    assert control.specs[0]["spec"]["service"] == "mine"
    assert control.specs[0]["spec"]["model"] == str(tmp_path / "models/m.gguf")


def test_plan_shows_the_actions_and_changes_nothing(state: Path, control: FakeControl) -> None:
    ran = gonogo(state, "plan")
    assert ran.code == 0, ran.err
    assert "EnsurePart policy 0" in ran.out
    assert ran.out.rstrip().endswith("Nothing was changed.")
    assert control.specs == []
    assert gonogo(state, "plan", "--json").json["actions"] == [{"action": "EnsurePart", "role": "policy", "index": 0}]


def test_check_exits_with_3_when_something_blocks(state: Path, control: FakeControl) -> None:
    assert gonogo(state, "up", "--json").code == 0
    assert gonogo(state, "check").code == 0
    control.live_answers = reports.broken()["answers"]
    ran = gonogo(state, "check", "--live", "--json")
    assert ran.code == 3
    assert ran.json["findings"]["fail"] >= 2


def test_report_writes_the_file_that_was_asked_for(tmp_path: Path, state: Path, control: FakeControl) -> None:
    assert gonogo(state, "up", "--json").code == 0
    ran = gonogo(state, "report", "--output", "out/r.html", "--lang", "zh", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert '<html lang="zh-CN">' in (tmp_path / "out/r.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "out").glob(".r.html*")), "nothing half-written is left"
    assert gonogo(state, "report", "--json").json["memory_plan"]["terms"]


def test_status_shows_replicas_and_processes(state: Path, control: FakeControl) -> None:
    assert "No service was asked for" in gonogo(state, "status").out
    assert gonogo(state, "up", "--json").code == 0
    out = gonogo(state, "status").out
    assert "smollm2-135m/1/0" in out and "ready" in out and "4711" in out
    assert "Queue: 12,345 wait (the oldest for 61 s), 8 run" in " ".join(out.split())


def test_down_asks_control_and_waits_until_the_service_is_gone(state: Path, control: FakeControl) -> None:
    store = open_store(control.paths.database, clock=time.time)
    epoch = store.acquire_lease("test")
    with store.change(epoch=epoch, actor="control", principal="test") as change:
        change.add_revision(reports.spec())
    store.close()
    ran = gonogo(state, "down", "smollm2-135m", "--json")
    assert ran.code == 0, ran.err
    assert control.removed == ["smollm2-135m"]
    assert gonogo(state, "down", "other").code == 2
