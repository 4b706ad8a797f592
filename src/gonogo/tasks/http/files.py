"""/v1/files, OpenAI's: an upload goes to the disk piece by piece, sealed, however large it is."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Iterator

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gonogo.tasks import files
from gonogo.tasks.asked import Wrong, is_whole, only
from gonogo.tasks.bounds import TooMuch
from gonogo.tasks.files import PURPOSES, File
from gonogo.tasks.http.desk import Desk, NotThere, Reply, asks_only, listed, number, owner
from gonogo.tasks.vault import Writing

FIELDS = ("purpose", "file")
MOST_FILE_BYTES = 2 * 2**30
MOST_FIELD_BYTES = 1024
FRAME_BYTES = 8192
"""What multipart/form-data puts around a file is less."""
LARGEST_PAGE = 10_000


async def create(desk: Desk, request: Request) -> Response:
    """multipart/form-data with `purpose` and `file`."""
    whose = owner(request)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Wrong("invalid_upload", "An upload is multipart/form-data with the fields `purpose` and `file`.")
    await _require_room(desk, request, whose)
    file_id = f"file-{secrets.token_hex(12)}"
    with desk.queue.vault.write(file_id) as writing:
        form = _Form(writing)
        parser = MultipartParser(boundary, form.callbacks())
        async for piece in request.stream():
            await asyncio.to_thread(_feed, parser, piece)
        form.check()
        await asyncio.to_thread(writing.finish)
    purpose = form.fields["purpose"]
    row = File(
        file_id=file_id,
        owner=whose,
        name=desk.queue.bodies.seal(file_id, "name", form.name),
        purpose=purpose,
        bytes=writing.bytes,
        created_at=desk.wall(),
    )

    def write(c: Any) -> None:
        desk.bounds.admit_file(c, whose, row.bytes)
        files.add(c, row)

    try:
        await asyncio.wrap_future(desk.writer.write(write))
    except TooMuch:
        await asyncio.to_thread(desk.queue.vault.remove, file_id)
        raise
    return Reply(shown(desk, row))


async def listing(desk: Desk, request: Request) -> Response:
    """This key's files, newest first, or with `order=asc` oldest first."""
    asks_only(request, "limit", "after", "purpose", "order")
    whose, limit = owner(request), number(request, "limit", LARGEST_PAGE, LARGEST_PAGE)
    after, purpose = request.query_params.get("after"), request.query_params.get("purpose")
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Wrong("invalid_query", "`order` must be asc or desc.", "order")
    since = None if after is None else await file_of(desk, after, whose, "after")

    def look() -> tuple[File, ...]:
        with desk.queue.database.reading() as c:
            return files.page(c, whose, after=since, limit=limit + 1, purpose=purpose, oldest_first=order == "asc")

    found = await asyncio.to_thread(look)
    return listed([shown(desk, row) for row in found[:limit]], len(found) > limit)


async def get(desk: Desk, request: Request) -> Response:
    return Reply(shown(desk, await file_of(desk, request.path_params["file_id"], owner(request))))


async def content(desk: Desk, request: Request) -> Response:
    """The file as it was sent, piece by piece."""
    row = await file_of(desk, request.path_params["file_id"], owner(request))
    pieces = desk.queue.vault.read(row.file_id)
    first = await asyncio.to_thread(next, pieces)  # what cannot be read at all is told before the answer begins
    headers = {"content-length": str(row.bytes)}
    return StreamingResponse(_streamed(first, pieces), media_type="application/octet-stream", headers=headers)


async def delete(desk: Desk, request: Request) -> Response:
    row = await file_of(desk, request.path_params["file_id"], owner(request))

    def remove(c: Any) -> None:
        if files.in_use(c, row.file_id):
            raise Wrong("file_in_use", "A batch of this file is not finished; cancel the batch, or wait for it.")
        files.remove(c, row.file_id)

    await asyncio.wrap_future(desk.writer.write(remove))
    await asyncio.to_thread(desk.queue.vault.remove, row.file_id)
    return Reply({"id": row.file_id, "object": "file", "deleted": True})


