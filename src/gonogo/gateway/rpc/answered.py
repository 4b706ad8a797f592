"""From OpenAI's answers to gRPC messages. Pure. Engines differ; what is not as OpenAI's raises `Failed`, never less."""

from __future__ import annotations

import json
from typing import Any, Mapping, Sequence

from gonogo.gateway.rpc.statuses import UNREADABLE, Failed, of_event
from gonogo.rpc.v1 import inference_pb2 as pb

Json = dict[str, Any]
DONE = b"[DONE]"
_LARGEST = 2**32 - 1

_REASONS: Mapping[str, pb.FinishReason] = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "tool_calls": pb.FINISH_REASON_TOOL_CALLS,
    "content_filter": pb.FINISH_REASON_CONTENT_FILTER,
}


def chat(body: bytes) -> pb.ChatResponse:
    """Of a whole chat completion. Raises `Failed`."""
    answer = _object(body)
    choice = _first(answer)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Failed(UNREADABLE)
    made = pb.Message(role=pb.ROLE_ASSISTANT, reasoning=_reasoning(message))
    if text := _text(message, "content"):
        made.parts.append(pb.Part(text=text))
    made.tool_calls.extend(
        pb.ToolCall(id=one.id, name=one.name, arguments_json=one.arguments_json) for one in _calls(message)
    )
    return pb.ChatResponse(
        message=made,
        finish_reason=_finish(choice),
        usage=_usage(answer),
        id=_text(answer, "id"),
        model=_text(answer, "model"),
    )


class Pieces:
    """Reads the events of one stream. Usage comes last and once, wherever the engine put it."""

    def __init__(self) -> None:
        self._usage: pb.Usage | None = None
        self._named = pb.GenerateResponse()

    def read(self, event: bytes) -> pb.GenerateResponse | None:
        """The message for this event; None where it says nothing yet. Raises `Failed`, also for an error event."""
        chunk = _object(event)
        if "error" in chunk:
            raise Failed(of_event(chunk["error"]))
        self._usage = _usage(chunk) or self._usage
        self._named = pb.GenerateResponse(id=_text(chunk, "id"), model=_text(chunk, "model"))
        if not chunk.get("choices"):
            return None
        made = _piece(_first(chunk))
        if made.ByteSize() == 0:
            return None
        made.MergeFrom(self._named)
        if chunk.get("usage") and self._usage is not None:  # vLLM counts with every piece, when it is asked to
            made.completion_tokens = self._usage.completion_tokens
        return made

    def end(self) -> pb.GenerateResponse | None:
        """The last message; None where the engine told no usage."""
        if self._usage is None:
            return None
        self._named.usage.CopyFrom(self._usage)
        return self._named


def _piece(choice: Json) -> pb.GenerateResponse:
    made = pb.GenerateResponse(finish_reason=_finish(choice))
    delta = choice.get("delta")
    if isinstance(delta, dict):
        made.text, made.reasoning = _text(delta, "content"), _reasoning(delta)
        made.tool_calls.extend(_calls(delta))
    else:
        made.text = _text(choice, "text")
    return made


def models(body: bytes) -> pb.ListModelsResponse:
    """Of the list of models. Raises `Failed`."""
    listed = _object(body).get("data")
    if not isinstance(listed, list) or not all(isinstance(one, dict) and _text(one, "id") for one in listed):
        raise Failed(UNREADABLE)
    return pb.ListModelsResponse(models=[_model(one) for one in listed])


def _model(one: Json) -> pb.Model:
    made = pb.Model(id=_text(one, "id"), owned_by=_text(one, "owned_by"))
    meta = one.get("meta")
    known = one.get("max_model_len")  # vLLM's and SGLang's word
    if known is None and isinstance(meta, dict):
        known = meta.get("n_ctx")  # llama.cpp's
    if isinstance(known, int) and _counts(known):
        made.context_tokens = known
    return made


def _object(text: bytes) -> Json:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        raise Failed(UNREADABLE) from None
    if not isinstance(read, dict):
        raise Failed(UNREADABLE)
    return read


def _first(answer: Json) -> Json:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Failed(UNREADABLE)
    return choices[0]


def _text(holder: Json, field: str) -> str:
    """The text of a field; empty where there is none. Half a character is replaced: protobuf's strings are UTF-8."""
    value = holder.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Failed(UNREADABLE)
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _reasoning(message: Json) -> str:
    return _text(message, "reasoning_content") or _text(message, "reasoning")


def _calls(message: Json) -> Sequence[pb.ToolCallPiece]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise Failed(UNREADABLE)
    return [_call(at, one) for at, one in enumerate(calls)]


def _call(at: int, call: Any) -> pb.ToolCallPiece:
    if not isinstance(call, dict) or not isinstance(call.get("function", {}), dict):
        raise Failed(UNREADABLE)
    function = call.get("function", {})
    index = call.get("index", at)
    return pb.ToolCallPiece(
        index=index if _counts(index) else at,
        id=_text(call, "id"),
        name=_text(function, "name"),
        arguments_json=_text(function, "arguments"),
    )


def _finish(choice: Json) -> pb.FinishReason:
    said = choice.get("finish_reason")
    return pb.FINISH_REASON_UNSPECIFIED if said is None else _REASONS.get(str(said), pb.FINISH_REASON_OTHER)


def _usage(answer: Json) -> pb.Usage | None:
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    counted = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if not all(_counts(one) for one in counted):
        raise Failed(UNREADABLE)
    made = pb.Usage(prompt_tokens=counted[0], completion_tokens=counted[1])
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and _counts(details.get("cached_tokens")):
        made.cached_prompt_tokens = details["cached_tokens"]
    return made


def _counts(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _LARGEST
