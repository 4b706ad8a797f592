"""What stands against using a checkpoint: a configuration that its tensors contradict, its own code, an unknown type.

Pure. Which architectures are known is the caller's to say; nothing is guessed from a name that looks alike.
"""

from __future__ import annotations

import re
from typing import Collection, Iterable, Mapping, Union

from gonogo.facts.checkpoint import Checkpoint, JsonObject
from gonogo.facts.model import ModelProblem, Tensor

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_EMBEDDING = ("embedding_size", "word_embed_proj_dim", "embedding_dim")
_DRAFT_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")
_STACK = re.compile(r"(?P<stack>(?:^|.*?\.)(?:\w*layers|h|blocks?|layer))\.(?P<number>\d{1,6})\.")
_EMBED = re.compile(r"(?:^|.*\.)(?:embed_tokens|wte|word_embeddings|tok_embeddings|embed_in)\.weight")
_ANOTHER_PART = re.compile(r"(?:^|[._])(?:vis|image|audio|speech|mtp|talker|sam|projector)")
_PLAIN = ("F32", "F16", "BF16")


def problems_of(checkpoint: Checkpoint, native_model_types: Collection[str]) -> tuple[ModelProblem, ...]:
    """Everything that stands against it, the gravest first; empty: nothing that can be seen from here."""
    found = [
        checkpoint.problem,
        _unknown_type(checkpoint, native_model_types) if checkpoint.config is not None else None,
        contradiction(checkpoint.config, checkpoint.tensors),
    ]
    return tuple(problem for problem in found if problem is not None)


def contradiction(config: Union[JsonObject, None], tensors: Union[Iterable[Tensor], None]) -> Union[ModelProblem, None]:
    """Where `config.json` says something else than the tensors: layers, hidden size, vocabulary.

    None when they agree, and when one of them does not say.
    """
    if config is None or tensors is None:
        return None
    tensors, text = tuple(tensors), _text_part(config)
    detail = _layers(text, tensors) or _embedding(config, text, tensors)
    return ModelProblem(kind="config_contradicts", detail=detail) if detail else None


def _unknown_type(checkpoint: Checkpoint, native: Collection[str]) -> Union[ModelProblem, None]:
    """Code of the repository's own is refused only where nothing else can run the model."""
    model_type, config = checkpoint.model_type, checkpoint.config or {}
    if model_type is not None and model_type in native:
        return None
    told = config.get("architectures")
    classes = ", ".join(name for name in told if isinstance(name, str)) if isinstance(told, (list, tuple)) else ""
    inner = _text_part(config).get("model_type")
    if not checkpoint.auto_map and isinstance(inner, str) and inner in native:
        return None  # a known language model with other parts around it
    if checkpoint.auto_map:
        wanted = ", ".join(sorted(set(checkpoint.auto_map.values())))
        return ModelProblem(kind="remote_code", detail=f"{model_type or 'no model_type'}; auto_map: {wanted}")
    named = repr(model_type) if model_type else "config.json names no model_type"
    return ModelProblem(kind="unknown_architecture", detail=f"{named} ({classes})" if classes else named)


def _text_part(config: JsonObject) -> JsonObject:
    """The part of a configuration that describes the language model; of a plain one, all of it."""
    for name in _TEXT_PARTS:
        part = config.get(name)
        if isinstance(part, Mapping):
            return _text_part(part)
    return config


def _number(part: JsonObject, names: Iterable[str]) -> Union[tuple[str, int], None]:
    for name in names:
        value = part.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return name, value
    return None


def _layers(text: JsonObject, tensors: Iterable[Tensor]) -> str:
    told, stacks = _number(text, _LAYERS), _stacks(tensors)
    if told is None or not stacks:
        return ""
    name, layers = told
    draft = _number(text, _DRAFT_LAYERS)
    most = layers + max(0, draft[1] if draft else 0)
    if any(len(found) == max(found) + 1 and layers <= len(found) <= most for found in stacks.values()):
        return ""
    stack, found = max(stacks.items(), key=lambda entry: len(entry[1]))
    lacking = sorted(set(range(min(layers, max(found) + 1))) - found)
    if lacking and max(found) < most:
        return f"{name} is {layers}, but no tensor begins with {stack}.{lacking[0]}"
    return f"{name} is {layers}, but the tensors hold {len(found)} layers ({stack}.0 to {stack}.{max(found)})"


def _stacks(tensors: Iterable[Tensor]) -> Mapping[str, set[int]]:
    """The layers of each stack of the language model, by the part of the tensors' names before the number."""
    stacks: dict[str, set[int]] = {}
    for tensor in tensors:
        found = _STACK.match(tensor.name)
        if found is not None and not _ANOTHER_PART.search(found["stack"]):
            stacks.setdefault(found["stack"], set()).add(int(found["number"]))
    return stacks


def _embedding(config: JsonObject, text: JsonObject, tensors: Iterable[Tensor]) -> str:
    """The embedding has a row for each word of the vocabulary, as wide as the hidden size; more rows are padding."""
    hidden, vocabulary = _number(text, _HIDDEN), _number(text, ("vocab_size",)) or _number(config, ("vocab_size",))
    tables = [
        tensor
        for tensor in tensors
        if tensor.kind in _PLAIN
        and len(tensor.shape) == 2
        and _EMBED.fullmatch(tensor.name)
        and not _ANOTHER_PART.search(tensor.name)
    ]
    if not tables:
        return ""
    widths = {table.shape[1] for table in tables}
    if hidden is not None and hidden[1] not in widths and _number(text, _EMBEDDING) is None:
        return f"{hidden[0]} is {hidden[1]}, but {tables[0].name} has the shape {list(tables[0].shape)}"
    if vocabulary is not None and vocabulary[1] > max(table.shape[0] for table in tables):
        return f"vocab_size is {vocabulary[1]}, but {tables[0].name} has the shape {list(tables[0].shape)}"
    return ""
