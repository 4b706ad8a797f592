"""A model hub on loopback with Hugging Face's interface and ModelScope's: counts what it sends, fails on demand.

Large files lie, as on the real one, behind a redirect to another host ("storage"). Their weights are zeros made while
they are sent, so a file of gigabytes costs nothing. That it is like the real one is tested with the real library.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, AsyncIterator, Callable, Iterator, Mapping
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE_BYTES = 64 * 1024
Fault = Callable[[Request], Response]


@dataclass(frozen=True)
class HubFile:
    """`start` and then zeros up to `size`. `large`: stored as LFS, its SHA-256 on record."""

    start: bytes
    size: int
    large: bool
    recorded_sha256: str | None = None

    @cached_property
    def sha256(self) -> str:
        if self.recorded_sha256 is not None:
            return self.recorded_sha256
        digest = hashlib.sha256(self.start)
        left = self.size - len(self.start)
        while left > 0:
            digest.update(bytes(min(left, 1 << 20)))
            left -= 1 << 20
        return digest.hexdigest()

    @property
    def git_sha1(self) -> str:
        """Git's name for a small file's content; of a large one the real hub has the pointer's here."""
        return hashlib.sha1(f"blob {len(self.start)}\0".encode() + self.start).hexdigest()

    def part(self, first: int, last: int) -> bytes:
        found = self.start[first : last + 1]
        return found + bytes(last + 1 - first - len(found))


def small(content: bytes | Mapping[str, Any]) -> HubFile:
    told = content if isinstance(content, bytes) else json.dumps(content).encode()
    return HubFile(start=told, size=len(told), large=False)


def large(start: bytes, size: int, sha256: str | None = None) -> HubFile:
    return HubFile(start=start, size=size, large=True, recorded_sha256=sha256)


