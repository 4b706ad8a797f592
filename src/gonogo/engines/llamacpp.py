"""llama.cpp on the CPU: the command line, the memory plan, and how to read its metrics and its log.

Not here: the program that runs it (`gonogo.runners.llamacpp`). The formulas reproduce what llama.cpp prints of its
buffers; the cases in `tests/cases/engines/llamacpp` hold planned beside printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gonogo.engines.memory import MemoryPlan, Term
from gonogo.engines.model import Launch, Placement, Progress
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import MemoryMeasured
from gonogo.spec import Spec

MIB = 1024**2
BATCH_TOKENS = 128
"""Prompt tokens per step. Measured on one core: as fast as 512, and other requests wait 0.7 s for a step, not 2.3 s."""
NICENESS = 5
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}
"""Without the second one, a dying llama.cpp starts a debugger on itself where one is installed."""
MOST_SLOTS, CONTEXT_STEP = 16, 256
DEFAULT_REPLICAS = 2
OVERLOAD, SPARE_CONNECTIONS, FEWEST_CONNECTIONS, MOST_CONNECTIONS = 4, 32, 128, 1024
RUNTIME_BYTES, RUNTIME_UNDER_LOAD_BYTES, VOCABULARY_ENTRY_BYTES = 34 * MIB, 17 * MIB, 480
HALF, SINGLE = 2, 4
"""Bytes of one f16 and one f32."""
COMPUTE_CHECKED = frozenset({"llama", "qwen2", "qwen3", "gemma3"})
"""Architectures whose printed compute buffers were held against the formula."""
FULL_ATTENTION_EVERY = {"gemma3": 6}
"""Of a model with a sliding window: every n-th layer still keeps the whole context. Others: planned as if all did."""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """The adapter. `interpreter` is the Python of the environment that holds the engine, on the replica's host."""

    interpreter: str = "python"
    name = "llamacpp"

    def launch(self, spec: Spec, model: ModelFacts, placement: Placement) -> Launch:
        """The process of one replica. Raises ValueError for a model that was not found."""
        if model.path is None:
            raise ValueError(f"no path is known for the model {model.asked!r}")
        replicas = placement.replicas or (spec.replicas.min if spec.replicas else DEFAULT_REPLICAS)
        command = (
            *(self.interpreter, "-m", "gonogo.runners.llamacpp"),
            *("--model", model.path, "--alias", spec.service),
            *("--address", placement.address, "--port", str(placement.port)),
            *("--context", str(context_tokens(spec)), "--slots", str(slots(spec, replicas))),
            *("--threads", str(placement.threads), "--batch", str(BATCH_TOKENS)),
            *("--http-threads", str(connections(spec))),
        )
        return Launch(command=command, environment=ENVIRONMENT, niceness=NICENESS)

    def memory(self, spec: Spec, model: ModelFacts, replicas: int) -> MemoryPlan:
        """The plan of one of so many replicas. Raises ValueError for a model that was not read."""
        return memory_plan(model, context_tokens(spec), slots(spec, replicas), BATCH_TOKENS)

    def progress(self, metrics_text: str) -> Progress | None:
        """What `/metrics` says; None when it is not llama.cpp's or lacks a counter."""
        found = dict(_METRIC.findall(metrics_text))
        try:
            return Progress(
                tokens_generated=int(float(found["tokens_predicted_total"])),
                prompt_tokens=int(float(found["prompt_tokens_total"])),
                requests_running=int(float(found["requests_processing"])),
                requests_waiting=int(float(found["requests_deferred"])),
                steps=int(float(found["n_decode_total"])),
            )
        except (KeyError, ValueError, OverflowError):
            return None

    def measured(self, log_text: str) -> MemoryMeasured:
        """The buffer sizes that the last start in this log printed; None for those it did not."""
        last = _last_start(log_text)
        printed: dict[str, int] = {}
        for kind, mebibytes in _BUFFER.findall(last):
            printed[kind] = printed.get(kind, 0) + round(float(mebibytes) * MIB)
        return MemoryMeasured(
            weights_bytes=printed.get("model"),
            kv_cache_bytes=printed.get("KV"),
            compute_bytes=printed.get("compute"),
            output_bytes=printed.get("output"),
        )

    def explain_exit(self, log_text: str) -> str | None:
        """The reason code for what the last start in this log died of; None when the log does not say."""
        last = _last_start(log_text)
        for reason, pattern in _EXITS:
            if pattern.search(last):
                return reason
        said = _RUNNER_SAID.search(last)
        return said.group(1) if said else None


