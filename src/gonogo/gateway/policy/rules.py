"""What policy must know of a revision to judge a request for it, derived from its spec alone. Pure.

From the canonical JSON of the spec, as the store keeps it: policy servers start without the library that the spec's own
class needs. Not here: which revision a request goes to (`decide`), and judging (`request`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

LLAMACPP, VLLM, VLLM_CPU, SGLANG, EXTERNAL = "llama.cpp", "vllm", "vllm-cpu", "sglang", "external"
TOKEN_AWARE = "token_aware"  # noqa: S105 (no secret)
DEFAULT_CONTEXT_TOKENS, DEFAULT_CONCURRENT_REQUESTS = 2048, 4
MOST_CHOICES, MOST_LOGPROBS = 8, 20
"""Answers per prompt (`n`, `best_of`) and alternatives per token. The same numbers as the engines that can be told
(`gonogo.engines.settings`, held together by a test); SGLang and vLLM before 0.19 cannot, so policy is their bound."""
MOST_SEQUENCES = 64
"""Prompts of one request times answers to each."""
MOST_INPUTS = 2048
"""Texts of one embeddings request, as OpenAI has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackRules:
    """The hosted API of a revision: its authority (`host:port`), what it calls the model, which fields it may get."""

    authority: str
    model: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRules:
    """The rules of one revision.

    `context_tokens`: prompt and answer of one request together; `context_known`: the engine was started with it, which
    nobody can say of a server that others started, so that nothing is refused by it. `sees_pictures` None: not known,
    the engine decides. `media_hosts`: from where the engine may fetch pictures by https; none: only pictures that are
    in the body. `served_as`: what the replicas call the model, where that is not the service's name.
    `fallback`: who answers while none of them is well.

    What admission goes by: `concurrent_requests` over all replicas, `replicas` as asked (None: as many as fit),
    `sequences` of one replica (None: as planned), `balancing` in the spec's words, `ttft_ms`: by when a request must
    have its first token (None: nothing was promised).
    """

    engine: str = LLAMACPP
    context_tokens: int = DEFAULT_CONTEXT_TOKENS
    context_known: bool = True
    sees_pictures: bool | None = None
    most_choices: int = MOST_CHOICES
    most_logprobs: int = MOST_LOGPROBS
    most_sequences: int = MOST_SEQUENCES
    most_inputs: int = MOST_INPUTS
    media_hosts: tuple[str, ...] = ()
    concurrent_requests: int = DEFAULT_CONCURRENT_REQUESTS
    replicas: int | None = None
    sequences: int | None = None
    balancing: str = TOKEN_AWARE
    ttft_ms: int | None = None
    served_as: str | None = None
    fallback: FallbackRules | None = None


def rules_of(spec: Mapping[str, Any]) -> ServiceRules:
    """The rules of a spec, given as its JSON. What is absent is as the spec's class has it by default."""
    expect, replicas = _part(spec, "expect"), _part(spec, "replicas")
    external = bool(replicas.get("external"))
    engine = EXTERNAL if external else _part(spec, "engine").get("name") or LLAMACPP
    return ServiceRules(
        engine=str(engine),
        context_tokens=_number(expect, "context_tokens") or DEFAULT_CONTEXT_TOKENS,
        context_known=not external,
        sees_pictures=_sees_pictures(spec, str(engine)),
        concurrent_requests=_number(expect, "concurrent_requests") or DEFAULT_CONCURRENT_REQUESTS,
        replicas=_number(replicas, "min"),
        sequences=_number(_part(spec, "engine"), "sequences"),
        ttft_ms=_number(_part(spec, "slo"), "ttft_ms"),
        balancing=str(_part(spec, "gateway").get("balancing") or TOKEN_AWARE),
        served_as=_served_as(spec) if external else None,
        fallback=_fallback(_part(spec, "fallback")),
    )


def _served_as(spec: Mapping[str, Any]) -> str | None:
    model = spec.get("model")
    return model if isinstance(model, str) and model != spec.get("service") else None


def _fallback(part: Mapping[str, Any]) -> FallbackRules | None:
    url, parameters = part.get("url"), part.get("parameters")
    if not isinstance(url, str) or not isinstance(parameters, (list, tuple)):
        return None
    authority = url.partition("://")[2].partition("/")[0]
    return FallbackRules(authority=authority, model=str(part.get("model")), parameters=tuple(map(str, parameters)))


def _number(part: Mapping[str, Any], name: str) -> int | None:
    value = part.get(name)
    return value if isinstance(value, int) else None


def _sees_pictures(spec: Mapping[str, Any], engine: str) -> bool | None:
    """llama.cpp sees by its projector's file and by nothing else; of other engines the spec does not say."""
    return spec.get("projector") is not None if engine == LLAMACPP else None


def _part(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = spec.get(name)
    return part if isinstance(part, Mapping) else {}