async def file_of(desk: Desk, file_id: str, whose: str, param: str | None = None) -> File:
    """A file of this owner's. Raises `NotThere`; `param` names the field that asks for it."""

    def look() -> File | None:
        with desk.queue.database.reading() as c:
            return files.file(c, file_id, whose) if is_whole(file_id) else None

    row = await asyncio.to_thread(look)
    if row is None:
        raise NotThere("file", file_id, param)
    return row


async def _require_room(desk: Desk, request: Request, whose: str) -> None:
    """Before anything is sent: what the upload says that it has, or as if it had nothing. Raises `TooMuch`."""
    said = request.headers.get("content-length", "")
    size_bytes = max(0, int(said[:15]) - FRAME_BYTES) if said.isascii() and said.isdigit() else 0

    def look() -> None:
        with desk.queue.database.reading() as c:
            desk.bounds.admit_file(c, whose, size_bytes)

    await asyncio.to_thread(look)


def shown(desk: Desk, row: File) -> dict[str, Any]:
    """A file as OpenAI's API shows it."""
    return {
        "id": row.file_id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created_at),
        "filename": desk.queue.bodies.open(row.file_id, "name", row.name),
        "purpose": row.purpose,
        "status": "processed",
    }


def _feed(parser: MultipartParser, piece: bytes) -> None:
    from python_multipart.exceptions import FormParserError

    try:
        parser.write(piece) if piece else parser.finalize()
    except FormParserError:
        raise Wrong("invalid_upload", "The upload is not well-formed multipart/form-data.") from None


async def _streamed(first: bytes, others: Iterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    while (piece := await asyncio.to_thread(next, others, None)) is not None:
        yield piece


@dataclass(slots=True)
class _Form:
    """The fields of one upload, read as they come; the file's bytes are handed on and not kept."""

    writing: Writing
    fields: dict[str, str] = field(default_factory=dict)
    name: str = ""
    whole: bool = False
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _field: str = ""
    _files: int = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._part_ends,
            "on_end": self._ends,
        }

    def check(self) -> None:
        """Raises `Wrong` for what is missing."""
        if not self.whole:
            raise Wrong("invalid_upload", "The upload ended before its closing boundary: send it once more.", "file")
        if self._files != 1:
            raise Wrong(
                "invalid_upload", f"An upload has one field `file`, this one has {self._files or 'none'}.", "file"
            )
        purpose = self.fields.get("purpose")
        if purpose != PURPOSES[0]:
            seen = "is missing" if purpose is None else "is another"
            raise Wrong("invalid_purpose", f"`purpose` must be {PURPOSES[0]}, and {seen}.", "purpose")

    def _part_begins(self) -> None:
        self._disposition, self._field = b"", ""
        self._header.clear()
        self._value.clear()

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        only({self._field.partition("[")[0]: None}, FIELDS)  # of expires_after[anchor] its first part
        if self._field == "file":
            self._files += 1
            self.name = options.get(b"filename", b"upload").decode("utf-8", "replace")[:255]

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field == "file" and self._files == 1:
            if self.writing.bytes + end - start > MOST_FILE_BYTES:
                raise Wrong("file_too_large", f"A file may have {MOST_FILE_BYTES // 2**30} GiB at most.", "file")
            self.writing.add(data[start:end])
        elif len(self._value) + end - start <= MOST_FIELD_BYTES:
            self._value.extend(data[start:end])
        else:
            raise Wrong("invalid_upload", f"A field of the upload is longer than {MOST_FIELD_BYTES} bytes.")

    def _part_ends(self) -> None:
        if self._field != "file":
            self.fields[self._field] = self._value.decode("utf-8", "replace")
        self._value.clear()

    def _ends(self) -> None:
        self.whole = True
