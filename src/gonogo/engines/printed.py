"""What an engine prints of its memory while it starts: parsed into numbers, and what a plan learns from them. Pure.

One GPU engine's lines after the other: the patterns of vLLM 0.6 to 0.32 and of SGLang, as they stand in public logs
(cases in `tests/cases/engines/printed`). The last start in a log counts. Rounded as printed: to 0.01 GiB. On a
processor vLLM prints the checkpoint's size and the tokens of its cache, and repeats the bytes that it was given for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Mapping

from gonogo.engines.replica_memory import ReplicaMemory
from gonogo.engines.serving import Corrections, Version

GIB = 1024**3
LONGEST_LOG = 8_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """The numbers of one start. Bytes; None: not printed. `requests`: of `request_tokens` at once."""

    engine: str | None = None
    version: Version | None = None
    card_bytes: int | None = None
    free_bytes: int | None = None
    budget_bytes: int | None = None
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    non_torch_bytes: int | None = None
    graphs_bytes: int | None = None
    cache_bytes: int | None = None
    blocks: int | None = None
    tokens: int | None = None
    requests: float | None = None
    request_tokens: int | None = None

    @property
    def empty(self) -> bool:
        """Whether the log held none of the lines that say something of memory."""
        return all(getattr(self, one.name) is None for one in fields(self) if one.name not in ("engine", "version"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One quantity: planned, and printed where it was. `unit`: bytes, blocks, tokens or requests."""

    name: str
    unit: str
    planned: float
    printed: float

    @property
    def error(self) -> float:
        """Relative and signed; 0 where nothing was printed and nothing planned."""
        return self.planned / self.printed - 1 if self.printed else 0.0


def parse_printed(log_text: str) -> Printed:
    """The last start in a log. Reads the last 8 MB of it; never raises."""
    text = log_text[-LONGEST_LOG:]
    last = text[_last_start(text) :]
    engine, version = _version(last)
    values: dict[str, int | float] = {}
    for name, pattern, unit in _LINES:
        for found in pattern.finditer(last):
            number = found.group(1).replace(",", "")
            values[name] = (
                round(float(number) * GIB) if unit == "gib" else float(number) if unit == "x" else int(number)
            )
    return Printed(
        engine=engine,
        version=version,
        card_bytes=_whole(values, "card"),
        free_bytes=_whole(values, "free"),
        budget_bytes=_whole(values, "budget"),
        weights_bytes=_whole(values, "weights"),
        activation_bytes=_whole(values, "activation"),
        non_torch_bytes=_whole(values, "non_torch"),
        graphs_bytes=_whole(values, "graphs"),
        cache_bytes=_whole(values, "cache"),
        blocks=_whole(values, "blocks"),
        tokens=_whole(values, "tokens"),
        requests=values.get("requests"),
        request_tokens=_whole(values, "request_tokens"),
    )


def _last_start(text: str) -> int:
    """Where the last start begins: a server says what it was told before its engine process says that it begins."""
    starts = [(found.start(), found.group().startswith("Initializing")) for found in _START.finditer(text)]
    if len(starts) > 1 and starts[-1][1] and not starts[-2][1]:
        return starts[-2][0]
    return starts[-1][0] if starts else 0


def beside(memory: ReplicaMemory, printed: Printed) -> tuple[Beside, ...]:
    """Planned beside printed, for everything that was printed. The first rank's terms: an engine logs its rank 0."""
    rank, pool = memory.ranks[0], memory.pool
    pairs: list[tuple[str, str, float | None, float | None]] = [
        (name, "bytes", rank.term(name), getattr(printed, f"{name}_bytes"))
        for name in ("weights", "activation", "non_torch", "graphs")
    ]
    pairs.append(("cache", "bytes", rank.cache_bytes, printed.cache_bytes))
    if pool is not None:
        pairs.append(("blocks", "blocks", pool.blocks, printed.blocks))
        pairs.append(("tokens", "tokens", pool.tokens, printed.tokens))
        pairs.append(("requests", "requests", pool.requests, printed.requests))
    return tuple(
        Beside(name=name, unit=unit, planned=planned, printed=seen)
        for name, unit, planned, seen in pairs
        if planned is not None and seen is not None
    )


def lesson_key(engine: str, version: Version, card: str, devices: int) -> str:
    """What is learned holds for this engine, version and card, and for as many cards per replica."""
    return f"{engine} {'.'.join(map(str, version))} · {devices} × {card}"