@dataclass
class FakeHub:
    """`models`: id → file's name → file. `faults`: what stands in the path → what is answered instead.

    `older`: commits that the branch has left, with their files. `bytes_per_s`: how fast each large file's answer is.
    """

    models: dict[str, dict[str, HubFile]] = field(default_factory=dict)
    commit: str = COMMIT
    needs_token: str | None = None
    gated: bool = False
    faults: dict[str, Fault] = field(default_factory=dict)
    older: dict[str, dict[str, dict[str, HubFile]]] = field(default_factory=dict)
    ignores_ranges: bool = False
    bytes_per_s: float | None = None
    sent_bytes: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""
    storage: str = ""

    def asked(self, part: str) -> list[dict[str, str]]:
        """The headers of each request whose path holds this."""
        return [headers for _, path, headers in self.requests if part in path]

    def sent(self, part: str = "") -> int:
        """Bytes of bodies whose path holds this."""
        return sum(count for path, count in self.sent_bytes.items() if part in path)

    def moved(self, commit: str, **changed: HubFile) -> None:
        """The branch is another commit now; the one before can still be asked for by its name."""
        self.older[self.commit] = {model: dict(files) for model, files in self.models.items()}
        for files in self.models.values():
            files.update({name.replace("__", "."): file for name, file in changed.items()})
        self.commit = commit

    def _files(self, model: str, revision: str) -> dict[str, HubFile] | None:
        if revision in ("main", self.commit):
            return self.models[model]
        return self.older.get(revision, {}).get(model)

    def app(self) -> ASGIApp:
        routes = [
            Route("/api/models/{model:path}/revision/{revision}", self._listing),
            Route("/api/models/{model:path}/tree/{revision}", self._tree),
            Route("/api/v1/models/{model:path}/repo/files", self._model_scope_listing),
            Route("/api/v1/models/{model:path}/repo", self._model_scope_file),
            Route("/api/models/{model:path}", self._listing),
            Route("/storage/{model:path}/-/{name:path}", self._stored),
            Route("/{model:path}/resolve/{revision}/{name:path}", self._resolve),
        ]
        return self._counted(Starlette(routes=routes))

    def _counted(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            path = unquote(scope["path"])
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            self.requests.append((scope["method"], path, headers))

            async def counting(message: Message) -> None:
                if message["type"] == "http.response.body":
                    self.sent_bytes[path] = self.sent_bytes.get(path, 0) + len(message.get("body", b""))
                await send(message)

            await app(scope, receive, counting)

        return counted

    def _refused(self, request: Request, model: str) -> Response | None:
        for part, fault in self.faults.items():
            if part in str(request.url):
                return fault(request)
        token = request.headers.get("authorization")
        if self.needs_token is not None and token != f"Bearer {self.needs_token}":
            code = "GatedRepo" if self.gated else ""
            return error(403 if token and self.gated else 401, code, "Access to this model is restricted")
        if model not in self.models:
            return error(404, "RepoNotFound", "Repository not found")
        return None

    async def _listing(self, request: Request) -> Response:
        model, revision = request.path_params["model"], request.path_params.get("revision", "main")
        if (refused := self._refused(request, model)) is not None:
            return refused
        if revision not in ("main", self.commit):
            return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        siblings = []
        for name, file in self.models[model].items():
            told: dict[str, Any] = {"rfilename": name}
            if request.query_params.get("blobs", "").lower() == "true":
                told |= {"blobId": file.git_sha1, "size": file.size}
                if file.large:
                    told["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 135}
            siblings.append(told)
        answer = {
            "id": model,
            "modelId": model,
            "sha": self.commit,
            "private": False,
            "gated": False,
            "disabled": False,
        }
        return JSONResponse({**answer, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})

    async def _tree(self, request: Request) -> Response:
        model = request.path_params["model"]
        if (refused := self._refused(request, model)) is not None:
            return refused
        entries = []
        for name, file in self.models[model].items():
            told: dict[str, Any] = {"type": "file", "path": name, "size": file.size}
            told["oid"] = file.git_sha1
            if file.large:
                told["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 135}
            entries.append(told)
        return JSONResponse(entries)

    async def _resolve(self, request: Request) -> Response:
        model, name = request.path_params["model"], request.path_params["name"]
        if (refused := self._refused(request, model)) is not None:
            return refused
        revision = request.path_params["revision"]
        files = self._files(model, revision)
        if files is None:
            return error(404, "RevisionNotFound", "Invalid rev id")
        file = files.get(name)
        if file is None:
            return error(404, "EntryNotFound", "Entry not found")
        etag = file.sha256 if file.large else file.git_sha1
        headers = {"x-repo-commit": self.commit, "etag": f'"{etag}"', "accept-ranges": "bytes"}
        if not file.large:
            return self._part(request, file, headers)
        headers |= {"x-linked-size": str(file.size), "x-linked-etag": f'"{etag}"'}
        return RedirectResponse(f"{self.storage}/storage/{model}/-/{name}?signed={revision}", 302, headers)

    async def _stored(self, request: Request) -> Response:
        for part, fault in self.faults.items():
            if part in str(request.url):
                return fault(request)
        files = self._files(request.path_params["model"], request.query_params.get("signed", "main"))
        assert files is not None
        file = files[request.path_params["name"]]
        return self._part(request, file, {"etag": f'"{file.sha256}"', "accept-ranges": "bytes"})

    async def _model_scope_listing(self, request: Request) -> Response:
        model = request.path_params["model"]
        if (refused := self._refused(request, model)) is not None:
            return refused
        files = [{"Name": "sub", "Path": "sub", "Type": "tree", "Size": 0, "Revision": self.commit}]
        for name, file in self.models[model].items():
            told = {"Name": name, "Path": name, "Type": "blob", "Size": file.size, "Revision": self.commit}
            files.append({**told, "Sha256": file.sha256, "IsLFS": file.large})
        return JSONResponse({"Code": 200, "Data": {"Files": files}, "Message": "success", "Success": True})

    async def _model_scope_file(self, request: Request) -> Response:
        model, name = request.path_params["model"], request.query_params["FilePath"]
        if (refused := self._refused(request, model)) is not None:
            return refused
        assert request.query_params["Revision"] == self.commit
        return self._part(request, self.models[model][name], {})

    def _part(self, request: Request, file: HubFile, headers: Mapping[str, str]) -> Response:
        """206 for one range, as nginx and the hub's storage give it; the whole otherwise."""
        asked = None if self.ignores_ranges else request.headers.get("range")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
        first, last = (int(found[1]), min(int(found[2] or file.size), file.size - 1)) if found else (0, file.size - 1)
        told = {**headers, "content-length": str(last - first + 1)}
        if found:
            told["content-range"] = f"bytes {first}-{last}/{file.size}"
        if request.method == "HEAD":
            return Response(None, 206 if found else 200, told)
        pieces: Any = _pieces(file, first, last)
        if self.bytes_per_s is not None and file.large:
            pieces = _slowed(pieces, self.bytes_per_s)
        return StreamingResponse(pieces, 206 if found else 200, told)


def error(status: int, code: str = "", message: str = "", **headers: str) -> Response:
    told = {
        "x-error-code": code,
        "x-error-message": message,
        **{name.replace("_", "-"): headers[name] for name in headers},
    }
    return JSONResponse({"error": message}, status, {name: value for name, value in told.items() if value})


def _pieces(file: HubFile, first: int, last: int) -> Iterator[bytes]:
    for start in range(first, last + 1, PIECE_BYTES):
        yield file.part(start, min(start + PIECE_BYTES - 1, last))


async def _slowed(pieces: Iterator[bytes], bytes_per_s: float) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(len(piece) / bytes_per_s)


def endless(piece: bytes, every_s: float = 0.0, first: bytes = b"", content_length: int | None = None) -> Fault:
    """An answer that goes on until the client hangs up (at most a minute, or ten thousand pieces)."""

    def answer(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield first
            for _ in range(600 if every_s else 10_000):
                if await request.is_disconnected():
                    return
                yield piece
                await asyncio.sleep(every_s)

        headers = {} if content_length is None else {"content-length": str(content_length)}
        return StreamingResponse(pieces(), 200, headers)

    return answer


class Door:
    """A free port of loopback where whichever hub was opened last answers, in a thread, until `close`.

    The hub is 127.0.0.1 and its storage localhost: two hosts, as far as a client can know.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        config = uvicorn.Config(
            self._answer, interface="asgi3", host="127.0.0.1", port=0, log_level="critical", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        a_moment = threading.Event()
        while not self._server.started and self._thread.is_alive():
            a_moment.wait(0.005)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def opened(self, hub: FakeHub) -> FakeHub:
        hub.endpoint, hub.storage = f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"
        self._app = hub.app()
        return hub

    def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        await self._app(scope, receive, send)
