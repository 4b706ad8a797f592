"""llama.cpp on the CPU: the command line, the memory plan, and how to read its metrics and its log.

Not here: the program that runs it (`gonogo.runners.llamacpp`) and how its buffers follow from a model
(`gonogo.engines.llamacpp_memory`); the cases in `tests/cases/engines/llamacpp` hold planned beside printed. The runner
turns off llama-server's cache of former prompts (8 GiB by default), so that no plan here needs one. A picture counts
as tokens of the context, and the server refuses a request that has too many before it is encoded. llama.cpp has no
switch for what a client may make it do with a picture's URL, so that the runner is fenced (`gonogo.runners.fence`);
what has no bound there is a picture's size before it is scaled down, which only the gateway's limit of a body holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gonogo.engines.llamacpp_facts import shape_from
from gonogo.engines.llamacpp_memory import memory_of
from gonogo.engines.llamacpp_settings import LlamaSettings
from gonogo.engines.llamacpp_vision import RETURN_FROM_BYTES, image_tokens, projector_terms
from gonogo.engines.memory import MemoryPlan, Term
from gonogo.engines.model import Launch, Placement, Progress
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import MemoryMeasured
from gonogo.spec import Spec

MIB = 1024**2
BATCH_TOKENS = 128
"""Prompt tokens per step. Measured on one core: as fast as 512, and other requests wait 0.7 s for a step, not 2.3 s."""
NICENESS = 5
LOAD_LIMIT_S = 120.0
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}
"""Without the second one, a dying llama.cpp starts a debugger on itself where one is installed."""
ISOLATED = ("-I", "-B", "-u")
"""For a locked environment: what stands in PYTHONPATH is not part of it, and nothing is written into it."""
MOST_SLOTS, CONTEXT_STEP = 16, 256
DEFAULT_REPLICAS = 2
OVERLOAD, SPARE_CONNECTIONS, FEWEST_CONNECTIONS, MOST_CONNECTIONS = 4, 32, 128, 1024
RUNTIME_BYTES, RUNTIME_UNDER_LOAD_BYTES, VOCABULARY_ENTRY_BYTES = 34 * MIB, 17 * MIB, 480


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """The adapter. `interpreter` is the Python of the environment that holds the engine, on the replica's host;
    `runner` the path of our program there, None: that Python has gonogo installed.
    """

    interpreter: str = "python"
    runner: str | None = None
    name = "llamacpp"
    load_limit_s = LOAD_LIMIT_S
    part = None

    def launch(self, spec: Spec, model: ModelFacts, placement: Placement) -> Launch:
        """The process of one replica. Raises ValueError for a model that was not found."""
        if model.path is None:
            raise ValueError(f"no path is known for the model {model.asked!r}")
        replicas = placement.replicas or (spec.replicas.min if spec.replicas else DEFAULT_REPLICAS)
        command = (
            *(
                (self.interpreter, "-m", "gonogo.runners.llamacpp")
                if self.runner is None
                else (self.interpreter, *ISOLATED, self.runner)
            ),
            *("--model", model.path, "--alias", spec.service),
            *("--address", placement.address, "--port", str(placement.port)),
            *("--context", str(context_tokens(spec)), "--slots", str(slots(spec, replicas))),
            *("--threads", str(placement.threads), "--batch", str(BATCH_TOKENS)),
            *("--http-threads", str(connections(spec))),
            *_vision(spec, model),
        )
        seeing = {} if spec.projector is None else {"MALLOC_MMAP_THRESHOLD_": str(RETURN_FROM_BYTES)}
        return Launch(command=command, environment={**ENVIRONMENT, **seeing}, niceness=NICENESS)

    def memory(self, spec: Spec, model: ModelFacts, replicas: int) -> MemoryPlan:
        """The plan of one of so many replicas. Raises ValueError for a model that was not read."""
        plan = memory_plan(model, context_tokens(spec), slots(spec, replicas), BATCH_TOKENS)
        if model.projector is None:
            return plan
        requests = -(-spec.expect.concurrent_requests // max(1, replicas))
        return MemoryPlan(terms=(*plan.terms, *projector_terms(model.projector, context_tokens(spec), requests)))

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
        """The buffer sizes that the last start in this log printed, without the image encoder's; None: not printed."""
        last = _OF_ENCODER.sub("", _last_start(log_text))
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


def _vision(spec: Spec, model: ModelFacts) -> tuple[str, ...]:
    """The words for a model that sees pictures; raises ValueError for a projector that was not read."""
    if spec.projector is None:
        return ()
    projector = model.projector
    if projector is None or projector.kind is None:
        raise ValueError(f"the projector {spec.projector!r} was not read")
    tokens = image_tokens(projector, context_tokens(spec))
    return ("--projector", projector.path, *(() if tokens is None else ("--image-tokens", str(tokens))))


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
    shape = shape_from(model)
    weights = {tensor.name: tensor.size_bytes for tensor in model.tensors or ()}
    settings = LlamaSettings(
        context_tokens=context * slot_count, sequences=slot_count, batch_tokens=batch, step_tokens=batch
    )
    memory = memory_of(shape, weights, settings)
    vocabulary = model.vocabulary or 0
    runtime = Term(
        name="runtime",
        size_bytes=RUNTIME_BYTES + RUNTIME_UNDER_LOAD_BYTES + vocabulary * VOCABULARY_ENTRY_BYTES,
        source="measured: Python and libraries 34 MiB, 17 MiB more under load, 480 B per vocabulary word; the runner "
        "keeps no cache of former prompts (8,192 MiB by default)",
    )
    return MemoryPlan(terms=(*memory.plan.terms, runtime))


def _last_start(log_text: str) -> str:
    """The part of an appended log that belongs to the last start."""
    start = log_text.rfind(_FIRST_LINE)
    return log_text[start:] if start >= 0 else log_text


_METRIC = re.compile(r"^llamacpp:(\w+) ([0-9.eE+]+)$", re.MULTILINE)
_BUFFER = re.compile(r"(model|KV|compute|output) buffer size = +([0-9.]+) MiB")
_OF_ENCODER = re.compile(r"^.*_compute_meta:.*$", re.MULTILINE)
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
        ("EngineProjectorRefused", r"failed to load multimodal model|Failed to load CLIP model"),
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
