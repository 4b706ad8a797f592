"""Whether a stream that was continued is right: held against what the relays asked of engines, and which ids came.

An exact seam: what the client had before a continuation is the text of the ids that the continuation began with, the
ids of the whole answer are its text, and no token is missing from the count or in it twice. Where a stop string ended
the answer, or the model while text was held back, the last id is that of a token which has more text than was sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

import aiohttp

from gonogo.engines.stream import Asked
from tests.acceptance.streams import Got

ENDS = ("<|im_end|>", "<|endoftext|>")
"""How SmolLM2's tokenizer writes the ends of its answers."""


def traces(root: Path) -> dict[str, Mapping[str, Any]]:
    """Request id → what the relays traced of it."""
    lines = [line for log in root.glob("trace-*.log") for line in log.read_text().splitlines()]
    return {one["request_id"]: one for one in map(json.loads, lines)}


@dataclass
class Verdict:
    """Of the streams that were continued: how many seams are exact, and why the others are not."""

    exact: int = 0
    approximate: int = 0
    wrong: list[str] = field(default_factory=list)


async def judge(got: Sequence[Got], records: Mapping[str, Any], traced: Mapping[str, Any], port: int) -> Verdict:
    """Hold every continued stream against what was asked for it. `port`: a healthy replica, asked for texts of ids."""
    verdict = Verdict()
    async with aiohttp.ClientSession() as session:
        for one in got:
            record = records.get(one.request_id)
            if record is None and one.whole:
                verdict.wrong.append(f"{one.wish.kind} {one.request_id}: no relay has a record of it")
            if record is None or not record["continued"] or not one.whole:
                continue
            trace = traced[one.request_id]
            wrong = await _wrong(session, port, one, record, trace)
            if wrong is not None:
                verdict.wrong.append(f"{one.wish.kind} {one.request_id}: {wrong}")
            elif any(asked["how"] == "text" for asked in trace["asked"]):
                verdict.approximate += 1
            else:
                verdict.exact += 1
    return verdict


async def _wrong(
    session: aiohttp.ClientSession, port: int, got: Got, record: Mapping[str, Any], trace: Mapping[str, Any]
) -> str | None:
    """What is not as it must be; None: nothing."""
    tokens = sum(attempt["tokens"] for attempt in record["attempts"])
    if got.usage is not None and got.usage["completion_tokens"] != tokens:
        return f"usage says {got.usage['completion_tokens']}, the attempts gave {tokens}"
    later = [asked for asked in trace["asked"] if asked["path"] == "/completion"]
    prompt: list[int] | None = None
    for asked in later:
        given = asked["body"]["prompt"]
        size = got.usage["prompt_tokens"] if got.usage else None
        before = given[:size] if size else None
        if prompt is not None and before != prompt:
            return "two continuations with two prompts"
        prompt = before
        text = await _text(session, port, given[size:] if size else [])
        if size and not got.text.startswith(text):
            return "a continuation began with something else than what the client had"
        limit = got.wish.body.get("max_tokens")
        if size and limit and asked["body"]["n_predict"] != limit - len(given[size:]):
            return "a continuation asked for another number of tokens than was left"
    if any(stop in got.text for stop in _stops(got)):
        return "a stop string was shown"
    if trace["ids"] and not is_text_of(await _text(session, port, trace["ids"]), got):
        return "the ids are not the text"
    return None


def is_text_of(said: str, got: Got) -> bool:
    """Whether ids with this text can be those of the answer: all of it, and then only what ended it."""
    if said == got.text or not said.startswith(got.text):
        return said == got.text
    return got.ends == ["stop"] and said[len(got.text) :].startswith((*_stops(got), *ENDS))


def _stops(got: Got) -> tuple[str, ...]:
    return Asked(path=got.wish.path, body=got.wish.body).stops


async def _text(session: aiohttp.ClientSession, port: int, ids: Sequence[int]) -> str:
    async with session.post(f"http://127.0.0.1:{port}/detokenize", json={"tokens": list(ids)}) as answer:
        return str((await answer.json())["content"])
