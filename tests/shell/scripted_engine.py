"""An OpenAI-compatible engine that answers by script: right, or broken in exactly the way that a test wants.

    def script(asked: Asked) -> Answer: ...
    with ScriptedEngine(script, model="svc") as engine:
        engine.port; engine.asked  # where it listens (loopback); every chat request that came, in order

It serves `/v1/chat/completions` (whole and streamed), `/v1/models`, `/health` and `/metrics`. It keeps what real
engines keep unless the answer says otherwise: `max_tokens` cuts (`finish_reason: length`), `stop` ends, `usage` counts
tokens of at most four characters, another model's name gets 404. It runs in threads of the test's own process; behind
the real gateway it stands with `Front(deployment, engine_port=engine.port)` (gateway_parts.py).
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Callable, Iterator, Mapping

TOKEN = re.compile(r"\s*\S{1,4}|\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One chat request: its body as sent, and what tests look for in it."""

    body: Mapping[str, Any]
    size_bytes: int
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def system(self) -> str:
        """The text of the system prompt; empty without one."""
        return "".join(_text(one) for one in self.body["messages"] if one["role"] == "system")

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return _text(self.body["messages"][-1])

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """The pictures of all messages, decoded from their data URLs."""
        parts = [part for one in self.body["messages"] if isinstance(one["content"], list) for part in one["content"]]
        urls = [str(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        return tuple(base64.b64decode(url.partition(";base64,")[2], validate=True) for url in urls)

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the engine answers. `status` other than 200: an error, with `text` as its message."""

    text: str = ""
    reasoning: str | None = None
    """What an engine with a reasoning parser takes out of the text; it comes first when streamed."""
    reasoning_field: str = "reasoning_content"
    """Its field in the message: `reasoning_content`, or `reasoning` in newer engines."""
    tool_calls: tuple[tuple[str, str], ...] = ()
    """(function's name, arguments as the text that should be JSON)."""
    finish_reason: str = "stop"
    status: int = 200
    delay_s: float = 0.0
    """Before the first byte."""
    gap_s: float = 0.0
    """Between the pieces of a streamed answer; each piece is one token."""
    obeys: bool = True
    """False: `max_tokens` and `stop` are ignored, as broken engines do."""


Script = Callable[[Asked], Answer]


class ScriptedEngine:
    """The engine, listening on a free port of loopback. `with`."""

    def __init__(self, script: Script, *, model: str, port: int = 0) -> None:
        self.script = script
        """May be exchanged while it runs."""
        self.model = model
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> ScriptedEngine:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(str(part["text"]) for part in content if part["type"] == "text")


def _handler(engine: ScriptedEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.engine = engine
    return Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """An answer after `max_tokens` and `stop`."""

    reasoning: tuple[str, ...]
    text: tuple[str, ...]
    reason: str


def _cut(answer: Answer, body: Mapping[str, Any]) -> _Cut:
    text, reason = answer.text, answer.finish_reason
    stops = body.get("stop") or ()
    if answer.obeys:
        for stop in (stops,) if isinstance(stops, str) else stops:
            before, found, _ = text.partition(stop)
            if found:
                text, reason = before, "stop"
    reasoning, tokens = TOKEN.findall(answer.reasoning or ""), TOKEN.findall(text)
    most = body.get("max_tokens") or body.get("max_completion_tokens")
    if answer.obeys and most is not None and len(reasoning) + len(tokens) > most:
        reasoning = reasoning[:most]
        tokens, reason = tokens[: most - len(reasoning)], "length"
    return _Cut(reasoning=tuple(reasoning), text=tuple(tokens), reason=reason)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as real engines do: each piece of a stream goes out at once
    engine: ScriptedEngine

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, b"")
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": self.engine.model, "object": "model"}]})
        elif self.path == "/metrics":
            lines = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
            self._send(200, lines.encode(), "text/plain; version=0.0.4")
        else:
            self._error(404, "Not Found")

    def do_POST(self) -> None:
        raw = self._body()
        if self.path != "/v1/chat/completions":
            return self._error(404, "Not Found")
        body = json.loads(raw)
        if body.get("model") != self.engine.model:
            return self._error(404, f"The model `{body.get('model')}` does not exist.")
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(body=body, size_bytes=len(raw), headers=headers)
        self.engine.asked.append(asked)
        answer = self.engine.script(asked)
        time.sleep(answer.delay_s)
        if answer.status != 200:
            return self._error(answer.status, answer.text)
        cut = _cut(answer, body)
        if asked.streamed:
            return self._stream(answer, cut)
        return self._json(200, self._whole(answer, cut))

    def _whole(self, answer: Answer, cut: _Cut) -> Mapping[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(cut.text)}
        if answer.reasoning is not None:
            message[answer.reasoning_field] = "".join(cut.reasoning)
        if answer.tool_calls:
            message["tool_calls"] = _tool_calls(answer)
        reason = "tool_calls" if answer.tool_calls else cut.reason
        count = max(1, len(cut.text) + len(cut.reasoning))
        return {
            **self._head("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1},
        }

    def _stream(self, answer: Answer, cut: _Cut) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for delta, reason in self._deltas(answer, cut):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            self._event(json.dumps({**self._head("chat.completion.chunk"), "choices": [choice]}))
            time.sleep(answer.gap_s)
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _deltas(self, answer: Answer, cut: _Cut) -> Iterator[tuple[Mapping[str, Any], str | None]]:
        yield {"role": "assistant", "content": ""}, None
        for piece in cut.reasoning:
            yield {answer.reasoning_field: piece}, None
        for piece in cut.text:
            yield {"content": piece}, None
        if answer.tool_calls:
            yield {"tool_calls": [{"index": at, **call} for at, call in enumerate(_tool_calls(answer))]}, None
        yield {}, "tool_calls" if answer.tool_calls else cut.reason

    def _event(self, text: str) -> None:
        piece = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.flush()

    def _head(self, kind: str) -> Mapping[str, Any]:
        return {"id": "chatcmpl-scripted", "object": kind, "created": int(time.time()), "model": self.engine.model}

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _json(self, status: int, content: object) -> None:
        self._send(status, json.dumps(content, ensure_ascii=False).encode())

    def _error(self, status: int, message: str) -> None:
        kind = "NotFoundError" if status == 404 else "BadRequestError"
        self._json(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _tool_calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(answer.tool_calls)
    ]
