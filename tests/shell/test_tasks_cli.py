"""`gonogo tasks …` against a real ledger, without any process beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gonogo.cli.main import run
from gonogo.runtimes.paths import StatePaths
from gonogo.tasks import batches, leases, ledger
from gonogo.tasks.asked import read_request
from gonogo.tasks.batches import Batch
from gonogo.tasks.leases import Machine
from gonogo.tasks.nouns import Ended, Postponed, State
from gonogo.tasks.places import Queue, open_queue
from gonogo.tasks.requests import Wish, new_task, record

BODY = {"messages": [{"role": "user", "content": "secret words"}]}


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(StatePaths.of(tmp_path / "state"))


@pytest.fixture
def told(queue: Queue, capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*words: str, code: int = 0) -> Any:
        assert run(["tasks", *words, "--json", "--state-dir", str(queue.paths.root)]) == code
        return json.loads(capsys.readouterr().out)

    return command


def leave(queue: Queue, count: int = 1) -> list[str]:
    wish = Wish(asked=read_request("/v1/chat/completions", BODY), owner="alice00000")
    with queue.database.writing() as c:
        made = [record(c, new_task(wish, queue.bodies, 100.0), wish, queue.bodies) for _ in range(count)]
    return [task.task_id for task in made]


def work(queue: Queue, fate: State, count: int = 10) -> None:
    """A worker that lets every task end so."""
    with queue.database.writing() as c:
        lease = leases.begin(c, Machine.this(), "w", os.getpid())
        for taken in leases.take(c, lease, count, 200.0, ranks=(0,), alone=True):
            number = taken.task.number
            if fate is State.DEAD:
                later = Postponed(number=number, not_before=0.0, counts=True, reason="http_500", message="status 500")
                c.execute("UPDATE tasks SET attempts = 4 WHERE number = ?", (number,))
                leases.postpone(c, lease, later, 201.0)
            else:
                sealed = queue.bodies.seal(taken.task.task_id, "result", {"status": 200, "body": "answer"})
                leases.finish(c, lease, Ended(number=number, state=fate, status=200, result=sealed), 201.0)
        leases.end(c, lease)


def begin_batch(queue: Queue) -> str:
    later: Any = (
        *("output_file", "error_file", "error_code", "error_message", "total", "completed", "failed", "metadata"),
        *("in_progress_at", "finalizing_at", "finished_at", "cancelling_at"),
    )
    row: dict[str, Any] = {
        **dict.fromkeys(later),
        "batch_id": "batch_1",
        "owner": "alice00000",
        "endpoint": "/v1/chat/completions",
        "input_file": "file-1",
        "window": "24h",
        "state": "validating",
        "lines": 0,
        "created_at": 1.0,
        "expires_at": 2.0,
    }
    with queue.database.writing() as c:
        batches.add(c, Batch(**row))
    return "batch_1"


def test_what_waits_runs_and_ended_is_listed_and_shown(queue: Queue, told: Any) -> None:
    (first,) = leave(queue)
    work(queue, State.DONE)
    leave(queue, 2)
    seen = told("list")
    assert (seen["summary"]["counts"]["queued"], seen["summary"]["counts"]["done"]) == (2, 1)
    assert [one["state"] for one in seen["tasks"]] == ["queued", "queued", "done"]
    assert "secret" not in json.dumps(seen)
    assert [one["id"] for one in told("list", "--state", "done")["tasks"]] == [first]
    assert "prompt" not in told("show", first)
    shown = told("show", first, "--result")
    assert (shown["prompt"]["body"], shown["result"]["body"]) == (BODY, "answer")


def test_dead_letters_are_listed_with_their_reason_and_run_once_more(queue: Queue, told: Any) -> None:
    names = leave(queue, 2)
    work(queue, State.DEAD)
    assert {one["id"]: one["reason"] for one in told("dead")["dead"]} == dict.fromkeys(names, "http_500")
    assert told("wait", code=4) == {"ended": True, "well": False}
    assert told("retry", "--dead") == {"retried": 2}
    work(queue, State.DONE)
    assert told("wait") == {"ended": True, "well": True}
    assert told("dead")["dead"] == []


def test_what_is_done_is_not_run_again_and_keeps_its_answer(queue: Queue, told: Any) -> None:
    (task,) = leave(queue)
    work(queue, State.DONE)
    assert told("retry", task) == {"retried": 0}
    shown = told("show", task, "--result")
    assert (shown["state"], shown["result"]["body"]) == ("done", "answer")


def test_verbs_that_change_something_want_to_be_told_what(queue: Queue, told: Any) -> None:
    assert told("cancel", code=2)["error"]["reason"] == "WhichTasks"
    assert told("retry", code=2)["error"]["reason"] == "WhichTasks"
    assert told("retry", "--dead") == {"retried": 0}


def test_a_batch_is_not_run_again_and_that_is_said(queue: Queue, told: Any) -> None:
    assert told("retry", begin_batch(queue), code=2)["error"]["reason"] == "OfABatch"


@pytest.mark.parametrize("verb", [["list"], ["dead"]])
def test_a_page_of_nothing_is_refused_and_not_without_an_end(told: Any, verb: list[str]) -> None:
    for limit in ("0", "-1", "10001"):
        assert told(*verb, "--limit", limit, code=2)["error"]["reason"] == "WrongUsage"


def test_a_batch_that_waits_says_what_the_gateway_said_last(queue: Queue, told: Any) -> None:
    batch_id, (task,) = begin_batch(queue), leave(queue)
    assert "reason" not in told("show", batch_id)
    with queue.database.writing() as c:
        c.execute("UPDATE tasks SET batch_id = ?, reason = 'http_503', message = 'no replica'", (batch_id,))
    shown = told("show", batch_id)
    assert (shown["reason"], shown["message"]) == ("http_503", "no replica")
    assert told("retry", task, code=2)["error"]["reason"] == "OfABatch"


def test_who_waits_while_nothing_begins_is_told_so(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    (task,) = leave(queue)
    words = ["--state-dir", str(queue.paths.root)]
    run(["tasks", "drain", *words])
    assert run(["tasks", "wait", task, "--within", "0", *words]) == 4
    assert "gonogo tasks drain --off" in capsys.readouterr().err


def test_a_person_reads_times_and_whole_ids_on_a_narrow_terminal(
    queue: Queue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    (task,) = leave(queue)
    words = ["--state-dir", str(queue.paths.root)]
    assert run(["tasks", "list", *words]) == 0 and run(["tasks", "show", task, *words]) == 0
    out = capsys.readouterr().out
    assert out.count(task) == 2 and "queued" in out
    assert "created_at: 1970-01-01T00:01:40Z" in out


def test_a_task_and_a_batch_are_cancelled_by_their_ids(queue: Queue, told: Any) -> None:
    (task,) = leave(queue)
    begin_batch(queue)
    assert told("cancel", task, "batch_1") == {"cancelled": 2}
    assert told("show", "batch_1")["state"] == "cancelling"
    assert told("show", task)["state"] == "cancelled"
    assert told("wait", "--within", "0", code=4)["error"]["reason"] == "TasksNotDone"


def test_a_worker_that_died_is_not_at_work(queue: Queue, told: Any) -> None:
    leave(queue, 2)
    with queue.database.writing() as c:
        lease = leases.begin(c, Machine.this(), "w", os.getpid())
        leases.take(c, lease, 2, 200.0, ranks=(0,), alone=True)
    assert told("list")["summary"]["workers"] == 1 and told("drain")["running"] == 2
    with queue.database.writing() as c:
        c.execute("UPDATE leases SET started = 'of another process'")
    assert told("list")["summary"]["workers"] == 0 and told("drain")["running"] == 0


def test_while_draining_nothing_begins(queue: Queue, told: Any) -> None:
    leave(queue)
    assert told("drain") == {"draining": True, "running": 0}
    work(queue, State.DONE)
    with queue.database.reading() as c:
        assert ledger.counts(c).queued == 1
    assert told("list")["summary"]["draining"]
    told("drain", "--off")
    work(queue, State.DONE)
    assert told("wait", "--within", "0")["well"]


def test_after_the_key_was_rotated_old_answers_open_and_new_ones_have_the_new_key(queue: Queue, told: Any) -> None:
    (old,) = leave(queue)
    fresh = told("rotate-key")["key_id"]
    other = open_queue(queue.paths)
    (new,) = leave(other)
    with other.database.reading() as c:
        sealed = [ledger.prompt(c, ledger.task(c, name).number) for name in (old, new)]  # type: ignore[union-attr]
    assert [fresh in one.hex() for one in sealed] == [False, True]
    assert told("show", old, "--result")["prompt"]["body"] == BODY


def test_what_there_is_not_and_what_cannot_be_is_said(queue: Queue, told: Any) -> None:
    assert told("show", "task_none", code=2)["error"]["reason"] == "TaskUnknown"
    assert told("list", "--state", "lost", code=2)["error"]["reason"] == "NotATaskOption"
    leave(queue)
    (queue.paths.root / "keyring.json").chmod(0o644)
    assert "chmod 600" in told("rotate-key", code=4)["error"]["values"]["words"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_person_is_told_in_their_language(queue: Queue, capsys: pytest.CaptureFixture[str], lang: str) -> None:
    leave(queue)
    for words in (["list"], ["dead"], ["drain"], ["drain", "--off"]):
        assert run(["tasks", *words, "--lang", lang, "--state-dir", str(queue.paths.root)]) == 0
    out = capsys.readouterr().out
    assert ("1 wait" in out and "no dead letters" in out) if lang == "en" else ("等待 1" in out and "没有死信" in out)


def test_status_tells_of_the_queue_without_control_too(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    leave(queue, 3)
    words = ["status", "--state-dir", str(queue.paths.root)]
    assert run(words) == 4
    assert "Queue: 3 wait" in capsys.readouterr().out
    assert run([*words, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["queue"]["counts"]["queued"] == 3


@pytest.mark.parametrize("words", [["tasks", "--help"], ["tasks", "list", "-h"], ["keys", "--help"], ["--help"]])
def test_help_takes_the_language_wherever_it_is_asked(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--lang", "zh"]) == 0 and run([*words, "--lang=en"]) == 0
    assert "Usage: gonogo" in capsys.readouterr().out
