"""The fields of a request that are let through, by path and engine, and how each is judged. Pure data.

OpenAI's own fields that an engine can honour, and those of the engines that only change how it samples or writes.
Everything else is refused by name: a field that an engine reads and we do not know is a door (`NEVER` says what is
behind some). Not here: prompts, messages and pictures (`content`).
"""

from __future__ import annotations

from typing import Any, Mapping

from gonogo.gateway.policy.judges import (
    Judge,
    boolean,
    check_length,
    either,
    entries,
    mapping,
    number,
    one_of,
    only,
    record,
    refuse,
    sequence,
    text,
    whole,
)
from gonogo.gateway.policy.rules import EXTERNAL, LLAMACPP, SGLANG, VLLM, VLLM_CPU, ServiceRules
from gonogo.gateway.policy.schemas import schema

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MOST_TOOLS, MOST_STOPS = 128, 16
LARGEST_COUNT = 2**31 - 1
_NAME = text(64, 1)
_SCALAR_ARGUMENTS = ("enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "clear_thinking")


def _choices(value: Any, path: str, rules: ServiceRules) -> None:
    whole(1, rules.most_choices)(value, path, rules)


def _alternatives(value: Any, path: str, rules: ServiceRules) -> None:
    whole(0, rules.most_logprobs)(value, path, rules)


def _content(_value: Any, _path: str, _rules: ServiceRules) -> None:
    """Judged by `content`, which counts it at the same time."""


def _kind_of_format(value: Any, path: str, rules: ServiceRules) -> None:
    found = mapping(value, path)
    one_of("text", "json_object", "json_schema")(found.get("type"), f"{path}.type", rules)
    record(
        ("type",),
        type=text(16),
        json_schema=record((), name=_NAME, description=text(4096), schema=schema, strict=boolean),
        schema=schema,
    )(value, path, rules)


def _template_arguments(value: Any, path: str, rules: ServiceRules) -> None:
    """Only these names and only scalars: others can replace the template itself, or what it is called with."""
    for name, one in mapping(value, path).items():
        if name not in _SCALAR_ARGUMENTS:
            raise refuse(path, f"may hold {', '.join(_SCALAR_ARGUMENTS)}, and nothing else.", "unknown_field")
        either(bool, boolean, either(int, whole(0, LARGEST_COUNT), text(32)))(one, f"{path}.{name}", rules)


_function = record(("name",), name=_NAME, description=text(65_536), parameters=schema, strict=boolean)


def _tool_choice(value: Any, path: str, rules: ServiceRules) -> None:
    named = record(("type", "function"), type=one_of("function"), function=record(("name",), name=_NAME))
    either(str, one_of("none", "auto", "required"), named)(value, path, rules)


def _tools(value: Any, path: str, rules: ServiceRules) -> None:
    check_length(value, path, MOST_TOOLS)
    tool = record(("type", "function"), type=one_of("function"), function=_function)
    sequence(tool, MOST_TOOLS)(value, path, rules)


_BOTH: Mapping[str, Judge] = {
    "model": text(256, 1),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "logit_bias": entries(number(-100, 100), 1024),
    "max_tokens": whole(1, LARGEST_COUNT),
    "n": _choices,
    "seed": whole(-(2**63), 2**63 - 1),
    "stop": either(str, text(256, 1), sequence(text(256, 1), MOST_STOPS)),
    "stream": boolean,
    "stream_options": record((), include_usage=boolean, include_obfuscation=boolean, continuous_usage_stats=boolean),
    "temperature": number(0, 2),
    "top_p": number(0, 1, above=True),
    "user": text(512),
}
_CHAT: Mapping[str, Judge] = {
    **_BOTH,
    "messages": _content,
    "max_completion_tokens": whole(1, LARGEST_COUNT),
    "logprobs": boolean,
    "top_logprobs": _alternatives,
    "metadata": entries(text(32 * 1024 * 1024), 16),
    "modalities": sequence(one_of("text"), 1, 1),
    "parallel_tool_calls": boolean,
    "prompt_cache_key": text(256),
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh"),
    "response_format": _kind_of_format,
    "safety_identifier": text(256),
    "service_tier": one_of("auto", "default", "flex", "priority"),
    "store": only(False),
    "tool_choice": _tool_choice,
    "tools": _tools,
    "verbosity": one_of("low", "medium", "high"),
}
_COMPLETIONS: Mapping[str, Judge] = {
    **_BOTH,
    "prompt": _content,
    "best_of": _choices,
    "echo": boolean,
    "logprobs": _alternatives,
    "suffix": text(65_536),
}
_EMBEDDINGS: Mapping[str, Judge] = {
    "model": text(256, 1),
    "input": _content,
    "dimensions": whole(1, 65_536),
    "encoding_format": one_of("float", "base64"),
    "user": text(512),
}
OPENAI: Mapping[str, Mapping[str, Judge]] = {CHAT: _CHAT, COMPLETIONS: _COMPLETIONS, EMBEDDINGS: _EMBEDDINGS}

_GENERATING: Mapping[str, Judge] = {
    "top_k": whole(-1, LARGEST_COUNT),
    "min_p": number(0, 1),
    "repetition_penalty": number(0, 10, above=True),
    "ignore_eos": boolean,
    "min_tokens": whole(0, LARGEST_COUNT),
    "stop_token_ids": sequence(whole(0, LARGEST_COUNT), 256),
    "skip_special_tokens": boolean,
    "spaces_between_special_tokens": boolean,
    "chat_template_kwargs": _template_arguments,
}
_OF_VLLM: Mapping[str, Judge] = {
    **_GENERATING,
    "length_penalty": number(-10, 10),
    "include_stop_str_in_output": boolean,
    "include_reasoning": boolean,
    "continue_final_message": boolean,
    "add_generation_prompt": boolean,
    "add_special_tokens": boolean,
    "bad_words": sequence(text(256, 1), 256),
    "guided_json": schema,
    "guided_choice": sequence(text(4096, 1), 256, 1),
    "structured_outputs": record((), json=schema, choice=sequence(text(4096, 1), 256, 1), json_object=boolean),
}
_OF_SGLANG: Mapping[str, Judge] = {
    **_GENERATING,
    "no_stop_trim": boolean,
    "continue_final_message": boolean,
    "separate_reasoning": boolean,
    "stream_reasoning": boolean,
}
_OF_LLAMACPP: Mapping[str, Judge] = {
    "top_k": _GENERATING["top_k"],
    "min_p": _GENERATING["min_p"],
    "typical_p": number(0, 1, above=True),
    "top_n_sigma": number(-1, 100),
    "repeat_penalty": number(0, 10, above=True),
    "repeat_last_n": whole(-1, 65_536),
    "repetition_penalty": _GENERATING["repetition_penalty"],
    "ignore_eos": boolean,
    "cache_prompt": boolean,
    "timings_per_token": boolean,
    "reasoning_format": one_of("none", "auto", "deepseek", "deepseek-legacy"),
    "add_generation_prompt": boolean,
    "chat_template_kwargs": _template_arguments,
    "json_schema": schema,
}
EXTENSIONS: Mapping[str, Mapping[str, Judge]] = {
    LLAMACPP: _OF_LLAMACPP,
    VLLM: _OF_VLLM,
    VLLM_CPU: _OF_VLLM,
    SGLANG: _OF_SGLANG,
    EXTERNAL: _GENERATING,
}
"""What an engine knows beyond OpenAI's fields, for both paths that generate."""

STRUCTURED = ("json_schema", "guided_json", "guided_choice", "structured_outputs")
"""Fields that force an answer's form, beside `response_format`."""

NEVER: Mapping[str, str] = {
    **dict.fromkeys(
        ("prompt_embeds", "input_embeds", "image_data", "audio_data", "video_data"),
        "tensors and files of a client are not let through to an engine",
    ),
    **dict.fromkeys(
        ("base_url", "api_base", "api_key", "api_version", "organization", "headers", "extra_headers"),
        "where a request goes and with which key is not for the request to say",
    ),
    **dict.fromkeys(
        (
            "kv_transfer_params",
            "bootstrap_host",
            "bootstrap_port",
            "bootstrap_room",
            "data_parallel_rank",
            "routed_dp_rank",
        ),
        "it would make an engine talk to other hosts",
    ),
    **dict.fromkeys(
        ("chat_template", "custom_logit_processor", "logits_processors", "custom_params", "vllm_xargs"),
        "an engine would run it",
    ),
    **dict.fromkeys(
        ("grammar", "guided_grammar", "guided_regex", "regex", "ebnf", "guided_decoding_backend", "structural_tag"),
        "an engine compiles it for as long as it takes, for everybody; send a JSON schema as response_format",
    ),
    **dict.fromkeys(("lora_path", "lora", "session_params"), "an engine would load it, or keep state for it"),
    **dict.fromkeys(("mm_processor_kwargs", "mm_kwargs"), "how pictures are read is fixed by the service"),
    **dict.fromkeys(("priority", "use_beam_search", "prompt_logprobs"), "it would take from the others' share"),
    **dict.fromkeys(("functions", "function_call"), "OpenAI replaced it: send tools and tool_choice"),
    **dict.fromkeys(("n_predict", "n_discard", "n_keep", "id_slot"), "send max_tokens; slots are the engine's own"),
    "audio": "no engine here speaks",
    "prediction": "no engine here honours it",
    "web_search_options": "no engine here searches",
}
"""Fields that are refused with a reason of their own."""
