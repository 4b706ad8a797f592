"""What a checkpoint says of its model, in the terms in which every model is described. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Iterable, Union

from gonogo.facts.checkpoint import Checkpoint
from gonogo.facts.families import FAMILIES
from gonogo.facts.judge_checkpoint import problems_of
from gonogo.facts.model import ModelFacts, ModelProblem, Tensor
from gonogo.facts.numbers import ConfigError
from gonogo.facts.parse_config import parse_config

_PACKED = ("U8", "I8", "I32", "F8_E4M3", "F8_E5M2", "U32")
"""Types of which one element holds several weights, or whose scheme stands in the configuration."""


def describe_checkpoint(checkpoint: Checkpoint, path: str) -> ModelFacts:
    """The model in this folder; `problem` is the gravest thing that stands against it.

    `chat_template` comes from `chat_template.jinja`, else from the tokenizer's configuration. `architecture_known`:
    whether gonogo plans for it. Numbers that the configuration does not hold are None.
    """
    tensors = checkpoint.tensors
    problems = problems_of(checkpoint, FAMILIES)
    facts = ModelFacts(
        asked=checkpoint.asked,
        path=path,
        file_bytes=checkpoint.weights_bytes,
        problem=problems[0] if problems else None,
        name=checkpoint.asked.rstrip("/").rpartition("/")[2],
        architecture=checkpoint.model_type,
        architecture_known=checkpoint.model_type in FAMILIES if checkpoint.model_type else None,
        parameters=None if tensors is None else sum(_elements(tensor) for tensor in tensors),
        chat_template=_template(checkpoint),
        tensors=tensors,
    )
    if problems or checkpoint.config is None:
        return facts
    return _with_configuration(facts, checkpoint)


def _with_configuration(facts: ModelFacts, checkpoint: Checkpoint) -> ModelFacts:
    assert checkpoint.config is not None
    try:
        read = parse_config(checkpoint.config)
    except ConfigError as error:
        return replace(facts, problem=ModelProblem(kind="config_unreadable", detail=error.detail))
    scheme = read.scheme
    return replace(
        facts,
        config=checkpoint.config,
        quantization=scheme.method if scheme is not None else _stored(checkpoint.tensors or ()),
        layers=len(read.layers),
        context_tokens=read.context_tokens,
        vocabulary=read.vocabulary,
        sees_images=read.vision is not None,
    )


def _template(checkpoint: Checkpoint) -> Union[str, None]:
    if checkpoint.chat_template:
        return checkpoint.chat_template
    told = (checkpoint.tokenizer_config or {}).get("chat_template")
    if isinstance(told, (list, tuple)):
        told = next((one.get("template") for one in told if isinstance(one, dict) and one.get("template")), None)
    return told if isinstance(told, str) and told else None


def _stored(tensors: Iterable[Tensor]) -> Union[str, None]:
    """The type that most bytes are stored in, where it is a plain one."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.kind] += tensor.size_bytes
    kind = max(sizes, key=lambda one: sizes[one], default=None)
    return None if kind is None or kind in _PACKED else kind


def _elements(tensor: Tensor) -> int:
    total = 1
    for side in tensor.shape:
        total *= side
    return total
