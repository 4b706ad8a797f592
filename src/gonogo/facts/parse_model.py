"""From a GGUF header to `ModelFacts`: which metadata keys mean what. Pure."""

from __future__ import annotations

import math
import re
from typing import Callable, Collection, Mapping, TypeGuard, Union

from gonogo.facts.model import ModelFacts
from gonogo.facts.parse_gguf import Array, GgufError, Header, Scalar

MOST_LAYERS, LARGEST_NUMBER = 4096, 1 << 32
Value = Union[Scalar, Array, None]


def model_facts(header: Header, known_architectures: Collection[str], file_types: Mapping[int, str]) -> ModelFacts:
    """What the header says; `asked`, `path` and `file_bytes` are the caller's to fill in. Raises GgufError."""
    metadata = header.metadata
    parts = metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise GgufError("unknown", f"it is one of {parts} parts; merge them into one file first")
    purpose = metadata.get("general.type", "model")
    if purpose != "model":
        raise GgufError("unknown", f"it holds {purpose!r}, not a model")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise GgufError("corrupt", "the metadata key 'general.architecture' is missing")

    def at(key: str) -> Value:
        return metadata.get(f"{architecture}.{key}")

    layers = _needed(at("block_count"), f"{architecture}.block_count", MOST_LAYERS)
    embedding = _needed(at("embedding_length"), f"{architecture}.embedding_length", LARGEST_NUMBER)
    vocabulary = _vocabulary(metadata.get("tokenizer.ggml.tokens"), at("vocab_size"))
    if not header.tensors or not vocabulary:
        raise GgufError("corrupt", "it holds no vocabulary" if header.tensors else "it holds no tensors")
    heads = _largest(at("attention.head_count"))
    head_length = embedding // heads if heads else None
    return ModelFacts(
        asked="",
        name=_text(metadata.get("general.name")),
        architecture=architecture,
        architecture_known=architecture in known_architectures,
        parameters=sum(math.prod(tensor.shape) for tensor in header.tensors),
        quantization=_quantization(metadata.get("general.file_type"), file_types),
        layers=layers,
        embedding_length=embedding,
        feed_forward_length=_feed_forward(at),
        heads=heads,
        kv_heads=_attending(_per_layer(at("attention.head_count_kv"), heads, layers), at("full_attention_interval")),
        key_length=_largest(at("attention.key_length")) or head_length,
        value_length=_largest(at("attention.value_length")) or head_length,
        sliding_window=_largest(at("attention.sliding_window")) or None,
        vocabulary=vocabulary,
        context_tokens=_largest(at("context_length")),
        chat_template=_text(metadata.get("tokenizer.chat_template")),
        sees_images=False,
        tensors=header.tensors,
        window_every=_pattern(at("attention.sliding_window_pattern")),
        windowed_layers=_windowed(at("attention.sliding_window_pattern"), layers),
        draft_layers=_largest(at("nextn_predict_layers")),
        experts_used=_largest(at("expert_used_count")) or None,
        expert_groups=_largest(at("expert_group_count")),
        expert_groups_used=_largest(at("expert_group_used_count")),
        expert_weights_normed=_flag(at("expert_weights_norm")),
        expert_weights_scaled=_scaled(at("expert_weights_scale")),
        latent_rank=_latent(at),
        latent_key_length=_largest(at("attention.key_length_mla")),
        latent_value_length=_largest(at("attention.value_length_mla")),
        rope_length=_largest(at("rope.dimension_count")),
        state_elements=_state(at),
        index_length=_largest(at("attention.indexer.key_length")),
        index_layers=_count(at("attention.indexer.types")),
    )


def _pattern(value: Value) -> int | None:
    """Every how manyth layer is whole. A list with a flag per layer is not one number."""
    return _largest(value) if _is_number(value) and value > 1 else None


