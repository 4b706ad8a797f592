"""The load generator for a machine without wrk: PORT CONNECTIONS SECONDS tls|plain.

The key comes on standard input, JSON goes out.

A process of its own, so that it shares no event loop with what it measures.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contenders.process import CHAT, QUESTION


class Connection(asyncio.Protocol):
    """One keep-alive connection: the next question goes out when an answer is whole."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request, self._until = request, until
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._sent_at = 0.0
        self.latencies_s: list[float] = []
        self.failed = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        head, found, body = self._pending.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._pending = b""
        self.latencies_s.append(time.perf_counter() - self._sent_at)
        self.failed += head.split(b" ", 2)[1] != b"200"
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.ended.done():
            self.failed += 1
            self.ended.set_result(None)

    def _ask(self) -> None:
        assert self._transport is not None
        if time.perf_counter() >= self._until:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def load(port: int, connections: int, seconds: float, tls: bool, key: str) -> dict[str, float]:
    """Ask for so long on so many connections."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {key}\r\ncontent-length: {len(QUESTION)}\r\n\r\n"
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    began = time.perf_counter()
    request = (head + QUESTION).encode()
    open_ones = [
        asyncio.get_running_loop().create_connection(
            lambda: Connection(request, began + seconds), "127.0.0.1", port, ssl=trust if tls else None
        )
        for _ in range(connections)
    ]
    made = [protocol for _, protocol in await asyncio.gather(*open_ones)]
    await asyncio.wait([each.ended for each in made], timeout=seconds + 10)
    latencies_s = sorted(latency for each in made for latency in each.latencies_s)
    return {
        "p50_ms": _share(latencies_s, 0.50) * 1000,
        "p99_ms": _share(latencies_s, 0.99) * 1000,
        "requests": len(latencies_s),
        "seconds": time.perf_counter() - began,
        "failed": sum(each.failed for each in made),
    }


def _share(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


if __name__ == "__main__":
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(asyncio.run(load(port, connections, seconds, sys.argv[4] == "tls", sys.stdin.read().strip()))))
