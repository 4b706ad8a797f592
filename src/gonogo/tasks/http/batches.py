"""/v1/batches, OpenAI's: run every line of an uploaded file within a window."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gonogo.tasks import batches, ledger
from gonogo.tasks.asked import ENDPOINTS, HOLDS_HALF, Wrong, is_whole, kind, read_window
from gonogo.tasks.batches import Batch
from gonogo.tasks.http.desk import LARGEST_PAGE, Desk, NotThere, Reply, asks_only, body, listed, number, owner
from gonogo.tasks.http.files import file_of
from gonogo.tasks.nouns import Counts

FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata")
MOST_METADATA, LONGEST_METADATA_KEY, LONGEST_METADATA_VALUE = 16, 64, 512


async def create(desk: Desk, request: Request) -> Response:
    """The file's lines are read afterwards; what is wrong with one is told in the error file."""
    whose = owner(request)
    given = await body(request, FIELDS)
    endpoint, window = given.get("endpoint"), given.get("completion_window")
    if endpoint not in ENDPOINTS:
        raise Wrong("invalid_endpoint", f"`endpoint` must be one of {', '.join(ENDPOINTS)}.", "endpoint")
    if window is None:
        raise Wrong("invalid_window", "`completion_window` is missing: a time like 24h.", "completion_window")
    window_s = read_window(window, "completion_window", 0.0)
    metadata = _metadata(given.get("metadata"))
    input_file = given.get("input_file_id")
    if not isinstance(input_file, str):
        seen = "is missing" if input_file is None else f"is {kind(input_file)}"
        message = f"`input_file_id` must be the id of an uploaded file, and {seen}."
        raise Wrong("invalid_file", message, "input_file_id")
    file = await file_of(desk, input_file, whose, "input_file_id")
    if file.purpose != "batch":
        raise Wrong("invalid_file", "`input_file_id` must be a file with the purpose `batch`.", "input_file_id")
    batch_id, now = f"batch_{secrets.token_hex(12)}", desk.wall()
    sealed = None if metadata is None else desk.queue.bodies.seal(batch_id, "metadata", metadata)
    row = Batch(
        batch_id=batch_id,
        owner=whose,
        endpoint=str(endpoint),
        input_file=file.file_id,
        window=str(window),
        metadata=sealed,
        state=batches.VALIDATING,
        created_at=now,
        expires_at=now + window_s,
        lines=0,
        **dict.fromkeys(_LATER),
    )

    def write(c: Any) -> None:
        desk.bounds.admit_batch(c, whose, file.bytes)
        batches.add(c, row)

    await asyncio.wrap_future(desk.writer.write(write))
    return Reply(shown(desk, row, Counts()))


async def listing(desk: Desk, request: Request) -> Response:
    """This key's batches, newest first."""
    asks_only(request, "limit", "after")
    whose, limit = owner(request), number(request, "limit", 20, LARGEST_PAGE)
    after = request.query_params.get("after")

    def look() -> tuple[list[dict[str, Any]], bool]:
        with desk.queue.database.reading() as c:
            since = None if after is None else batches.batch(c, after, whose)
            if after is not None and since is None:
                raise NotThere("batch", after, "after")
            found = batches.page(c, whose, after=since, limit=limit + 1)
            return [shown(desk, row, _counts(c, row)) for row in found[:limit]], len(found) > limit

    return listed(*await asyncio.to_thread(look))


async def get(desk: Desk, request: Request) -> Response:
    return Reply(await asyncio.to_thread(_look, desk, request.path_params["batch_id"], owner(request)))


async def cancel(desk: Desk, request: Request) -> Response:
    """No line begins any more; the answers that are there come into the output file."""
    batch_id, whose = request.path_params["batch_id"], owner(request)
    before = await asyncio.to_thread(_look, desk, batch_id, whose)
    done = await asyncio.wrap_future(desk.writer.write(lambda c: batches.cancel(c, batch_id, desk.wall())))
    if not done:
        raise Wrong("batch_not_cancellable", f"The batch is {before['status']}; it cannot be cancelled any more.")
    return Reply(await asyncio.to_thread(_look, desk, batch_id, whose))


def shown(desk: Desk, row: Batch, counts: Counts) -> dict[str, Any]:
    """A batch as OpenAI's API shows it."""
    failed = counts.failed + counts.dead + counts.cancelled
    error = {"code": row.error_code, "message": row.error_message, "param": None, "line": None}
    ended = {f"{state}_at": _whole(row.finished_at) if row.state == state else None for state in _ENDS}
    metadata = None if row.metadata is None else desk.queue.bodies.open(row.batch_id, "metadata", row.metadata)
    return {
        "id": row.batch_id,
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": None if row.error_code is None else {"object": "list", "data": [error]},
        "input_file_id": row.input_file,
        "completion_window": row.window,
        "status": row.state,
        "output_file_id": row.output_file,
        "error_file_id": row.error_file,
        "created_at": int(row.created_at),
        "in_progress_at": _whole(row.in_progress_at),
        "expires_at": int(row.expires_at),
        "finalizing_at": _whole(row.finalizing_at),
        "cancelling_at": _whole(row.cancelling_at),
        **ended,
        "request_counts": {
            "total": counts.total if row.total is None else row.total,
            "completed": counts.done if row.completed is None else row.completed,
            "failed": failed if row.failed is None else row.failed,
        },
        "metadata": metadata,
    }


def _look(desk: Desk, batch_id: str, whose: str) -> dict[str, Any]:
    with desk.queue.database.reading() as c:
        row = batches.batch(c, batch_id, whose)
        if row is None:
            raise NotThere("batch", batch_id)
        return shown(desk, row, _counts(c, row))


def _counts(c: Any, row: Batch) -> Counts:
    return Counts() if row.total is not None else ledger.counts(c, row.batch_id)


def _metadata(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Wrong("invalid_metadata", f"`metadata` must be an object, it is {kind(value)}.", "metadata")
    if len(value) > MOST_METADATA:
        message = f"`metadata` has {len(value)} entries; there may be {MOST_METADATA}."
        raise Wrong("invalid_metadata", message, "metadata")
    for place, (name, text) in enumerate(value.items(), start=1):
        seen = _odd_metadata(name, text)
        if seen is not None:
            raise Wrong("invalid_metadata", f"Entry {place} of `metadata`: {seen}.", "metadata")
    return dict(value)


def _odd_metadata(name: str, text: object) -> str | None:
    """What is wrong with one entry, without its words."""
    if len(name) > LONGEST_METADATA_KEY:
        return f"its name has {len(name)} characters; there may be {LONGEST_METADATA_KEY}"
    if not isinstance(text, str):
        return f"its value must be a string, it is {kind(text)}"
    if len(text) > LONGEST_METADATA_VALUE:
        return f"its value has {len(text)} characters; there may be {LONGEST_METADATA_VALUE}"
    return None if is_whole(name + text) else f"it {HOLDS_HALF.rstrip('.')}"


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)


_ENDS = ("completed", "failed", "expired", "cancelled")
_LATER: Any = (
    *("output_file", "error_file", "error_code", "error_message", "total", "completed", "failed"),
    *("in_progress_at", "finalizing_at", "finished_at", "cancelling_at"),
)
