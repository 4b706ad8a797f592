"""Batches are moved on one by one, and what is wrong with one holds up no other. Without processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gonogo.runtimes.paths import StatePaths
from gonogo.tasks import batches, files, ledger
from gonogo.tasks.advance import Office, advance
from gonogo.tasks.asked import Wrong
from gonogo.tasks.batches import Batch
from gonogo.tasks.files import File
from gonogo.tasks.places import Queue, open_queue
from tests.shell.tasks_parts import jsonl, line


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(StatePaths.of(tmp_path / "state"))


def office(queue: Queue) -> Office:
    return Office(database=queue.database, bodies=queue.bodies, vault=queue.vault, wall=time.time, stop=lambda: False)


def begin(queue: Queue, name: str, content: bytes, at: float = 1.0, window: str = "24h") -> str:
    """A file and a batch of it, as they are once a client has left them."""
    file_id, batch_id = f"file-{name}", f"batch_{name}"
    with queue.vault.write(file_id) as writing:
        writing.add(content)
        writing.finish()
    file = File(
        file_id=file_id,
        owner="alice00000",
        name=queue.bodies.seal(file_id, "name", "in.jsonl"),
        purpose="batch",
        bytes=len(content),
        created_at=at,
    )
    row: dict[str, Any] = {
        **dict.fromkeys(Batch.__slots__),
        "batch_id": batch_id,
        "owner": "alice00000",
        "endpoint": "/v1/chat/completions",
        "input_file": file_id,
        "window": window,
        "state": batches.VALIDATING,
        "lines": 0,
        "created_at": at,
        "expires_at": at + 86400,
    }
    with queue.database.writing() as c:
        files.add(c, file)
        batches.add(c, Batch(**row))
    return batch_id


def state_of(queue: Queue, batch_id: str) -> str:
    with queue.database.reading() as c:
        found = batches.batch(c, batch_id)
    assert found is not None
    return found.state


def test_a_batch_that_cannot_be_moved_on_holds_up_no_other_and_is_told(queue: Queue) -> None:
    broken = begin(queue, "a", jsonl(line("x")), at=1.0, window="of another gonogo")
    good = begin(queue, "b", jsonl(line("y")), at=2.0)
    with pytest.raises(Wrong, match="completion_window"):
        advance(office(queue))
    assert (state_of(queue, broken), state_of(queue, good)) == ("validating", "in_progress")


def test_lines_that_no_ledger_can_hold_are_told_and_the_others_wait(queue: Queue) -> None:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    odd = [
        line("half", body={"model": "\ud800", "messages": []}),
        line("deep", body={"messages": [{"content": deep}]}),
        line("dear", body={"messages": [], "max_tokens": 10**30}),
        line("\ud800"),
        line("good"),
    ]
    batch_id = begin(queue, "c", jsonl(*odd))
    assert advance(office(queue)) == 5
    with queue.database.reading() as c:
        counts = ledger.counts(c, batch_id)
    assert (state_of(queue, batch_id), counts.queued, counts.failed) == ("in_progress", 3, 2)
