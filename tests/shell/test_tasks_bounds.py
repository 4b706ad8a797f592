"""One key cannot fill the disk: how many tasks, bytes of files and batches it may leave, and what it is told then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import httpx
import pytest

from gonogo.spec.queue import Queue
from gonogo.tasks import bounds, ledger
from gonogo.tasks.agents.nouns import NewRun, OnWorkerDeath
from gonogo.tasks.bounds import Bounds, TooMuch
from gonogo.tasks.database import Database
from gonogo.tasks.nouns import NewTask
from tests.shell.policy_parts import until
from tests.shell.tasks_parts import QueueParts, chat, jsonl, line

MIB = 2**20


def new(number: int, owner: str = "k1", **changes: Any) -> NewTask:
    fields: dict[str, Any] = {
        **{"task_id": f"t{number}", "owner": owner, "url": "/v1/chat/completions", "model": "m", "tokens": 1},
        **{"prompt": b"x", "created_at": 1.0, "expires_at": 9e9},
    }
    return NewTask(**{**fields, **changes})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "tasks.db")


def leave(database: Database, held: Bounds, *tasks: NewTask) -> None:
    with database.writing() as c:
        for one in tasks:
            ledger.add(c, one)
        held.admit(c, tasks[0].owner, len(tasks))


def test_a_key_has_so_many_open_tasks_and_another_key_has_its_own(database: Database) -> None:
    clock = Clock()
    held = Bounds(lambda: Queue(tasks_per_key=10), clock)
    leave(database, held, *(new(n) for n in range(8)))
    with pytest.raises(TooMuch) as refused:
        leave(database, held, *(new(n) for n in range(8, 11)))
    assert refused.value.code == "too_many_open_tasks" and "at most 10" in str(refused.value)
    with database.reading() as c:
        assert ledger.counts(c).queued == 8, "what was refused is not there"
    leave(database, held, *(new(n) for n in range(8, 10)))
    leave(database, held, new(100, "k2"))
    with pytest.raises(TooMuch):
        leave(database, held, new(11))
    with database.writing() as c:
        ledger.cancel(c, (1, 2, 3), 2.0)
    clock.now += bounds.COUNTED_EVERY_S
    leave(database, held, *(new(n) for n in range(12, 15)))


def test_all_keys_together_have_ten_times_as_many(database: Database) -> None:
    held = Bounds(lambda: Queue(tasks_per_key=2), Clock())
    for owner in range(10):
        leave(database, held, *(new(10 * owner + n, f"k{owner}") for n in range(2)))
    with pytest.raises(TooMuch, match="All API keys together"):
        leave(database, held, new(999, "k10"))


def test_tasks_in_a_workers_hands_count_and_lines_of_batches_do_not(database: Database) -> None:
    held = Bounds(lambda: Queue(tasks_per_key=3), Clock())
    with database.writing() as c:
        for number in range(50):
            ledger.add(c, new(number, batch_id="b1", line=number))
        for number in (60, 61):
            ledger.add(c, new(number))
        c.execute("UPDATE tasks SET state = 'leased', lease = 1 WHERE task_id IN ('t60', 't1')")
    leave(database, held, new(70))
    with pytest.raises(TooMuch):
        leave(database, held, new(71))


def test_runs_of_agents_that_wait_for_their_device_count(database: Database) -> None:
    held = Bounds(lambda: Queue(tasks_per_key=3), Clock())
    run = NewRun(program="phone-agent", device="d", max_steps=1, time_limit_s=1.0, on_worker_death=OnWorkerDeath.FAIL)
    leave(database, held, *(new(n, run=run) for n in range(2)), new(3))
    with pytest.raises(TooMuch):
        leave(database, held, new(4))


def test_what_is_open_is_counted_now_and_then_and_never_for_each_request(database: Database) -> None:
    counted: list[str] = []
    clock = Clock()
    held = Bounds(lambda: Queue(tasks_per_key=1000), clock)
    with database.writing() as c:
        c.set_trace_callback(lambda sql: counted.append(sql) if sql.startswith("SELECT count") else None)
        for number in range(500):
            ledger.add(c, new(number))
            held.admit(c, "k1", 1)
        once = 2 * (len(bounds.RANKS) + 1)
        assert len(counted) == once, "those that wait and those that run, of the key and of all"
        clock.now += bounds.COUNTED_FOR_S
        held.admit(c, "k1", 1)
        assert len(counted) == 2 * once
        c.set_trace_callback(None)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueParts]:
    """Without a worker: what is left stays open."""
    with QueueParts(tmp_path_factory.mktemp("queue") / "state") as parts:
        parts.deployment.ask(queue=Queue(tasks_per_key=1000, file_gib_per_key=1 / 1024))
        parts.start("tasks")
        yield parts


@pytest.fixture
def client(queue: QueueParts) -> Iterator[httpx.Client]:
    with queue.client(queue.deployment.add_key().key_id) as made:
        yield made


def error(response: httpx.Response, status: int, code: str) -> Any:
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert found["code"] == code, found
    return found


def upload(client: httpx.Client, content: bytes) -> httpx.Response:
    return client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("f.jsonl", content)})


def test_whoever_has_left_too_much_is_told_how_much_and_when_to_try_again(client: httpx.Client) -> None:
    many = {"tasks": [{"body": chat(str(n))} for n in range(999)]}
    assert client.post("/v1/tasks", json=many).status_code == 202
    last = {"body": chat("last"), "idempotency_key": "last"}
    assert client.post("/v1/tasks", json=last).status_code == 202
    refused = client.post("/v1/tasks", json={"body": chat("one more")})
    found = error(refused, 429, "too_many_open_tasks")
    assert "1,000" in found["message"] and "queue.tasks_per_key" in found["message"]
    assert found["type"] == "rate_limit_error" and int(refused.headers["retry-after"]) >= 1
    assert client.post("/v1/tasks", json=last).status_code == 202, "what is known is no more"
    listed = client.get("/v1/tasks", params={"limit": 1}).json()["data"][0]
    client.post(f"/v1/tasks/{listed['id']}/cancel")
    until(lambda: client.post("/v1/tasks", json={"body": chat("one more")}).status_code == 202, 10)


def test_files_above_a_keys_bound_are_refused_and_leave_nothing_until_some_are_deleted(
    queue: QueueParts, client: httpx.Client
) -> None:
    first = upload(client, b"x" * (MIB - 1000)).json()["id"]
    before = sorted(one.name for one in queue.paths.root.joinpath("tasks/files").iterdir())
    for content in (b"y" * MIB, b"y" * 2000):  # known before it is sent, and afterwards
        found = error(upload(client, content), 413, "too_many_file_bytes")
        assert "queue.file_gib_per_key" in found["message"]
    assert sorted(one.name for one in queue.paths.root.joinpath("tasks/files").iterdir()) == before
    assert upload(client, b"z" * 900).status_code == 200
    assert client.delete(f"/v1/files/{first}").status_code == 200
    assert upload(client, b"y" * 2000).status_code == 200


def test_a_file_that_many_batches_read_counts_for_each_of_them(client: httpx.Client) -> None:
    text = jsonl(*(line(f"r-{n}", "x" * 1000) for n in range(400)))
    file = upload(client, text).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    batches = [client.post("/v1/batches", json=asked) for _ in range(3)]
    assert [one.status_code for one in batches[:2]] == [200, 200]
    error(batches[2], 429, "too_many_open_batches")
    second = f"/v1/batches/{batches[1].json()['id']}"
    until(lambda: client.get(second).json()["status"] == "in_progress", 20)
    error(client.delete(f"/v1/files/{file}"), 400, "file_in_use")
    client.post(f"/v1/batches/{batches[0].json()['id']}/cancel")
    until(lambda: client.post("/v1/batches", json=asked).status_code == 200, 20)