def _windowed(value: Value, layers: int) -> tuple[bool, ...] | None:
    """A flag per layer, where the file lists them."""
    if not isinstance(value, Array) or value.numbers is None or len(value.numbers) != layers:
        return None
    return tuple(bool(number) for number in value.numbers)


def _count(value: Value) -> int | None:
    """How many layers a list of flags names."""
    return sum(bool(number) for number in value.numbers or ()) if isinstance(value, Array) else None


def _flag(value: Value) -> bool | None:
    return value if isinstance(value, bool) else None


def _scaled(value: Value) -> bool | None:
    """Whether the weights of experts are multiplied by a factor: none, 0 and 1 mean no."""
    return None if not isinstance(value, float) else value not in (0.0, 1.0)


def _state(at: Callable[[str], Value]) -> int | None:
    """Mamba and Gated DeltaNet: a window of convolution inputs and a matrix. None: no such layers."""
    inner, state, kernel = (_largest(at(f"ssm.{name}")) for name in ("inner_size", "state_size", "conv_kernel"))
    if not inner or not state or not kernel:
        return None
    groups = _largest(at("ssm.group_count")) or 0
    return (kernel - 1) * (inner + 2 * groups * state) + state * inner


def _latent(at: Callable[[str], Value]) -> int | None:
    """The rank of the latent keys; None for a file from before llama.cpp cached them, which has full keys."""
    return _largest(at("attention.kv_lora_rank")) if at("attention.key_length_mla") is not None else None


def _needed(value: Value, key: str, limit: int) -> int:
    if not _is_number(value) or not 0 < value <= limit:
        seen = "is missing" if value is None else f"is {value!r}, 1 to {limit} is possible"
        raise GgufError("corrupt", f"the metadata key {key!r} {seen}")
    return value


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _largest(value: Value) -> int | None:
    """A number, or the largest of a number per layer; impossible ones count as not there."""
    numbers = value.numbers or () if isinstance(value, Array) else (value,)
    possible = [number for number in numbers if _is_number(number) and 0 <= number <= LARGEST_NUMBER]
    return max(possible, default=None)


def _per_layer(value: Value, heads: int | None, layers: int) -> tuple[int, ...] | None:
    """Key and value heads of each layer; without the key, as many as there are query heads."""
    if isinstance(value, Array):
        numbers = tuple(number for number in value.numbers or () if _is_number(number) and number >= 0)
        if len(numbers) != layers:
            raise GgufError("corrupt", f"{value.length} numbers of key and value heads for {layers} layers")
        return numbers
    each = _largest(value) if value is not None else heads
    return None if each is None else (each,) * layers


def _attending(kv_heads: tuple[int, ...] | None, interval: Value) -> tuple[int, ...] | None:
    """Without those of layers that keep a state instead: all but every so manyth (Qwen3-Next and later)."""
    if kv_heads is None or not _is_number(interval) or interval < 1:
        return kv_heads
    return tuple(heads if (layer + 1) % interval == 0 else 0 for layer, heads in enumerate(kv_heads))


def _feed_forward(at: Callable[[str], Value]) -> int | None:
    """The width of the feed-forward part; of a mixture, that of all experts that work on one token together."""
    plain, expert, used = _largest(at("feed_forward_length")), at("expert_feed_forward_length"), at("expert_used_count")
    together = (_largest(expert) or plain or 0) * (_largest(used) or 1)
    return max(plain or 0, together) or None


def _vocabulary(tokens: Value, size: Value) -> int | None:
    return tokens.length if isinstance(tokens, Array) else _largest(size)


def _quantization(file_type: Value, names: Mapping[int, str]) -> str | None:
    """In the words of a spec (`q4_1`, `f16`); None when the file does not say, or says that it was only guessed."""
    name = names.get(file_type) if _is_number(file_type) else None
    if name == "GUESSED":
        return None
    return re.sub(r"^(mostly|all)_", "", name.lower()) if name else None


def _text(value: Value) -> str | None:
    return value if isinstance(value, str) and value else None
