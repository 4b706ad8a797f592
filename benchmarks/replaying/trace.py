"""The published traces, read and scaled to this machine.

A trace is scaled in three ways, and the table says by how much: every n-th conversation of a window (fewer users), time
(the window is played faster), lengths (shorter prompts and answers). What is kept is its shape: bursts, the spread of
lengths, shared beginnings. Keys are ours, the traces have none: one in four requests is a batch job's, the rest are
three people's, one of whom asks as much as the two others together.
"""

from __future__ import annotations

import csv
import datetime
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

SOURCES = {
    "code": "azure2023/AzureLLMInferenceTrace_code.csv",
    "conv": "azure2023/AzureLLMInferenceTrace_conv.csv",
    "mooncake": "mooncake/conversation_trace.jsonl",
}
WHERE = {
    "code": "github.com/Azure/AzurePublicDataset, data/ (CC-BY 4.0; Patel et al., Splitwise, ISCA'24)",
    "conv": "github.com/Azure/AzurePublicDataset, data/ (CC-BY 4.0; Patel et al., Splitwise, ISCA'24)",
    "mooncake": "github.com/kvcache-ai/Mooncake, FAST25-release/traces (Apache-2.0; Qin et al., FAST'25)",
}
KEYS = {"loud": 0.375, "alice": 0.1875, "bob": 0.1875, "night": 0.25}
"""Key → its share of the requests. `night` is of batch priority, the others are interactive."""
BATCH_KEY = "night"
BLOCK_TOKENS = 512
SHARED_BY_ALL = 50
"""A block that so many requests of a window have is a template's, and no conversation's own (Mooncake: 9 at most)."""
WORDS = (
    *("the", "of", "and", "to", "in", "is", "for", "on", "that", "by", "this", "with", "you", "it", "not", "or", "be"),
    *("are", "from", "at", "as", "your", "all", "have", "new", "more", "an", "was", "we", "will", "home", "can", "us"),
    *("about", "if", "page", "my", "has", "search", "free", "but", "our", "one", "other", "do", "no", "information"),
    *("time", "they", "site", "he", "up", "may", "what", "which", "their", "news", "out", "use", "any", "there", "see"),
)
"""One token each, as nearly as matters, for the small models' tokenizers."""


@dataclass(frozen=True)
class Scale:
    """Every `every`-th conversation of `seconds` of the trace from `start_s` on, played in `seconds / faster`; lengths
    divided by `shorter` (prompts) and `shorter_answers`, and cut at `most_prompt` and `most_answer` tokens."""

    start_s: float
    seconds: float
    every: int
    faster: float
    shorter: float
    shorter_answers: float
    most_prompt: int = 1400
    most_answer: int = 160


SCALES = {
    "code": Scale(540, 600, 8, 8.0, 8.0, 1.0),
    "conv": Scale(600, 600, 12, 8.0, 8.0, 8.0),
    "mooncake": Scale(600, 600, 8, 8.0, 32.0, 16.0),
}


@dataclass(frozen=True)
class Arrival:
    """One request: seconds from the beginning, whose, and what."""

    number: int
    at_s: float
    key: str
    prompt: str
    prompt_tokens: int
    answer_tokens: int

    @property
    def interactive(self) -> bool:
        return self.key != BATCH_KEY


@dataclass(frozen=True)
class _Row:
    at_s: float
    prompt_tokens: int
    answer_tokens: int
    blocks: tuple[int, ...] = ()


def read(folder: Path, name: str, scale: Scale) -> list[Arrival]:
    """The scaled trace. Raises FileNotFoundError whose text says where the trace comes from."""
    path = folder / SOURCES[name]
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. It comes from {WHERE[name]}: put it there, or say --traces DIR.")
    rows = _mooncake(path) if name == "mooncake" else _azure(path)
    window = _thinned([row for row in rows if scale.start_s <= row.at_s < scale.start_s + scale.seconds], scale.every)
    chance = random.Random(7)
    names = chance.choices(list(KEYS), list(KEYS.values()), k=len(window))
    return [_arrival(number, row, key, scale) for number, (row, key) in enumerate(zip(window, names, strict=True))]


def _thinned(rows: Sequence[_Row], every: int) -> list[_Row]:
    """Whole conversations, so that what they share stays shared; where no blocks are told each request is one."""
    users = Counter(block for row in rows for block in row.blocks)
    order: dict[int, int] = {}
    kept = []
    for number, row in enumerate(rows):
        own = next((block for block in row.blocks if users[block] < SHARED_BY_ALL), -1 - number)
        if order.setdefault(own, len(order)) % every == 0:
            kept.append(row)
    return kept


def _arrival(number: int, row: _Row, key: str, scale: Scale) -> Arrival:
    prompt_tokens = min(scale.most_prompt, max(4, round(row.prompt_tokens / scale.shorter)))
    answer_tokens = min(scale.most_answer, max(1, round(row.answer_tokens / scale.shorter_answers)))
    at_s = (row.at_s - scale.start_s) / scale.faster
    words = _words(number, row, prompt_tokens, scale)
    return Arrival(number, at_s, key, " ".join(words), prompt_tokens, answer_tokens)


def _words(number: int, row: _Row, count: int, scale: Scale) -> list[str]:
    """As many words as tokens; the same block of the trace is always the same words."""
    if not row.blocks:
        chance = random.Random(number)
        return chance.choices(WORDS, k=count)
    each = max(1, round(BLOCK_TOKENS / scale.shorter))
    words: list[str] = []
    for block in row.blocks:
        words += random.Random(block).choices(WORDS, k=each)
    return words[:count]


def _azure(path: Path) -> Iterator[_Row]:
    first: datetime.datetime | None = None
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.datetime.fromisoformat(row["TIMESTAMP"][:26])
            first = first or at
            yield _Row((at - first).total_seconds(), int(row["ContextTokens"]), int(row["GeneratedTokens"]))


def _mooncake(path: Path) -> Iterator[_Row]:
    with path.open() as file:
        for row in map(json.loads, file):
            yield _Row(row["timestamp"] / 1000, row["input_length"], row["output_length"], tuple(row["hash_ids"]))