def corrections(printed: Printed, memory: ReplicaMemory, used: Corrections) -> Corrections:
    """What later plans for the same engine, version and card take from this start instead of a table.

    `memory` is the plan of the start, `used` are the corrections that it was made with already.
    """
    planned = memory.ranks[0].term("graphs") / (used.graphs_factor or 1.0)
    factor = None
    if printed.graphs_bytes is not None and printed.graphs_bytes > 0 and planned > 0:
        factor = round(printed.graphs_bytes / planned, 4)
    return Corrections(non_torch_bytes=printed.non_torch_bytes, graphs_factor=factor)


def _version(text: str) -> tuple[str | None, Version | None]:
    for engine, pattern in _VERSIONS:
        found = pattern.search(text)
        if found is not None:
            return engine, tuple(int(part) for part in found.group(1).split("."))
    if _SGLANG.search(text):
        return "sglang", None
    return ("vllm", None) if _VLLM.search(text) else (None, None)


def _whole(values: Mapping[str, int | float], name: str) -> int | None:
    value = values.get(name)
    return None if value is None else int(value)


_START = re.compile(r"Initializing a V\d LLM engine|vLLM (?:API )?server version|█  version \d|server_args=ServerArgs")
_VERSIONS = (
    ("vllm", re.compile(r"LLM engine \(v(\d+\.\d+(?:\.\d+)?)")),
    ("vllm", re.compile(r"(?:vLLM (?:API )?server|█ ) version (\d+\.\d+(?:\.\d+)?)")),
    ("sglang", re.compile(r"sglang(?:_version=|[ -])v?(\d+\.\d+\.\d+)", re.IGNORECASE)),
)
_SGLANG = re.compile(r"Load weight end\.|max_total_num_tokens=")
_VLLM = re.compile(r"Model loading took|Loading model weights took|[GC]PU KV cache size")
_N, _I = r"(-?\d+(?:\.\d+)?)", r"(\d[\d,]*)"
_LINES: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (name, re.compile(pattern), unit)
    for name, pattern, unit in (
        ("card", rf"total_gpu_memory \({_N} ?GiB\)", "gib"),
        ("card", rf"Free memory on device(?: \S+)? \([\d.]+/{_N} GiB\)", "gib"),
        ("free", rf"Free memory on device(?: \S+)? \({_N}/", "gib"),
        ("free", rf"Initial free memory: {_N} GiB", "gib"),
        ("free", rf"Load weight begin\..*?avail mem={_N} GB", "gib"),
        ("budget", rf"gpu_memory_utilization \([\d.]+\) = {_N} ?GiB", "gib"),
        ("budget", rf"GPU memory utilization is \([\d.]+, {_N} GiB\)", "gib"),
        ("weights", rf"Checkpoint size: {_N} GiB", "gib"),
        ("weights", rf"(?:Model loading|Loading model weights) took {_N} Gi?B", "gib"),
        ("weights", rf"Load weight end\..*?mem usage={_N} GB", "gib"),
        ("activation", rf"torch peak memory increase: {_N} ?GiB", "gib"),
        ("activation", rf"PyTorch activation peak memory takes {_N} ?GiB", "gib"),
        ("activation", rf"{_N} GiB for peak activation", "gib"),
        ("non_torch", rf"non-torch forward increase memory: {_N} ?GiB", "gib"),
        ("non_torch", rf"non_torch_memory takes {_N} ?GiB", "gib"),
        ("non_torch", rf"{_N} GiB for non-torch memory", "gib"),
        ("graphs", rf"Graph capturing finished in [\d.]+ secs?, took {_N} Gi?B", "gib"),
        ("graphs", rf"CUDA graph pool memory: {_N} GiB \(actual\)", "gib"),
        ("cache", rf"non-default args: .*'kv_cache_memory_bytes': {_I}", "count"),
        ("cache", rf"Available KV cache memory: {_N} GiB", "gib"),
        ("cache", rf"reserved for KV Cache is {_N} ?GiB", "gib"),
        ("blocks", rf"num_gpu_blocks is: {_I}", "count"),
        ("blocks", rf"# (?:cuda|CUDA|GPU) blocks: {_I}", "count"),
        ("tokens", rf"[GC]PU KV cache size: {_I} tokens", "count"),
        ("tokens", rf"max_total_num_tokens={_I}", "count"),
        ("request_tokens", rf"Maximum concurrency for {_I} tokens per request", "count"),
        ("requests", rf"tokens per request: {_N}x", "x"),
    )
)
"""In this order; of several lines that say the same the last one counts."""