def slots(spec: Spec, replicas: int) -> int:
    """Requests that one of so many replicas works on at the same time; more wait in its queue."""
    return max(1, min(MOST_SLOTS, -(-spec.expect.concurrent_requests // max(1, replicas))))


def context_tokens(spec: Spec) -> int:
    """Tokens of one slot: as asked, rounded up to llama.cpp's step."""
    return -(-spec.expect.context_tokens // CONTEXT_STEP) * CONTEXT_STEP


def connections(spec: Spec) -> int:
    """Requests that a replica answers or lets wait. The gateway must send fewer: beyond it `/health` falls silent."""
    overloaded = OVERLOAD * spec.expect.concurrent_requests + SPARE_CONNECTIONS
    return min(MOST_CONNECTIONS, max(FEWEST_CONNECTIONS, overloaded))


def memory_plan(model: ModelFacts, context: int, slot_count: int, batch: int) -> MemoryPlan:
    """The plan of one replica with slots of `context` tokens. Raises ValueError for a model that was not read."""
    numbers = _Numbers.of(model)
    return MemoryPlan(
        terms=(
            Term(
                name="weights",
                size_bytes=numbers.weights_bytes,
                source="sum of the model file's tensors; replicas on one host share it through the page cache",
            ),
            _kv_cache(model, numbers, context, slot_count, batch),
            _compute(model, numbers, context, slot_count, batch),
            Term(
                name="output",
                size_bytes=slot_count * numbers.vocabulary * SINGLE,
                source=f"{slot_count} slots × {numbers.vocabulary} words × 4 B",
            ),
            Term(
                name="runtime",
                size_bytes=RUNTIME_BYTES + RUNTIME_UNDER_LOAD_BYTES + numbers.vocabulary * VOCABULARY_ENTRY_BYTES,
                source="measured: Python and libraries 34 MiB, 17 MiB more under load, 480 B per vocabulary word",
            ),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """What the formulas need of a model, with llama.cpp's own defaults filled in."""

    weights_bytes: int
    vocabulary: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: tuple[int, ...]
    key: int
    value: int

    @classmethod
    def of(cls, model: ModelFacts) -> _Numbers:
        if model.tensors is None or model.layers is None or model.embedding_length is None:
            raise ValueError(f"the model {model.asked!r} was not read: {model.problem or 'metadata is missing'}")
        heads = model.heads or 0
        head = model.embedding_length // heads if heads else 0
        return cls(
            weights_bytes=sum(tensor.size_bytes for tensor in model.tensors),
            vocabulary=model.vocabulary or 0,
            embedding=model.embedding_length,
            feed_forward=model.feed_forward_length or 4 * model.embedding_length,
            heads=heads,
            kv_heads=model.kv_heads or (heads,) * model.layers,
            key=model.key_length or head,
            value=model.value_length or head,
        )


def _kv_cache(model: ModelFacts, numbers: _Numbers, context: int, slot_count: int, batch: int) -> Term:
    every = FULL_ATTENTION_EVERY.get(model.architecture or "")
    window = model.sliding_window
    windowed = min(context, _pad(window + batch)) if window and every else context
    per_head = (numbers.key + numbers.value) * HALF
    cells = [windowed if every and (layer + 1) % every else context for layer in range(len(numbers.kv_heads))]
    size = slot_count * sum(heads * per_head * count for heads, count in zip(numbers.kv_heads, cells, strict=True))
    layers = len(numbers.kv_heads)
    if not size:
        return Term(name="kv_cache", size_bytes=0, source="no attention heads; a recurrent state is not counted")
    shape = f"{slot_count} slots × {context} tokens × {layers} layers × {max(numbers.kv_heads)} heads × {per_head} B"
    if window and every:
        return Term(name="kv_cache", size_bytes=size, source=f"{shape}, less where the window is {window} tokens")
    bound = ", an upper bound: some layers may keep only a window" if window else ""
    return Term(name="kv_cache", size_bytes=size, source=shape + bound)


def _compute(model: ModelFacts, numbers: _Numbers, context: int, slot_count: int, batch: int) -> Term:
    tokens = -(-batch // slot_count) * slot_count
    queries, keys = numbers.heads * numbers.key, max(numbers.kv_heads, default=0) * numbers.key
    widest = max(3 * numbers.feed_forward, 2 * queries + 2 * keys)
    inputs = HALF * context + (HALF * _pad(model.sliding_window + batch) if model.sliding_window else 0) + 36
    shared = 5 * SINGLE * numbers.embedding + inputs
    peak = max(tokens * SINGLE * widest, slot_count * SINGLE * numbers.vocabulary)
    size = tokens * shared + peak
    source = f"{tokens} tokens × {shared} B + {peak} B at the widest layer"
    if model.architecture in COMPUTE_CHECKED:
        source += f"; held against what {model.architecture} printed"
    else:
        size = 2 * size + tokens * SINGLE * numbers.heads * context
        source = f"twice ({source}) + attention scores: a bound, not held against this architecture"
    return Term(name="compute", size_bytes=size, source=source)


def _last_start(log_text: str) -> str:
    """The part of an appended log that belongs to the last start."""
    start = log_text.rfind(_FIRST_LINE)
    return log_text[start:] if start >= 0 else log_text


def _pad(tokens: int) -> int:
    return -(-tokens // CONTEXT_STEP) * CONTEXT_STEP


_METRIC = re.compile(r"^llamacpp:(\w+) ([0-9.eE+]+)$", re.MULTILINE)
_BUFFER = re.compile(r"(model|KV|compute|output) buffer size = +([0-9.]+) MiB")
_FIRST_LINE = "gonogo.runner: starting"
_RUNNER_SAID = re.compile(r"^gonogo\.runner: (Engine\w+): ", re.MULTILINE)
_EXITS = tuple(
    (reason, re.compile(pattern, re.IGNORECASE))
    for reason, pattern in (
        ("EngineUnknownArchitecture", r"unknown model architecture"),
        (
            "EngineOutOfMemory",
            r"std::bad_alloc|gonogo\.runner: EngineOutOfMemory|failed to allocate|unable to allocate|out of memory"
            r"|cannot allocate memory|insufficient memory",
        ),
        ("EnginePortTaken", r"gonogo\.runner: EnginePortTaken|couldn't bind http server socket"),
        (
            "EngineModelUnreadable",
            r"gonogo\.runner: EngineModelUnreadable|error loading model|failed to load model|invalid magic"
            r"|gguf_init_from_file",
        ),
        ("EngineInstructionMissing", r"illegal instruction"),
        ("EngineCrashed", r"GGML_ASSERT|GGML_ABORT|fatal python error|segmentation fault"),
        ("EngineNotInstalled", r"No module named '?(xllamacpp|gonogo)"),
    )
)
