"""A request as everything after decides by it: from its head, its body's fields and the service's rules. Pure.

Judged strictly: what is let through, an engine of this service can be given. Not here: JSON (`body`), which service it
goes to (`decide`), whether there is room for it (`gate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from gonogo.gateway.policy.content import Content, read_messages, read_prompt
from gonogo.gateway.policy.deny import INVALID_REQUEST, Deny, Mistake, mistaken
from gonogo.gateway.policy.fields import CHAT, EMBEDDINGS, EXTENSIONS, NEVER, OPENAI, STRUCTURED
from gonogo.gateway.policy.judges import refuse, unknown
from gonogo.gateway.policy.rules import LLAMACPP, ServiceRules

STOPS_AT_CONTEXT = (LLAMACPP,)
"""Engines that take any `max_tokens` and end an answer where the context ends; what can come at most is counted. The
others refuse a prompt and a bound that are together longer than the context, and so do we, before it costs them."""
DEFAULT_ANSWER_TOKENS = 512
"""Expected of an answer whose request sets no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is known of a request before its body. `path` without its query."""

    method: str
    path: str
    request_id: str
    has_query: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that nothing is wrong with.

    `n`: answers in all, over all its prompts (`best_of` counted). `max_tokens`: of one answer, None: no bound was set.
    `prompt_tokens`: estimated, all prompts together (`content` says how). `expected_tokens`: of all answers together,
    `max_tokens` or a usual answer, as far as the context has room; 0 for embeddings. `prefix`: a 64-bit hash of all
    content up to the end of each whole block of 256 bytes (about 64 tokens), at most 512; pictures are as long as their
    tokens. `continuable`: a stream of one plain text, which another replica can go on with.
    `fields`: the names of what the body holds.
    """

    path: str
    method: str
    request_id: str
    model: str
    stream: bool
    n: int
    max_tokens: int | None
    prompt_tokens: int
    expected_tokens: int
    pictures: int
    prefix: tuple[int, ...]
    continuable: bool
    wants_usage: bool
    service_tier: str | None = None
    fields: tuple[str, ...] = ()
    has_query: bool = False


def model_of(fields: Mapping[str, Any]) -> str | Deny:
    """The name of the service that the request asks for."""
    model = fields.get("model")
    if model is None:
        return mistaken("missing_model", 'The request names no model. Set "model"; GET /v1/models lists them.', "model")
    if not isinstance(model, str):
        return mistaken("invalid_type", "model must be a string. GET /v1/models lists them.", "model")
    return model


def request_of(head: Head, fields: Mapping[str, Any], rules: ServiceRules) -> Request | Deny:
    """The request, or what is wrong with it. Never raises for any JSON object and a path of `fields.OPENAI`."""
    try:
        return _request(head, fields, rules)
    except Mistake as mistake:
        return mistake.deny


