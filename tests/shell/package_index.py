"""A package index on loopback, with wheels that the test makes: counts what is asked, and fails on demand."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator, Mapping

ENGINE, VERSION = "xllamacpp", "2026.10.11549"
LONGEST_HOLD_S = 60.0


def wheel(
    name: str = ENGINE,
    version: str = VERSION,
    *,
    files: Mapping[str, bytes] | None = None,
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
) -> tuple[str, bytes]:
    """A wheel's file name and content: one module that says its version, unless `files` say otherwise."""
    module = name.replace("-", "_")
    content = dict(files if files is not None else {f"{module}/__init__.py": f"__version__ = {version!r}\n".encode()})
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    rows = [f"{path},sha256={_hash(data)},{len(data)}" for path, data in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return f"{module}-{version}-{tag}.whl", buffer.getvalue()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@dataclass
class Index:
    """What it serves and how. `hold`: wheels are sent only when it is set. `status`: every answer has this status.

    `swapped` are sent in place of the wheels of that name, `broken` are answered with 503, when their event is set.
    """

    wheels: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    hold: threading.Event | None = None
    swapped: dict[str, bytes] = field(default_factory=dict)
    broken: dict[str, threading.Event] = field(default_factory=dict)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple"

    def add(self, *made: tuple[str, bytes]) -> None:
        self.wheels.update(dict(made))

    @property
    def fetched(self) -> list[str]:
        """The wheels that were asked for."""
        return [path for path in self.asked if path.endswith(".whl")]

    def page(self, project: str) -> bytes | None:
        """The list of one project's files with their hashes; None: there is no such project."""
        mine = {file: data for file, data in self.wheels.items() if file.split("-")[0] == project.replace("-", "_")}
        links = [
            f'<a href="/files/{file}#sha256={hashlib.sha256(data).hexdigest()}" data-core-metadata="true">{file}</a>'
            for file, data in mine.items()
        ]
        return ("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>").encode() if mine else None

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """What points uv here, and makes it give up soon."""
        bounds = {"UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
        return {"UV_DEFAULT_INDEX": self.url, "UV_CACHE_DIR": str(cache), **bounds, **more}


class _Handler(BaseHTTPRequestHandler):
    index: Index

    def do_GET(self) -> None:
        index = self.index
        index.asked.append(self.path)
        if index.status != 200:
            self._send(index.status, b"", "text/plain")
            return
        parts = self.path.strip("/").split("/")
        if parts[0] == "simple" and len(parts) == 2:
            page = index.page(parts[1])
            self._send(200 if page is not None else 404, page or b"", "text/html")
            return
        if parts[-1].endswith(".whl.metadata"):
            self._send(200, _metadata(index.wheels[parts[-1].removesuffix(".metadata")]), "text/plain")
            return
        data = index.swapped.get(parts[-1], index.wheels.get(parts[-1]))
        if parts[-1] in index.broken:
            index.broken[parts[-1]].wait(LONGEST_HOLD_S)
            self._send(503, b"", "text/plain")
            return
        if index.hold is not None:
            index.hold.wait(LONGEST_HOLD_S)
        self._send(200 if data is not None else 404, data or b"", "application/octet-stream")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # whoever asked was killed: that is what the test does

    def log_message(self, *_: Any) -> None:
        """Silent."""


def _metadata(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))


def serve(index: Index) -> Iterator[Index]:
    """Serve until the generator is closed."""
    handler = type("Handler", (_Handler,), {"index": index})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    index.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        if index.hold is not None:
            index.hold.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
