"""What breaks around the queue loses no task and gives none two answers: workers, the bell, the part itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gonogo.tasks import leases, ledger
from gonogo.tasks.nouns import MOST_LOSSES, State
from gonogo.tasks.places import open_queue
from tests.shell.policy_parts import until
from tests.shell.tasks_parts import QueueParts, Said, chat, content_of, echo, jsonl, line


def leave(client: httpx.Client, *texts: str) -> list[str]:
    made = client.post("/v1/tasks", json={"tasks": [{"body": chat(text)} for text in texts]})
    assert made.status_code == 202, made.text
    return [one["id"] for one in made.json()["data"]]


def states(parts: QueueParts) -> dict[str, int]:
    queue = open_queue(parts.paths)
    with queue.database.reading() as c:
        counts = ledger.counts(c)
    queue.database.close()
    return {state.value: getattr(counts, state.value) for state in State if getattr(counts, state.value)}


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(one) for one in found.stdout.split()]


def busy_for(seconds: float) -> Any:
    return lambda body: Said(body=echo(body).body, after_s=seconds)


def test_workers_and_their_children_are_killed_again_and_again_and_the_bell_is_emptied(tmp_path: Path) -> None:
    chance = random.Random(6)
    with QueueParts(tmp_path / "state", busy_for(0.02)) as parts:
        parts.start("valkey", "tasks", "worker")
        with parts.client() as client:
            names = [name for n in range(4) for name in leave(client, *(f"{n}-{i}" for i in range(150)))]
            for number in range(10):
                time.sleep(chance.uniform(0.2, 0.5))
                parts.keep("worker")
                worker = parts.processes["worker"].pid
                below = children(worker)
                if number % 2 and below:
                    os.kill(chance.choice(below), signal.SIGKILL)  # as the kernel does when memory runs out
                else:
                    parts.kill("worker")
                    parts.start("worker", wait=False)
                if number == 5:
                    parts.kill("valkey")
                    for path in (parts.paths.root / "valkey").rglob("*"):
                        path.unlink() if path.is_file() else None
                    parts.start("valkey")
            until(lambda: parts.keep("worker") or states(parts) == {"done": 600}, 120)
            for name in random.Random(1).sample(names, 30):
                task = client.get(f"/v1/tasks/{name}").json()
                assert task["result"]["body"]["choices"][0]["message"]["content"].startswith("echo ")
    assert {text for _, text in parts.gateway.asked} == {f"{n}-{i}" for n in range(4) for i in range(150)}


def test_without_the_bell_tasks_are_taken_and_wait_until_it_is_back(tmp_path: Path) -> None:
    with QueueParts(tmp_path / "state") as parts:
        parts.start("tasks")
        with parts.client() as client:
            leave(client, "a", "b")
            parts.start("worker", wait=False)
            time.sleep(1.5)
            assert states(parts) == {"queued": 2}
            parts.start("valkey")
            until(lambda: states(parts) == {"done": 2}, 60)


def test_a_task_that_kills_every_worker_is_a_dead_letter_and_the_others_are_done(tmp_path: Path) -> None:
    with QueueParts(tmp_path / "state") as parts:
        parts.gateway.answer = lambda body: Said(after_s=60.0) if content_of(body) == "poison" else echo(body)
        parts.start("valkey", "tasks", "worker")
        with parts.client() as client:
            names = leave(client, "poison", *(f"good-{n}" for n in range(20)))
            seen = 0
            while client.get(f"/v1/tasks/{names[0]}").json()["state"] != "dead":
                parts.keep("worker")
                asked = [text for _, text in parts.gateway.asked].count("poison")
                if asked > seen:
                    seen = asked
                    for child in children(parts.processes["worker"].pid):
                        os.kill(child, signal.SIGKILL)
                time.sleep(0.05)
                assert seen <= MOST_LOSSES + 2, "it is not tried for ever"
            until(lambda: parts.keep("worker") or states(parts) == {"done": 20, "dead": 1}, 60)
            found = client.get(f"/v1/tasks/{names[0]}").json()["error"]
            assert found["code"] == "worker_lost" and f"{MOST_LOSSES} times" in found["message"]


def test_an_engine_that_fails_is_tried_again_and_no_room_is_waited_for(tmp_path: Path) -> None:
    said: dict[str, list[int]] = {"flaky": [500, 502, 200], "full": [429, 503, 429, 503, 429, 503, 429, 200]}

    def answer(body: Any) -> Said:
        status = said[content_of(body)].pop(0)
        return echo(body) if status == 200 else Said(status=status, headers={"retry-after": "0"})

    with QueueParts(tmp_path / "state", answer) as parts:
        parts.start("valkey", "tasks", "worker")
        with parts.client() as client:
            names = leave(client, "flaky", "full")
            until(lambda: states(parts) == {"done": 2}, 60)
            tried = [client.get(f"/v1/tasks/{name}").json()["attempts"] for name in names]
            assert tried == [2, 0], "having had no room is no attempt"


def test_the_part_that_is_killed_while_it_reads_a_batch_goes_on_where_it_was(tmp_path: Path) -> None:
    lines = 6000
    with QueueParts(tmp_path / "state") as parts:
        parts.start("valkey", "tasks")
        with parts.client() as client:
            content = jsonl(*(line(f"r-{n}") for n in range(lines)))
            file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("f", content)}).json()
            given = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "1h"}
            batch_id = client.post("/v1/batches", json=given).json()["id"]
        kills = 0
        while states(parts).get("queued", 0) < lines:
            until(lambda wanted=kills * 1500: states(parts).get("queued", 0) > wanted, 60)  # type: ignore[misc]
            if kills < 3:
                parts.kill("tasks")
                parts.start("tasks")
                kills += 1
        parts.start("worker")
        with parts.client() as client:
            until(lambda: client.get(f"/v1/batches/{batch_id}").json()["status"] == "completed", 120)
            batch = client.get(f"/v1/batches/{batch_id}").json()
            assert batch["request_counts"] == {"total": lines, "completed": lines, "failed": 0}
            told = [json.loads(one) for one in client.get(f"/v1/files/{batch['output_file_id']}/content").iter_lines()]
            assert [one["custom_id"] for one in told] == [f"r-{n}" for n in range(lines)]
            until(lambda: states(parts) == {}, 60)


def test_a_key_that_is_revoked_ends_what_its_owner_left(tmp_path: Path) -> None:
    with QueueParts(tmp_path / "state") as parts:
        parts.start("valkey", "tasks")
        with parts.client() as client:
            names = leave(client, "a", "b")
            parts.deployment.revoke(parts.key)
            parts.start("worker")
            for name in names:
                task = client.get(f"/v1/tasks/{name}", params={"wait": 30}).json()
                assert (task["state"], task["error"]["code"]) == ("failed", "http_401")
        assert parts.gateway.asked == []


def test_a_worker_that_is_asked_to_end_gives_back_what_it_has_under_way(tmp_path: Path) -> None:
    with QueueParts(tmp_path / "state", busy_for(30.0)) as parts:
        parts.start("valkey", "tasks", "worker")
        with parts.client() as client:
            leave(client, "a", "b")
            until(lambda: parts.gateway.running == 2, 30)
            worker = parts.processes["worker"]
            worker.terminate()
            worker.wait(20)
            until(lambda: states(parts) == {"queued": 2}, 10)
            queue = open_queue(parts.paths)
            with queue.database.reading() as c:
                assert c.execute("SELECT sum(losses) + sum(attempts) FROM tasks").fetchone()[0] == 0
                assert leases.holders(c, leases.Machine.this()) == ()


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_an_input_that_cannot_be_read_fails_its_batch_and_no_other(tmp_path: Path, damage: str) -> None:
    with QueueParts(tmp_path / "state") as parts:
        parts.start("valkey", "tasks", "worker")
        with parts.client() as client:
            made = []
            for _ in range(2):
                content = jsonl(*(line(f"r-{n}") for n in range(3)))
                file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("f", content)}).json()
                made.append(file["id"])
            path = parts.paths.root / "tasks" / "files" / made[0]
            path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1])
            given = {"endpoint": "/v1/chat/completions", "completion_window": "1h"}
            batches = [client.post("/v1/batches", json={**given, "input_file_id": one}).json()["id"] for one in made]
            over = ("failed", "completed")
            until(lambda: all(client.get(f"/v1/batches/{one}").json()["status"] in over for one in batches), 60)
            ended = [client.get(f"/v1/batches/{one}").json() for one in batches]
            assert [one["status"] for one in ended] == ["failed", "completed"]
            assert ended[0]["errors"]["data"][0]["code"] == "input_unreadable"