def _request(head: Head, fields: Mapping[str, Any], rules: ServiceRules) -> Request:
    _judge(head.path, fields, rules)
    content = Content()
    prompts = _read(head.path, fields, content, rules)
    choices = max(fields.get("n") or 1, fields.get("best_of") or 1)
    _check_choices(fields, prompts, choices, rules)
    most = _max_tokens(fields)
    _check_context(head.path, content, most, prompts, rules)
    stream = bool(fields.get("stream"))
    answers = prompts * choices
    prompt_tokens = content.tokens()
    return Request(
        path=head.path,
        method=head.method,
        request_id=head.request_id,
        model=fields["model"],
        stream=stream,
        n=answers,
        max_tokens=most,
        prompt_tokens=prompt_tokens,
        expected_tokens=0 if head.path == EMBEDDINGS else answers * _expected(most, prompt_tokens // prompts, rules),
        pictures=content.pictures,
        prefix=content.prefix(),
        continuable=stream and answers == 1 and not any(fields.get(name) for name in _HOLDS_BACK) and _free(fields),
        wants_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
        service_tier=fields.get("service_tier"),
        fields=tuple(fields),
        has_query=head.has_query,
    )


_HOLDS_BACK = ("tools", "logprobs", "top_logprobs", "echo", "suffix", *STRUCTURED)


def _free(fields: Mapping[str, Any]) -> bool:
    """No form is forced on the answer. `logprobs` 0 of a completion asks for them as well."""
    wanted = (fields.get("response_format") or {}).get("type", "text")
    logprobs = fields.get("logprobs")
    return wanted == "text" and (logprobs is None or logprobs is False)


def _judge(path: str, fields: Mapping[str, Any], rules: ServiceRules) -> None:
    known = OPENAI[path]
    own = EXTENSIONS.get(rules.engine, {}) if path != EMBEDDINGS else {}
    for name, value in fields.items():
        judge = known.get(name) or own.get(name)
        if judge is None:
            raise _not_known(name, path, {**known, **own}, rules)
        if value is not None:
            judge(value, name, rules)
    for name in ("model", _content_field(path)):
        if fields.get(name) is None:
            raise Mistake(mistaken("missing_field", f"{name} is missing.", name))


def _not_known(name: str, path: str, known: Mapping[str, Any], rules: ServiceRules) -> Mistake:
    if name in NEVER:
        return Mistake(mistaken("field_refused", f"The field {name} is refused: {NEVER[name]}.", name))
    others = [engine for engine, fields in EXTENSIONS.items() if name in fields]
    if others and path != EMBEDDINGS:
        message = f"The field {name} is one of {', '.join(others)}, and this service runs on {rules.engine}."
        return Mistake(mistaken("unknown_field", message, name))
    return unknown(name, "", known, f" to {path}")


def _content_field(path: str) -> str:
    return {CHAT: "messages", EMBEDDINGS: "input"}.get(path, "prompt")


def _read(path: str, fields: Mapping[str, Any], content: Content, rules: ServiceRules) -> int:
    name = _content_field(path)
    if path != CHAT:
        return read_prompt(
            fields[name], name, rules.most_inputs if path == EMBEDDINGS else rules.most_sequences, content
        )
    if fields.get("tools"):
        content.mark("tools")
        content.add_values(fields["tools"])
    read_messages(fields[name], content, rules)
    return 1


def _check_choices(fields: Mapping[str, Any], prompts: int, choices: int, rules: ServiceRules) -> None:
    if fields.get("best_of") is not None and fields["best_of"] < (fields.get("n") or 1):
        raise refuse("best_of", "must not be less than n.")
    if fields.get("top_logprobs") and not fields.get("logprobs"):
        raise refuse("top_logprobs", "needs logprobs to be true.")
    if "input" not in fields and prompts * choices > rules.most_sequences:
        raise refuse(
            "prompt",
            f"asks for {prompts * choices} answers ({prompts} prompts, {choices} each); "
            f"at most {rules.most_sequences} are let through in one request.",
        )


def _max_tokens(fields: Mapping[str, Any]) -> int | None:
    both = [fields[name] for name in ("max_completion_tokens", "max_tokens") if fields.get(name) is not None]
    if len(set(both)) > 1:
        raise refuse("max_tokens", "and max_completion_tokens differ: send one of them.")
    most: int | None = both[0] if both else None
    if most is not None and (fields.get("min_tokens") or 0) > most:
        raise refuse("min_tokens", "is more than max_tokens.")
    return most


def _check_context(path: str, content: Content, most: int | None, prompts: int, rules: ServiceRules) -> None:
    """Refuses what is certain; what is only likely, the engine decides, which counts with its own vocabulary."""
    if not rules.context_known:
        return
    context, least = rules.context_tokens, content.least_tokens()
    each = -(-least // prompts)
    where = f"This service's context holds {context:,} tokens, prompt and answer together"
    if each >= context + (path == EMBEDDINGS):
        name = _content_field(path)
        seen = f"{name} takes {least:,} tokens at least (counted as one for every 512 bytes)"
        raise Mistake(_too_long(f"{where}, and {seen}.", name))
    if most is not None and most + each > context and rules.engine not in STOPS_AT_CONTEXT:
        raise Mistake(_too_long(f"{where}, and max_tokens alone is {most:,}. Ask for less.", "max_tokens"))


def _too_long(message: str, param: str) -> Deny:
    return Deny(status=400, code="context_length_exceeded", message=message, type=INVALID_REQUEST, param=param)


def _expected(most: int | None, prompt_tokens: int, rules: ServiceRules) -> int:
    room = max(1, rules.context_tokens - prompt_tokens)
    return min(most if most is not None else DEFAULT_ANSWER_TOKENS, room)
