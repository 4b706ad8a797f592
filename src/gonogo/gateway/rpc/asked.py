"""From a gRPC request to the OpenAI request that means the same. Pure.

Not here: whether its values are right (the policy servers read the JSON as they read everybody's), and who sends it.
What is refused here is what JSON could not carry, or what would mean nothing there.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from gonogo.rpc.v1 import inference_pb2 as pb

CHAT, COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
Json = dict[str, Any]

_MEDIA_TYPE = re.compile(r"image/[a-z0-9.+-]{1,60}")
_ROLES: Mapping[int, str] = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
    pb.ROLE_TOOL: "tool",
    pb.ROLE_DEVELOPER: "developer",
}
_MODES: Mapping[int, str] = {
    pb.TOOL_MODE_UNSPECIFIED: "auto",
    pb.TOOL_MODE_AUTO: "auto",
    pb.TOOL_MODE_NONE: "none",
    pb.TOOL_MODE_REQUIRED: "required",
}


class Wrong(ValueError):
    """The request says nothing that can be asked; the text says which field, what was seen, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An HTTP request for `POST path`: UTF-8 JSON."""

    path: str
    body: bytes


def generate(request: pb.GenerateRequest) -> Asked:
    """A streamed request. Raises `Wrong`."""
    kind = request.WhichOneof("input")
    if kind is None:
        raise Wrong("Neither prompt nor conversation is set. Set one of them.")
    streamed: Json = {"stream": True, "stream_options": {"include_usage": True}}
    if kind == "prompt":
        for field in ("tools", "output_format"):
            if request.HasField(field):
                raise Wrong(f"{field} is set beside prompt. It needs a conversation.")
        body = {"model": request.model, "prompt": request.prompt, **_sampling(request.sampling), **streamed}
        return Asked(path=COMPLETIONS, body=_dumped(body))
    return Asked(path=CHAT, body=_dumped({**_conversation(request), **streamed}))


def chat(request: pb.ChatRequest) -> Asked:
    """A request that is answered at once. Raises `Wrong`."""
    return Asked(path=CHAT, body=_dumped(_conversation(request)))


def _conversation(request: pb.GenerateRequest | pb.ChatRequest) -> Json:
    messages = request.conversation.messages
    if not messages:
        raise Wrong("conversation.messages is empty. It needs at least one message.")
    body: Json = {"model": request.model}
    body["messages"] = [_message(one, f"conversation.messages[{at}]") for at, one in enumerate(messages)]
    return {**body, **_sampling(request.sampling), **_tools(request.tools), **_format(request.output_format)}


def _message(message: pb.Message, where: str) -> Json:
    role = _ROLES.get(message.role)
    if role is None:
        raise Wrong(f"{where}.role is {message.role}. It must be one of ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, …")
    made: Json = {"role": role, "content": _content(message, where)}
    if message.name:
        made["name"] = message.name
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments_json}}
            for one in message.tool_calls
        ]
    return made


def _content(message: pb.Message, where: str) -> str | list[Json] | None:
    """As a string wherever it can be: older engines read nothing else."""
    if not message.parts:
        return None if message.tool_calls else ""
    if len(message.parts) == 1 and message.parts[0].WhichOneof("content") == "text":
        return message.parts[0].text
    return [_part(one, f"{where}.parts[{at}]") for at, one in enumerate(message.parts)]


def _part(part: pb.Part, where: str) -> Json:
    kind = part.WhichOneof("content")
    if kind is None:
        raise Wrong(f"{where} is empty. Set text or image.")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if not _MEDIA_TYPE.fullmatch(part.image.media_type):
        raise Wrong(f"{where}.image.media_type is no type of an image. Set image/png, image/jpeg or the like.")
    if not part.image.data:
        raise Wrong(f"{where}.image.data is empty. It holds the bytes of the picture's file.")
    data = base64.b64encode(part.image.data).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{part.image.media_type};base64,{data}"}}


def _sampling(sampling: pb.Sampling) -> Json:
    made: Json = {}
    for field in ("max_tokens", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"):
        if sampling.HasField(field):
            made[field] = _finite(getattr(sampling, field), f"sampling.{field}")
    if sampling.stop:
        made["stop"] = list(sampling.stop)
    return made


def _finite(number: float, where: str) -> float:
    if not math.isfinite(number):
        raise Wrong(f"{where} is no finite number.")
    return number


def _tools(tools: pb.Tools) -> Json:
    made: Json = {}
    if tools.functions:
        made["tools"] = [_function(one, f"tools.functions[{at}]") for at, one in enumerate(tools.functions)]
    choice = tools.WhichOneof("choice")
    if choice == "function":
        made["tool_choice"] = {"type": "function", "function": {"name": tools.function}}
    elif choice == "mode":
        if tools.mode not in _MODES:
            raise Wrong(f"tools.mode is {tools.mode}. It must be TOOL_MODE_AUTO, TOOL_MODE_NONE or TOOL_MODE_REQUIRED.")
        made["tool_choice"] = _MODES[tools.mode]
    if tools.HasField("parallel"):
        made["parallel_tool_calls"] = tools.parallel
    return made


def _function(function: pb.Function, where: str) -> Json:
    made: Json = {"name": function.name}
    if function.description:
        made["description"] = function.description
    if function.parameters_json:
        made["parameters"] = _object(function.parameters_json, f"{where}.parameters_json")
    return {"type": "function", "function": made}


def _format(wanted: pb.OutputFormat) -> Json:
    kind = wanted.WhichOneof("format")
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind == "json_schema":
        asked = wanted.json_schema
        schema: Json = {
            "name": asked.name or "answer",
            "schema": _object(asked.schema_json, "output_format.json_schema.schema_json"),
        }
        if asked.HasField("strict"):
            schema["strict"] = asked.strict
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {}


def _object(text: str, where: str) -> Json:
    """The JSON object in this text, its properties in their order. Raises `Wrong`."""
    try:
        read = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Wrong(f"{where} is no JSON (or a name stands twice in one object, or it is nested too deep).") from None
    if not isinstance(read, dict):
        raise Wrong(f"{where} holds JSON, and no object. It must be a JSON object: {{…}}.")
    return read


def _once(pairs: Sequence[tuple[str, Any]]) -> Json:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_encode: Callable[[Json], str] = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _dumped(body: Json) -> bytes:
    try:
        return _encode(body).encode()
    except (ValueError, RecursionError):  # a lone surrogate out of \\ud800 in a schema, or 1e999
        raise Wrong("A JSON text in the request holds half a character or a number without end.") from None
