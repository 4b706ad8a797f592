"""What the relay costs per token: processor time, and what it adds to the way of each; beside Envoy alone.

    .venv/bin/python benchmarks/streams_cost.py

The engine is a program that streams pieces in llama-server's form, each with the time at which it was written; clients
subtract. The same load goes through Envoy alone (as an answer that is not relayed does) and through the relay.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.acceptance.stream_wishes import CHAT
from tests.free_ports import free_port
from tests.shell.relay_parts import RelayedFront

PIECES, GAP_S = 200, 0.01
STREAMS = (1, 16)


def engine(port: int) -> None:
    """A process: `/health`, and 200 pieces, 10 ms apart, for everything else."""
    asyncio.run(_serve(port))


async def cost(root: Path) -> Mapping[str, Any]:
    """Microseconds per token: added at the median and at p99, and of the relays' processors."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=engine, args=(port,), daemon=True)
    process.start()
    found: dict[str, Any] = {}
    try:
        await asyncio.to_thread(_wait_for, port)
        async with RelayedFront(root, {"m/1": [port]}) as front:
            for at_once in STREAMS:
                alone, _ = await _run(front, at_once, relayed=False)
                relayed, cpu_s = await _run(front, at_once, relayed=True)
                found[f"{at_once} streams"] = {
                    "envoy_p50_us": round(1e6 * statistics.median(alone)),
                    "relayed_p50_us": round(1e6 * statistics.median(relayed)),
                    "added_p50_us": round(1e6 * (statistics.median(relayed) - statistics.median(alone))),
                    "added_p99_us": round(1e6 * (_p99(relayed) - _p99(alone))),
                    "relay_cpu_us_per_token": round(1e6 * cpu_s / (at_once * PIECES)),
                }
    finally:
        process.kill()
        process.join(5)
    return found


async def _run(front: RelayedFront, at_once: int, *, relayed: bool) -> tuple[list[float], float]:
    """Seconds on the way of each piece, and processor seconds of the relays."""
    relays = [psutil.Process(process.pid) for process in front.processes]
    before = sum(sum(one.cpu_times()[:2]) for one in relays)
    async with front.session() as session:
        ways = await asyncio.gather(*(_stream(front, session, relayed=relayed) for _ in range(at_once)))
    after = sum(sum(one.cpu_times()[:2]) for one in relays)
    return [way for some in ways for way in some], after - before


async def _stream(front: RelayedFront, session: Any, *, relayed: bool) -> list[float]:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    ways: list[float] = []
    rest = b""
    async with session.post(front.url + CHAT, json=body, headers=front.headers("llama.cpp", relayed=relayed)) as answer:
        async for chunk in answer.content.iter_any():
            now = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                    ways += [now - float(content)] if content else []
    assert len(ways) == PIECES, f"{len(ways)} of {PIECES} pieces"
    return ways


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                continue
            size = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b": 0")
            asked = json.loads(await reader.readexactly(int(size.split(b":")[1])))
            await _pieces(writer, asked)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _pieces(writer: asyncio.StreamWriter, asked: Mapping[str, Any]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    frame = {"created": 1, "id": "chatcmpl-1", "model": "m", "object": "chat.completion.chunk"}
    for number in range(PIECES + 1):
        await asyncio.sleep(GAP_S)
        choice: dict[str, Any] = {"finish_reason": None, "index": 0, "delta": {"content": f"{time.monotonic():.7f}"}}
        if number == PIECES:
            choice = {"finish_reason": "stop", "index": 0, "delta": {}}
        elif asked.get("logprobs"):
            token = {"id": number, "token": "x", "prob": 1.0, "top_probs": [{"id": number, "token": "x", "prob": 1.0}]}
            choice["logprobs"] = {"content": [token]}
        timings = {"prompt_n": 3, "cache_n": 0, "predicted_n": number + 1, "predicted_ms": 1.5}
        event: dict[str, Any] = {"choices": [choice], **frame}
        if asked.get("timings_per_token"):
            event["timings"] = timings
        _chunk(writer, b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")
        await writer.drain()
    _chunk(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _p99(some: Sequence[float]) -> float:
    return sorted(some)[int(0.99 * len(some))]


def _wait_for(port: int) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the engine did not start")


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(prefix="gonogo-cost-"))
    try:
        for line in asyncio.run(cost(folder)).items():
            print(*line)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
