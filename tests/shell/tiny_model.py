"""Writes small, real GGUF files with random weights: valid enough for llama.cpp to load them and generate nonsense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy

SPECIAL = ("<unk>", "<s>", "</s>")
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides the buffers of a transformer. `head_length` None: embedding / heads, as most models have it."""

    architecture: str = "llama"
    embedding: int = 64
    feed_forward: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_length: int | None = None
    context: int = 4096
    window: int | None = None
    half_precision: bool = False
    tied: bool = True

    @property
    def head(self) -> int:
        return self.head_length or self.embedding // self.heads


DEFAULT = Shape()


def write_tiny_model(path: Path, shape: Shape = DEFAULT) -> Path:
    """Write the model of this shape; a few hundred kilobytes for the default one."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_name("tiny")
    writer.add_context_length(shape.context)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.embedding)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if shape.head_length is not None:
        writer.add_key_length(shape.head_length)
        writer.add_value_length(shape.head_length)
    if shape.window is not None:
        writer.add_sliding_window(shape.window)
    if shape.architecture == "glm4":  # positions of GLM-4.1V: time, height, width
        writer.add_rope_dimension_count(shape.head)
        writer.add_rope_dimension_sections([shape.head // 8, shape.head // 8, shape.head // 4, 0])
    _add_vocabulary(writer)
    _add_tensors(writer, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("llama")
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def _add_tensors(writer: gguf.GGUFWriter, shape: Shape) -> None:
    random = numpy.random.default_rng(1)
    kind = numpy.float16 if shape.half_precision else numpy.float32

    def add(name: str, *dimensions: int, norm: bool = False) -> None:
        if norm:
            writer.add_tensor(name, numpy.ones(dimensions, dtype=numpy.float32))
        else:
            writer.add_tensor(name, (random.standard_normal(dimensions, dtype=numpy.float32) * 0.02).astype(kind))

    vocabulary = len(SPECIAL) + 257
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    add("token_embd.weight", vocabulary, shape.embedding)
    add("output_norm.weight", shape.embedding, norm=True)
    if not shape.tied:
        add("output.weight", vocabulary, shape.embedding)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        add(block + "attn_norm.weight", shape.embedding, norm=True)
        add(block + "attn_q.weight", queries, shape.embedding)
        add(block + "attn_k.weight", keys, shape.embedding)
        add(block + "attn_v.weight", keys, shape.embedding)
        add(block + "attn_output.weight", shape.embedding, queries)
        add(block + "ffn_norm.weight", shape.embedding, norm=True)
        if shape.architecture == "glm4":  # gate and up in one
            add(block + "ffn_up.weight", 2 * shape.feed_forward, shape.embedding)
        else:
            add(block + "ffn_gate.weight", shape.feed_forward, shape.embedding)
            add(block + "ffn_up.weight", shape.feed_forward, shape.embedding)
        add(block + "ffn_down.weight", shape.embedding, shape.feed_forward)
        if shape.architecture == "qwen2":
            for name, width in (("q", queries), ("k", keys), ("v", keys)):
                writer.add_tensor(f"{block}attn_{name}.bias", numpy.zeros(width, dtype=numpy.float32))
        if shape.architecture in ("qwen3", "gemma3"):
            add(block + "attn_q_norm.weight", shape.head, norm=True)
            add(block + "attn_k_norm.weight", shape.head, norm=True)
        if shape.architecture in ("gemma3", "glm4"):
            add(block + "post_attention_norm.weight", shape.embedding, norm=True)
            add(block + "post_ffw_norm.weight", shape.embedding, norm=True)
