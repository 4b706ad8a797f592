"""A program: an OpenAI-compatible server that is nobody's replica, fast, and killed for real. And how a test starts it.

    with OutsideEngine("phone") as engine: engine.url; engine.kill()

Usage: outside_engine.py PORT MODEL [--gap-ms 3] [--no-health] [--certificate FILE --key FILE] [--base /api/v4]
[--wants-key KEY] [--record FILE]. With `--record` each question is written down, a JSON line with its path, headers and
body; a question that says `say 429` is answered with that status. It counts: the answer
is `one two three …`, one word per token, cut by `max_tokens` and `stop`. Each answer names the server's port in
`system_fingerprint`; the Host header that came is in `x-host`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Mapping

TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
USUAL_TOKENS, MOST_TOKENS = 16, 99
PATHS = ("/v1/chat/completions", "/v1/completions")


def word(number: int) -> str:
    """The name of a number below 100."""
    if number < len(ONES):
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens] + (f"-{ONES[ones]}" if ones else "")


class Program:
    """The server. One asyncio loop, HTTP/1.1 with keep-alive."""

    def __init__(self, told: argparse.Namespace) -> None:
        self._told = told
        self._running, self._tokens = 0, 0

    async def serve(self) -> None:
        trust = None
        if self._told.certificate:
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trust.load_cert_chain(self._told.certificate, self._told.key)
        server = await asyncio.start_server(self._connected, "127.0.0.1", self._told.port, ssl=trust, backlog=512)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                await self._answer(first.split(" ")[:2], headers, await _body(reader, headers), writer)
        writer.close()

    async def _answer(
        self, asked: list[str], headers: Mapping[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        method, path = asked[0], asked[1].partition("?")[0]
        status, content = 200, {}
        if path == "/metrics":
            return await self._text(writer, self._metrics())
        if self._told.record and method == "POST":
            with open(self._told.record, "a") as record:
                record.write(json.dumps({"path": asked[1], "headers": dict(headers), "body": body.decode()}) + "\n")
        path = path.replace(self._told.base, "/v1", 1) if path.startswith(self._told.base) else path
        question = json.loads(body) if method == "POST" and path in PATHS else None
        if self._told.wants_key and headers.get("authorization") != f"Bearer {self._told.wants_key}":
            return await self._whole(writer, 401, {"error": {"message": "bad key, says the engine"}}, headers)
        if question is not None and (said := re.search(rb"say ([45][0-9]{2})", body)):
            return await self._whole(writer, int(said[1]), {"error": {"message": "words of the engine"}}, headers)
        if question is not None and question.get("model") in (self._told.model, None):
            return await self._chat(question, headers, writer)
        if path == "/v1/models":
            content = {"object": "list", "data": [{"id": self._told.model}]}
        elif path != "/health" or self._told.no_health:
            status, content = 404, {"error": {"message": "no such path, or another model"}}
        return await self._whole(writer, status, content, headers)

    async def _chat(
        self, question: Mapping[str, Any], headers: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> None:
        self._running += 1
        try:
            await self._answered(question, headers, writer)
        finally:
            self._running -= 1

    async def _answered(
        self, question: Mapping[str, Any], headers: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> None:
        words, reason = _words(question)
        self._tokens += len(words)
        if question.get("stream"):
            return await self._stream(writer, words, reason)
        await asyncio.sleep(self._told.gap_ms / 1000)
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(words)}, "finish_reason": reason}
        content = {**self._head("chat.completion"), "choices": [choice], "usage": usage}
        return await self._whole(writer, 200, content, headers)

    async def _whole(
        self, writer: asyncio.StreamWriter, status: int, content: object, headers: Mapping[str, str]
    ) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nx-host: {headers.get('host', '')}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async def _text(self, writer: asyncio.StreamWriter, text: str) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(text)}\r\n\r\n"
        writer.write((head + text).encode())
        await writer.drain()

    def _metrics(self) -> str:
        """As llama.cpp has them."""
        counters = {
            "tokens_predicted_total": self._tokens,
            "prompt_tokens_total": self._tokens,
            "requests_processing": self._running,
            "requests_deferred": 0,
            "n_decode_total": self._tokens,
        }
        return "".join(f"llamacpp:{name} {value}\n" for name, value in counters.items())

    async def _stream(self, writer: asyncio.StreamWriter, words: list[str], reason: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for delta, ended in [*(({"content": one}, None) for one in words), ({}, reason)]:
            choice = {"index": 0, "delta": delta, "finish_reason": ended}
            _event(writer, json.dumps({**self._head("chat.completion.chunk"), "choices": [choice]}))
            await writer.drain()
            await asyncio.sleep(self._told.gap_ms / 1000)
        _event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _head(self, kind: str) -> dict[str, Any]:
        fingerprint = f"port-{self._told.port}"
        return {"id": "c-1", "object": kind, "created": 1, "model": self._told.model, "system_fingerprint": fingerprint}


def _event(writer: asyncio.StreamWriter, text: str) -> None:
    piece = f"data: {text}\n\n".encode()
    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


def _words(question: Mapping[str, Any]) -> tuple[list[str], str]:
    """The tokens of the answer, and why it ended."""
    most = min(MOST_TOKENS, question.get("max_tokens") or question.get("max_completion_tokens") or USUAL_TOKENS)
    words = [("" if at == 1 else " ") + word(at) for at in range(1, most + 1)]
    stops = question.get("stop") or []
    for at, one in enumerate(words):
        if any(stop in one for stop in ([stops] if isinstance(stops, str) else stops)):
            return words[:at], "stop"
    return words, "length"


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    whole = b""
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        whole += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return whole


class OutsideEngine:
    """One such process; `with`, or `start` and `kill`. `words`: further options of the program."""

    program: tuple[str, ...] = (str(Path(__file__)),)

    def __init__(self, model: str, *words: str, port: int | None = None) -> None:
        self.model, self._words = model, words
        self.port = port or _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if '--certificate' in self._words else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> OutsideEngine:
        """Start it and wait until it accepts connections."""
        command = [sys.executable, *self.program, str(self.port), self.model, *self._words]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            assert self.process.poll() is None, "the engine ended at once"
            time.sleep(0.02)
        raise AssertionError("the engine did not start")

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def __enter__(self) -> OutsideEngine:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def options() -> argparse.ArgumentParser:
    """Those of such a program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("--gap-ms", type=float, default=3.0)
    parser.add_argument("--no-health", action="store_true")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--base", default="/v1")
    parser.add_argument("--wants-key")
    parser.add_argument("--record")
    return parser


def main() -> None:
    asyncio.run(Program(options().parse_args()).serve())


if __name__ == "__main__":
    main()
