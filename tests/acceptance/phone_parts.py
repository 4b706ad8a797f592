"""What the test of the phone agent has around the agent: a phone, a model that answers by script, and how it is run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator, Sequence

from gonogo.spec.recipe_parts import Program
from gonogo.words.client_lines import Access, client_lines
from tests.shell.gateway_parts import FakeEngine, Front, read_body
from tests.shell.policy_parts import Deployment

WIDTH, HEIGHT = 1080, 2400
NOISE_BYTES = 980_000
"""So much of a screen cannot be compressed: its request is as large as one of a real screenshot, about 1.3 MB."""
PIECE = 6
PIECE_S = 0.02
NO_DELAYS = {
    f"PHONE_AGENT_{name}_DELAY": "0"
    for name in ("KEYBOARD_SWITCH", "TEXT_CLEAR", "TEXT_INPUT", "KEYBOARD_RESTORE", "TAP", "LAUNCH")
}

RESET = "reset"
Scripted = str | int
"""One answer of the model: a text, the status of an error, or RESET for a connection that is cut without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it arrived at the engine: its body byte for byte."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def images(self) -> list[str]:
        """The image URLs of all messages, in order."""
        contents = (message["content"] for message in self.json["messages"])
        parts = (part for content in contents if isinstance(content, list) for part in content)
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


@dataclass
class PhoneModel(FakeEngine):
    """An engine that answers each chat request with the next of `script`, streamed where that is asked for."""

    script: list[Scripted] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await read_body(reader, head)
                if head.startswith(b"GET /health "):
                    await self._send(writer, b"{}")
                    continue
                if head.startswith(b"GET /v1/models "):
                    await self._send(writer, b'{"object":"list","data":[{"id":"svc","object":"model"}]}')
                    continue
                assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n"), head
                lines = (line.partition(": ") for line in head.decode().strip().split("\r\n")[1:])
                request = Received(headers={name.lower(): value for name, _, value in lines}, body=body)
                self.received.append(request)
                said = self.script.pop(0)
                if said == RESET:
                    writer.transport.abort()
                    return
                await self._answer(writer, said, bool(request.json.get("stream")))
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, said: Scripted, streamed: bool) -> None:
        if isinstance(said, int):
            body = json.dumps({"error": {"message": "out of luck", "code": said}}).encode()
            head = f"HTTP/1.1 {said} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
        elif streamed:
            await self._pieces(writer, said)
        else:
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await self._send(writer, json.dumps({**_head("chat.completion"), "choices": [choice]}).encode())
        await writer.drain()

    async def _pieces(self, writer: asyncio.StreamWriter, said: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        deltas = [{"content": said[at : at + PIECE]} for at in range(0, len(said), PIECE)]
        ended: list[Any] = [*((delta, None) for delta in deltas), ({}, "stop")]
        for delta, reason in ended:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            _event(writer, json.dumps({**_head("chat.completion.chunk"), "choices": [choice]}))
            await writer.drain()
            await asyncio.sleep(PIECE_S)
        _event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")


Story = Callable[[PhoneModel, Access], Awaitable[None]]


def behind_the_gateway(root: Path, story: Story) -> None:
    """Run a story with the real gateway (Envoy, two policy servers, TLS, a key) in front of a model."""
    root = root / "deployment"
    root.mkdir()
    deployment = Deployment.make(root)

    async def told() -> None:
        front, model = Front(deployment), PhoneModel()
        front.engine = model
        access = Access(
            endpoint=f"https://127.0.0.1:{front.port}/v1",
            ca_file=str(root / "tls" / "ca.crt"),
            service="svc",
            key=deployment.add_key(scopes=("inference", "models")).text,
        )
        async with front:
            await story(model, access)

    try:
        for index in (0, 1):
            deployment.start(index)
        asyncio.run(told())
    finally:
        deployment.close()


def line_of(access: Access, program: Program) -> str:
    """What `gonogo clients` prints for this program, as one text to paste."""
    return "\n".join(client_lines(access, (program,))[-1].lines)


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "svc"}


def _event(writer: asyncio.StreamWriter, text: str) -> None:
    piece = f"data: {text}\n\n".encode()
    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run of the agent ended, and what it asked of the phone."""

    code: int
    out: str
    calls: list[list[str]]

    def of_kind(self, *words: str) -> list[list[str]]:
        """The calls that begin so."""
        return [call for call in self.calls if call[: len(words)] == list(words)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The agent's environment and the folder with main.py in it. Each run has a phone of its own."""

    python: Path
    folder: Path
    screens: Path

    @classmethod
    def make(cls, python: Path, folder: Path, main: Path) -> Agent:
        (folder / "bin").mkdir(parents=True)
        adb = folder / "bin" / "adb"
        program = Path(__file__).with_name("fake_adb.py").read_text(encoding="utf-8")
        adb.write_text(f"#!{sys.executable} -IS\n{program}", encoding="utf-8")
        adb.chmod(0o700)
        shutil.copyfile(main, folder / "main.py")
        screens = folder / "screens"
        screens.mkdir()
        for number in range(4):
            (screens / f"{number}.png").write_bytes(png(number))
        return cls(python=python, folder=folder, screens=screens)

    async def run(self, line: str, phone: Path, stdin: str = "", **variables: str) -> Ended:
        """Run a line of shell in the folder, with nothing of this process's environment but the search path."""
        phone.mkdir()
        (phone / "screens").symlink_to(self.screens)
        path = f"{self.folder / 'bin'}:{self.python.parent}:{os.defpath}"
        surroundings = {"PATH": path, "HOME": str(phone), "TMPDIR": str(phone), "PYTHONUTF8": "1", **NO_DELAYS}
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            line,
            cwd=self.folder,
            env={**surroundings, "FAKE_PHONE": str(phone), **variables},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        calls = phone / "calls.jsonl"
        told = calls.read_text().splitlines() if calls.exists() else []
        assert process.returncode is not None
        return Ended(code=process.returncode, out=out.decode(), calls=[json.loads(one) for one in told])


def png(number: int, noise_bytes: int = NOISE_BYTES) -> bytes:
    """A screen of 1080 x 2400 that begins with noise of its own; the rest is one colour."""
    noise = random.Random(number).randbytes(noise_bytes)
    pixels = noise + bytes([40 * number + 40]) * (WIDTH * HEIGHT * 3 - noise_bytes)
    rows = b"".join(b"\0" + pixels[at : at + WIDTH * 3] for at in range(0, len(pixels), WIDTH * 3))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunks(parts))


def _chunks(parts: Sequence[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for kind, data in parts:
        yield struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
