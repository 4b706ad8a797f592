"""Moves batches on: their lines become tasks, and what became of those becomes their files. A crash anywhere is
repaired by the next round: lines are recorded together with how far the file was read, files before they are named.
"""

from __future__ import annotations

import itertools
import json
import secrets
import sqlite3
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterator

from gonogo.security.keyring import KeyFileError
from gonogo.security.sealing import SealError
from gonogo.store.faults import StoreError
from gonogo.tasks import batches, files, ledger
from gonogo.tasks.asked import read_window
from gonogo.tasks.batches import Batch, Made
from gonogo.tasks.bodies import Bodies
from gonogo.tasks.database import Database
from gonogo.tasks.lines import DUPLICATE, LONGEST_LINE_BYTES, Line, mark_of, read_line
from gonogo.tasks.nouns import NewTask, State, Task
from gonogo.tasks.vault import Vault, Writing, lines

LINES_AT_ONCE, BYTES_AT_ONCE = 1000, 8 * 2**20
"""Lines become tasks in transactions of at most so many: the write lock is never held for long."""
BULK_CACHE_MIB = 48
"""For the indexes of a million lines: with SQLite's 2 MiB nearly every line reads a page of them again."""
PAGE = 100
CANCELLED_AT_ONCE = 5000
_IN_ERRORS = (State.FAILED, State.DEAD, State.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What batches are moved on with. `wall` gives Unix seconds; `stop` says whether to end soon."""

    database: Database
    bodies: Bodies
    vault: Vault
    wall: Callable[[], float]
    stop: Callable[[], bool]


def advance(office: Office) -> int:
    """Move every batch on as far as it goes now; how many lines became tasks.

    Raises `StoreError`s, OSError; also what one batch cannot be moved on for, once all others were.
    """
    with office.database.reading() as c:
        unfinished = batches.unfinished(c)
    made, fault = 0, None
    for batch in unfinished:
        if office.stop():
            break
        try:
            made += _advance(office, batch)
        except (StoreError, OSError):
            raise  # so it is for every batch
        except Exception as error:  # noqa: BLE001 (the boundary: what is wrong with one batch holds up no other)
            fault = error
    with office.database.writing() as c:
        ledger.forget(c, batches.finished_with_lines(c, CANCELLED_AT_ONCE))
    if fault is not None:
        raise fault
    return made


def _advance(office: Office, batch: Batch) -> int:
    made = 0
    now = office.wall()
    if batch.state == batches.VALIDATING:
        try:
            with closing(Database(office.database.path, BULK_CACHE_MIB)) as bulk:
                made = _read(replace(office, database=bulk), batch)
        except (SealError, KeyFileError, FileNotFoundError) as error:
            with office.database.writing() as c:
                batches.fail(c, batch.batch_id, "input_unreadable", f"The input file cannot be read: {error}", now)
            return 0
    if batch.state == batches.CANCELLING:
        while _cancel_some(office, batch):
            pass
    if batch.state in (batches.IN_PROGRESS, batches.CANCELLING, batches.FINALIZING):
        with office.database.writing() as c:
            if batches.open_lines(c, batch.batch_id):
                return made
            if batch.state == batches.IN_PROGRESS:
                batches.move(c, batch.batch_id, batches.IN_PROGRESS, batches.FINALIZING, now)
        _conclude(office, batch)
    return made


def _cancel_some(office: Office, batch: Batch) -> int:
    message = "The batch was cancelled before this request was done."
    with office.database.writing() as c:
        return ledger.cancel_batch(c, batch.batch_id, "batch_cancelled", message, CANCELLED_AT_ONCE, office.wall())


def _read(office: Office, batch: Batch) -> int:
    """Make tasks of the lines that are not yet; goes on where an earlier round or process ended."""
    window_s = read_window(batch.window, "completion_window", 0.0)
    found = enumerate(lines(office.vault.read(batch.input_file), LONGEST_LINE_BYTES), start=1)
    fresh = ((number, text) for number, text in found if number > batch.lines)
    made, number = 0, batch.lines
    for group in _groups(fresh):
        news = [_new(office, batch, number, text, window_s) for number, text in group if text is None or text.strip()]
        number = group[-1][0]
        with office.database.writing() as c:
            if office.stop() or not batches.read_on(c, batch.batch_id, number):
                return made  # cancelled meanwhile
            for new in news:
                _add(c, new)
        made += len(news)
    with office.database.writing() as c:
        if ledger.counts(c, batch.batch_id).total == 0:
            batches.fail(c, batch.batch_id, "empty_file", "The input file has no line with a request.", office.wall())
        else:
            batches.move(c, batch.batch_id, batches.VALIDATING, batches.IN_PROGRESS, office.wall())
    return made


def _groups(found: Iterator[tuple[int, bytes | None]]) -> Iterator[list[tuple[int, bytes | None]]]:
    group: list[tuple[int, bytes | None]] = []
    held = 0
    for number, text in found:
        group.append((number, text))
        held += len(text or b"")
        if len(group) >= LINES_AT_ONCE or held >= BYTES_AT_ONCE:
            yield group
            group, held = [], 0
    if group:
        yield group


def _new(office: Office, batch: Batch, number: int, text: bytes | None, window_s: float) -> NewTask:
    line = read_line(text, batch.endpoint)
    task_id = f"batch_req_{batch.batch_id.removeprefix('batch_')}{number:08x}"  # in order: a cheap index
    asked = line.asked
    body: dict[str, Any] = {"custom_id": line.custom_id}
    if asked is not None:
        body |= {"url": asked.url, "body": asked.body}
    return NewTask(
        task_id=task_id,
        owner=batch.owner,
        url=batch.endpoint,
        model=None if asked is None else asked.model,
        tokens=0 if asked is None else asked.tokens,
        prompt=office.bodies.seal(task_id, "prompt", body),
        created_at=office.wall(),
        expires_at=batch.created_at + window_s,
        batch_id=batch.batch_id,
        line=number,
        mark=_mark(batch, line),
        failed=line.wrong,
    )


def _mark(batch: Batch, line: Line) -> bytes | None:
    return None if line.custom_id is None or line.wrong else mark_of(batch.batch_id, line.custom_id)


def _add(c: sqlite3.Connection, new: NewTask) -> None:
    if (
        new.mark is not None
        and c.execute("SELECT 1 FROM tasks WHERE batch_id = ? AND mark = ?", (new.batch_id, new.mark)).fetchone()
    ):
        fields = {name: getattr(new, name) for name in NewTask.__slots__}
        new = NewTask(**{**fields, "mark": None, "failed": DUPLICATE})
    ledger.add(c, new)


def _conclude(office: Office, batch: Batch) -> None:
    """Write the files of a batch of which no line is open any more, and name them in its row."""
    now = office.wall()
    with ExitStack() as stack:
        output = _Output(office, batch, "output", stack)
        errors = _Output(office, batch, "error", stack)
        expired = 0
        for states, into in (((State.DONE,), output), (_IN_ERRORS, errors)):
            for task, prompt, result in _lines(office, batch, states):
                expired += task.reason == "expired"
                into.add(_told(office, task, prompt, result))
        made = Made(
            state=batches.CANCELLED if batch.cancelling_at else (batches.EXPIRED if expired else batches.COMPLETED),
            output_file=output.finish(),
            error_file=errors.finish(),
            total=output.lines + errors.lines,
            completed=output.lines,
            failed=errors.lines,
        )
        with office.database.writing() as c:
            for one in (output, errors):
                if one.lines:
                    files.add(c, one.row(now))
            batches.finish(c, batch.batch_id, made, now)


def _lines(office: Office, batch: Batch, states: tuple[State, ...]) -> Iterator[tuple[Task, bytes, bytes | None]]:
    """Page by page, so that no reading stays open while a large file is written."""
    for state in states:
        after = -1
        while True:
            with office.database.reading() as c:
                rows = list(itertools.islice(ledger.lines_of(c, batch.batch_id, state, after), PAGE))
            yield from rows
            if len(rows) < PAGE:
                break
            after = rows[-1][0].number


def _told(office: Office, task: Task, prompt: bytes, result: bytes | None) -> dict[str, Any]:
    """A line of an output or error file, as OpenAI writes it, and the number of the line in the input."""
    answer = None if result is None else office.bodies.open(task.task_id, "result", result)
    response = None
    if answer is not None:
        response = {"status_code": answer["status"], "request_id": answer["request_id"], "body": answer["body"]}
    error = None
    if answer is None:
        code = "batch_expired" if task.reason == "expired" else task.reason
        error = {"code": code, "message": task.message, "line": task.line}
    return {
        "id": task.task_id,
        "custom_id": office.bodies.open(task.task_id, "prompt", prompt)["custom_id"],
        "response": response,
        "error": error,
        "line": task.line,
    }


class _Output:
    """A file of a batch, begun with its first line: a batch without errors has no error file."""

    def __init__(self, office: Office, batch: Batch, kind: str, stack: ExitStack) -> None:
        self._office, self._batch, self._kind, self._stack = office, batch, kind, stack
        self._file_id = f"file-{secrets.token_hex(12)}"
        self._writing: Writing | None = None
        self.lines = 0

    def add(self, line: dict[str, Any]) -> None:
        if self._writing is None:
            self._writing = self._stack.enter_context(self._office.vault.write(self._file_id))
        self._writing.add(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self.lines += 1

    def finish(self) -> str | None:
        if self._writing is None:
            return None
        self._writing.finish()
        return self._file_id

    def row(self, now: float) -> files.File:
        assert self._writing is not None
        name = f"{self._batch.batch_id}_{self._kind}.jsonl"
        return files.File(
            file_id=self._file_id,
            owner=self._batch.owner,
            name=self._office.bodies.seal(self._file_id, "name", name),
            purpose="batch_output",
            bytes=self._writing.bytes,
            created_at=now,
        )
