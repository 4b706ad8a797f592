"""The load of `rolling.py`: whole and streamed chat requests on keep-alive connections, each answer held against the
one right text. A thread of its own with one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
from dataclasses import dataclass, field

from tests.shell.gateway_parts import read_body
from tests.shell.outside_engine import word

CHAT = "/v1/chat/completions"
LIMIT_S = 30.0
PAUSE_S = 0.05
"""After a failure."""
THINKING_S = 0.01
"""Between two questions of one client: the changes need processors too."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it began and ended (monotonic), and what was wrong with its answer; empty: nothing."""

    began: float
    ended: float
    streamed: bool
    wrong: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One service behind the gateway, with a key for it."""

    service: str
    key: str


@dataclass
class Load:
    """`with`: so many clients of each target, half of them streaming, each asking one question after the other."""

    port: int
    ca_file: str
    targets: tuple[Target, ...]
    clients_each: int = 4
    tokens: int = 16
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._over = threading.Event()
        self._trust = ssl.create_default_context(cafile=self.ca_file)
        self._expected = " ".join(word(number) for number in range(1, self.tokens + 1))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LIMIT_S + 10)

    async def _run(self) -> None:
        clients = (
            self._ask_for_ever(target, streamed=number % 2 == 1)
            for target in self.targets
            for number in range(self.clients_each)
        )
        await asyncio.gather(*clients)

    async def _ask_for_ever(self, target: Target, *, streamed: bool) -> None:
        connection = _Connection(self.port, self._trust)
        question = {
            "model": target.service,
            "messages": [{"role": "user", "content": "Count."}],
            "max_tokens": self.tokens,
            "stream": streamed,
        }
        while not self._over.is_set():
            began = time.monotonic()
            try:
                status, body = await asyncio.wait_for(connection.post(target.key, question), LIMIT_S)
                wrong = self._judged(status, body, streamed)
            except (OSError, EOFError, ValueError, TimeoutError, asyncio.TimeoutError) as error:
                wrong = f"{type(error).__name__}: {error}"[:200]
            if wrong:
                connection.close()
                await asyncio.sleep(PAUSE_S)
            self.requests.append(Request(began, time.monotonic(), streamed, wrong))
            await asyncio.sleep(THINKING_S)
        connection.close()

    def _judged(self, status: int, body: bytes, streamed: bool) -> str:
        if status != 200:
            return f"{status} {body[:160].decode(errors='replace')}"
        if not streamed:
            text = json.loads(body)["choices"][0]["message"]["content"]
        else:
            events = [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: ")]
            if events[-1:] != ["[DONE]"]:
                return f"a stream of {len(events)} events without its end"
            choices = (json.loads(one).get("choices") or [{}] for one in events[:-1])
            text = "".join(one[0].get("delta", {}).get("content") or "" for one in choices)
        return "" if text == self._expected else f"another text: {text[:80]!r}"


class _Connection:
    """One keep-alive connection; it dials again when the other side has closed it."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self._port, self._trust = port, trust
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, key: str, question: object) -> tuple[int, bytes]:
        """Status and body, read to their end."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._trust)
        reader, writer = self._streams
        body = json.dumps(question).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        content = await read_body(reader, answer)
        if b"connection: close" in answer.lower():
            self.close()
        return int(answer.split(b" ", 2)[1]), content

    def close(self) -> None:
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].close()
            self._streams = None
