"""What a GPU engine is started with beyond the spec: its version, the model's source, the plan's numbers. Pure.

One `EngineSettings` per revision; what differs between replicas (port, cards, seed) is the `Placement`. The numbers are
those of the plan (`Serving`), so that the engine takes what was planned and nothing else. Not here: the words of a
command line (`vllm.py`, `sglang.py`), and which version knows which flag (`options.py`).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Mapping

from gonogo.engines.memory import MemoryPlan, Term
from gonogo.engines.model import Placement
from gonogo.engines.printed import parse_printed
from gonogo.engines.replica_memory import ReplicaMemory
from gonogo.engines.serving import Serving
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import MemoryMeasured
from gonogo.spec.recipe_parts import EngineNeeds

MOST_CHOICES, MOST_LOGPROBS = 8, 20
"""Answers per request (`n`) and alternatives per token; 20 is what OpenAI's API allows."""
DOORS = frozenset({"media_urls", "local_files", "choices", "logprobs"})
"""What some engine has no switch against, so that policy bounds it; a test sends each of them."""
NOWHERE = "media.invalid"
"""A host that cannot exist (RFC 2606). An empty list of allowed media hosts means all of them, to both engines."""
HALF_BELOW = (8, 0)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_CUDA_DEVICE = re.compile(r"\d{1,3}|(GPU|MIG)-[0-9a-fA-F-]{8,64}")


class Refused(ValueError):
    """This start is not made: `reason` is a stable code, `values` its numbers."""

    def __init__(self, reason: str, **values: str | int) -> None:
        super().__init__(f"{reason}: {', '.join(f'{name} {value}' for name, value in values.items())}")
        self.reason, self.values = reason, values


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How one revision is served by an engine on accelerators.

    `version`: of the engine, as its package says it. `source`: the folder with the weights, or a hub id; None: where
    the model was found. `needs`: the recipe's entry for this engine. `quantization`: made by the engine while it loads,
    in its own word; None: as the checkpoint is. `dtype`: of the arithmetic, in the engine's word; None: as the model
    has it. `chat_template`: a file, for a model that has none. `media_domains`: hosts that the engine may fetch images
    from, none: no host. `cuda_home`: where the CUDA toolkit is, for engines that compile kernels. `planned`: the memory
    plan that `serving` was chosen by. `cache_bytes`: of the KV cache, for an engine that computes on the processor;
    None: it has accelerators and takes their `share`. Raises Refused for a host name that is none.
    """

    version: str
    serving: Serving
    source: str | None = None
    needs: EngineNeeds | None = None
    quantization: str | None = None
    dtype: str | None = None
    chat_template: str | None = None
    media_domains: tuple[str, ...] = ()
    cuda_home: str | None = None
    most_choices: int = MOST_CHOICES
    most_logprobs: int = MOST_LOGPROBS
    planned: ReplicaMemory | None = None
    cache_bytes: int | None = None

    def __post_init__(self) -> None:
        for host in self.media_domains:
            if not _HOST.fullmatch(host):
                raise Refused("EngineMediaHostMistaken", host=host[:80])

    @property
    def media_hosts(self) -> tuple[str, ...]:
        """What the engine is told: the allowed hosts, or one that does not exist."""
        return self.media_domains or (NOWHERE,)

    def source_of(self, model: ModelFacts) -> str:
        """The folder or hub id to serve. Raises ValueError where neither is known."""
        source = self.source or model.path
        if source is None:
            raise ValueError(f"no path is known for the model {model.asked!r}")
        return source


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a replica's own command bounds, and what it leaves to the gateway.

    `context_tokens`: of one request, prompt and answer. `sequences`: worked on at once, None: as the engine chooses.
    `choices`, `logprobs`: per request, None: the engine has no such bound. `unfenced`: what this version lets any
    client do and has no switch for: `media_urls` (fetch any URL), `local_files` (read images from the host's disk),
    `choices`, `logprobs`. Policy refuses these for every engine (`DOORS`).
    """

    context_tokens: int
    sequences: int | None
    choices: int | None
    logprobs: int | None
    unfenced: frozenset[str]


def check_start(settings: EngineSettings, placement: Placement) -> None:
    """Raises Refused for a start that cannot be right: not on loopback, the wrong number of cards, a bad version."""
    if not _loopback(placement.address):
        raise Refused("EngineAddressNotLoopback", address=placement.address)
    wanted, given = settings.serving.devices, placement.devices
    if given and len(set(given)) != wanted:
        raise Refused("EngineCardsMismatch", wanted=wanted, given=len(set(given)))
    for device in given:
        if not _CUDA_DEVICE.fullmatch(device):
            raise Refused("EngineCardMistaken", device=device[:80])
    needs = settings.needs
    bad = needs.known_bad_at(settings.version) if needs is not None else None
    if bad is not None:
        raise Refused("EngineVersionKnownBad", version=settings.version, versions=bad.versions, link=bad.link)
    if needs is not None and needs.supports(settings.version) is False:
        raise Refused("EngineVersionUnsupported", version=settings.version, versions=needs.versions or "")


def gpu_environment(settings: EngineSettings, source: str, placement: Placement) -> Mapping[str, str]:
    """What both engines are told: UTF-8, no other packages than their own, only their cards, no network for weights.

    The cards are counted as the driver counts them; CUDA's own order puts the fastest first.
    """
    return {
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(placement.devices),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        **({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if source.startswith("/") else {}),
        **({"CUDA_HOME": settings.cuda_home} if settings.cuda_home is not None else {}),
    }


def half_on_old_cards(capability: tuple[int, int]) -> str | None:
    """The type of the arithmetic on such a card: bfloat16 needs compute capability 8.0; None: as the model has it."""
    return "half" if capability < HALF_BELOW else None


def share_text(share: float) -> str:
    """A share of memory as a word: at most four decimals, never rounded up."""
    return f"{int(share * 10_000 + 1e-6) / 10_000:.4f}".rstrip("0").rstrip(".")


def replica_plan(settings: EngineSettings) -> MemoryPlan:
    """The memory of all cards of one replica, as planned. Raises ValueError where nothing was planned."""
    planned = settings.planned
    if planned is None:
        raise ValueError("no memory plan was made for these settings")
    sizes: dict[str, int] = {}
    sources: dict[str, str] = {}
    for rank in planned.ranks:
        cache = Term(name="kv_cache", size_bytes=max(0, rank.cache_bytes), source="what the share leaves")
        for term in (*rank.terms, cache, *rank.outside):
            sizes[term.name] = sizes.get(term.name, 0) + term.size_bytes * settings.serving.tensor
            sources.setdefault(term.name, term.source)
    return MemoryPlan(
        terms=tuple(Term(name=name, size_bytes=size, source=sources[name]) for name, size in sizes.items())
    )


def printed_memory(log_text: str, serving: Serving) -> MemoryMeasured:
    """What the last start in a log printed of its memory: weights, cache, the activation peak.

    An engine prints them of its first card; each of those that divide every layer takes the same. Of stages it prints
    nothing. Sizes of less than 0.01 GiB are printed as 0: they are not known.
    """
    printed = parse_printed(log_text)
    cards = serving.tensor if serving.pipeline == 1 else None

    def together(size_bytes: int | None) -> int | None:
        return size_bytes * cards if size_bytes and cards is not None else None

    return MemoryMeasured(
        weights_bytes=together(printed.weights_bytes),
        kv_cache_bytes=together(printed.cache_bytes),
        kv_cache_tokens=printed.tokens,
        compute_bytes=together(printed.activation_bytes),
    )


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
